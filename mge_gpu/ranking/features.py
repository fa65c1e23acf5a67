"""What the ranker sees of a candidate, and of the group of candidates that it stands in.

A ranker compares two candidates by the *differences* of their features, so a feature has to be one whose
differences mean the same on every network: logarithms of counts and of shares (a difference is a ratio: twice
the edges, half the dead nodes). Levels that belong to the network cancel. What a difference is worth does
depend on the network, though: where every candidate is dense, more edges train better; where nodes die, fewer
deaths do. `group_context` says where between the two a group stands.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from mge_gpu._optional import require
from mge_gpu.errors import RankingError
from mge_gpu.metrics.profile import PROFILE_KEYS
from mge_gpu.ranking.table import DYNAMIC_METHODS

if TYPE_CHECKING:
    import pandas

    from mge_gpu.metrics.report import Report

GROUP = ("model", "dataset", "sparsity", "seed")
"""The columns that say which rows of a table are candidates for the same place."""

WEIGHT_METRICS = ("strength", "spectral_gap", "spectral_radius")
"""Metrics that depend on the values of the weights. The published table has trained ones, a network that is
to be ranked has not, so no feature uses them."""

METRICS = (
    "nodes",
    "edges",
    "sink_nodes",
    "source_nodes",
    "disconnected_nodes",
    "removable_out",
    "removable_in",
    "two_hop",
    "motifs",
    "k_core",
    "components",
    "cut_edges",
    "cut_nodes",
)
"""The metrics that features are made of."""

CONTEXT = ("log_keep", "group_degree", "group_alive")
"""The names of what `group_context` gives."""

_SHARE = 1e-3  # a share of nodes or edges this small is as good as none
_CUT = 1e-5  # the same for cut edges and nodes, of which there are few


def _log(values: np.ndarray, floor: float) -> np.ndarray:
    return np.log(np.maximum(values, floor))


def _share(name: str, small: float = _SHARE) -> Callable[[Mapping[str, np.ndarray]], np.ndarray]:
    # Published counts of sinks are slightly negative in places: dead outputs were subtracted.
    return lambda rows: np.log(np.maximum(rows[name], 0) + small)


def _plain(name: str) -> Callable[[Mapping[str, np.ndarray]], np.ndarray]:
    return lambda rows: rows[name]


def _plain_log(name: str) -> Callable[[Mapping[str, np.ndarray]], np.ndarray]:
    return lambda rows: np.log(rows[name])


def _degree(rows: Mapping[str, np.ndarray]) -> np.ndarray:
    return _log(rows["edges"], 1) - np.log(rows["nodes"])


def _core(rows: Mapping[str, np.ndarray]) -> np.ndarray:
    return _log(rows["k_core"] * rows["edges"], 1e-6)


def _two_hop(rows: Mapping[str, np.ndarray]) -> np.ndarray:
    return _log(rows["two_hop"] * rows["edges"], 1)


def _alive(rows: Mapping[str, np.ndarray]) -> np.ndarray:
    return 1 - np.maximum(rows["sink_nodes"], 0) - rows["source_nodes"] - rows["disconnected_nodes"]


def _useful_edges(rows: Mapping[str, np.ndarray]) -> np.ndarray:
    return _log(rows["edges"], 1) + _log(1 - rows["removable_out"] - rows["removable_in"], _SHARE)


FEATURES: Mapping[str, Callable[[Mapping[str, np.ndarray]], np.ndarray]] = {
    "degree": _degree,
    "two_hop": _two_hop,
    "branching": lambda rows: _log(np.exp(_two_hop(rows)) - 1, 1e-6) - _degree(rows),
    "motifs": lambda rows: _log(rows["motifs"], _SHARE),
    "motif_excess": lambda rows: _log(rows["motifs"], _SHARE) - 2 * _degree(rows),
    "core": _core,
    "core_excess": lambda rows: _core(rows) - _degree(rows),
    "sinks": _share("sink_nodes"),
    "sources": _share("source_nodes"),
    "disconnected": _share("disconnected_nodes"),
    "removable_out": _share("removable_out"),
    "removable_in": _share("removable_in"),
    "alive": _alive,
    "useful_edges": _useful_edges,
    "components": lambda rows: _log(rows["components"], 1) - np.log(rows["nodes"]),
    "cut_edges": _share("cut_edges", _CUT),
    "cut_nodes": _share("cut_nodes", _CUT),
}
"""Feature -> function of the metrics as `Report.normalized` has them.

``degree`` log E/N, mean degree. ``two_hop`` log of the mean number of nodes within two steps, ``branching``
log of that number for each first step. ``motifs`` log of the connected induced subgraphs on four nodes for
each edge, ``motif_excess`` less what the mean degree makes of it. ``core`` log of the mean coreness,
``core_excess`` less the mean degree's log. ``alive`` the share of nodes that are neither sink nor source nor
disconnected. ``useful_edges`` log of the edges that are not removable. ``components`` log of components for
each node. The others are logs of shares.
"""


LAYER_FEATURES: Mapping[str, Callable[[Mapping[str, np.ndarray]], np.ndarray]] = {
    name: _plain(name) if name == "bare_channels" else _plain_log(name) for name in PROFILE_KEYS
}
"""Feature -> function of `mge_gpu.metrics.layer_profile`: logs, and of ``bare_channels`` the share itself.

