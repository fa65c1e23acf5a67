"""Layer tables that accompany the paper against ours, ResNet-20 with random masks: same scale, same meaning.

Weights are trained there and not here, so that λ, strength and spectra differ in level; motifs are triples
there; sinks, sources and removable edges are counted against the input and output of the whole network.
"""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import mge_gpu
from tests.ranking.conftest import published

__all__ = ["published"]

KEYS = ["accuracy", "sparsity", "seed", "model", "dataset"]
METHODS = [("erk", "erk"), ("uniform", "random")]  # theirs, ours
COLUMNS = {
    "edges": "edges",
    "one_hop": "nei_one_hop",
    "two_hop": "nei_two_hop",
    "k_core": "coreness_all",
    "disconnected_nodes": "disconnected_nodes",
    "components": "weak_clusters",
    "cut_edges": "bridges",
    "cut_nodes": "a_point",
}


def theirs(folder: Path, file: str, method: str, sparsity: float) -> pd.DataFrame:
    """Means over three seeds, a row a layer of ResNet-20 on CIFAR-10."""
    table = pd.read_csv(folder / file, low_memory=False)
    table = table[(table.model == "Resnet-20") & (table.dataset == "CIFAR-10") & (table.sparsity == sparsity)]
    if "pruning_algorithm" not in table:
        networks = pd.read_csv(folder / "mge_topometrics.csv.gz")[[*KEYS, "pruning"]]
        table = table.merge(networks, on=KEYS).rename(columns={"pruning": "pruning_algorithm"})
    table = table[table.pruning_algorithm == method].replace(-np.inf, np.nan)
    return table.groupby("layer_name").mean(numeric_only=True)


def ours(measure, method: str, sparsity: float) -> pd.DataFrame:
    """The same of three masks of ours."""
    model = mge_gpu.models.resnet20()
    frames = [measure(model, mge_gpu.prune(model, method, sparsity, seed=seed)) for seed in range(3)]
    return pd.concat(frames).groupby("layer").mean(numeric_only=True)


@pytest.mark.parametrize(("method", "own"), METHODS)
@pytest.mark.parametrize("sparsity", [0.6, 0.9])
def test_ramanujan(published: Path, method: str, own: str, sparsity: float) -> None:
    table = theirs(published, "ramanujan_layers.csv.gz", method, sparsity)
    frame = ours(mge_gpu.ramanujan, own, sparsity).reindex(table.index)
    assert len(table) == 22
    for column, key in (
        ("degree_bound", "delta_r_ub"),
        ("iterative_degree_bound", "delta_r_imdb_ub"),
        ("layer_sparsity", "density"),
    ):
        difference = (table[column] - frame[key]).abs()
        assert difference.mean() < 0.03, column
        if method == "erk":  # the layers differ in density by far more than the seeds do
            assert table[column].corr(frame[key]) > 0.98, column
        assert (table[column].isna() & frame[key].isna()).sum() >= table[column].isna().sum() - 2


@pytest.mark.parametrize("encoding", ["rolled", "rolled-channel"])
@pytest.mark.parametrize(("method", "own"), METHODS)
def test_topometrics(published: Path, encoding: str, method: str, own: str) -> None:
    file = f"bge_{encoding.replace('-', '_')}_layers.csv.gz"
    table = theirs(published, file, method, 0.9)

    def measure(model, masks):
        return mge_gpu.layer_topometrics(
            model, (3, 32, 32), ["nodes", *COLUMNS], encoding=encoding, masks=masks
        )

    frame = ours(measure, own, 0.9).reindex(table.index)
    assert (table["nodes"] == frame["nodes"]).all()
    for key, column in COLUMNS.items():
        size = table[column].mean()
        difference = table[column] - frame[key]
        chance = size**0.5  # of counts of rare things
        assert difference.abs().mean() <= 0.03 * size + chance, column
        assert abs(difference.mean()) <= 0.03 * size + chance / 3, column
