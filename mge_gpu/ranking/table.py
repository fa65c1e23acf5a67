"""Reading a table of trained sparse networks: their accuracy, how they were pruned, their topometrics.

The format is that of the table published with the MGE paper: a CSV file (gzipped or not) with a row for each
network. Its topometrics are divided by 1, N nodes or E edges already, exactly as `Report.normalized` gives
them.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mge_gpu._optional import require
from mge_gpu.errors import RankingError
from mge_gpu.metrics.profile import PROFILE_KEYS, profile
from mge_gpu.metrics.report import PUBLISHED

if TYPE_CHECKING:
    import pandas

FILE_NAME = "mge_topometrics.csv.gz"
"""The file that is looked for where a directory is given."""

LAYER_FILE = "bge_rolled_channel_layers.csv.gz"
"""The published table of layers, which is joined to it where it lies beside it."""

ID_COLUMNS = {
    "model": "model",
    "dataset": "dataset",
    "sparsity": "sparsity",
    "pruning": "method",
    "seed": "seed",
}
"""Published column -> ours, for the columns that say which network a row is."""

SETTING = ("model", "dataset", "sparsity")
"""The columns that methods are compared within."""

PAI_METHODS = ("snip", "grasp", "synflow", "prospr", "uniform", "er", "erk")
"""The published methods that prune at initialization.

Published ``er`` is ERK with probabilities above 1 clipped and the loss not made up for; published ``uniform``
is one random draw over all weights, uniform over the layers only on average.
"""

DYNAMIC_METHODS = ("set", "dsr", "snfs", "rigl", "itop", "itop-set", "itop-rigl")
"""Methods that move the mask while the network trains; the table's topometrics are those of the last mask.

That is the one thing about a method that topology does not tell and that a ranker is told.
"""

PUBLISHED_SPARSITIES = (0.6, 0.8, 0.9, 0.95, 0.98)


def table_file(path: str | Path) -> Path:
    """The CSV file meant by ``path``: itself, or `FILE_NAME` in the directory that it is.

    Raises:
        RankingError: there is no such file.
    """
    file = Path(path)
    if file.is_dir():
        file = file / FILE_NAME
    if not file.is_file():
        raise RankingError(
            f"{file}: no such file; expected a CSV table of trained sparse networks, or the "
            f"directory that holds {FILE_NAME}"
        )
    return file


def layer_file(file: Path) -> Path | None:
    """`LAYER_FILE` beside the published table; None where there is none."""
    beside = file.with_name(LAYER_FILE)
    return beside if file.name == FILE_NAME and beside.is_file() else None


def table_sha256(path: str | Path) -> str:
    """SHA-256 (hex) of the file's bytes, which says in a fitted model what it was fitted on."""
    return hashlib.sha256(table_file(path).read_bytes()).hexdigest()


def load_table(
    path: str | Path, sparsities: Sequence[float] | None = PUBLISHED_SPARSITIES
) -> "pandas.DataFrame":
    """The table with our names: a row for each network.

    Columns: ``model``, ``dataset``, ``method`` (str), ``sparsity``, ``accuracy`` (float), ``seed`` (int) and
    the keys of `PUBLISHED` (float, divided by 1, N or E as published); and `PROFILE_KEYS` where the table has
    them or `LAYER_FILE` lies beside it (NaN for a network that is not in it). Rows that repeat another one
    completely (47 in the published table) are left out. NaN in a topometric stays: a few collapsed networks
    have no sink, source or disconnected counts.

    Args:
        path: the file, or a directory that holds `FILE_NAME`.
        sparsities: the values that ``sparsity`` may take; None allows all in [0, 1).

    Raises:
        RankingError: the file is missing, empty or no table; a column is missing or holds something else than
            numbers; an accuracy is NaN or outside [0, 1]; a sparsity is unknown; two rows give different
            results for one network.
        MissingDependencyError: pandas is not installed.
    """
    pandas = require("pandas", "rank", "reading a table of sparse networks")
    file = table_file(path)
    try:
        raw = pandas.read_csv(file)
    except Exception as error:  # OSError, EOFError, zlib.error, UnicodeDecodeError, ParserError: one meaning
        raise RankingError(
            f"{file}: cannot be read as a CSV table ({type(error).__name__}: {error})"
        ) from error
    table = _checked(raw, str(file), sparsities)
    if (layers := layer_file(file)) is not None:
        found = layer_profiles(layers)
        keys = [*SETTING, "method", "seed", "accuracy"]
        table = table.drop(columns=list(PROFILE_KEYS), errors="ignore")
        table = table.merge(found, "left", on=keys, validate="one_to_one")
        if table[list(PROFILE_KEYS)].isna().all(axis=None):
            raise RankingError(f"{layers}: none of its networks is in {file}; are they of one study?")
    return table


