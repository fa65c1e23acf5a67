"""Rank pruning methods for a network by the topology of what each of them leaves."""

from collections.abc import Sequence
from functools import cache
from importlib import resources
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mge_gpu import __version__
from mge_gpu._optional import require
from mge_gpu.errors import RankingError
from mge_gpu.metrics.profile import PROFILE_KEYS
from mge_gpu.metrics.report import PUBLISHED, Report
from mge_gpu.ranking.candidates import Progress, checked_methods, measure
from mge_gpu.ranking.explain import contributions, reasons
from mge_gpu.ranking.features import report_rows
from mge_gpu.ranking.kept import Kept, fingerprint
from mge_gpu.ranking.pairs import best_chances, mean_chances, tiers
from mge_gpu.ranking.ranker import Ranker
from mge_gpu.ranking.training import known_value

if TYPE_CHECKING:
    import pandas
    from torch import nn

TABLE_NAMES: dict[str, str | None] = {
    "random": "uniform",
    "uniform": "uniform",
    "er": None,
    "er_published": "er",
}
"""Our method -> its name in the published table, where the two differ.

The table's uniform is one random draw over all weights: our ``random``, and our ``uniform`` on average. The
table's er is no Erdős-Rényi but ERK without its fix-up, our ``er_published``; our ``er`` is unknown to it.
"""


class _Shared(dict[str, Any]):
    """A dict that stays the same object when pandas deep-copies a frame's attrs, which it does at every step:
    the masks of a few methods are hundreds of megabytes for a large network."""

    def __deepcopy__(self, memo: dict[int, Any]) -> "_Shared":
        return self


def rank(
    model: "nn.Module",
    input_shape: Sequence[int],
    *,
    sparsity: float,
    methods: Sequence[str] | None = None,
    data: Any = None,
    seed: int = 0,
    ranker: "Ranker | str | Path | None" = None,
    metrics: Sequence[str] = (),
    progress: Progress | None = None,
    out: str | Path | None = None,
) -> "pandas.DataFrame":
    """Prune with each method, measure the topology of what is left, order the methods by predicted accuracy.

    The order is a prediction for training the masked network, from how the masks differ in topology. It was
    learned from four CIFAR networks; ``attrs["provenance"]`` says how well it does on an architecture that it
    has not seen, and ``baseline_rank`` is what to compare it with.

    Of large networks two_hop and motifs are estimated within about half a percent; the reports say how
    precisely.

    Args:
        model: the network at initialization; it stays as it is. On a GPU masks are made and measured there,
            all methods in one batch.
        input_shape: the shape of one input, without the batch dimension.
        sparsity: the share of weights to prune, in [0, 1).
        methods: two or more names of `mge_gpu.pruning.METHODS`, each once. None takes uniform, random, er,
            erk, magnitude, synflow and, with ``data``, snip, grasp and prospr.
        data: labelled batches for the methods that need them, or what `mge_gpu.data.load_data` takes. Read
            once for each such method, so no one-way iterator.
        seed: for pruning, estimated metrics and nothing else.
        ranker: a fitted `Ranker` or the file of one; None takes the one that is shipped.
        metrics: topometrics to compute besides those that the ranker needs.
        progress: called with what is being done and the share that is done.
        out: a folder for each method's masks and report, written as soon as they are there. A ranking that
            was stopped takes from it what is done, if model, input shape, sparsity, seed and data (by their
            description) are the same.

    Returns:
        A frame with a row for each method, best first: ``rank`` (from 1), ``method``, ``score`` (the mean
        chance to train to a better accuracy than another one of these methods), ``baseline_rank`` (the
        method's mean rank among the published methods that prune at initialization, on other networks; NaN
        where unknown), ``best_chance`` (the chance to be the best of these), ``tier`` (from 1; methods of a
        tier cannot be told apart from its first, see `mge_gpu.ranking.pairs.tiers`), ``reasons`` (what moved
        the score most, see `mge_gpu.ranking.explain.reasons`), then the metrics of `Report.normalized`
        and `mge_gpu.metrics.layer_profile`.
        ``attrs``: ``masks`` (method -> masks), ``reports`` (method -> `Report`), ``chances`` (method ->
        other method -> the chance that the first beats the second), ``contributions`` (method -> topometric
        -> what it adds to the score, which is 1/2 and the sum of these, see
        `mge_gpu.ranking.explain.contributions`) and ``provenance`` (str).

    Raises:
        RankingError: bad sparsity, unknown, repeated or too few methods, a method that lacks ``data``, a
            ranker that cannot be loaded (all before any work); or a method failed: its name and why.
        TracingError: the model cannot be traced.
    """
    names = checked_methods(methods, data)
    if not isinstance(sparsity, Real) or isinstance(sparsity, bool) or not 0 <= float(sparsity) < 1:
        raise RankingError(
            f"sparsity must be a number in [0, 1), the share of weights to prune; got {sparsity!r}"
        )
    if unknown := [name for name in metrics if name not in PUBLISHED]:
        raise RankingError(f"unknown metric {unknown[0]!r}; known are {', '.join(PUBLISHED)}")
    fitted = (
        shipped_ranker() if ranker is None else ranker if isinstance(ranker, Ranker) else Ranker.load(ranker)
    )
    require("lightgbm", "rank", "ranking pruning methods")  # and not after minutes of measuring
    require("pandas", "rank", "ranking pruning methods")

    kept = None
    if out is not None:
        kept = Kept(
            out,
            {
                "mge_gpu": __version__,
                "layers": PROFILE_KEYS,
                "weights": fingerprint(model),
                "input_shape": tuple(input_shape),
                "sparsity": float(sparsity),
                "seed": seed,
                "data": data
                if isinstance(data, str | None)
                else str(getattr(data, "description", type(data))),
            },
        )
    masks, reports = measure(
        model,
        tuple(input_shape),
        float(sparsity),
        names,
        data=data,
        seed=seed,
        metrics=_needed(fitted, metrics),
        progress=progress,
        kept=kept,
    )
    frame = ranked(reports, float(sparsity), fitted)
    depth = float(fitted.depth(frame.assign(sparsity=sparsity)).max())
    frame.attrs |= {
        "masks": _Shared(masks),
        "reports": _Shared(reports),
        "provenance": describe(fitted, float(sparsity), depth),
    }
    return frame


