"""Metrics: one file a group, each metric a function of a graph, in a registry."""

from mge_gpu.metrics import connectivity, expansion, local, motifs, neighbourhood, size, strength
from mge_gpu.metrics.base import METRICS, Measured, Workspace, metric
from mge_gpu.metrics.layers import layer_topometrics
from mge_gpu.metrics.ramanujan import ramanujan
from mge_gpu.metrics.report import PUBLISHED, Report
from mge_gpu.metrics.topometrics import topometrics

METRIC_KEYS: tuple[str, ...] = tuple(PUBLISHED)
"""The metrics of the paper, in the order of its table."""

for _key in METRIC_KEYS:  # report in the order of the paper's table, not of the imports above
    METRICS[_key] = METRICS.pop(_key)

__all__ = [
    "METRICS",
    "METRIC_KEYS",
    "PUBLISHED",
    "Measured",
    "Report",
    "Workspace",
    "connectivity",
    "expansion",
    "layer_topometrics",
    "local",
    "metric",
    "motifs",
    "neighbourhood",
    "ramanujan",
    "size",
    "strength",
    "topometrics",
]
