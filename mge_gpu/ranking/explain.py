"""Why a candidate stands where it stands: what each topometric adds to its score."""

from collections.abc import Callable, Mapping
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.special import expit

from mge_gpu._optional import require
from mge_gpu.ranking.features import topology_features
from mge_gpu.ranking.model_given import given
from mge_gpu.ranking.pairs import (
    DIFFERENCES,
    FEATURE_NAMES,
    columns_of,
    group_pairs,
    pair_features,
    reversed_pairs,
)
from mge_gpu.ranking.ranker import log_odds

if TYPE_CHECKING:
    import pandas

    from mge_gpu.ranking.ranker import Ranker


class Topic(NamedTuple):
    """What a user is told of the features that belong to one topometric.

    Attributes:
        features: columns of `mge_gpu.ranking.features.topology_features`; the places ``first_NAME`` and
            ``second_NAME`` belong to NAME.
        more, less: what is said of a candidate that has more, or less, of it than most of the others.
        measure: the quantity that is compared for that, from the features; None takes the first of them.
    """

    features: tuple[str, ...]
    more: str
    less: str
    measure: "Callable[[pandas.DataFrame], pandas.Series] | None" = None


def _counted(name: str, *features: str) -> Topic:
    return Topic(features, f"more {name}", f"fewer {name}")


TOPICS: Mapping[str, Topic] = {
    "edges": _counted("edges", "degree"),
    "useful edges": _counted("useful edges", "useful_edges"),
    "removable edges": Topic(
        ("removable_out", "removable_in"),
        "more removable edges",
        "fewer removable edges",
        lambda features: features["degree"] - features["useful_edges"],
    ),
    "sinks": _counted("sinks", "sinks"),
    "sources": _counted("sources", "sources"),
    "disconnected nodes": _counted("disconnected nodes", "disconnected"),
    "live nodes": _counted("live nodes", "alive"),
    "reach": Topic(("two_hop", "branching"), "wider reach", "narrower reach"),
    "motifs": _counted("motifs", "motifs", "motif_excess"),
    "core": Topic(("core", "core_excess"), "denser core", "looser core"),
    "components": _counted("components", "components"),
    "cut edges": _counted("cut edges", "cut_edges"),
    "cut nodes": _counted("cut nodes", "cut_nodes"),
    "layers' density": Topic(("layer_density",), "denser layers", "sparser layers"),
    "first layer": Topic(("input_density",), "denser first layer", "sparser first layer"),
    "last layer": Topic(("output_density",), "denser last layer", "sparser last layer"),
    "early layers": Topic(("early_density",), "denser early layers", "sparser early layers"),
    "middle layers": Topic(("middle_density",), "denser middle layers", "sparser middle layers"),
    "late layers": Topic(("late_density",), "denser late layers", "sparser late layers"),
    "kernels": _counted("kernels", "channel_degree"),
    "bare channels": _counted("bare channels", "bare_channels"),
    "moving mask": Topic(("dynamic",), "moving mask", "resting mask"),
}
"""Name -> topic. Each feature of a candidate belongs to one of them."""

ELSEWHERE = "mean rank elsewhere"
"""The contribution of the baseline that the ranker falls back on out of its depth."""

NAMES = (*TOPICS, ELSEWHERE)


def contributions(ranker: "Ranker", rows: "pandas.DataFrame") -> "pandas.DataFrame":
    """What each of `NAMES` adds to `Ranker.predict`: a row's contributions add up to its score less 1/2.

    The log-odds that the boosters give a pair are shared out by SHAP values: path-dependent TreeSHAP
    (Lundberg et al. 2020, doi:10.1038/s42256-019-0138-9), of a game that starts with all that is the same for
    each pair. So the context (sparsity and the medians of the group) sways what a difference is worth and
    gets no share of its own, and a topometric in which no two candidates differ adds exactly 0.

    What `Ranker.chances` does with them is not linear: it averages chances over boosters and both orders of a
    pair, mixes their log-odds with those of the linear model (whose parts are its shares as they are),
    sharpens them by the temperature and mixes in the baseline. The values are carried through each step by
    the ratio of what came out to what went in (Chen, Lundberg and Lee 2022, doi:10.1038/s41467-022-31384-3).
    For a pair (a, b) and K boosters with log-odds f, chances p and SHAP values φ, topic k adds to the chance
    that a beats b, with a sum over boosters and l_k the linear model's part,

        (1 − w) r ((1 − v) q / 2K Σ [p(a,b) − p(b,a)] / [f(a,b) − f(b,a)] · [φ_k(a,b) − φ_k(b,a)] + v l_k)

    where q is the ratio of the boosters' log-odds to their chance less 1/2, v the linear model's share, r the
    ratio of the chance less 1/2 to the log-odds, and w the weight of the baseline, which itself adds
    w (baseline − 1/2). A candidate's contribution is the mean over the others.
    Those of a topic add up to 0 over the candidates.

    Args:
        ranker: a fitted `Ranker`.
        rows: as for `Ranker.chances`, of one group and one sparsity.

    Returns:
        float64 frame with the index of ``rows`` and the columns `NAMES`.

    Raises:
        RankingError: a column is missing.
    """
    pandas = require("pandas", "rank", "explaining a ranking")
    sums = np.zeros((len(rows), len(NAMES)))
    if len(rows) > 1:
        first, second = group_pairs(np.zeros(len(rows), "int64"))
        np.add.at(sums, first, _of_pairs(ranker, rows, first, second))
        sums /= len(rows) - 1
    return pandas.DataFrame(sums, index=rows.index, columns=list(NAMES))


