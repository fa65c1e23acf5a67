"""The published tables joined: nothing of what is odd in them is lost or hidden."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mge_gpu.errors import RankingError
from mge_gpu.ranking.reproduction import tables as module
from mge_gpu.ranking.reproduction.regression import complete_rows
from mge_gpu.ranking.reproduction.tables import BIPARTITE, RAMANUJAN_FILE, TOPOMETRICS, accuracy_drop, load
from mge_gpu.ranking.table import FILE_NAME
from tests.ranking.published_folder import LAYERS, read, tables, write

ROLLED, CHANNEL = BIPARTITE.values()


def counts(loaded: module.Tables) -> dict[str, tuple[int, int]]:
    return {oddity.what: (oddity.count, oddity.of) for oddity in loaded.oddities}


def test_tables_without_oddities_are_joined_whole(tmp_path: Path) -> None:
    folder = write(tmp_path / "t", tables())
    loaded, content = load(folder), read(folder)
    assert len(loaded.networks) == 72
    assert loaded.networks["network"].nunique() == 24
    assert {count for count, _ in counts(loaded).values()} == {0}
    assert all(frame.notna().all(axis=None) for frame in loaded.features.values())
    assert all(frame.index.equals(loaded.networks.index) for frame in loaded.features.values())
    first = content[FILE_NAME].iloc[40]
    ours = loaded.networks.index[loaded.networks["accuracy"] == first["accuracy"]][0]
    layers = content[ROLLED][content[ROLLED]["accuracy"] == first["accuracy"]]
    assert len(layers) == LAYERS
    assert loaded.features["mge"].loc[ours, "k_core"] == first["k-core"]
    assert loaded.features["rolled"].loc[ours, "k_core"] == pytest.approx(layers["coreness_all"].mean())
    assert loaded.features["rolled divided"].loc[ours, "k_core"] == pytest.approx(
        layers["coreness_all"].mean() / 20
    )
    assert loaded.features["rolled divided"].loc[ours, "sink_nodes"] == pytest.approx(
        layers["sink_nodes"].mean() / 10
    )
    assert loaded.features["rolled divided"].loc[ours, "components"] == pytest.approx(
        layers["weak_clusters"].mean()
    )
    profile = loaded.features["density profile"].loc[ours]
    assert profile["density_max"] == pytest.approx(layers["layer_sparsity"].max())


def test_the_drop_is_from_the_best_of_the_same_model_and_data_set() -> None:
    rows = pd.DataFrame(
        [("a", "x", 0.9), ("a", "x", 0.7), ("b", "x", 0.5), ("a", "y", 0.3)],
        columns=["model", "dataset", "accuracy"],
    )
    assert accuracy_drop(rows).tolist() == pytest.approx([0, 20, 0, 0])


def test_rows_under_the_other_names_are_mapped_and_what_they_lack_is_said(tmp_path: Path) -> None:
    content = tables()
    rolled = content[ROLLED]
    odd = rolled["model"] == "b"
    rolled["pruning"] = rolled["pruning_algorithm"].where(odd)
    rolled["pruning_algorithm"] = rolled["pruning_algorithm"].mask(odd)
    rolled["k-core"] = (1000 + rolled["coreness_all"]).where(odd)
    rolled["motif"] = rolled["motifs_count"].where(odd)
    rolled.loc[odd, ["coreness_all", "motifs_count", "sink_nodes"]] = np.nan
    loaded = load(write(tmp_path / "t", content))
    of_b = (loaded.networks["model"] == "b").to_numpy()
    core = loaded.features["rolled"]["k_core"].to_numpy()
    assert (core[of_b] > 1000).all()
    assert (core[~of_b] < 1).all()
    assert loaded.features["rolled"]["motifs"].notna().all()
    assert loaded.features["rolled"]["sink_nodes"].isna().to_numpy().tolist() == of_b.tolist()
    assert (complete_rows(loaded) == ~of_b).all()
    (oddity,) = [o for o in loaded.oddities if "as the MGE table does (b/digits)" in o.what]
    assert (oddity.count, oddity.of) == (36 * LAYERS, 72 * LAYERS)
    assert "they lack sink_nodes, so" in oddity.done


def test_a_layer_without_a_method_is_refused(tmp_path: Path) -> None:
    content = tables()
    content[ROLLED].loc[3, "pruning_algorithm"] = np.nan
    content[ROLLED]["pruning"] = np.nan
    with pytest.raises(RankingError, match="1 rows name no pruning method"):
        load(write(tmp_path / "t", content))


def test_the_ramanujan_table_finds_its_methods_also_where_two_networks_share_an_accuracy(
    tmp_path: Path,
) -> None:
    content = tables()
    networks = content[FILE_NAME]
    same = (networks["model"] == "a") & (networks["sparsity"] == 0.8) & (networks["seed"] == 0)
    first, second = networks.loc[same, "accuracy"].tolist()[:2]
    for frame in content.values():
        frame["accuracy"] = frame["accuracy"].replace(second, first)
    folder = write(tmp_path / "t", content)
    loaded, ramanujan = load(folder), read(folder)[RAMANUJAN_FILE]
    truth = content[ROLLED]["pruning_algorithm"].tolist()  # in the same order
    found = counts(loaded)
    assert found[f"{RAMANUJAN_FILE}: networks that share all of these with another one"] == (2, 72)
    assert len(loaded.layers) == len(ramanujan)
    merged = ramanujan.assign(truth=truth).merge(
        loaded.layers, left_on="layer_sparsity", right_on="density", suffixes=("", "_found")
    )
    assert len(merged) == len(ramanujan)
    assert (merged["truth"] == merged["method"]).all()
    assert (merged["degree_bound"] == merged["degree_bound_found"]).all()


def test_what_finds_no_partner_is_counted(tmp_path: Path) -> None:
    content = tables()
    networks = content[FILE_NAME]
    gone = networks["accuracy"].iloc[[1, 50]].tolist()
    content[FILE_NAME] = networks[~networks["accuracy"].isin(gone)]  # two networks have layers only
    strange = content[RAMANUJAN_FILE]["accuracy"] == networks["accuracy"].iloc[7]
    content[RAMANUJAN_FILE].loc[strange, "accuracy"] += 1e-9  # and one another accuracy
    loaded = load(write(tmp_path / "t", content))
    found = counts(loaded)
    assert found[f"networks of {ROLLED} that are not in {FILE_NAME}"] == (2, 72)
    assert found[f"networks of {FILE_NAME} that are not in {RAMANUJAN_FILE}"] == (1, 70)
    unmatched = next(value for name, value in found.items() if "without a partner among" in name)
    assert unmatched == (1, 72)
    lost = next(value for name, value in found.items() if "find no method" in name)
    assert lost == (LAYERS, 72 * LAYERS)
    assert loaded.features["ramanujan"].isna().all(axis=1).sum() == 1


def test_infinite_missing_negative_and_repeated_values_are_counted_and_kept_out_of_means(
    tmp_path: Path,
) -> None:
    content = tables()
    networks, ramanujan = content[FILE_NAME], content[RAMANUJAN_FILE]
    networks.loc[4, "sink_nodes"] = -1e-5
    networks.loc[5, ["sink_nodes", "source_nodes", "disc_nodes"]] = np.nan
    content[FILE_NAME] = pd.concat([networks, networks.iloc[[9]]])
    content[CHANNEL].loc[0, "source_nodes"] = -3.0
    ramanujan.loc[0, "degree_bound"] = -np.inf
    ramanujan.loc[1, ["degree_bound", "iterative_spectral_gap"]] = np.nan
    loaded = load(write(tmp_path / "t", content))
    found = counts(loaded)
    assert found["rows of the MGE table that repeat another"] == (1, 73)
    assert found["networks with a negative share of sinks"] == (1, 72)
    assert found["networks without counts of sinks, sources and disconnected nodes"] == (1, 72)
    assert found[f"{RAMANUJAN_FILE}: layers with -inf (nodes of degree 1 only)"] == (1, 216)
    assert found[f"{RAMANUJAN_FILE}: layers without degree_bound, -inf included"] == (2, 216)
    assert found[f"{RAMANUJAN_FILE}: layers without iterative_spectral_gap, -inf included"] == (1, 216)
    assert next(value for name, value in found.items() if CHANNEL in name and "negative" in name) == (1, 216)
    assert loaded.features["ramanujan"].loc[0, "degree_bound"] == ramanujan.loc[2, "degree_bound"]
    assert complete_rows(loaded).tolist() == [row != 5 for row in range(72)]


def test_networks_of_some_methods(tmp_path: Path) -> None:
    loaded = load(write(tmp_path / "t", tables())).restricted(["snip", "erk"])
    assert set(loaded.networks["method"]) == set(loaded.layers["method"]) == {"snip", "erk"}
    assert {len(frame) for frame in loaded.features.values()} == {24}
    assert list(loaded.features["mge"].columns) == list(TOPOMETRICS)


def test_what_is_wrong_is_said_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(RankingError, match="no such folder"):
        load(tmp_path / "none")
    for file in (FILE_NAME, ROLLED, RAMANUJAN_FILE):
        content = tables()
        del content[file]
        with pytest.raises(RankingError, match=f"{file}: no such file"):
            load(write(tmp_path / f"without {file}", content))
    content = tables()
    content[CHANNEL] = content[CHANNEL].drop(columns="coreness_all")
    with pytest.raises(RankingError, match=f"{CHANNEL}: lacks the column coreness_all"):
        load(write(tmp_path / "column", content))
    folder = write(tmp_path / "damaged", tables())
    (folder / RAMANUJAN_FILE).write_bytes(b"\x1f\x8b damaged")
    with pytest.raises(RankingError, match="cannot be read as a CSV table") as caught:
        load(folder)
    assert "\n" not in str(caught.value)
    content = tables()
    content[ROLLED]["accuracy"] += 0.001
    with pytest.raises(RankingError, match="none of its 72 networks is in"):
        load(write(tmp_path / "other", content))
    content = tables()
    content[ROLLED]["coreness_all"] = content[ROLLED]["coreness_all"].astype(object)
    content[ROLLED].loc[2, "coreness_all"] = "many"
    with pytest.raises(RankingError, match="column coreness_all must hold numbers"):
        load(write(tmp_path / "words", content))