How the weights are spread over the layers, which the graph as a whole tells little of.
"""


def topology_features(rows: "pandas.DataFrame") -> "pandas.DataFrame":
    """The features of each row by itself.

    Args:
        rows: the columns `METRICS`, and ``method``; `PROFILE_KEYS` where they are known. Other columns are
            ignored.

    Returns:
        float64 frame with the index of ``rows``: a column for each of `FEATURES`; ``dynamic``, 1 where
        the method is one of `DYNAMIC_METHODS`, which move the mask while they train; and a column for each of
        `LAYER_FEATURES`. NaN where a metric is missing or not finite.

    Raises:
        RankingError: a column is missing.
    """
    pandas = require("pandas", "rank", "features of candidates")
    if missing := [name for name in ("method", *METRICS) if name not in rows.columns]:
        raise RankingError(
            f"features need the column {missing[0]!r}; got {', '.join(map(str, rows.columns))}"
        )
    values = {name: rows[name].to_numpy("float64", copy=True) for name in METRICS}
    unknown = np.full(len(rows), np.nan)
    values |= {
        name: rows[name].to_numpy("float64", copy=True) if name in rows else unknown for name in PROFILE_KEYS
    }
    for column in values.values():
        column[~np.isfinite(column)] = np.nan
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        columns = {name: feature(values) for name, feature in FEATURES.items()}
        columns["dynamic"] = rows["method"].str.lower().isin(DYNAMIC_METHODS).to_numpy("float64")
        columns |= {name: feature(values) for name, feature in LAYER_FEATURES.items()}
    return pandas.DataFrame(columns, index=rows.index).replace([np.inf, -np.inf], np.nan)


def group_context(
    rows: "pandas.DataFrame", features: "pandas.DataFrame", codes: np.ndarray
) -> "pandas.DataFrame":
    """What the candidates of a group have in common.

    Args:
        rows: the column ``sparsity``.
        features: `topology_features` of the same rows.
        codes: (rows,) the number of each row's group.

    Returns:
        float64 frame: ``log_keep`` = log(1 − sparsity), ``group_degree`` and ``group_alive``, the
        `group_medians` of ``degree`` and ``alive``.
    """
    pandas = require("pandas", "rank", "features of candidates")
    medians = group_medians(features, codes)[["degree", "alive"]].to_numpy()
    columns = (np.log1p(-rows["sparsity"].to_numpy("float64")), medians[:, 0], medians[:, 1])
    return pandas.DataFrame(dict(zip(CONTEXT, columns, strict=True)), index=rows.index)


def group_medians(features: "pandas.DataFrame", codes: np.ndarray) -> "pandas.DataFrame":
    """The medians of a group's candidates, at each of its rows.

    Over the candidates that do not move their mask while training, where there are any: so a pair's context
    and places stay the same whether trained masks stand beside it or not.

    Args:
        features: columns of `topology_features`, with ``dynamic``.
        codes: (rows,) the number of each row's group.
    """
    at_rest = features.where(features["dynamic"] == 0).groupby(codes).transform("median")
    return at_rest.fillna(features.groupby(codes).transform("median"))


def group_codes(rows: "pandas.DataFrame", group: Sequence[str]) -> np.ndarray:  # (rows,) int64
    """The number of each row's group, from 0; all rows are one group where ``group`` is empty."""
    if missing := [name for name in group if name not in rows.columns]:
        raise RankingError(f"groups need the column {missing[0]!r}; got {', '.join(map(str, rows.columns))}")
    if not group:
        return np.zeros(len(rows), "int64")
    return rows.groupby(list(group), sort=False).ngroup().to_numpy()


def report_rows(reports: Mapping[str, "Report"], sparsity: float) -> "pandas.DataFrame":
    """Reports of one network's candidates as rows like those of the published table.

    Returns:
        A frame with ``method``, ``sparsity``, the metrics of `Report.normalized` under our keys, and what
        ``info["layers"]`` of a report holds, a `layer_profile`; NaN where a report lacks what another has.

    >>> from mge_gpu.metrics.report import Report
    >>> report_rows({"erk": Report({"nodes": 4, "edges": 2, "sink_nodes": 1})}, 0.9)["sink_nodes"].tolist()
    [0.25]
    """
    pandas = require("pandas", "rank", "features of candidates")
    return pandas.DataFrame(
        [
            {"method": method, "sparsity": sparsity}
            | report.normalized(names="mge")
            | report.info.get("layers", {})
            for method, report in reports.items()
        ]
    )