def ranked(reports: "dict[str, Report]", sparsity: float, ranker: Ranker) -> "pandas.DataFrame":
    """The frame of `rank`, of its ``attrs`` only ``chances`` and ``contributions``, from the reports."""
    rows = report_rows(reports, sparsity)
    if missing := [key for key in ranker.metrics if key not in rows.columns]:
        raise RankingError(
            f"the ranker needs {missing[0]!r}, which no report holds; compute it too"
            + " and put it there as info['layers'], see mge_gpu.metrics.layer_profile"
            * (missing[0] in PROFILE_KEYS)
        )
    names = list(reports)
    known = [TABLE_NAMES.get(name, name) or "" for name in names]
    named = rows.assign(method=known)
    first, second, chance = ranker.chances(named)
    matrix = np.full((len(names), len(names)), 0.5)
    matrix[first, second] = chance
    score = mean_chances(len(names), first, chance)
    added = contributions(ranker, named)
    why = reasons(added, named)
    order = np.argsort(-score, kind="stable")
    frame = rows.drop(columns="sparsity").iloc[order].reset_index(drop=True)
    columns = {
        "score": score[order],
        "baseline_rank": [known_value(ranker.mean_ranks, known[i], sparsity) for i in order],
        "best_chance": best_chances(matrix)[order],
        "tier": tiers(matrix, order.tolist()),
        "reasons": [why[i] for i in order],
    }
    for place, (name, values) in enumerate(columns.items(), start=1):
        frame.insert(place, name, values)
    frame.insert(0, "rank", range(1, len(frame) + 1))
    labels = [names[i] for i in order]
    ordered = matrix[np.ix_(order, order)].tolist()
    chances = {a: dict(zip(labels, row, strict=True)) for a, row in zip(labels, ordered, strict=True)}
    frame.attrs = {
        "chances": chances,
        "contributions": dict(zip(labels, added.iloc[order].to_dict("records"), strict=True)),
    }
    return frame


@cache
def shipped_ranker() -> Ranker:
    """The ranker that comes with the package."""
    with resources.as_file(resources.files("mge_gpu.ranking") / "data" / "ranker.json") as path:
        return Ranker.load(path)


def describe(ranker: Ranker, sparsity: float | None = None, depth: float = 0.0) -> str:
    """What a ranker was fitted on and how well it does, in one line.

    CAUTION at a ``sparsity`` that is new to it, and where `Ranker.depth` is above 0.
    """
    facts = ranker.provenance
    models = [str(name) for name in facts.get("models", [])]
    text = f"LightGBM on pairs of topometrics, fitted to {facts.get('rows', '?')} networks"
    if models:
        text += f" ({', '.join(models)})"
    text += f" of {facts.get('table', 'a table')} on {facts.get('date', 'an unknown date')}"
    for name, scores in (facts.get("evaluation") or {}).items():
        text += (
            f"; leaving one architecture out, {name}: "
            f"tau {scores['kendall_tau']:.2f} against {scores['baseline']['kendall_tau']:.2f} by mean rank, "
            f"RBO {scores['rbo']:.2f} against {scores['baseline']['rbo']:.2f}"
        )
    known = [value for value in facts.get("sparsities", []) if isinstance(value, int | float)]
    if sparsity is not None and known and not min(known) <= sparsity <= max(known):
        text += (
            f"; CAUTION: sparsity {sparsity:g} lies outside the {min(known):g} to {max(known):g} "
            "that it was fitted on"
        )
    if depth > 0:
        text += (
            "; CAUTION: these graphs are sparser than any that it was fitted on, so its linear part counts "
            f"for more, and mean ranks count for {ranker.fallback * depth:.0%} of each chance"
        )
    return text


def _needed(ranker: Ranker, extra: Sequence[str]) -> list[str]:
    """Every metric to compute, in the order of `PUBLISHED`; N and E are what the others are divided by."""
    wanted = {"nodes", "edges", *ranker.metrics, *extra}
    return [key for key in PUBLISHED if key in wanted]
