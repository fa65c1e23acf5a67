"""The published tables joined: a row for each network, its accuracy drop, and its features by encoding."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mge_gpu._optional import require
from mge_gpu.errors import RankingError
from mge_gpu.metrics.report import PUBLISHED
from mge_gpu.ranking.table import FILE_NAME, SETTING, load_table

if TYPE_CHECKING:
    import pandas

BIPARTITE = {"rolled": "bge_rolled_layers.csv.gz", "rolled-channel": "bge_rolled_channel_layers.csv.gz"}
"""Encoding -> file with a row for each layer."""

RAMANUJAN_FILE = "ramanujan_layers.csv.gz"

NETWORK = (*SETTING, "method")
"""The columns that are the same for all seeds of one network."""

IDENTITY = (*NETWORK, "seed")

TOPOMETRICS = tuple(name for name in PUBLISHED if name not in ("nodes", "edges"))

LAYER_COLUMNS = {
    "sink_nodes": "sink_nodes",
    "source_nodes": "source_nodes",
    "disconnected_nodes": "disconnected_nodes",
    "removable_out": "lost_out_edges",
    "removable_in": "lost_in_edges",
    "one_hop": "nei_one_hop",
    "two_hop": "nei_two_hop",
    "motifs": "motifs_count",
    "strength": "strenght_all",
    "k_core": "coreness_all",
    "components": "weak_clusters",
    "component_size": "mean_weak",
    "cut_edges": "bridges",
    "cut_nodes": "a_point",
    "spectral_gap": "spectral_gap_weighted_undirected",
    "spectral_radius": "spectral_radius_laplacian_weighted_undirected",
}
"""Topometric -> its column in the tables of layers (misspelt there). Rows that name their method in
``pruning`` instead of ``pruning_algorithm`` have the columns of the MGE table instead, for as many metrics as
they have; these hold the same undivided numbers."""

RAMANUJAN = ("degree_bound", "iterative_degree_bound", "iterative_spectral_gap")

_JOIN = ("accuracy", "sparsity", "seed", "model", "dataset")


@dataclass(frozen=True)
class Oddity:
    """Something about the data that a reader of the figures has to know."""

    what: str
    count: int
    of: int
    done: str

    def to_dict(self) -> dict[str, Any]:
        """JSON types."""
        return {"what": self.what, "count": self.count, "of": self.of, "done": self.done}


@dataclass(frozen=True)
class Tables:
    """The published tables, joined.

    Attributes:
        networks: a row for each trained network: `IDENTITY`, ``accuracy``, ``drop`` (percentage points below
            the best accuracy of the same model and data set) and ``network``, the number of its `NETWORK`.
        features: name of a set of features -> frame with the index of ``networks``; NaN where missing.
        layers: a row for each layer of a network: `IDENTITY`, ``density`` and `RAMANUJAN`.
        oddities: what was found and what was done about it.
    """

    networks: "pandas.DataFrame"
    features: dict[str, "pandas.DataFrame"]
    layers: "pandas.DataFrame"
    oddities: tuple[Oddity, ...]

    def restricted(self, methods: Sequence[str]) -> "Tables":
        """The networks and layers of these methods."""
        rows = self.networks["method"].isin(list(methods))
        layers = self.layers[self.layers["method"].isin(list(methods))]
        features = {name: frame[rows].reset_index(drop=True) for name, frame in self.features.items()}
        networks = self.networks[rows].reset_index(drop=True)
        return replace(self, networks=networks, features=features, layers=layers.reset_index(drop=True))


def load(folder: str | Path) -> Tables:
    """Read the four files.

    Sets of features: ``mge`` (`TOPOMETRICS`, divided as published), ``rolled`` and ``rolled-channel`` (the
    same of each layer, undivided as published, averaged over layers), these two ``... divided`` (each layer's
    value by its N or E first), ``ramanujan`` (`RAMANUJAN` averaged over the layers that have a value),
    ``density`` (mean density of the layers) and ``density profile`` (its mean, standard deviation, least,
    median and largest).

    Raises:
        RankingError: a file is missing, cannot be read or lacks a column; no network is left after joining.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise RankingError(
            f"{folder}: no such folder; expected one with {FILE_NAME} and the tables of layers"
        )
    pandas = require("pandas", "rank", "reproducing the paper's claims")
    networks = load_table(folder)
    rows = len(pandas.read_csv(folder / FILE_NAME, usecols=["accuracy"]))
    networks["drop"] = accuracy_drop(networks)
    networks["network"] = networks.groupby(list(NETWORK), sort=True).ngroup()
    sinks = networks["sink_nodes"]
    oddities = [
        Oddity("rows of the MGE table that repeat another", rows - len(networks), rows, "left out"),
        Oddity("networks with a negative share of sinks", int((sinks < 0).sum()), len(networks), "kept"),
        Oddity(
            "networks without counts of sinks, sources and disconnected nodes",
            int(sinks.isna().sum()),
            len(networks),
            "left out of (a) and (b)",
        ),
    ]
    features: dict[str, Any] = {"mge": networks[list(TOPOMETRICS)]}
    densities = None
    for encoding, file in BIPARTITE.items():
        layers, found = bipartite_layers(read_csv(folder / file), file)
        oddities += found
        if densities is None:
            densities = layers[[*IDENTITY, "accuracy", "layer_id", "layer_sparsity"]]
        features[encoding] = joined(networks, layer_means(layers, TOPOMETRICS))
        features[f"{encoding} divided"] = joined(networks, layer_means(divided(layers), TOPOMETRICS))
        oddities += partners(networks, layers, file)
    ramanujan, found = ramanujan_layers(read_csv(folder / RAMANUJAN_FILE), densities)
    oddities += [*found, *partners(networks, ramanujan, RAMANUJAN_FILE)]
    features["ramanujan"] = joined(networks, layer_means(ramanujan, RAMANUJAN))
    profile = joined(networks, density_profile(ramanujan))
    features["density"] = profile[["density_mean"]]
    features["density profile"] = profile
    return Tables(networks, features, ramanujan, tuple(oddities))


