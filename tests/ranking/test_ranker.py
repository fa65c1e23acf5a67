"""Fitting, saving and loading a ranker; what a damaged or hostile file does."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mge_gpu.errors import RankingError
from mge_gpu.metrics.report import json_ready
from mge_gpu.ranking._rank import shipped_ranker
from mge_gpu.ranking.features import GROUP
from mge_gpu.ranking.pairs import VIEWS, pair_features, win_shares
from mge_gpu.ranking.ranker import Ranker
from mge_gpu.ranking.table import PAI_METHODS, load_table, table_sha256
from mge_gpu.ranking.training import DEFAULTS, known_value, mean_ranks, mean_shares
from tests.ranking.conftest import QUICK


@pytest.fixture(scope="module")
def ranker(table: pd.DataFrame) -> Ranker:
    return Ranker.fit(table, settings=QUICK)


def test_the_same_table_and_seed_give_the_same_trees(table: pd.DataFrame, ranker: Ranker) -> None:
    assert Ranker.fit(table, settings=QUICK).trees == ranker.trees
    assert Ranker.fit(table, seed=1, settings=QUICK).trees != ranker.trees
    views = Ranker.fit(table, settings=replace(QUICK, views=tuple(VIEWS))).trees
    assert list(views) == list(VIEWS)
    assert views["differences"] == ranker.trees["differences"]


def test_it_learns_what_is_there(table: pd.DataFrame, ranker: Ranker) -> None:
    first, second, chances = ranker.chances(table, GROUP)
    wins = win_shares(table, first, second)
    assert ((chances > 0.5) == (wins > 0.5)).mean() > 0.95
    rank = table.groupby(list(GROUP))["accuracy"].rank()
    assert np.corrcoef(ranker.predict(table, GROUP), rank)[0, 1] > 0.95


def test_chances_of_a_pair_add_up_and_do_not_depend_on_who_else_is_there(
    table: pd.DataFrame, ranker: Ranker
) -> None:
    group = table[(table["model"] == "a") & (table["sparsity"] == 0.9) & (table["seed"] == 0)]

    def chances(rows: pd.DataFrame) -> pd.Series:
        first, second, found = ranker.chances(rows)
        names = rows["method"].to_numpy()
        return pd.Series(found, pd.MultiIndex.from_arrays([names[first], names[second]]))

    whole = chances(group)
    np.testing.assert_allclose(whole + whole.swaplevel().reindex(whole.index), 1)
    shuffled = chances(group.iloc[::-1])
    np.testing.assert_allclose(shuffled.reindex(whole.index), whole)
    # The context is the group's, and the only thing that changes with it: here all are as dense.
    same = group.assign(edges=60.0, sink_nodes=0.1, source_nodes=0.1, disconnected_nodes=0.1)
    few = same[same["method"].isin(["erk", "snip", "rigl"])]
    np.testing.assert_allclose(chances(few), chances(same).reindex(chances(few).index))


def test_a_temperature_below_one_makes_chances_less_sure_and_keeps_their_order(
    table: pd.DataFrame, ranker: Ranker
) -> None:
    sure = ranker.chances(table, GROUP)[2]
    unsure = replace(ranker, temperature=0.5).chances(table, GROUP)[2]
    odds = np.log(sure / (1 - sure))
    np.testing.assert_allclose(np.log(unsure / (1 - unsure)), odds / 2, atol=1e-9)


def test_log_odds_are_those_of_trees_and_linear_model_in_shares_that_change_with_depth(
    table: pd.DataFrame, ranker: Ranker
) -> None:
    def odds(group: pd.DataFrame, near: float, far: float) -> np.ndarray:
        chances = replace(ranker, shares=(near, far), fallback=0.0, temperature=1.0).chances(group)[2]
        return np.log(chances / (1 - chances))

    group = table[(table["model"] == "a") & (table["sparsity"] == 0.9) & (table["seed"] == 0)]
    sparse = group.assign(edges=group["nodes"] * np.exp(ranker.least_degree - 0.5))
    np.testing.assert_allclose(ranker.depth(sparse), 0.5)
    for rows, share in ((group, 0.2), (sparse, 0.35)):
        trees, linear = odds(rows, 0, 0), odds(rows, 1, 1)
        first, second, _ = ranker.chances(rows)
        np.testing.assert_allclose(linear, ranker.linear.odds(pair_features(rows, (), first, second)))
        np.testing.assert_allclose(odds(rows, 0.2, 0.5), (1 - share) * trees + share * linear, atol=1e-9)


def test_out_of_its_depth_the_known_methods_fall_back_on_the_baseline(
    table: pd.DataFrame, ranker: Ranker
) -> None:
    group = table[(table["model"] == "a") & (table["sparsity"] == 0.9) & (table["seed"] == 0)]
    assert ranker.depth(group).max() == 0
    sparse = group.assign(edges=group["edges"] * np.exp(-3), method=["new", *group["method"].iloc[1:]])
    assert ranker.depth(sparse).min() == 1
    half = sparse.assign(edges=np.median(sparse["edges"]))
    half["edges"] *= np.exp(ranker.least_degree - 0.5) / (half["edges"] / half["nodes"])
    np.testing.assert_allclose(ranker.depth(half), 0.5)
    only = replace(ranker, fallback=1.0)
    first, second, chances = only.chances(sparse)
    trees = replace(ranker, fallback=0.0).chances(sparse)[2]
    for a, b, chance, from_trees in zip(first, second, chances, trees, strict=True):
        one, two = (known_value(ranker.mean_shares, sparse["method"].iloc[i], 0.9) for i in (a, b))
        known = np.isfinite(one) and np.isfinite(two)
        assert chance == pytest.approx((1 + one - two) / 2 if known else from_trees)


def test_methods_restrict_what_is_learned_from(table: pd.DataFrame) -> None:
    few = Ranker.fit(table, methods=["erk", "snip"], settings=QUICK)
    assert few.provenance["methods"] == ["erk", "snip"]
    assert set(few.mean_ranks) == {"erk", "snip"}
    with pytest.raises(RankingError, match="no method 'lottery'"):
        Ranker.fit(table, methods=["erk", "lottery"])


def test_a_table_without_differences_teaches_nothing(table: pd.DataFrame) -> None:
    with pytest.raises(RankingError, match="different accuracy"):
        Ranker.fit(table.assign(accuracy=0.5))


def test_chances_need_the_metrics(table: pd.DataFrame, ranker: Ranker) -> None:
    with pytest.raises(RankingError, match="'k_core'"):
        ranker.chances(table.drop(columns="k_core"))
    alone = table.iloc[:1]
    assert len(ranker.chances(alone)[2]) == 0
    assert ranker.predict(alone).tolist() == [0.5]


def test_saved_and_loaded_it_predicts_the_same(table: pd.DataFrame, ranker: Ranker, tmp_path: Path) -> None:
    ranker.save(tmp_path / "r.json")
    loaded = Ranker.load(tmp_path / "r.json")
    assert loaded == ranker
    np.testing.assert_array_equal(loaded.predict(table, GROUP), ranker.predict(table, GROUP))
    with pytest.raises(RankingError, match="cannot be written"):
        ranker.save(tmp_path / "nowhere" / "r.json")


def test_every_truncation_is_an_error(ranker: Ranker, tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    ranker.save(path)
    content = path.read_bytes()
    for size in range(0, len(content) - 2, len(content) // 40):
        path.write_bytes(content[:size])
        with pytest.raises(RankingError, match=r"r\.json"):
            Ranker.load(path)


def _deleted(key: str) -> Any:
    return lambda document: document.pop(key)


def _set(key: str, value: object) -> Any:
    return lambda document: document.update({key: value})


@pytest.mark.parametrize(
    "change",
    [
        _deleted("format"),
        _deleted("models"),
        _deleted("temperature"),
        _deleted("mean_shares"),
        _deleted("mean_ranks"),
        _deleted("provenance"),
        _set("format", "mge_gpu ranker 2"),
        lambda document: document["models"][0].update(features=["degree", "os.system"]),
        lambda document: document["models"][0].update(view="os.system"),
        lambda document: document["models"][0].update(view="robust"),  # known, but not that of the trees
        lambda document: document["models"].append(document["models"][0]),
        _set("temperature", -1),
        _set("temperature", float("nan")),
        _set("fallback", 1.5),
        _set("shares", [0.2]),
        _set("shares", [0.2, 1.5]),
        _set("linear", None),
        _set("linear", {}),
        lambda document: document["linear"].update(low=[0.0]),
        lambda document: document["linear"].update(low=[0.0, 0.0, "low"]),
        lambda document: document["linear"]["coefficients"].pop("degree"),
        lambda document: document["linear"]["coefficients"].update(degree=[0.0]),
        lambda document: document["linear"]["coefficients"].update(degree=[0.0, 0.0, 0.0, 1e300]),
        _set("least_degree", "low"),
        _set("mean_shares", {"erk": {"0.9": 2}}),
        _set("mean_ranks", {"erk": 1.5}),
        _set("mean_ranks", {"erk": {}}),
        _set("mean_ranks", {"erk": {"0.9": "first"}}),
        _set("mean_ranks", {"erk": {"0.9": float("nan")}}),
        _set("mean_ranks", {"erk": {"often": 1.5}}),
        _set("provenance", "trust me"),
        _set("models", "tree"),
        _set("models", []),
        _set("models", ["tree"]),
        lambda document: document["models"][0].update(trees="tree"),
        lambda document: document["models"][0].update(trees=[]),
        lambda document: document["models"][0].update(trees=[1, 2]),
        lambda document: document["models"][0].update(trees=["tree", "version=v4"]),
        lambda document: document["models"][0]["trees"].remove(
            next(line for line in document["models"][0]["trees"] if "left_child" in line)
        ),
    ],
)
def test_a_changed_file_is_an_error(ranker: Ranker, tmp_path: Path, change: Any) -> None:
    path = tmp_path / "changed.json"
    ranker.save(path)
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))
    with pytest.raises(RankingError, match=r"changed\.json") as caught:
        Ranker.load(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content", [b"", b"null", b"[]", b"{}", b"\x80\x04K\x01.", b"[" * 100_000, b"\xff\xfe"]
)
def test_other_files_are_an_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "other.json").write_bytes(content)
    with pytest.raises(RankingError, match=r"other\.json"):
        Ranker.load(tmp_path / "other.json")
    with pytest.raises(RankingError, match="cannot be read"):
        Ranker.load(tmp_path / "missing.json")


def test_mean_ranks_by_hand() -> None:
    rows = [("m", "d", 0.9, "good", 0.8), ("m", "d", 0.9, "bad", 0.7), ("n", "d", 0.9, "good", 0.5)]
    rows += [("n", "d", 0.9, "bad", 0.6), ("k", "d", 0.9, "good", 0.9), ("k", "d", 0.9, "bad", 0.1)]
    rows += [("m", "d", 0.6, "bad", 0.6), ("m", "d", 0.6, "good", 0.5)]
    table = pd.DataFrame(rows, columns=["model", "dataset", "sparsity", "method", "accuracy"])
    found = mean_ranks(table)
    assert found["good"] == pytest.approx({"0.9": 4 / 3, "0.6": 2})
    assert found["bad"] == pytest.approx({"0.9": 5 / 3, "0.6": 1})
    assert known_value(found, "good", 0.98) == found["good"]["0.9"]
    assert known_value(found, "good", 0.1) == 2
    assert np.isnan(known_value(found, "other", 0.9))


def test_mean_shares_by_hand() -> None:
    rows = [("m", "good", 0.8), ("m", "fair", 0.7), ("m", "bad", 0.6), ("n", "good", 0.5), ("n", "fair", 0.6)]
    table = pd.DataFrame(rows, columns=["model", "method", "accuracy"]).assign(dataset="d", sparsity=0.9)
    assert mean_shares(table) == {"good": {"0.9": 0.5}, "fair": {"0.9": 0.75}, "bad": {"0.9": 0.0}}


def test_the_shipped_ranker_knows_where_it_comes_from() -> None:
    shipped = shipped_ranker()
    assert set(shipped.mean_ranks) == set(PAI_METHODS)
    assert len(shipped.mean_shares) == 11
    facts = shipped.provenance
    assert facts["rows"] == 1932
    assert len(facts["table_sha256"]) == 64
    assert facts["command"].startswith("python -m mge_gpu.ranking.fit")
    assert [fold["left_out"] for fold in facts["folds"]] == facts["models"]
    for scores in facts["evaluation"].values():
        assert scores["difference"]["kendall_tau_interval"][0] > 0
        assert scores["difference"]["rbo_interval"][0] > 0


def test_the_shipped_file_is_small() -> None:
    path = Path(__file__).parents[2] / "mge_gpu" / "ranking" / "data" / "ranker.json"
    assert path.stat().st_size < 2_000_000


def test_the_shipped_trees_are_those_that_the_table_gives(published: Path) -> None:
    shipped = shipped_ranker()
    assert shipped.provenance["table_sha256"] == table_sha256(published)
    table = load_table(published)
    assert shipped.provenance["settings"] == json_ready(asdict(DEFAULTS))
    again = Ranker.fit(table, seed=shipped.provenance["seed"], temperature=shipped.temperature)
    assert again.mean_ranks == shipped.mean_ranks
    np.testing.assert_allclose(again.predict(table, GROUP), shipped.predict(table, GROUP), atol=0.02)