def _of_pairs(
    ranker: "Ranker", rows: "pandas.DataFrame", first: np.ndarray, second: np.ndarray
) -> np.ndarray:  # (pairs, names), float64
    features = pair_features(rows, (), first, second)
    reverse = reversed_pairs(first, second)
    total = np.zeros((len(first), len(NAMES)))
    for view, booster in ranker.boosters.items():
        seen = features[:, columns_of(view)]
        odds = booster.predict(seen, raw_score=True, num_threads=1)
        chance = expit(odds)
        slope = _ratio(chance - chance[reverse], odds - odds[reverse], chance * (1 - chance))
        shares = _shap_values(ranker.trees[view], seen) @ _members()[columns_of(view)]
        total += slope[:, None] * (shares - shares[reverse]) / 2
    total /= len(ranker.boosters)
    margin = total.sum(axis=1)
    depth = ranker.depth(rows)[first]
    share = ranker.linear_share(depth)[:, None]
    total *= (1 - share) * _ratio(log_odds(0.5 + margin), margin, 4.0)[:, None]
    total += share * (ranker.linear.parts(features) @ _members()[: len(DIFFERENCES)])
    odds = total.sum(axis=1)
    weight, baseline = ranker.baseline(rows, depth, first, second)
    total *= ((1 - weight) * _ratio(ranker.calibrated(odds) - 0.5, odds, ranker.temperature / 4))[:, None]
    total[:, NAMES.index(ELSEWHERE)] = weight * (baseline - 0.5)
    return total


def _shap_values(trees: str, seen: np.ndarray) -> np.ndarray:  # (pairs, features) -> the same, float64
    """TreeSHAP values of the log-odds, given the features that are the same for all pairs."""
    lightgbm = require("lightgbm", "rank", "explaining a ranking")
    same = ((seen == seen[0]) | (np.isnan(seen) & np.isnan(seen[0]))).all(axis=0)
    known = {int(number): float(seen[0, number]) for number in np.flatnonzero(same)}
    booster = lightgbm.Booster(model_str=given(trees, known))
    return np.asarray(booster.predict(seen, pred_contrib=True, num_threads=1))[:, :-1]  # without the bias


def _ratio(
    change: np.ndarray, step: np.ndarray, slope: np.ndarray | float
) -> np.ndarray:  # (pairs,), float64
    """``change / step``, and the ``slope`` that this comes near where the step is too small to divide by."""
    small = np.abs(step) < 1e-7
    return np.where(small, slope, change / np.where(small, 1, step))


def reasons(contributions: "pandas.DataFrame", rows: "pandas.DataFrame", most: int = 3) -> list[str]:
    """The largest contributions of each row, in words: ``"more edges +0.12, fewer sinks -0.03"``.

    The words say where the candidate stands: it has *more edges* if it has more of them than most of the
    others that differ from it. In the middle of them, or where its value is not known, the topic's name
    stands alone. The number is what that adds to the score. What rounds to 0.00 is left out.

    Args:
        contributions: what `contributions` gives for these rows.
        rows: as for `contributions`.
        most: how many to name.
    """
    features = topology_features(rows)
    words = {ELSEWHERE: [ELSEWHERE] * len(rows)}
    for name, topic in TOPICS.items():
        values = (topic.measure(features) if topic.measure else features[topic.features[0]]).to_numpy()
        gaps = np.nan_to_num(values[:, None] - values[None, :])
        above = np.sign(np.where(np.abs(gaps) < 1e-9, 0, gaps)).sum(axis=1)
        words[name] = np.select([above > 0, above < 0], [topic.more, topic.less], name).tolist()
    texts = []
    for row, values in enumerate(contributions.to_numpy()):
        largest = [at for at in np.argsort(-np.abs(values), kind="stable")[:most] if abs(values[at]) >= 0.005]
        texts.append(", ".join(f"{words[NAMES[at]][row]} {values[at]:+.2f}" for at in largest))
    return texts


@cache
def _members() -> np.ndarray:  # (features of a pair, names), 1 where the feature belongs to the topic
    members = np.zeros((len(FEATURE_NAMES), len(NAMES)))
    for number, feature in enumerate(FEATURE_NAMES):
        stem = feature.removeprefix("first_").removeprefix("second_")
        for column, topic in enumerate(TOPICS.values()):
            members[number, column] = stem in topic.features
    return members