def layer_profiles(file: Path) -> "pandas.DataFrame":
    """`mge_gpu.metrics.profile.profile` of each network in the published table of rolled-channel layers.

    Returns:
        A row for each network: the columns of a setting, ``method``, ``seed``, ``accuracy``, `PROFILE_KEYS`.
        ``bare_channels`` is NaN where a part of the table lacks the count (ResNet-32 on Tiny-ImageNet).

    Raises:
        RankingError: the file cannot be read or lacks a column, a layer is there twice.
    """
    pandas = require("pandas", "rank", "reading a table of sparse networks")
    sizes = ["layer_sparsity", "nodes", "edges", "disconnected_nodes"]
    names = [*SETTING, "pruning_algorithm", "seed", "accuracy", "layer_id", *sizes]
    try:
        raw = pandas.read_csv(file, usecols=lambda name: name in (*names, "pruning"), low_memory=False)
    except Exception as error:  # as in `load_table`
        raise RankingError(
            f"{file}: cannot be read as a CSV table ({type(error).__name__}: {error})"
        ) from error
    if missing := [name for name in names if name not in raw]:
        raise RankingError(f"{file}: lacks the column {missing[0]}; expected the published format")
    raw["method"] = raw["pruning_algorithm"].astype(object)
    if "pruning" in raw:  # where a part of the table names its method
        raw["method"] = raw["method"].fillna(raw["pruning"].astype(object))
    keys = [*SETTING, "method", "seed", "accuracy"]
    if raw.duplicated([*keys, "layer_id"]).any():
        raise RankingError(f"{file}: holds a layer of a network twice")
    for name in sizes:
        raw[name] = _numbers(raw[name], name, str(file))
    raw = raw.sort_values([*keys, "layer_id"], ignore_index=True)
    begins = np.flatnonzero(~raw.duplicated(keys))
    parts = np.split(raw[sizes].to_numpy(), begins[1:])
    profiles = pandas.DataFrame([profile(*part.T) for part in parts])
    return pandas.concat([raw.loc[begins, keys].reset_index(drop=True), profiles], axis=1)


def _checked(raw: "pandas.DataFrame", where: str, sparsities: Sequence[float] | None) -> "pandas.DataFrame":
    names = {**ID_COLUMNS, "accuracy": "accuracy"} | {column: key for key, (column, _) in PUBLISHED.items()}
    if missing := [column for column in names if column not in raw.columns]:
        raise RankingError(
            f"{where}: lacks the column{'s' * (len(missing) > 1)} {', '.join(missing)}; expected "
            f"the published format with {', '.join(names)}"
        )
    if not len(raw):
        raise RankingError(f"{where}: has a header and no rows")
    layers = [name for name in PROFILE_KEYS if set(PROFILE_KEYS) <= set(raw.columns)]
    table = raw[[*names, *layers]].rename(columns=names).drop_duplicates(ignore_index=True)
    for name in ("model", "dataset", "method"):
        _no_gaps(table[name], name, where)
        table[name] = table[name].astype(str)
    for name in ("sparsity", "accuracy", "seed", *PUBLISHED, *layers):
        table[name] = _numbers(table[name], name, where)
    for name in ("sparsity", "accuracy", "seed"):
        _no_gaps(table[name], name, where)
    _in_range(table["accuracy"], "accuracy", table["accuracy"].between(0, 1), "between 0 and 1", where)
    if sparsities is None:
        known, expected = table["sparsity"].between(0, 1, inclusive="left"), "in [0, 1)"
    else:
        known, expected = (
            table["sparsity"].isin(list(sparsities)),
            f"one of {', '.join(map(str, sparsities))}",
        )
    _in_range(table["sparsity"], "sparsity", known, expected, where)
    table["seed"] = table["seed"].astype("int64")
    identity = [*SETTING, "method", "seed"]
    if (repeated := table.duplicated(identity)).any():
        first = table.loc[repeated.idxmax(), identity].tolist()
        raise RankingError(
            f"{where}: holds two different rows for one network ({', '.join(map(str, first))})"
        )
    return table


def _numbers(column: "pandas.Series", name: str, where: str) -> "pandas.Series":
    pandas = require("pandas", "rank", "reading a table of sparse networks")
    numbers = pandas.to_numeric(column, errors="coerce")
    wrong = numbers.isna() & column.notna()
    if wrong.any() or numbers.dtype == bool:
        row = int(wrong.idxmax())
        raise RankingError(
            f"{where}: column {name!r} must hold numbers, got {column.iloc[row]!r} in row {row + 1}"
        )
    return numbers.astype("float64")


def _no_gaps(column: "pandas.Series", name: str, where: str) -> None:
    if column.isna().any():
        raise RankingError(
            f"{where}: column {name!r} is empty or NaN in row {int(column.isna().idxmax()) + 1}, "
            f"and must be known for every network; mend or remove such rows"
        )


def _in_range(column: "pandas.Series", name: str, good: "pandas.Series", expected: str, where: str) -> None:
    if not good.all():
        row = int((~good).idxmax())
        raise RankingError(f"{where}: {name} must be {expected}, got {column.iloc[row]:g} in row {row + 1}")
