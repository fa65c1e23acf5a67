"""What is added to a score: against loops over pairs and coalitions, and what has to hold on any table."""

from collections import Counter
from dataclasses import replace
from itertools import permutations
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mge_gpu.errors import RankingError
from mge_gpu.ranking.explain import ELSEWHERE, NAMES, TOPICS, contributions, reasons
from mge_gpu.ranking.features import FEATURES, GROUP, LAYER_FEATURES, topology_features
from mge_gpu.ranking.pairs import DIFFERENCES, FEATURE_NAMES, VIEWS, columns_of, pair_features
from mge_gpu.ranking.ranker import Ranker
from mge_gpu.ranking.training import Settings
from tests.ranking.shapley import shapley_values

EVERYTHING = Settings(leaves=6, rounds=25, views=tuple(VIEWS), linear=0.2)


def logistic(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


@pytest.fixture(scope="module")
def ranker(table: pd.DataFrame) -> Ranker:
    """Small trees of all views, from a table in which several topometrics and the sparsity count."""
    features = topology_features(table)
    quality = features["sinks"] + features["degree"] * 5 + features["dynamic"] * 2
    quality += np.where(table["sparsity"] > 0.85, -1, 1) * features["cut_nodes"]
    return Ranker.fit(table.assign(accuracy=logistic(quality)), settings=EVERYTHING, temperature=0.8)


@pytest.fixture(scope="module")
def groups(table: pd.DataFrame) -> list[pd.DataFrame]:
    return [rows for _, rows in table.groupby(list(GROUP))]


def by_definition(ranker: Ranker, rows: pd.DataFrame) -> pd.DataFrame:
    """`contributions` without a fallback, for each pair and topic by loops."""
    pairs = list(permutations(range(len(rows)), 2))
    features = dict(zip(pairs, pair_features(rows, (), *np.array(pairs).T), strict=True))
    everywhere = np.array(list(features.values()))
    same = {number for number, column in enumerate(everywhere.T) if len(set(column.tolist())) == 1}
    found = pd.DataFrame(0.0, index=range(len(rows)), columns=list(NAMES))
    for a, b in pairs:
        chances, gains = [], pd.Series(0.0, index=list(NAMES))
        for view, booster in ranker.boosters.items():
            columns = columns_of(view)
            known = [at for at, column in enumerate(columns) if column in same]
            ours, theirs = features[a, b][columns], features[b, a][columns]
            f, g = booster.predict(np.stack([ours, theirs]), raw_score=True)
            shap = shapley_values(booster, ours, known) - shapley_values(booster, theirs, known)
            chances.append((logistic(f) + 1 - logistic(g)) / 2)
            steepness = (logistic(f) - logistic(g)) / (f - g)
            for number, column in enumerate(columns):
                stem = FEATURE_NAMES[column].replace("first_", "").replace("second_", "")
                if column not in same:
                    topic = next(name for name, topic in TOPICS.items() if stem in topic.features)
                    gains[topic] += steepness * shap[number] / 2 / len(VIEWS)
        chance = np.mean(chances)
        odds = np.log(chance / (1 - chance))
        share = ranker.shares[0]
        gains *= (1 - share) * odds / (chance - 0.5)
        linear = ranker.linear.parts(features[a, b][None])[0]
        for stem, part in zip(DIFFERENCES, linear, strict=True):
            gains[next(name for name, topic in TOPICS.items() if stem in topic.features)] += share * part
        odds = (1 - share) * odds + share * linear.sum()
        found.loc[a] += gains * (logistic(ranker.temperature * odds) - 0.5) / odds / (len(rows) - 1)
    return found


def test_contributions_are_those_of_loops_over_pairs_and_coalitions(
    ranker: Ranker, groups: list[pd.DataFrame]
) -> None:
    rows = groups[4].iloc[:4]
    found = contributions(ranker, rows)
    assert (found.abs().max() > 0.01).sum() >= 4  # several topics count here
    np.testing.assert_allclose(found, by_definition(ranker, rows), atol=1e-7)


@settings(max_examples=25, deadline=None)
@given(
    where=st.integers(0, 35),
    size=st.integers(1, 6),
    temperature=st.sampled_from([0.0, 0.5, 1.0, 3.0]),
    fallback=st.sampled_from([0.0, 0.5, 1.0]),
    thinning=st.sampled_from([0.0, -0.6, -3.0]),
    seed=st.integers(0, 2**32 - 1),
)
def test_they_add_up_to_the_score_and_over_candidates_to_zero(
    ranker: Ranker,
    groups: list[pd.DataFrame],
    where: int,
    size: int,
    temperature: float,
    fallback: float,
    thinning: float,
    seed: int,
) -> None:
    random = np.random.default_rng(seed)
    rows = groups[where].iloc[random.permutation(6)[:size]]
    rows = rows.assign(edges=rows["edges"] * np.exp(thinning))
    rows.iloc[0, rows.columns.get_loc("method")] = random.choice(["new", "erk"])
    rows.iloc[-1, rows.columns.get_loc("motifs")] = random.choice([np.nan, 0.0, 1.0])
    varied = replace(ranker, temperature=temperature, fallback=fallback)
    found = contributions(varied, rows)
    np.testing.assert_allclose(0.5 + found.sum(axis=1), varied.predict(rows), atol=1e-12)
    np.testing.assert_allclose(found.sum(axis=0), 0, atol=1e-12)
    order = random.permutation(size)
    np.testing.assert_allclose(contributions(varied, rows.iloc[order]), found.iloc[order], atol=1e-12)


def test_what_alone_moved_the_score_has_the_credit(table: pd.DataFrame, groups: list[pd.DataFrame]) -> None:
    """In this table accuracy follows the core and nothing else."""
    fitted = Ranker.fit(table, settings=Settings(leaves=7, rounds=40, views=("differences",)))
    added = pd.concat([contributions(fitted, rows) for rows in groups])
    size = added.abs().mean()
    assert size.idxmax() == "core"
    assert size["core"] > 0.7 * size.sum()
    rows = groups[0]
    rank = rows["accuracy"].rank()
    texts = dict(zip(rank, reasons(contributions(fitted, rows), rows), strict=True))
    assert texts[6].startswith("denser core +0.")
    assert texts[1].startswith("looser core -0.")


def test_what_is_the_same_for_all_adds_nothing(ranker: Ranker, groups: list[pd.DataFrame]) -> None:
    rows = groups[7]
    found = contributions(ranker, rows)
    used = [name for name in TOPICS if found[name].abs().max() > 0]
    assert "moving mask" in used  # rigl is among them
    at_rest = rows[rows["method"] != "rigl"]
    assert contributions(ranker, at_rest)["moving mask"].tolist() == [0] * 5
    twins = pd.concat([rows.iloc[:1]] * 3)
    assert (contributions(ranker, twins) == 0).all(axis=None)
    assert reasons(contributions(ranker, twins), twins) == ["", "", ""]
    same = contributions(ranker, pd.concat([rows, rows.iloc[:1]])).to_numpy()
    np.testing.assert_allclose(same[0], same[-1], atol=1e-12)


def test_the_fallback_is_a_contribution_of_its_own(ranker: Ranker, groups: list[pd.DataFrame]) -> None:
    rows = groups[2]
    assert (contributions(ranker, rows)[ELSEWHERE] == 0).all()
    sparse = rows.assign(edges=rows["edges"] * np.exp(-3))
    only = replace(ranker, fallback=1.0)
    found = contributions(only, sparse)
    np.testing.assert_allclose(0.5 + found[ELSEWHERE], only.predict(sparse))
    assert (found[list(TOPICS)] == 0).all(axis=None)
    assert reasons(found, sparse)[0].startswith("mean rank elsewhere ")
    half = contributions(replace(ranker, fallback=0.5), sparse)
    np.testing.assert_allclose(half[ELSEWHERE], found[ELSEWHERE] / 2)
    trees = contributions(replace(ranker, fallback=0.0), sparse)
    np.testing.assert_allclose(half[list(TOPICS)], trees[list(TOPICS)] / 2, atol=1e-12)


def test_every_feature_belongs_to_one_topic() -> None:
    named = Counter(feature for topic in TOPICS.values() for feature in topic.features)
    assert named == Counter([*FEATURES, "dynamic", *LAYER_FEATURES])


def test_reasons_by_hand(groups: list[pd.DataFrame]) -> None:
    rows = (
        groups[0]
        .iloc[:3]
        .assign(
            edges=[50.0, 60.0, 70.0],
            sink_nodes=[0.1, 0.3, 0.1],
            k_core=np.nan,
            removable_out=0,
            removable_in=0,
        )
    )
    rows["source_nodes"] = rows["disconnected_nodes"] = 0.0
    added = pd.DataFrame(0.0, index=rows.index, columns=list(NAMES))
    added["edges"] = [0.123, 0.2, -0.3]
    added["sinks"] = [-0.2, -0.1, 0.1]
    added["core"] = [0.1, 0.004, 0.2]
    added["removable edges"] = [0.0, 0.05, 0.15]
    added[ELSEWHERE] = [0.01, 0.04, 0.01]
    assert reasons(added, rows) == [
        "fewer sinks -0.20, fewer edges +0.12, core +0.10",
        "edges +0.20, more sinks -0.10, removable edges +0.05",
        "more edges -0.30, core +0.20, removable edges +0.15",
    ]
    assert reasons(added, rows, most=1)[1] == "edges +0.20"
    assert reasons(added, rows, most=9)[1].endswith("removable edges +0.05, mean rank elsewhere +0.04")


def test_a_missing_metric_is_an_error(ranker: Ranker, groups: list[pd.DataFrame]) -> None:
    with pytest.raises(RankingError, match="'motifs'"):
        contributions(ranker, groups[0].drop(columns="motifs"))
    assert contributions(ranker, groups[0].iloc[:1]).to_numpy().tolist() == [[0] * len(NAMES)]
