"""Reading the published format, and saying what is wrong with a table that is not in it."""

import gzip
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mge_gpu.errors import RankingError
from mge_gpu.metrics.profile import PROFILE_KEYS, profile
from mge_gpu.metrics.report import PUBLISHED
from mge_gpu.ranking.table import FILE_NAME, LAYER_FILE, load_table, table_sha256
from tests.ranking import published_folder


def test_columns_get_our_names_and_values_stay(raw: pd.DataFrame, table_path: Path) -> None:
    table = load_table(table_path)
    assert set(table.columns) == {"model", "dataset", "method", "sparsity", "seed", "accuracy"} | {
        *PUBLISHED,
        *PROFILE_KEYS,
    }
    assert table["method"].tolist() == raw["pruning"].tolist()
    np.testing.assert_allclose(table["cut_edges"], raw["cut-edges"])
    assert all(table[key].dtype == "float64" for key in PUBLISHED)
    assert table["seed"].dtype == "int64"


def test_a_directory_means_its_published_file(raw: pd.DataFrame, tmp_path: Path) -> None:
    raw.to_csv(tmp_path / FILE_NAME, index=False)
    assert len(load_table(tmp_path)) == len(raw)
    assert table_sha256(tmp_path) == table_sha256(tmp_path / FILE_NAME)


def test_repeated_rows_are_left_out_and_missing_topometrics_stay(raw: pd.DataFrame, tmp_path: Path) -> None:
    raw.loc[0, "sink_nodes"] = np.nan
    pd.concat([raw, raw.iloc[:5]]).to_csv(tmp_path / "t.csv", index=False)
    table = load_table(tmp_path / "t.csv")
    assert len(table) == len(raw)
    assert table["sink_nodes"].isna().sum() == 1


def _set(column: str, value: object) -> Callable[[pd.DataFrame], pd.DataFrame]:
    def change(raw: pd.DataFrame) -> pd.DataFrame:
        raw[column] = raw[column].astype(object)
        raw.loc[3, column] = value
        return raw

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda raw: raw.drop(columns=["k-core", "pruning"]), "lacks the columns pruning, k-core"),
        (lambda raw: raw.iloc[:0], "no rows"),
        (_set("accuracy", np.nan), "'accuracy' is empty or NaN in row 4"),
        (_set("accuracy", 55.5), "accuracy must be between 0 and 1, got 55.5 in row 4"),
        (_set("accuracy", "high"), "'accuracy' must hold numbers, got 'high' in row 4"),
        (_set("motif", "many"), "'motifs' must hold numbers, got 'many'"),
        (_set("sparsity", 0.7), "sparsity must be one of 0.6, 0.8"),
        (_set("pruning", None), "'method' is empty or NaN in row 4"),
        (_set("accuracy", 0.123), None),  # a changed value alone is no error
        (
            lambda raw: pd.concat([raw, raw.iloc[:1].assign(accuracy=0.5)]),
            "two different rows for one network",
        ),
    ],
)
def test_a_bad_table_says_what_is_wrong(
    raw: pd.DataFrame, tmp_path: Path, change: Callable[[pd.DataFrame], pd.DataFrame], message: str | None
) -> None:
    path = tmp_path / "bad.csv"
    change(raw).to_csv(path, index=False)
    if message is None:
        assert len(load_table(path)) == len(raw)
        return
    with pytest.raises(RankingError) as caught:
        load_table(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_other_sparsities_pass_where_they_are_allowed(raw: pd.DataFrame, tmp_path: Path) -> None:
    raw["sparsity"] = 0.5
    raw = raw.drop_duplicates(["model", "pruning", "seed"])
    raw.to_csv(tmp_path / "t.csv", index=False)
    assert load_table(tmp_path / "t.csv", sparsities=None)["sparsity"].unique().tolist() == [0.5]
    with pytest.raises(RankingError, match="sparsity must be one of"):
        load_table(tmp_path / "t.csv")


def test_files_that_are_no_table(tmp_path: Path) -> None:
    with pytest.raises(RankingError, match="no such file"):
        load_table(tmp_path)
    (tmp_path / "empty.csv").write_text("")
    (tmp_path / "cut.csv.gz").write_bytes(gzip.compress(b"a,b\n1,2\n" * 1000)[:40])
    (tmp_path / "noise.csv").write_bytes(bytes(range(256)))
    for name in ("empty.csv", "cut.csv.gz", "noise.csv"):
        with pytest.raises(RankingError, match=name):
            load_table(tmp_path / name)


def test_layers_are_joined_to_the_networks_that_they_belong_to(tmp_path: Path) -> None:
    content = published_folder.tables()
    layers = content[LAYER_FILE]
    content[LAYER_FILE] = layers.sample(frac=1, random_state=0)  # their order is in layer_id
    odd = layers.index[layers["seed"] == 2]
    content[LAYER_FILE].loc[odd, "pruning"] = layers.loc[odd, "pruning_algorithm"]
    content[LAYER_FILE].loc[odd, ["pruning_algorithm", "disconnected_nodes"]] = np.nan
    table = load_table(published_folder.write(tmp_path / "all", content))
    for network in table.to_dict("records"):
        same = (layers["accuracy"] == network["accuracy"]) & (layers["seed"] == network["seed"])
        same &= (layers["pruning_algorithm"] == network["method"]) & (layers["model"] == network["model"])
        part = layers[same & (layers["sparsity"] == network["sparsity"])].sort_values("layer_id")
        names = ["layer_sparsity", "nodes", "edges", "disconnected_nodes"]
        expected = profile(*(part[name].tolist() for name in names))
        if network["seed"] == 2:
            expected["bare_channels"] = np.nan
        assert {name: network[name] for name in PROFILE_KEYS} == pytest.approx(expected, nan_ok=True)
    alone = published_folder.write(tmp_path / "alone", {FILE_NAME: content[FILE_NAME]})
    assert not set(PROFILE_KEYS) & set(load_table(alone).columns)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda layers: layers.drop(columns="nodes"), "lacks the column nodes"),
        (lambda layers: pd.concat([layers, layers.iloc[:1]]), "a layer of a network twice"),
        (lambda layers: layers.assign(seed=9), "none of its networks"),
        (lambda layers: layers.assign(edges="many"), "'edges' must hold numbers"),
    ],
)
def test_bad_layers_say_what_is_wrong(
    tmp_path: Path, change: Callable[[pd.DataFrame], pd.DataFrame], message: str
) -> None:
    content = published_folder.tables()
    content[LAYER_FILE] = change(content[LAYER_FILE])
    with pytest.raises(RankingError, match=message):
        load_table(published_folder.write(tmp_path / "bad", content))


def test_the_published_table(published: Path) -> None:
    table = load_table(published)
    assert len(table) == 1979 - 47
    assert table["method"].nunique() == 11
    assert table["sink_nodes"].isna().sum() == 4
    assert not table.duplicated(["model", "dataset", "sparsity", "method", "seed"]).any()
    assert table[[name for name in PROFILE_KEYS if name != "bare_channels"]].notna().all(axis=None)
    unknown = table["bare_channels"].isna()
    assert unknown.sum() == 164
    assert set(table[unknown]["model"] + table[unknown]["dataset"]) == {"Resnet-32tinyimagenet"}
