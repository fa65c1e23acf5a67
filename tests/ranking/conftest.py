"""Tables to rank from: a synthetic one that is always there, and the published one where it lies."""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mge_gpu.metrics.profile import PROFILE_KEYS
from mge_gpu.metrics.report import PUBLISHED
from mge_gpu.ranking.table import load_table
from mge_gpu.ranking.training import Settings

METHODS = ("erk", "grasp", "rigl", "snip", "synflow", "uniform")
QUICK = Settings(leaves=7, rounds=40, views=("differences",))
"""Settings for tests that need a fit and not a good one."""


def synthetic(seed: int = 0) -> pd.DataFrame:
    """A table in the published format, in which accuracy follows the mean coreness within each group, and
    nothing else.

    Levels differ by a thousand times between models, and which method has the densest core is drawn for each
    setting: only the difference to the others orders an unseen model.
    """
    random, noise = np.random.default_rng(seed), np.random.default_rng(seed + 1)
    rows = []
    for level, model in enumerate(("a", "b", "c")):
        for sparsity in (0.6, 0.8, 0.9, 0.98):
            core = random.permutation(len(METHODS))
            for number, method in enumerate(METHODS):
                for run in range(3):
                    row = {column: random.uniform(0, 1) * 1000.0**level for column, _ in PUBLISHED.values()}
                    row |= {"nodes": 100 * (level + 1), "edges": int(random.integers(50, 90))}
                    mean = 1000.0**level * (10 + core[number] + random.uniform(0, 0.2))
                    row["k-core"] = mean / row["edges"]
                    row |= {"model": model, "dataset": "digits", "sparsity": sparsity, "seed": run}
                    row |= {"pruning": method, "accuracy": 0.1 + 0.2 * level + 0.05 * core[number]}
                    row |= {name: noise.uniform(0.1, 0.9) for name in PROFILE_KEYS}
                    rows.append(row)
    return pd.DataFrame(rows)


@pytest.fixture
def raw() -> pd.DataFrame:
    return synthetic()


@pytest.fixture
def table_path(raw: pd.DataFrame, tmp_path: Path) -> Path:
    path = tmp_path / "table.csv"
    raw.to_csv(path, index=False)
    return path


@pytest.fixture(scope="session")
def table(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """The synthetic table as `load_table` gives it; not to be changed."""
    path = tmp_path_factory.mktemp("table") / "table.csv"
    synthetic().to_csv(path, index=False)
    return load_table(path)


@pytest.fixture(scope="session")
def published() -> Path:
    """The directory of the published tables; the test is skipped where there is none."""
    beside = Path(__file__).parents[2].parent / "shared" / "published"
    path = Path(os.environ.get("MGE_PUBLISHED", beside))
    if not (path / "mge_topometrics.csv.gz").is_file():
        pytest.skip(f"the published table is not at {path}; set MGE_PUBLISHED to the directory that holds it")
    return path
