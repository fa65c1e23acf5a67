"""What the ranker sees of a candidate: its topometrics relative to those of the candidates beside it.

Counts and eigenvalues do not carry over from one architecture to another: a number of sink nodes that is bad
in ResNet-20 is good in Wide-ResNet. Differences between the masks of *one* network do. So every metric is
standardised within its group of candidates (one network, one data set, one sparsity, one seed), and nothing
that is on the scale of a particular network is left in the features.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from mge_gpu._optional import require
from mge_gpu.errors import RankingError
from mge_gpu.metrics.report import PUBLISHED

if TYPE_CHECKING:
    import pandas

    from mge_gpu.metrics.report import Report

GROUP = ("model", "dataset", "sparsity", "seed")
"""The columns that say which rows of a table are candidates for the same place."""

WEIGHT_METRICS = ("strength", "spectral_gap", "spectral_radius")
"""Metrics that depend on the values of the weights, which training changes and a mask does not determine."""

TOPOLOGY_METRICS = tuple(key for key in PUBLISHED if key not in ("nodes", *WEIGHT_METRICS))
"""The metrics of the mask alone. ``nodes`` is the same for all candidates of a network."""

KINDS = ("z", "rank")
"""The two ways in which a metric is made relative to its group."""

_CONSTANT = 1e-12  # a spread below this share of the largest value is rounding, not a difference


def group_features(
    rows: "pandas.DataFrame",
    metrics: Sequence[str] = TOPOLOGY_METRICS,
    *,
    group: Sequence[str] = GROUP,
    kinds: Sequence[str] = KINDS,
) -> "pandas.DataFrame":
    """Make every metric relative to the group that its row stands in.

    For a metric x and a group g, ``z_<metric>`` = (x − mean_g) / std_g (population standard deviation) and
    ``rank_<metric>`` = the share of the others in g that x exceeds, ties counting half: (rank − 1) / (n − 1)
    in [0, 1]. ``sparsity`` is kept as it is.

    A NaN or an infinity takes no part in mean, deviation and ranks of its group and becomes the neutral
    value, 0 for ``z_`` and 0.5 for ``rank_``. So does a metric that is the same for the whole group, and
    everything in a group of one: there is nothing to tell candidates apart by.

    Args:
        rows: a column ``sparsity``, one for each of ``metrics`` and of ``group``; the index is kept.
        metrics: metric keys.
        group: columns whose values are the same within a group; none makes all rows one group.
        kinds: ``"z"``, ``"rank"`` or both.

    Returns:
        float64 frame: ``sparsity``, then for each kind a column for each metric.

    Raises:
        RankingError: a column is missing, or a kind is unknown.

    >>> import pandas
    >>> rows = pandas.DataFrame({"sparsity": 0.9, "k_core": [1.0, 3.0], "edges": [5.0, 5.0]})
    >>> group_features(rows, ["k_core", "edges"], group=(), kinds=["z"]).to_dict("list")
    {'sparsity': [0.9, 0.9], 'z_k_core': [-1.0, 1.0], 'z_edges': [0.0, 0.0]}
    """
    pandas = require("pandas", "rank", "features of candidates")
    if missing := [name for name in ("sparsity", *metrics, *group) if name not in rows.columns]:
        raise RankingError(
            f"features need the column {missing[0]!r}; got {', '.join(map(str, rows.columns))}"
        )
    if unknown := [kind for kind in kinds if kind not in KINDS]:
        raise RankingError(f"unknown kind of feature {unknown[0]!r}; expected {' or '.join(KINDS)}")
    values = rows[list(metrics)].to_numpy("float64", copy=True)  # (rows, metrics)
    values[~np.isfinite(values)] = np.nan
    codes = (
        rows.groupby(list(group), sort=False).ngroup().to_numpy() if group else np.zeros(len(rows), "int64")
    )
    maps = {"z": _standardised, "rank": _ranked}
    columns = {"sparsity": rows["sparsity"].to_numpy("float64")}
    for kind in kinds:
        relative = np.empty_like(values)
        for members in _groups(codes):
            relative[members] = maps[kind](values[members])
        columns |= {f"{kind}_{name}": relative[:, i] for i, name in enumerate(metrics)}
    return pandas.DataFrame(columns, index=rows.index)


def standardised_within(values: "pandas.Series", group: Sequence["pandas.Series"]) -> "pandas.Series":
    """(x − mean) / std within each group; 0 where the group does not vary.

    >>> import pandas
    >>> standardised_within(pandas.Series([1.0, 2.0, 7.0]), [pandas.Series(["a", "a", "b"])]).tolist()
    [-1.0, 1.0, 0.0]
    """
    pandas = require("pandas", "rank", "features of candidates")
    result = np.empty(len(values))
    numbers = values.to_numpy("float64")[:, None]
    for members in _groups(values.groupby(list(group), sort=False).ngroup().to_numpy()):
        result[members] = _standardised(numbers[members])[:, 0]
    return pandas.Series(result, index=values.index)


def report_rows(reports: Mapping[str, "Report"], sparsity: float) -> "pandas.DataFrame":
    """Reports of one network's candidates as rows like those of the published table.

    Returns:
        A frame with ``method``, ``sparsity`` and the metrics of `Report.normalized` under our keys; NaN where
        a report lacks a metric that another has.

    >>> from mge_gpu.metrics.report import Report
    >>> report_rows({"erk": Report({"nodes": 4, "edges": 2, "sink_nodes": 1})}, 0.9)["sink_nodes"].tolist()
    [0.25]
    """
    pandas = require("pandas", "rank", "features of candidates")
    return pandas.DataFrame(
        [
            {"method": method, "sparsity": sparsity} | report.normalized(names="mge")
            for method, report in reports.items()
        ]
    )


def _groups(codes: np.ndarray) -> list[np.ndarray]:
    """The row numbers of each group, given the group number of each row."""
    if not len(codes):
        return []
    order = np.argsort(codes, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(codes[order])) + 1)


def _standardised(values: np.ndarray) -> np.ndarray:  # (candidates, metrics)
    known = np.isfinite(values)
    count = np.maximum(known.sum(0), 1)
    # Dividing by a power of two near the largest value is exact, and keeps the squares of huge values finite.
    largest = np.where(known, np.abs(values), 0).max(0)
    scaled = np.where(known, np.ldexp(values, -np.frexp(largest)[1]), 0)
    centred = np.where(known, scaled - scaled.sum(0) / count, 0)
    deviation = np.sqrt((centred**2).sum(0) / count)
    return np.divide(centred, deviation, out=np.zeros_like(centred), where=deviation > _CONSTANT)


def _ranked(values: np.ndarray) -> np.ndarray:  # (candidates, metrics)
    known = np.isfinite(values)
    with np.errstate(invalid="ignore"):
        below = (values[:, None, :] > values[None, :, :]).sum(1)
        equal = (values[:, None, :] == values[None, :, :]).sum(1) - known  # itself taken out
    others = known.sum(0) - 1
    share = np.divide(below + equal / 2, others, out=np.full(values.shape, 0.5), where=others > 0)
    return np.where(known, share, 0.5)
