"""Fit a ranker to a table: ``python -m mge_gpu.ranking.fit --table DIR --out FILE``."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mge_gpu.errors import MGEError, RankingError
from mge_gpu.ranking.evaluate import evaluate, summary
from mge_gpu.ranking.features import TOPOLOGY_METRICS, WEIGHT_METRICS
from mge_gpu.ranking.ranker import SUBSETS, Ranker
from mge_gpu.ranking.table import PAI_METHODS, load_table, table_file, table_sha256

NOTES = (
    "Features are topometrics standardised within the group of candidates (one model, data set, sparsity and "
    "seed), and the sparsity; no raw counts, and nothing that names the method.",
    f"Without {', '.join(WEIGHT_METRICS)}: the table measured them on trained weights, while candidates are "
    "ranked at initialization.",
    "The table misplaces the edges of strided convolutions that do not divide their padded width, which adds "
    "false sinks and sources that exact graphs of the same masks lack. Leaving out sink_nodes, source_nodes, "
    "removable_out and removable_in costs about 0.02 of tau in the evaluation (mean of 3 seeds).",
    "The table's motif counts are sampled estimates, comparable within a group.",
    "The table's er is ERK with probabilities clipped and no fix-up, its uniform one random draw over all "
    "weights.",
    "The baseline is each method's mean rank at the same sparsity on the other architectures.",
    "The evaluation leaves one architecture out; the hyperparameters were chosen by the same scores.",
)


def fit_and_evaluate(table: str | Path, *, seed: int = 0, subsets: int = SUBSETS) -> Ranker:
    """Fit the ranker that is shipped, with its leave-one-architecture-out scores in its provenance.

    ``provenance["evaluation"]`` holds `summary` for all methods and for those that prune at initialization,
    with the features that are shipped, and with the three weight-dependent metrics besides.

    Raises:
        RankingError: the table cannot be used, see `load_table` and `evaluate`.
    """
    frame = load_table(table)
    groups = {
        "all methods": frame["method"].unique().tolist(),
        "pruning at initialization": [m for m in PAI_METHODS if m in set(frame["method"])],
    }
    variants: dict[str, dict[str, Any]] = {
        "as shipped": {"metrics": TOPOLOGY_METRICS, "subsets": subsets},
        "with weight metrics": {"metrics": (*TOPOLOGY_METRICS, *WEIGHT_METRICS), "subsets": subsets},
        "fitted to groups of exactly these methods": {"metrics": TOPOLOGY_METRICS, "subsets": 0},
        "fitted to groups of exactly these methods, with weight metrics": {
            "metrics": (*TOPOLOGY_METRICS, *WEIGHT_METRICS),
            "subsets": 0,
        },
    }
    scores = {}
    for name, methods in groups.items():
        for variant, options in variants.items():
            same = methods if not options["subsets"] else None
            evaluated = evaluate(frame, methods, train_methods=same, seed=seed, **options)
            scores[f"{len(methods)} methods ({name}), {variant}"] = summary(evaluated)
    facts = {
        "command": "python -m mge_gpu.ranking.fit --table DIR --out FILE"
        + f" --seed {seed}" * (seed != 0)
        + f" --subsets {subsets}" * (subsets != SUBSETS),
        "table": table_file(table).name,
        "table_sha256": table_sha256(table),
        "evaluation": scores,
        "notes": list(NOTES),
    }
    return Ranker.fit(frame, seed=seed, subsets=subsets, provenance=facts)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command: 0 done, 1 failed; bad usage exits with 2."""
    parser = argparse.ArgumentParser(prog="python -m mge_gpu.ranking.fit", description=__doc__)
    parser.add_argument("--table", required=True, help="CSV table in the published format, or its directory")
    parser.add_argument("--out", required=True, type=Path, help="JSON file for the fitted ranker")
    parser.add_argument("--seed", type=int, default=0, help="for bagging and random subsets (default: 0)")
    parser.add_argument(
        "--subsets", type=int, default=SUBSETS, help=f"random subsets a group (default: {SUBSETS})"
    )
    options = parser.parse_args(arguments)
    try:
        if not options.out.parent.is_dir():  # known before the minutes of fitting, not after
            raise RankingError(f"{options.out}: there is no folder {options.out.parent}")
        ranker = fit_and_evaluate(options.table, seed=options.seed, subsets=options.subsets)
        ranker.save(options.out)
    except MGEError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{options.out}: fitted to {ranker.provenance['rows']} networks; leaving one architecture out:")
    for name, scores in ranker.provenance["evaluation"].items():
        print(
            f"  {name}: tau {scores['tau']:.3f} (mean rank {scores['baseline_tau']:.3f}), "
            f"RBO {scores['rbo']:.3f} (mean rank {scores['baseline_rbo']:.3f})"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
