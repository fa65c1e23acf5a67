"""Metrics: one file a group, each metric a function of a graph, in a registry."""

from mge_gpu.metrics import connectivity, expansion, local, motifs, neighbourhood, paths, size, strength
from mge_gpu.metrics.base import METRICS, Measured, Workspace, metric
from mge_gpu.metrics.effective import effective_masks
from mge_gpu.metrics.layers import layer_topometrics
from mge_gpu.metrics.profile import PROFILE_KEYS, layer_profile
from mge_gpu.metrics.ramanujan import ramanujan
from mge_gpu.metrics.report import PUBLISHED, Report
from mge_gpu.metrics.topometrics import topometrics

METRIC_KEYS: tuple[str, ...] = tuple(PUBLISHED)
"""The metrics of the paper, in the order of its table."""

PATH_KEYS = (
    "effective_density", "effective_nodes", "log_effective_paths", "l1_path_norm", "l2_path_norm",
    "path_kernel_trace",
)  # fmt: skip
"""The metrics of paths from the input to an output, which the paper's table does not have."""

for _key in (*METRIC_KEYS, *PATH_KEYS):  # report in the order of the paper's table, not of the imports above
    METRICS[_key] = METRICS.pop(_key)

__all__ = [
    "METRICS",
    "METRIC_KEYS",
    "PATH_KEYS",
    "PROFILE_KEYS",
    "PUBLISHED",
    "Measured",
    "Report",
    "Workspace",
    "connectivity",
    "effective_masks",
    "expansion",
    "layer_profile",
    "layer_topometrics",
    "local",
    "metric",
    "motifs",
    "neighbourhood",
    "paths",
    "ramanujan",
    "size",
    "strength",
    "topometrics",
]
