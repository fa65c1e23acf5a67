"""Claim (c): how well scores made of topology order the methods that prune at initialization."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mge_gpu._optional import require
from mge_gpu.errors import RankingError
from mge_gpu.ranking.agreement import compare, seed_ceiling
from mge_gpu.ranking.evaluate import baseline_ranks
from mge_gpu.ranking.ranker import Ranker
from mge_gpu.ranking.reproduction.intervals import mean_interval
from mge_gpu.ranking.reproduction.tables import Tables
from mge_gpu.ranking.scores import kendall_tau, rank_biased_overlap, tied_order
from mge_gpu.ranking.table import PAI_METHODS, SETTING

if TYPE_CHECKING:
    import pandas

SCORES = ("kendall_tau", "rbo")

MIXTURES = {
    "mge": ("mge",),
    "rolled": ("rolled",),
    "rolled-channel": ("rolled-channel",),
    "ramanujan": ("ramanujan",),
    "density": ("density profile",),
    "ramanujan + density": ("ramanujan", "density profile"),
}
"""Family of scores -> sets of features that its mixtures are made of."""

MIXTURE = "mixture, regression weights"
"""The mixture that claim (c) is judged by."""

BEST, HINDSIGHT = "best single, chosen on the others", "best single in hindsight"

SINGLES = ("mge", "rolled", "rolled-channel", "ramanujan", "density")
"""Sets of features whose columns are tried one by one."""

PENALTY = 10.0
"""Of the ridge regression, on standardised features; fixed beforehand."""


def settings_table(tables: Tables) -> "pandas.DataFrame":
    """The seed means of accuracy and all features by setting and method (PaI only).

    Returns:
        Index `SETTING` and ``method``; columns ("accuracy", "") and (set, feature). Settings with one method
        are left out. NaN where no seed has a value.
    """
    pandas = require("pandas", "rank", "reproducing the paper's claims")
    networks = tables.networks
    parts = {("accuracy", ""): networks["accuracy"]}
    for name, frame in tables.features.items():
        parts |= {(name, column): frame[column] for column in frame}
    rows = pandas.DataFrame(parts)[networks["method"].isin(PAI_METHODS).to_numpy()]
    keys = [networks.loc[rows.index, column] for column in (*SETTING, "method")]
    means = rows.groupby(keys).mean()
    return means[means.groupby(level=list(SETTING)).transform("size") > 1]


def agreement(methods: Sequence[str], predicted: np.ndarray, actual: np.ndarray) -> tuple[float, float]:
    """Kendall's tau and RBO (p = 0.9) of an order; 0 for a score that ties all, NaN for one that is missing.

    A score that is missing for some of the methods only puts these at the middle of the others.
    """
    known = np.isfinite(predicted)
    if not known.any():
        return float("nan"), float("nan")
    predicted = np.where(known, predicted, np.median(predicted[known]))
    tau = kendall_tau(predicted.tolist(), actual.tolist()) if np.ptp(predicted) > 0 else 0.0
    order = tied_order(list(methods), predicted.tolist())
    return tau, rank_biased_overlap(order, tied_order(list(methods), actual.tolist()))


def within_setting(means: "pandas.DataFrame", sets: Sequence[str]) -> np.ndarray:  # (rows, columns), float64
    """Features standardised over the methods of a setting; 0 where constant or missing."""
    features = means[[column for column in means if column[0] in sets]]
    grouped = features.groupby(level=list(SETTING))
    centred = features - grouped.transform("mean")
    deviation = grouped.transform("std", ddof=0)
    scaled = centred / deviation.where(deviation > 1e-12 * features.abs())
    return scaled.replace([np.inf, -np.inf], np.nan).fillna(0.0).to_numpy("float64")


def mixture_scores(means: "pandas.DataFrame", sets: Sequence[str], weights: str) -> np.ndarray:  # (rows,)
    """Scores of each architecture by a mixture that is learned on the other ones; higher is better.

    Args:
        weights: "regression", ridge regression of the accuracy standardised within its setting on the
            features, likewise; or "equal", the mean of the features, each with the sign of its correlation
            with that accuracy.
    """
    features = within_setting(means, sets)
    target = within_setting(means, ["accuracy"])[:, 0]
    models = means.index.get_level_values("model").to_numpy()
    scores = np.empty(len(means))
    for model in np.unique(models):
        test = models == model
        inner = features[~test].T @ target[~test]
        if weights == "equal":
            learned = np.sign(inner)
        else:
            gram = features[~test].T @ features[~test]
            learned = np.linalg.solve(gram + PENALTY * np.eye(len(gram)), inner)
        scores[test] = features[test] @ learned
    return scores


def rankings(
    tables: Tables, *, ranker: bool = True, progress: Callable[[str, float], None] | None = None
) -> tuple["pandas.DataFrame", "pandas.DataFrame"]:
    """Every score's order in every setting against that by seed-mean accuracy.

    The sign of a single metric, the weights of a mixture, the mean ranks, the ranker, and the metric that is
    taken as a family's "best single" are all learned on the other architectures. "best single in hindsight"
    is the metric with the best mean tau on the settings that are predicted: a bar that nobody can know.

    Returns:
        figures: a row for each ``family``, ``score`` with the mean `SCORES`, ``..._interval`` and
        ``settings``; differences: `SCORES` of the MGE mixture less those of ``rival`` on the same settings.
        Intervals are bootstraps over pairs of model and data set.
    """
    pandas = require("pandas", "rank", "reproducing the paper's claims")
    means = settings_table(tables)
    models = means.index.get_level_values("model").unique()
    if len(models) < 2:
        raise RankingError(
            f"leaving one architecture out needs at least 2 of them, the table has {len(models)}"
        )
    groups = {setting: np.flatnonzero(rows) for setting, rows in _members(means).items()}
    columns: dict[tuple[str, str], np.ndarray] = {}

    def score(values: np.ndarray) -> np.ndarray:  # (settings, 2)
        accuracy = means[("accuracy", "")].to_numpy()
        names = means.index.get_level_values("method").to_numpy()
        return np.array([agreement(names[rows], values[rows], accuracy[rows]) for rows in groups.values()])

    settings = pandas.DataFrame(list(groups), columns=list(SETTING))
    for family in SINGLES:
        columns |= _singles(means, family, settings["model"].to_numpy(), score)
    for family, sets in MIXTURES.items():
        for weights in ("regression", "equal"):
            columns[family, f"mixture, {weights} weights"] = score(mixture_scores(means, sets, weights))
        if progress is not None:
            progress(f"ranking, mixtures of {family}", 0.3)
    columns |= _learned(tables.networks, settings, ranker, progress)
    clusters = settings[["model", "dataset"]].agg("/".join, axis=1).to_numpy()
    ours = columns["mge", MIXTURE]
    figures, differences = [], []
    for (family, name), values in columns.items():
        row: dict[str, Any] = {
            "family": family,
            "score": name,
            "settings": int(np.isfinite(values[:, 0]).sum()),
        }
        gain: dict[str, Any] = {"family": family, "rival": name}
        for number, measure in enumerate(SCORES):
            row[measure], row[f"{measure}_interval"] = mean_interval(values[:, number], clusters)
            less = ours[:, number] - values[:, number]
            gain[measure], gain[f"{measure}_interval"] = mean_interval(less, clusters)
        figures.append(row)
        differences.append(gain)
    return pandas.DataFrame(figures), pandas.DataFrame(differences)


def _members(means: "pandas.DataFrame") -> Mapping[Any, np.ndarray]:
    codes = means.groupby(level=list(SETTING)).ngroup().to_numpy()
    first = means.index.droplevel("method").unique()
    return {setting: codes == number for number, setting in enumerate(sorted(first.tolist()))}


def _singles(
    means: "pandas.DataFrame", family: str, models: np.ndarray, score: Callable[[np.ndarray], np.ndarray]
) -> dict[tuple[str, str], np.ndarray]:
    names = [column[1] for column in means if column[0] == family]
    both = {name: [score(sign * means[family, name].to_numpy()) for sign in (1, -1)] for name in names}
    signed = {name: np.empty_like(values[0]) for name, values in both.items()}
    best = np.full((len(models), len(SCORES)), np.nan)
    for model in np.unique(models):
        test = models == model
        learned = {}
        for name, (plus, minus) in both.items():
            tau = _mean(plus[~test, 0])
            signed[name][test] = (plus if tau >= 0 else minus)[test]
            learned[name] = abs(tau)
        best[test] = signed[max(learned, key=lambda name: learned[name])][test]
    found = {(family, name): values for name, values in signed.items()}
    if len(names) > 1:
        hindsight = max(names, key=lambda name: _mean(signed[name][:, 0]))
        found[family, BEST] = best
        found[family, f"{HINDSIGHT} ({hindsight})"] = signed[hindsight]
    return found


def _learned(
    networks: "pandas.DataFrame",
    settings: "pandas.DataFrame",
    ranker: bool,
    progress: Callable[[str, float], None] | None,
) -> dict[tuple[str, str], np.ndarray]:
    """The mean-rank baseline, the ranker and the seed ceiling, in the order of ``settings``."""
    pandas = require("pandas", "rank", "reproducing the paper's claims")
    at_init = networks[networks["method"].isin(PAI_METHODS)]
    found: dict[tuple[str, str], np.ndarray] = {}

    def placed(frame: Any) -> np.ndarray:
        return settings.merge(frame, on=list(SETTING), how="left")[list(SCORES)].to_numpy("float64")

    baselines, parts = [], []
    models = sorted(networks["model"].unique().tolist())
    for done, model in enumerate(models):
        test = at_init[at_init["model"] == model]
        baseline = baseline_ranks(at_init[at_init["model"] != model])
        for setting, group in test.assign(score=baseline(test)).groupby(list(SETTING)):
            means = group.groupby("method")[["score", "accuracy"]].mean()
            scores = agreement(means.index.tolist(), means["score"].to_numpy(), means["accuracy"].to_numpy())
            baselines.append(dict(zip((*SETTING, *SCORES), (*setting, *scores), strict=True)))
        if ranker:
            if progress is not None:
                progress(f"ranking, the ranker without {model}", 0.4 + 0.6 * done / len(models))
            fitted = Ranker.fit(networks[networks["model"] != model])
            parts.append(compare(fitted, test, baseline))
    found["no topology", "mean rank on the others"] = placed(pandas.DataFrame(baselines))
    if parts:
        found["ranker", "the ranker of mge_gpu.rank"] = placed(pandas.concat(parts, ignore_index=True))
    ceiling = seed_ceiling(at_init)
    if len(ceiling):
        means = ceiling.groupby(list(SETTING), as_index=False)[list(SCORES)].mean()
        found["ceiling", "one seed against the others"] = placed(means)
    return found


def _mean(values: np.ndarray) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else 0.0
