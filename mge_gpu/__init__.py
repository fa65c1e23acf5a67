"""Graph analytics for sparse neural networks.

A pruned network is a graph. `encode` builds its Multipartite Graph Encoding, `topometrics` measures
the graph, `prune` makes masks, `SparseTrainer` trains under masks that move, and `rank` orders pruning
methods by what the topology says of them.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from mge_gpu import models
    from mge_gpu.dynamic import SparseTrainer
    from mge_gpu.errors import MGEError
    from mge_gpu.graph.encode import encode
    from mge_gpu.graph.files import load
    from mge_gpu.graph.multipartite import MultipartiteGraph
    from mge_gpu.masks import apply_masks
    from mge_gpu.metrics.layers import layer_topometrics
    from mge_gpu.metrics.ramanujan import ramanujan
    from mge_gpu.metrics.report import Report
    from mge_gpu.metrics.topometrics import topometrics
    from mge_gpu.pruning import prune
    from mge_gpu.ranking import rank
    from mge_gpu.tracing.ops import register_handler
    from mge_gpu.tracing.program import Program
    from mge_gpu.tracing.trace import trace
    from mge_gpu.training.study import study

# Loaded when they are first asked for: importing the package costs little.
_HOME = {
    "MGEError": "mge_gpu.errors",
    "MultipartiteGraph": "mge_gpu.graph",
    "Program": "mge_gpu.tracing",
    "Report": "mge_gpu.metrics",
    "SparseTrainer": "mge_gpu.dynamic",
    "apply_masks": "mge_gpu.masks",
    "encode": "mge_gpu.graph",
    "layer_topometrics": "mge_gpu.metrics",
    "load": "mge_gpu.graph",
    "prune": "mge_gpu.pruning",
    "ramanujan": "mge_gpu.metrics",
    "rank": "mge_gpu.ranking",
    "register_handler": "mge_gpu.tracing",
    "study": "mge_gpu.training",
    "topometrics": "mge_gpu.metrics",
    "trace": "mge_gpu.tracing",
}

__all__ = [
    "MGEError",
    "MultipartiteGraph",
    "Program",
    "Report",
    "SparseTrainer",
    "apply_masks",
    "encode",
    "layer_topometrics",
    "load",
    "models",
    "prune",
    "ramanujan",
    "rank",
    "register_handler",
    "study",
    "topometrics",
    "trace",
]


def __getattr__(name: str) -> Any:
    if name == "models":
        return importlib.import_module("mge_gpu.models")
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    raise AttributeError(f"module 'mge_gpu' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
