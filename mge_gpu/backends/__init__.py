"""Backends: the few primitives that every metric runs on, one class a device type."""

from typing import Any, Protocol

import numpy as np

from mge_gpu.backends.adjacency import Adjacency, Block
from mge_gpu.errors import GraphError


class Backend(Protocol):
    """What a device must offer. N nodes, E edges; arrays live on the device.

    A backend reads the compressed adjacency and the blocks and knows nothing of metrics.
    """

    name: str

    def num_edges(self, adjacency: Adjacency) -> int:
        """E, exactly."""

    def degrees(self, adjacency: Adjacency) -> tuple[Any, Any]:
        """(in-degree, out-degree), each (N,) int64."""

    def coo(self, blocks: list[Block], num_nodes: int) -> tuple[Any, Any, Any]:
        """Every edge once: source (E,) int64, target (E,) int64, weight (E,) float32."""

    def strengths(self, blocks: list[Block], num_nodes: int) -> Any:
        """Summed weight of all incident edges, (N,) float64."""

    def symmetric_product(self, blocks: list[Block], x: Any) -> Any:
        """(A + A^T) x for x of shape (N,)."""

    def product(self, blocks: list[Block], x: Any, transposed: bool) -> Any:
        """A^T x (towards the targets) or, transposed, A x, for x of shape (N,)."""

    def neighbour_sums(self, adjacency: Adjacency, x: Any) -> Any:
        """Sum of x over the out-neighbours of each node, (N,) int64."""

    def components(self, adjacency: Adjacency) -> tuple[int, Any]:
        """(number of connected components, BFS parent of each node (N,) int32, -1 at a root)."""

    def coreness(self, adjacency: Adjacency) -> Any:
        """Core number of each node of the undirected graph, (N,) int32."""

    def cut_counts(self, adjacency: Adjacency, parent: Any) -> tuple[int, int]:
        """(bridges, articulation points), from the BFS parents that `components` returned."""

    def two_hop_total(self, adjacency: Adjacency) -> int:
        """Sum over nodes of the number of nodes within two directed steps, itself included."""

    def wedge_squares(self, adjacency: Adjacency) -> int:
        """Number of 4-cycles of the undirected graph."""


def get_backend(device_type: str) -> Backend:
    """The backend of a device type; raises GraphError for a type that has none."""
    if device_type == "cpu":
        from mge_gpu.backends.cpu import CpuBackend

        return CpuBackend()
    raise GraphError(f"got device type {device_type!r}, expected 'cpu'")


__all__ = ["Adjacency", "Backend", "Block", "get_backend", "np"]
