"""A small folder of published tables whose answer is known: accuracy follows the MGE's mean coreness alone,
Ramanujan bounds follow density, everything else is noise."""

from pathlib import Path

import numpy as np
import pandas as pd

from mge_gpu.metrics.report import PUBLISHED
from mge_gpu.ranking.reproduction.tables import BIPARTITE, LAYER_COLUMNS, RAMANUJAN_FILE
from mge_gpu.ranking.table import FILE_NAME

METHODS = ("erk", "grasp", "rigl", "snip", "synflow", "uniform")
LAYERS = 3


def tables(seed: int = 0) -> dict[str, pd.DataFrame]:
    """File name -> table: 2 models, 2 sparsities, 6 methods, 3 seeds, without oddities."""
    random = np.random.default_rng(seed)
    networks, layers, ramanujan = [], {name: [] for name in BIPARTITE}, []
    for model in ("a", "b"):
        for sparsity in (0.8, 0.9):
            for method in METHODS:
                latent = random.normal()
                for run in range(3):
                    core = latent + 0.05 * random.normal()
                    if (sparsity, method, run) == (0.8, "erk", 0):
                        core = 4.0  # the best of each model: drops are from the same accuracy
                    identity = {"sparsity": sparsity, "model": model, "dataset": "digits", "seed": run}
                    identity["accuracy"] = 0.7 + 0.05 * core
                    row = {column: random.uniform() for column, _ in PUBLISHED.values()}
                    row |= {"nodes": 100, "edges": int(random.integers(500, 900)), "k-core": 5 + core}
                    networks.append(identity | row | {"pruning": method})
                    for layer in range(LAYERS):
                        density = random.uniform(0.05, 0.9)
                        where = identity | {"layer_id": layer, "layer_sparsity": density}
                        for found in layers.values():
                            row = {column: random.uniform() for column in LAYER_COLUMNS.values()}
                            row |= {"nodes": 10, "edges": 20, "pruning_algorithm": method}
                            found.append(where | row)
                        bound = density + 0.01 * random.normal()
                        near = density + 0.01 * random.normal()
                        gap = random.uniform()
                        ramanujan.append(
                            where
                            | {
                                "degree_bound": bound,
                                "iterative_degree_bound": near,
                                "iterative_spectral_gap": gap,
                            }
                        )
    result = {FILE_NAME: pd.DataFrame(networks), RAMANUJAN_FILE: pd.DataFrame(ramanujan)}
    return result | {file: pd.DataFrame(layers[name]) for name, file in BIPARTITE.items()}


def read(folder: Path) -> dict[str, pd.DataFrame]:
    """The tables of a folder: not all of pandas' versions read the very numbers that they wrote."""
    return {path.name: pd.read_csv(path) for path in folder.iterdir()}


def write(folder: Path, content: dict[str, pd.DataFrame]) -> Path:
    """Write the tables into a folder."""
    folder.mkdir(exist_ok=True)
    for name, frame in content.items():
        frame.to_csv(folder / name, index=False)
    return folder
