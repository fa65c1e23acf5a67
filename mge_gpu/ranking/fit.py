"""Fit a ranker to a table: ``python -m mge_gpu.ranking.fit --table DIR --out FILE``."""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mge_gpu.errors import MGEError, RankingError
from mge_gpu.metrics.report import json_ready
from mge_gpu.ranking.agreement import seed_ceiling, summary
from mge_gpu.ranking.evaluate import evaluate, method_sets
from mge_gpu.ranking.ranker import Ranker
from mge_gpu.ranking.table import layer_file, load_table, table_file, table_sha256
from mge_gpu.ranking.training import Settings
from mge_gpu.ranking.tuning import Fits, grid_for, tune

NOTES = (
    "Features are differences of topometrics and of the densities of layers between two candidates of one "
    "group (model, data set, sparsity and seed), how dense and how alive the group is, and whether a method "
    "moves its mask while training.",
    "Without strength, spectral_gap, spectral_radius: the table measured them on trained weights, while "
    "candidates are ranked at initialization.",
    "The table misplaces the edges of strided convolutions that do not divide their padded width, which adds "
    "false sinks and sources that exact graphs of the same masks lack.",
    "The table's motif counts are sampled estimates.",
    "The table's er is ERK with probabilities clipped and no fix-up, its uniform one random draw over all "
    "weights.",
    "The baseline is each method's mean rank at the same sparsity on the other architectures.",
    "The evaluation leaves one architecture out; settings were chosen within the others.",
)


def fit_and_evaluate(table: str | Path, *, seed: int = 0) -> Ranker:
    """Fit the ranker that is shipped, with its nested leave-one-architecture-out scores in its provenance.

    ``provenance["evaluation"]`` holds `summary` for all methods and for those that prune at initialization,
    ``provenance["ceiling"]`` `seed_ceiling`'s, ``provenance["folds"]`` what each fold chose.

    Raises:
        RankingError: the table cannot be used, see `load_table` and `evaluate`.
    """
    frame = load_table(table)
    fits, grid = Fits(frame, seed=seed), grid_for(frame)
    scores: dict[str, Any] = {}
    ceiling: dict[str, Any] = {}
    folds: list[Any] = []
    for name, methods in method_sets(frame).items():
        found = evaluate(frame, methods, grid=grid, fits=fits)
        scores[name] = summary(found)
        ceiling[name] = summary(seed_ceiling(frame[frame["method"].isin(methods)]))
        folds = found.attrs["folds"]
    # What the folds chose most often, and not what the outer scores, which are reported, would choose.
    chosen = [Settings(**{**fold["settings"], "views": tuple(fold["settings"]["views"])}) for fold in folds]
    choice = tune(fits, (max(grid, key=chosen.count),))
    facts = {
        "command": "python -m mge_gpu.ranking.fit --table DIR --out FILE" + f" --seed {seed}" * (seed != 0),
        "table": table_file(table).name,
        "table_sha256": table_sha256(table),
        "layers": layers.name if (layers := layer_file(table_file(table))) else None,
        "evaluation": scores,
        "ceiling": ceiling,
        "folds": folds,
        "notes": list(NOTES),
    }
    whole = fits.ranker(choice.settings, ())
    return replace(
        whole, temperature=choice.temperature, provenance=json_ready({**whole.provenance, **facts})
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """The command: 0 done, 1 failed; bad usage exits with 2."""
    parser = argparse.ArgumentParser(prog="python -m mge_gpu.ranking.fit", description=__doc__)
    parser.add_argument("--table", required=True, help="CSV table in the published format, or its directory")
    parser.add_argument("--out", required=True, type=Path, help="JSON file for the fitted ranker")
    parser.add_argument("--seed", type=int, default=0, help="for bagging (default: 0)")
    options = parser.parse_args(arguments)
    try:
        if not options.out.parent.is_dir():  # known before the minutes of fitting, not after
            raise RankingError(f"{options.out}: there is no folder {options.out.parent}")
        ranker = fit_and_evaluate(options.table, seed=options.seed)
        ranker.save(options.out)
    except MGEError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{options.out}: fitted to {ranker.provenance['rows']} networks; leaving one architecture out:")
    for name, scores in ranker.provenance["evaluation"].items():
        print(
            f"  {name}: tau {scores['kendall_tau']:.3f} (mean rank {scores['baseline']['kendall_tau']:.3f}), "
            f"RBO {scores['rbo']:.3f} (mean rank {scores['baseline']['rbo']:.3f})"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
