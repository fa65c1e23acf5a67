"""A predicted order of methods beside the one that training gave."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from mge_gpu._optional import require
from mge_gpu.ranking.features import GROUP
from mge_gpu.ranking.pairs import CERTAIN, best_chances
from mge_gpu.ranking.ranker import Ranker
from mge_gpu.ranking.scores import kendall_tau, rank_biased_overlap, tied_order
from mge_gpu.ranking.table import SETTING

if TYPE_CHECKING:
    import pandas

SCORES = ("kendall_tau", "rbo", "top1", "accuracy_lost")
"""The scores of an order. ``rbo`` has p = 0.9; ``top1`` is whether the method placed first is the best;
``accuracy_lost`` is by how many percentage points the method placed first stays below the best."""

RESAMPLES = 2000


def compare(
    ranker: Ranker,
    rows: "pandas.DataFrame",
    baseline: Callable[["pandas.DataFrame"], np.ndarray],
) -> "pandas.DataFrame":
    """Predict the order of methods in every (model, data set, sparsity) and compare it with training.

    Args:
        ranker: has not seen these networks.
        rows: as `load_table` gives them.
        baseline: scores rows, higher is better.

    Returns:
        A row for each setting with at least two methods: the columns of a setting, ``candidates``, `SCORES`
        for the ranker and, under ``baseline_...``, for the baseline; ``depth``, how far the ranker was out of
        its depth; ``told_apart``, the share of pairs with a chance of at least `CERTAIN` for one of them,
        ``told_right``, how many of these have the better seed-mean accuracy (NaN where there are none);
        ``brier``, the mean squared error of the pairs' chances against the share of wins; ``best_chance``,
        the predicted chance that the method placed first is the best. Tau is NaN where all candidates tie.
    """
    pandas = require("pandas", "rank", "evaluating a ranker")
    rows = rows.reset_index(drop=True)
    first, second, chance = ranker.chances(rows, GROUP)
    pairs = rows.loc[first, [*SETTING, "method"]].reset_index(drop=True)
    pairs = pairs.assign(other=rows["method"].to_numpy()[second], chance=chance)
    mean = pairs.groupby([*SETTING, "method", "other"], sort=True)["chance"].mean()
    chances = dict(list(mean.groupby(level=list(SETTING))))
    scored = rows.assign(baseline=baseline(rows), depth=ranker.depth(rows, GROUP))
    found = []
    for setting, group in scored.groupby(list(SETTING), sort=False):
        means = group.groupby("method")[["accuracy", "baseline", "depth"]].mean()
        if len(means) < 2 or setting not in chances:
            continue
        matrix = chances[setting].droplevel(list(SETTING)).unstack().reindex(means.index, axis=0)
        matrix = matrix.reindex(means.index, axis=1).to_numpy(copy=True)
        found.append(
            dict(zip(SETTING, setting, strict=True))
            | {"candidates": len(means), "depth": float(means["depth"].mean())}
            | _agreement(means.index.tolist(), np.nanmean(_blank(matrix), axis=1), means["accuracy"], "")
            | _agreement(means.index.tolist(), means["baseline"], means["accuracy"], "baseline_")
            | _calibration(matrix, group, means["accuracy"])
        )
    return pandas.DataFrame(found)


def seed_ceiling(rows: "pandas.DataFrame") -> "pandas.DataFrame":
    """What is left to gain: how well one training run's order predicts the mean of the other runs.

    Returns:
        A row for each setting and seed with two methods that other seeds have too: the columns of a setting,
        ``seed`` and `SCORES`.
    """
    pandas = require("pandas", "rank", "evaluating a ranker")
    found = []
    for setting, group in rows.groupby(list(SETTING), sort=False):
        accuracy = group.pivot_table(index="method", columns="seed", values="accuracy")
        for seed in accuracy.columns:
            both = pandas.DataFrame({"one": accuracy[seed], "rest": accuracy.drop(columns=seed).mean(axis=1)})
            both = both.dropna()
            if len(both) > 1:
                scores = _agreement(both.index.tolist(), both["one"], both["rest"], "")
                found.append(dict(zip(SETTING, setting, strict=True)) | {"seed": seed} | scores)
    return pandas.DataFrame(found)


def summary(found: "pandas.DataFrame", seed: int = 0) -> dict[str, Any]:
    """Means over settings with 95 % bootstrap intervals, for the ranker, the baseline and their difference.

    The intervals are percentiles over `RESAMPLES` resamples of the settings with replacement. Settings of one
    architecture resemble each other, so for a claim about *another* architecture they are too narrow.

    Returns:
        JSON-ready: ``groups``; for each of `SCORES` the mean and, under ``<score>_interval``, [low, high];
        the same under ``baseline`` and ``difference`` (the ranker's less the baseline's).

    >>> import pandas
    >>> one = {name: [0.5, 1.0] for name in SCORES}
    >>> document = summary(pandas.DataFrame(one | {f"baseline_{name}": [0.0, 0.0] for name in SCORES}))
    >>> document["kendall_tau"], document["kendall_tau_interval"], document["baseline"]["kendall_tau"]
    (0.75, [0.5, 1.0], 0.0)
    """
    document: dict[str, Any] = {"groups": len(found)} | intervals(found, SCORES, seed)
    named = {f"baseline_{name}": name for name in SCORES}
    if all(name in found for name in named):
        baseline = found[list(named)].rename(columns=named)
        document["baseline"] = intervals(baseline, SCORES, seed)
        document["difference"] = intervals(found[list(SCORES)].astype(float) - baseline, SCORES, seed)
    return document


def intervals(found: "pandas.DataFrame", names: tuple[str, ...], seed: int = 0) -> dict[str, Any]:
    """The mean of each column and its 95 % bootstrap interval over rows; NaN rows take no part."""
    random = np.random.default_rng(seed)
    result: dict[str, Any] = {}
    picks = random.integers(0, max(len(found), 1), (RESAMPLES, len(found)))
    for name in names:
        values = found[name].to_numpy("float64")
        if not np.isfinite(values).any():
            result |= {name: None, f"{name}_interval": None}
            continue
        drawn = values[picks]
        known = np.isfinite(drawn).sum(1)
        means = np.nansum(drawn, axis=1)[known > 0] / known[known > 0]
        low, high = np.percentile(means, [2.5, 97.5])
        result[name] = round(float(np.nanmean(values)), 4)
        result[f"{name}_interval"] = [round(float(low), 4), round(float(high), 4)]
    return result


def _blank(matrix: np.ndarray) -> np.ndarray:
    np.fill_diagonal(matrix, np.nan)
    return matrix


def _agreement(methods: list[str], predicted: Any, actual: Any, prefix: str) -> dict[str, float]:
    predicted, actual = np.asarray(predicted, "float64"), np.asarray(actual, "float64")
    place = tied_order(methods, predicted)[0]
    chosen = actual[methods.index(place[0])]
    scores = (
        kendall_tau(predicted, actual),
        rank_biased_overlap(tied_order(methods, predicted), tied_order(methods, actual)),
        float(chosen == actual.max()),
        100 * float(actual.max() - chosen),
    )
    return dict(zip((prefix + name for name in SCORES), scores, strict=True))


def _calibration(
    matrix: np.ndarray, group: "pandas.DataFrame", accuracy: "pandas.Series"
) -> dict[str, float]:
    """How good the chances of one setting are; ``matrix`` has NaN on its diagonal."""
    runs = {method: part.to_numpy() for method, part in group.groupby("method")["accuracy"]}
    above = np.triu_indices(len(accuracy), 1)
    methods = accuracy.index.tolist()
    wins = np.array([_wins(runs[methods[i]], runs[methods[j]]) for i, j in zip(*above, strict=True)])
    chance = matrix[above]
    known = np.isfinite(chance)
    values = accuracy.to_numpy()
    better = np.sign(values[above[0]] - values[above[1]])
    told = known & (np.abs(chance - 0.5) >= CERTAIN - 0.5)
    best = best_chances(np.nan_to_num(matrix, nan=0.5))
    return {
        "told_apart": float(told[known].mean()),
        "told_right": float((np.sign(chance - 0.5) == better)[told].mean()) if told.any() else float("nan"),
        "brier": float(((chance - wins)[known] ** 2).mean()),
        "best_chance": float(best[np.nanargmax(np.nanmean(matrix, axis=1))]),
    }


def _wins(ours: np.ndarray, theirs: np.ndarray) -> float:
    difference = ours[:, None] - theirs[None, :]
    return float(((difference > 0) + 0.5 * (difference == 0)).mean())
