"""How well a ranker orders methods on networks of a kind that it has not seen."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from mge_gpu._optional import require
from mge_gpu.errors import RankingError
from mge_gpu.ranking.agreement import compare
from mge_gpu.ranking.ranker import Ranker, restricted
from mge_gpu.ranking.table import PAI_METHODS
from mge_gpu.ranking.training import Settings, default_settings, known_values, mean_ranks
from mge_gpu.ranking.tuning import Fits, grid_for, tune

if TYPE_CHECKING:
    import pandas


def evaluate(
    table: "pandas.DataFrame",
    methods: Sequence[str] | None = None,
    *,
    leave_out: str = "model",
    grid: Sequence[Settings] | None = None,
    seed: int = 0,
    fits: Fits | None = None,
) -> "pandas.DataFrame":
    """Leave one architecture out (or one data set, or one sparsity): fit on the others, predict it.

    Nested: `tune` chooses settings and temperature by leaving one out *within* what is left, so the part that
    is predicted plays no role in any choice. Chances are made within each seed and averaged over seeds, and
    the order of methods in each (model, data set, sparsity) is compared with that by seed-mean accuracy.
    Beside it stands the baseline: each method's mean rank at that sparsity in what is left, by the same
    accuracies and no topology.

    Args:
        table: as `load_table` gives it.
        methods: the candidates to order; None takes all in the table. All are learned from in any case.
        leave_out: the column whose values are left out in turn: ``"model"``, ``"dataset"`` or ``"sparsity"``.
        grid: what to choose from, None for `grid_for`; one `Settings` chooses nothing.
        seed: for LightGBM's bagging.
        fits: rankers fitted before, to share between evaluations of one table.

    Returns:
        The frame of `mge_gpu.ranking.agreement.compare`. ``attrs["folds"]`` is a list with a dict for each
        fold: what was left out, the settings chosen, their inner score and that of every alternative, and the
        temperature.

    Raises:
        RankingError: there are fewer than two values to leave out, or fewer than two of the methods.
    """
    pandas = require("pandas", "rank", "evaluating a ranker")
    candidates = restricted(table, methods)
    values = sorted(table[leave_out].unique().tolist())
    if len(values) < 2 or candidates["method"].nunique() < 2:
        named = {"model": "architecture", "dataset": "data set"}.get(leave_out, leave_out)
        raise RankingError(
            f"leaving one {named} out needs at least 2 of them and 2 methods; the table has "
            f"{len(values)} and {candidates['method'].nunique()}"
        )
    fits = fits if fits is not None else Fits(table, leave_out, seed)
    parts, folds = [], []
    for value in values:
        choice = tune(fits, grid_for(table) if grid is None else grid, without=(value,))
        ranker = replace(fits.ranker(choice.settings, (value,)), temperature=choice.temperature)
        learned = candidates[candidates[leave_out] != value]
        parts.append(compare(ranker, candidates[candidates[leave_out] == value], baseline_ranks(learned)))
        folds.append(
            {
                "left_out": value,
                "settings": asdict(choice.settings),
                "temperature": round(choice.temperature, 3),
                "inner_scores": [
                    {"settings": asdict(settings), "score": round(score, 4)}
                    for settings, score in choice.scores.items()
                ],
            }
        )
    found = pandas.concat([part for part in parts if len(part)], ignore_index=True)
    found.attrs["folds"] = folds
    return found


def transfer(
    train: "pandas.DataFrame",
    test: "pandas.DataFrame",
    methods: Sequence[str] | None = None,
    *,
    settings: Settings | None = None,
    seed: int = 0,
) -> "pandas.DataFrame":
    """Fit on one table, predict another one: the frame of `mge_gpu.ranking.agreement.compare`.

    Args:
        train, test: as `load_table` gives them; methods, sparsities and seeds may differ.
        methods: the candidates to order; None takes all in ``test``.
        settings: None takes `default_settings` of ``train`` and the candidates. Nothing is tuned.
        seed: as for `Ranker.fit`.

    Raises:
        RankingError: ``test`` has not two of the methods in one setting, or ``train`` nothing to learn from.
    """
    candidates = restricted(test, methods)
    ranker = Ranker.fit(train, seed=seed, settings=settings or default_settings(train, candidates))
    known = train[train["method"].isin(candidates["method"].unique())]
    found = compare(ranker, candidates, baseline_ranks(known))
    if not len(found):
        raise RankingError(
            "the table to test on has no (model, dataset, sparsity) with two of the methods; it has "
            f"{len(candidates)} rows of {', '.join(sorted(candidates['method'].unique()))}"
        )
    return found


def baseline_ranks(table: "pandas.DataFrame") -> "Baseline":
    """The baseline that `compare` sets beside a ranker: mean ranks in ``table``."""
    return Baseline(mean_ranks(table))


def method_sets(table: "pandas.DataFrame") -> dict[str, list[str]]:
    """The sets of candidates that a table is evaluated on: all methods, and those that prune at
    initialization where these are at least two and not all."""
    methods = sorted(table["method"].unique().tolist())
    at_init = [name for name in PAI_METHODS if name in methods]
    sets = {f"all {len(methods)} methods": methods}
    if 1 < len(at_init) < len(methods):
        sets[f"{len(at_init)} methods that prune at initialization"] = at_init
    return sets


class Baseline:
    """Scores rows by their method's mean rank elsewhere, at the nearest sparsity; higher is better.

    A method that is not known there stands in the middle.
    """

    def __init__(self, ranks: Mapping[str, Mapping[str, float]]) -> None:
        self.ranks = ranks

    def __call__(self, rows: "pandas.DataFrame") -> np.ndarray:  # (rows,), float64
        found = -known_values(self.ranks, rows)
        return np.where(np.isfinite(found), found, -(len(self.ranks) + 1) / 2)


def learning_curve(
    fits: Fits, settings: Settings, sets: Mapping[str, Sequence[str] | None]
) -> "pandas.DataFrame":
    """How the scores grow with the number of architectures that are learned from.

    Every subset of the architectures is learned from, and each architecture outside it predicted.

    Returns:
        `compare`'s frames with the columns ``set`` (a key of ``sets``) and ``learned`` (how many
        architectures were learned from).
    """
    pandas = require("pandas", "rank", "evaluating a ranker")
    parts: list[Any] = []
    for without in fits.subsets():
        ranker = fits.ranker(settings, without)
        for name, methods in sets.items():
            rows = restricted(fits.table, methods)
            outside = rows[fits.column].isin(without)
            found = compare(ranker, rows[outside], baseline_ranks(rows[~outside]))
            parts.append(found.assign(set=name, learned=len(fits.values) - len(without)))
    return pandas.concat(parts, ignore_index=True)
