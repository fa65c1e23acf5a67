"""Reading the published format, and saying what is wrong with a table that is not in it."""

import gzip
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mge_gpu.errors import RankingError
from mge_gpu.metrics.report import PUBLISHED
from mge_gpu.ranking.table import FILE_NAME, load_table, table_sha256


def test_columns_get_our_names_and_values_stay(raw: pd.DataFrame, table_path: Path) -> None:
    table = load_table(table_path)
    assert set(table.columns) == {"model", "dataset", "method", "sparsity", "seed", "accuracy", *PUBLISHED}
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


def test_the_published_table(published: Path) -> None:
    table = load_table(published)
    assert len(table) == 1979 - 47
    assert table["method"].nunique() == 11
    assert table["sink_nodes"].isna().sum() == 4
    assert not table.duplicated(["model", "dataset", "sparsity", "method", "seed"]).any()