def accuracy_drop(networks: "pandas.DataFrame") -> "pandas.Series":
    """Percentage points below the best accuracy of the same model and data set.

    A stand-in: no accuracies of dense networks are published. Within a model and data set it differs from the
    drop against the dense network by a constant.
    """
    best = networks.groupby(["model", "dataset"])["accuracy"].transform("max")
    return 100 * (best - networks["accuracy"])


def read_csv(file: Path) -> "pandas.DataFrame":
    """A table as it is; RankingError where it is missing or cannot be read."""
    pandas = require("pandas", "rank", "reproducing the paper's claims")
    if not file.is_file():
        raise RankingError(f"{file}: no such file; expected the folder of the published tables")
    try:
        return pandas.read_csv(file, low_memory=False)
    except Exception as error:  # damaged archives, encodings, ragged rows: one meaning
        raise RankingError(
            f"{file}: cannot be read as a CSV table ({type(error).__name__}: {error})"
        ) from error


def bipartite_layers(raw: "pandas.DataFrame", file: str) -> tuple["pandas.DataFrame", list[Oddity]]:
    """One table of layers with our names: `IDENTITY`, ``accuracy``, ``layer_id``, ``layer_sparsity`` (a
    density), ``nodes``, ``edges`` and `TOPOMETRICS`, undivided."""
    ids = [*_JOIN, "layer_id", "layer_sparsity", "nodes", "edges"]
    _need(raw, [*ids, "pruning_algorithm", *LAYER_COLUMNS.values()], file)
    odd = raw["pruning_algorithm"].isna()
    layers = raw[ids].copy()
    layers["method"] = raw["pruning_algorithm"]
    if odd.any():
        _need(raw, ["pruning"], file)
        layers["method"] = layers["method"].fillna(raw["pruning"])
    missing = []
    for name, column in LAYER_COLUMNS.items():
        layers[name] = raw[column].astype("float64")
        other = PUBLISHED[name][0]
        if odd.any() and other in raw and other != column:
            layers[name] = layers[name].fillna(raw[other])
        if odd.any() and layers.loc[odd, name].isna().all():
            missing.append(name)
    if layers["method"].isna().any():
        raise RankingError(f"{file}: {int(layers['method'].isna().sum())} rows name no pruning method")
    layers = layers.replace([np.inf, -np.inf], np.nan)
    negative = (layers[["sink_nodes", "source_nodes"]] < 0).any(axis=1)
    where = ", ".join(sorted({f"{m}/{d}" for m, d in layers.loc[odd, ["model", "dataset"]].to_numpy()}))
    found = [
        Oddity(
            f"{file}: layers that name their method and metrics as the MGE table does ({where or 'none'})",
            int(odd.sum()),
            len(raw),
            f"mapped; they lack {', '.join(missing)}, so (a) leaves these networks out"
            if missing
            else "mapped",
        ),
        Oddity(
            f"{file}: layers with a negative count of sinks or sources (the whole network's outputs and "
            "inputs were subtracted)",
            int(negative.sum()),
            len(raw),
            "kept as published",
        ),
    ]
    return layers, found


def divided(layers: "pandas.DataFrame") -> "pandas.DataFrame":
    """Each layer's metrics divided by its N or E, as `PUBLISHED` says; NaN in a layer without edges."""
    result = layers.copy()
    nodes, edges = (layers[name].where(layers[name] > 0) for name in ("nodes", "edges"))
    sizes: dict[str, Any] = {"1": 1.0, "N": nodes, "E": edges}
    for name in TOPOMETRICS:
        result[name] = layers[name] / sizes[PUBLISHED[name][1]]
    return result


