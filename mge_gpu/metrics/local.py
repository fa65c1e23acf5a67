"""Local connectivity: who is cut off, and which edges lead nowhere."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from mge_gpu.metrics.base import Measured, Workspace, metric

HOW = "degrees from the compressed adjacency"


def sinks(w: Workspace) -> Any:
    """Nodes outside the output partitions with in-degree > 0 and out-degree 0, (N,) bool."""
    return (w.indeg > 0) & (w.outdeg == 0) & ~_in_partitions(w, w.graph.output_partitions)


def sources(w: Workspace) -> Any:
    """Nodes outside the input partitions with in-degree 0 and out-degree > 0, (N,) bool."""
    return (w.indeg == 0) & (w.outdeg > 0) & ~_in_partitions(w, w.graph.input_partitions)


def _in_partitions(w: Workspace, indices: Sequence[int]) -> Any:
    return np.asarray(w.graph.in_partitions(indices), like=w.backend.prototype())


@metric("sink_nodes")
def sink_nodes(w: Workspace) -> Measured:
    """Number of sinks: they take signals in and hand nothing on."""
    return Measured(w.total(sinks(w)), HOW)


@metric("source_nodes")
def source_nodes(w: Workspace) -> Measured:
    """Number of sources: they hand on what the input does not reach (biases)."""
    return Measured(w.total(sources(w)), HOW)


@metric("disconnected_nodes")
def disconnected_nodes(w: Workspace) -> Measured:
    """Number of nodes without any edge, in any partition."""
    return Measured(w.num_disconnected, HOW)


@metric("removable_out")
def removable_out(w: Workspace) -> Measured:
    """Edges into sinks: removing them changes no output."""
    return Measured(w.total(w.indeg * sinks(w)), HOW)


@metric("removable_in")
def removable_in(w: Workspace) -> Measured:
    """Edges out of sources: no input passes them."""
    return Measured(w.total(w.outdeg * sources(w)), HOW)
