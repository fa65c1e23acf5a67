"""Fitting, saving and loading a ranker; what a damaged or hostile file does."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mge_gpu.errors import RankingError
from mge_gpu.ranking._rank import shipped_ranker
from mge_gpu.ranking.features import GROUP, TOPOLOGY_METRICS
from mge_gpu.ranking.ranker import Ranker
from mge_gpu.ranking.table import PAI_METHODS, load_table, table_sha256
from mge_gpu.ranking.training import compositions, mean_rank, mean_ranks, targets


@pytest.fixture
def table(table_path: Path) -> pd.DataFrame:
    return load_table(table_path)


@pytest.fixture
def ranker(table: pd.DataFrame) -> Ranker:
    return Ranker.fit(table, subsets=0)


def test_the_same_table_and_seed_give_the_same_trees(table: pd.DataFrame, ranker: Ranker) -> None:
    assert Ranker.fit(table, subsets=0).model_text == ranker.model_text
    assert Ranker.fit(table, subsets=1, seed=1).model_text != Ranker.fit(table, subsets=1, seed=2).model_text


def test_it_learns_what_is_there(table: pd.DataFrame, ranker: Ranker) -> None:
    scores = ranker.predict(ranker.features(table, GROUP))
    assert scores.shape == (len(table),)
    assert np.corrcoef(scores, targets(table))[0, 1] > 0.95


def test_methods_restrict_what_is_learned_from(table: pd.DataFrame) -> None:
    few = Ranker.fit(table, methods=["erk", "snip"], subsets=0)
    assert few.provenance["methods"] == ["erk", "snip"]
    assert set(few.mean_ranks) == {"erk", "snip"}
    with pytest.raises(RankingError, match="no method 'lottery'"):
        Ranker.fit(table, methods=["erk", "lottery"])


def test_bad_fits(table: pd.DataFrame) -> None:
    with pytest.raises(RankingError, match="unknown metric 'depth'"):
        Ranker.fit(table, metrics=["depth"])
    with pytest.raises(RankingError, match="at least one metric"):
        Ranker.fit(table, metrics=[])
    with pytest.raises(RankingError, match="different accuracy"):
        Ranker.fit(table.assign(accuracy=0.5))


def test_predict_needs_its_features(table: pd.DataFrame, ranker: Ranker) -> None:
    with pytest.raises(RankingError, match="'z_k_core'"):
        ranker.predict(ranker.features(table, GROUP).drop(columns="z_k_core"))
    shuffled = ranker.features(table, GROUP)[sorted(ranker.feature_names, reverse=True)]
    np.testing.assert_array_equal(
        ranker.predict(shuffled), ranker.predict(ranker.features(table, GROUP))
    )  # by name, not by place


def test_saved_and_loaded_it_predicts_the_same(table: pd.DataFrame, ranker: Ranker, tmp_path: Path) -> None:
    ranker.save(tmp_path / "r.json")
    loaded = Ranker.load(tmp_path / "r.json")
    assert loaded == ranker
    features = ranker.features(table, GROUP)
    np.testing.assert_array_equal(loaded.predict(features), ranker.predict(features))
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
        _deleted("model"),
        _deleted("metrics"),
        _deleted("mean_ranks"),
        _deleted("provenance"),
        _set("format", "mge_gpu ranker 99"),
        _set("metrics", ["k_core", "os.system"]),
        _set("metrics", ["k_core", "k_core"]),
        _set("metrics", ["k_core"]),  # known, but not those of the trees
        _set("kinds", ["rank"]),
        _set("mean_ranks", {"erk": 1.5}),
        _set("mean_ranks", {"erk": {}}),
        _set("mean_ranks", {"erk": {"0.9": "first"}}),
        _set("mean_ranks", {"erk": {"0.9": float("nan")}}),
        _set("mean_ranks", {"erk": {"often": 1.5}}),
        _set("provenance", "trust me"),
        _set("model", "tree"),
        _set("model", [1, 2]),
        _set("model", ["tree", "version=v4"]),
        lambda document: document["model"].remove(next(x for x in document["model"] if "left_child" in x)),
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


def test_compositions_hold_every_row_then_subsets_of_groups(table: pd.DataFrame) -> None:
    whole, at_init, *subsets = compositions(table, 4, seed=0)
    pd.testing.assert_frame_equal(whole, table)
    assert set(at_init["method"]) == set(table["method"]) & set(PAI_METHODS)
    assert len(subsets) == 4
    for part in subsets:
        sizes = part.groupby(list(GROUP)).size()
        assert sizes.min() >= 4
        assert 4 < sizes.max() <= 6
        assert not part.index.duplicated().any()
    assert set(subsets[0]["method"]) == set(table["method"])
    assert "rigl" not in set(subsets[1]["method"])
    assert [len(part) for part in compositions(table, 0, seed=0)] == [len(table)]


def test_mean_ranks_by_hand() -> None:
    rows = [("m", "d", 0.9, "good", 0.8), ("m", "d", 0.9, "bad", 0.7), ("n", "d", 0.9, "good", 0.5)]
    rows += [("n", "d", 0.9, "bad", 0.6), ("k", "d", 0.9, "good", 0.9), ("k", "d", 0.9, "bad", 0.1)]
    rows += [("m", "d", 0.6, "bad", 0.6), ("m", "d", 0.6, "good", 0.5)]
    table = pd.DataFrame(rows, columns=["model", "dataset", "sparsity", "method", "accuracy"])
    found = mean_ranks(table)
    assert found["good"] == pytest.approx({"0.9": 4 / 3, "0.6": 2})
    assert found["bad"] == pytest.approx({"0.9": 5 / 3, "0.6": 1})
    assert mean_rank(found, "good", 0.98) == found["good"]["0.9"]
    assert mean_rank(found, "good", 0.1) == 2
    assert np.isnan(mean_rank(found, "other", 0.9))


def test_the_shipped_ranker_knows_where_it_comes_from() -> None:
    shipped = shipped_ranker()
    assert shipped.metrics == TOPOLOGY_METRICS
    assert set(shipped.mean_ranks) == set(PAI_METHODS)
    facts = shipped.provenance
    assert facts["rows"] == 1932
    assert len(facts["table_sha256"]) == 64
    assert facts["command"].startswith("python -m mge_gpu.ranking.fit")
    for scores in facts["evaluation"].values():
        assert scores["tau"] > scores["baseline_tau"]


def test_the_shipped_file_is_small() -> None:
    path = Path(__file__).parents[2] / "mge_gpu" / "ranking" / "data" / "ranker.json"
    assert path.stat().st_size < 500_000


def test_the_shipped_trees_are_those_that_the_table_gives(published: Path) -> None:
    shipped = shipped_ranker()
    assert shipped.provenance["table_sha256"] == table_sha256(published)
    table = load_table(published)
    again = Ranker.fit(table, seed=shipped.provenance["seed"], subsets=shipped.provenance["subsets"])
    assert again.mean_ranks == shipped.mean_ranks
    features = again.features(table, GROUP)
    np.testing.assert_allclose(again.predict(features), shipped.predict(features), atol=0.05)