def ramanujan_layers(
    raw: "pandas.DataFrame", densities: "pandas.DataFrame"
) -> tuple["pandas.DataFrame", list[Oddity]]:
    """The Ramanujan table with its method, found by accuracy, sparsity, seed, model and data set, all exact.

    Where networks share these, their layers' densities tell them apart; a layer that even these do not place
    is left out.

    Args:
        raw: as published; it has no column for the method.
        densities: `IDENTITY`, ``accuracy``, ``layer_id``, ``layer_sparsity`` of layers with known methods.
    """
    _need(raw, [*_JOIN, "layer_id", "layer_sparsity", *RAMANUJAN], RAMANUJAN_FILE)
    methods = densities.drop_duplicates([*_JOIN, "method"])[[*_JOIN, "method"]]
    shared = methods[methods.duplicated(list(_JOIN), keep=False)]
    unknown = raw[list(_JOIN)].drop_duplicates().merge(methods, on=list(_JOIN), how="left")["method"].isna()
    raw = raw.assign(near=raw["layer_sparsity"].round(9))
    known = densities.assign(near=densities["layer_sparsity"].round(9)).drop(columns="layer_sparsity")
    keys = [*_JOIN, "layer_id", "near"]
    merged = raw.reset_index(names="row").merge(known, on=keys)
    unclear = merged["row"].duplicated(keep=False)
    layers = merged[~unclear].rename(columns={"layer_sparsity": "density"})
    infinite = np.isinf(layers[list(RAMANUJAN)]).any(axis=1)
    layers = layers[[*IDENTITY, "accuracy", "layer_id", "density", *RAMANUJAN]]
    layers = layers.replace([np.inf, -np.inf], np.nan)
    rows = len(raw)
    found = [
        Oddity(
            f"{RAMANUJAN_FILE}: networks (accuracy, sparsity, seed, model, data set) without a partner among "
            "the layer tables",
            int(unknown.sum()),
            len(unknown),
            "left out",
        ),
        Oddity(
            f"{RAMANUJAN_FILE}: networks that share all of these with another one",
            len(shared),
            len(methods),
            "told apart by their layers' densities",
        ),
        Oddity(
            f"{RAMANUJAN_FILE}: layers that find no method, or several, by all of these and their density",
            rows - len(layers),
            rows,
            "left out",
        ),
        Oddity(
            f"{RAMANUJAN_FILE}: layers with -inf (nodes of degree 1 only)",
            int(infinite.sum()),
            len(layers),
            "missing; left out of the means over layers",
        ),
    ]
    for name in RAMANUJAN:
        gone = int(layers[name].isna().sum())
        done = "left out of the means over layers"
        found.append(
            Oddity(f"{RAMANUJAN_FILE}: layers without {name}, -inf included", gone, len(layers), done)
        )
    return layers, found


def layer_means(layers: "pandas.DataFrame", names: Sequence[str]) -> "pandas.DataFrame":
    """Means over a network's layers, missing ones apart, indexed by `IDENTITY` and accuracy."""
    return layers.groupby([*IDENTITY, "accuracy"])[list(names)].mean()


def density_profile(layers: "pandas.DataFrame") -> "pandas.DataFrame":
    """How the densities of a network's layers are spread."""
    profile = layers.groupby([*IDENTITY, "accuracy"])["density"].agg(["mean", "std", "min", "median", "max"])
    return profile.add_prefix("density_")


def joined(networks: "pandas.DataFrame", features: "pandas.DataFrame") -> "pandas.DataFrame":
    """The features of each network, on exact accuracies; NaN where there is no partner."""
    found = networks[[*IDENTITY, "accuracy"]].join(features, on=[*IDENTITY, "accuracy"])
    return found[list(features.columns)]


def partners(networks: "pandas.DataFrame", layers: "pandas.DataFrame", file: str) -> list[Oddity]:
    """How many networks of each table have no partner in the other one."""
    keys = [*IDENTITY, "accuracy"]
    ours = set(networks[keys].itertuples(index=False, name=None))
    theirs = set(layers[keys].drop_duplicates().itertuples(index=False, name=None))
    if not ours & theirs:
        raise RankingError(
            f"{file}: none of its {len(theirs)} networks is in {FILE_NAME}; are they of one study?"
        )
    return [
        Oddity(f"networks of {FILE_NAME} that are not in {file}", len(ours - theirs), len(ours), "left out"),
        Oddity(
            f"networks of {file} that are not in {FILE_NAME}", len(theirs - ours), len(theirs), "left out"
        ),
    ]


def _need(raw: "pandas.DataFrame", columns: Sequence[str], file: str) -> None:
    if missing := [name for name in columns if name not in raw]:
        raise RankingError(f"{file}: lacks the column {missing[0]}; expected the published format")
