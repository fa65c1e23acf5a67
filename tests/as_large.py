"""Small graphs as if they were large: work is cut into many parts, which all cores share.

What takes another way past some size would otherwise run on no graph that an oracle can check.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from importlib import import_module
from typing import Any
from unittest import mock

LIMITS: Mapping[str, Mapping[str, Any]] = {
    "backends.cpu.coo": {"SERIAL": 0, "SCRATCH": 1},
    "backends.cpu.local": {"PIECE": 1},
    "backends.cpu.peel": {"ALONE": 8},
    "backends.cpu.product_dense": {"SCRATCH": 1, "NARROWEST": 2, "WIDEST": 3},
    "backends.cpu.serial": {"SMALL": 0},
    "backends.cpu.traverse": {"SMALL": 0, "TRIES": 4},
    "graph.compressed": {"PIECE": 3},
    "graph.encode": {"SNAPSHOT": 0},
    "linalg.basis": {"CHUNK": 3},
    "linalg.kernels": {"SERIAL": 0},
    "linalg.rows": {"PIECE": 8},
    "metrics.base": {"PART": 5},
    "metrics.expansion": {"LARGE": 0},
    "metrics.memory": {"LARGE": 0},
}
"""Module -> its limits, as low as they may be. Those that compiled code has read are not among them."""


@contextmanager
def as_large() -> Iterator[None]:
    """Within it any graph is past every limit, and the machine has three cores."""
    with ExitStack() as stack:
        stack.enter_context(mock.patch.object(os, "sched_getaffinity", lambda _: {0, 1, 2}, create=True))
        for name, limits in LIMITS.items():
            stack.enter_context(mock.patch.multiple(import_module(f"mge_gpu.{name}"), **limits))
        yield
