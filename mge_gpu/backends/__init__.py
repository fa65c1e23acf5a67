"""Backends: the few primitives that every metric runs on, one class a device type."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import cache
from typing import Any, Protocol, TypeVar

import numpy as np
import torch

from mge_gpu.backends.adjacency import Adjacency, Block
from mge_gpu.errors import GraphError

R = TypeVar("R")


class DeviceWarning(UserWarning):
    """A model is on a GPU that its graph cannot be computed on."""


class Backend(Protocol):
    """What a device must offer. N nodes, E edges; arrays live on the device.

    A backend reads the compressed adjacency and the blocks and knows nothing of metrics.
    """

    name: str
    shares_cores: bool  # whether several graphs at once, one a core, are faster than one after the other

    def active(self) -> AbstractContextManager[None]:
        """Within it what is done with arrays of the device is done there, in the order of the primitives."""

    def available_memory(self) -> int | None:
        """Bytes of the device's memory that are free, or None where nobody knows."""

    def within_memory(self, work: Callable[[], R], host_helps: bool = False) -> R:
        """What ``work`` returns; primitives for which memory is short resort to the host only where it helps.

        Raises:
            DeviceMemoryError: the device's memory was short; all that ``work`` took of it is given back.
        """

    def tensor(self, array: Any) -> torch.Tensor:
        """A torch tensor in the memory of an array of the device."""

    def prototype(self) -> Any:
        """An empty array of the device, for the ``like`` of NumPy's functions; None for NumPy's own."""

    def host(self, array: Any) -> np.ndarray:
        """An array of the device in the host's memory."""

    def counts(self, flags: Any) -> Any:
        """How many of flags (..., n) bool are set along the last dimension, (...) int64."""

    def degrees(self, adjacency: Adjacency) -> tuple[Any, Any]:
        """(in-degree, out-degree), (N,) each: integers that hold N, int32 or int64."""

    def coo(
        self, blocks: Sequence[Block], ids: Any = np.int64, floats: Any = np.float32
    ) -> tuple[Any, Any, Any]:
        """Every edge once: source (E,), target (E,), weight (E,).

        ``ids``: np.int64 or np.int32; ``floats``: np.float32, or np.float16, to which each weight is rounded.
        """

    def coo_chunks(
        self, blocks: Sequence[Block], limit: int, ids: Any = np.int64, floats: Any = np.float32
    ) -> Iterator[tuple[Any, Any, Any]]:
        """The edges of `coo` in pieces of at most ``limit``, each edge once."""

    def total_weight(self, blocks: Sequence[Block]) -> float:
        """Sum of all edge weights."""

    def operator(
        self,
        forward: Sequence[Block],
        backward: Sequence[Block],
        single: bool = False,
        prepared: dict[Any, Any] | None = None,
    ) -> Callable[..., Any]:
        """x -> A^T x over the blocks in ``forward`` plus A x over those in ``backward``, (N,) of x's dtype.

        ``single``: multiply and add in float32, about twice as fast. Operators that are given the same
        ``prepared`` (at first an empty dict) share what they keep of their blocks, which must outlive it.

        A second argument ``out``, (N,) of x's dtype and not x, may be written to and returned in place of a
        new array.
        """

    # The next three may share another ``prepared``.

    def power_sums(
        self,
        block: Block,
        x: Any,
        terms: Sequence[tuple[int, int, int]],
        size: int,
        backward: bool = False,
        prepared: dict[Any, Any] | None = None,
    ) -> Any:
        """y[out] = sum of w^power x[row] over the edges of each target, added up over ``terms``.

        Of several nonzeros that lead from one node to another each is an edge here.

        Args:
            block: a block from one partition to another.
            x: (rows, nodes of the source partition) float64, none below zero.
            terms: (row, power, out) each, at most five; powers 0, 1 and 2.
            size: nodes of the target partition.
            backward: x is given at the targets, and the sums are those of each of ``size`` sources.

        Returns:
            (rows, size) float64.
        """

    def reach(
        self, block: Block, marks: Any, backward: bool = False, prepared: dict[Any, Any] | None = None
    ) -> Any:
        """``marks`` (N,) bool, and nodes that an edge of the block leads to from a marked one.

        ``backward``: nodes from which an edge leads to a marked one. The array may be the one given, changed.
        """

    def between(self, block: Block, before: Any, behind: Any, prepared: dict[Any, Any] | None = None) -> Any:
        """(nonzeros,) bool: whether a nonzero has an edge from a node of ``before`` to one of ``behind``.

        Both are (N,) bool.
        """

    def scaled_sum(self, values: Sequence[Any], exponents: Sequence[Any]) -> tuple[Any, Any]:
        """The sum of parts, each ``values`` * 2^``exponents``, as (values, exponents) again.

        Args:
            values: (rows, before, networks, behind) float64 each, none below zero.
            exponents: (rows, networks) int64 each. Where all values of a row and network are zero, any.

        Returns:
            The same shapes. Values are at most the number of parts, the largest of a row and network near
            1 (2^-52 where all are subnormal); but the last two rows have the same exponents, the larger ones.
        """

    def neighbour_sums(self, adjacency: Adjacency, x: Any) -> Any:
        """Sum of x over the out-neighbours of each node, (N,) of x's dtype."""

    def components(self, adjacency: Adjacency) -> tuple[int, Any]:
        """(number of connected components, BFS parent of each node (N,) int32, -1 at a root)."""

    def coreness(self, adjacency: Adjacency) -> Any:
        """Core number of each node of the undirected graph, (N,) int32."""

    def cut_marks(self, adjacency: Adjacency, parent: Any) -> tuple[Any, Any]:
        """(bridges, articulation points), each (N,) bool, given the BFS parents that `components` returned.

        A bridge is marked at one of its ends; no two of them at the same.
        """

    # Lists of nodes and what is counted of them are few numbers: NumPy arrays on every device.

    def representatives(self, adjacency: Adjacency, directed: bool) -> Any:
        """Nodes that stand for all with the same two-step surroundings: (node (R,), multiplicity (R,))."""

    def path_counts(self, adjacency: Adjacency, nodes: np.ndarray, directed: bool) -> np.ndarray:
        """Steps that the three below take from each node, (R,) int64, at least 1; the same on all backends.

        One, the neighbours and theirs; a list that several nodes share is walked once, and along arcs where
        position does not matter channels are counted (`cpu.kinds`).
        """

    def two_hop_sizes(self, adjacency: Adjacency, nodes: np.ndarray, cost: np.ndarray) -> np.ndarray:
        """Nodes within two directed steps of each node, itself included, (R,) int64."""

    def wedge_counts(self, adjacency: Adjacency, nodes: np.ndarray, cost: np.ndarray) -> np.ndarray:
        """(R, 3) int64: sum of C(codegree, 2), of triangles t_uv over the edges, of C(t_uv, 2)."""

    def clique_counts(self, adjacency: Adjacency, nodes: np.ndarray, cost: np.ndarray) -> np.ndarray:
        """Six times the number of 4-cliques at each node, (R,) int64."""


def get_backend(device: str | torch.device) -> Backend:
    """The backend of a device; raises GraphError for one that is unknown or cannot be used here."""
    try:
        place = torch.device(device)
    except (RuntimeError, TypeError):
        place = torch.device("meta")
    if place.type == "cpu":
        from mge_gpu.backends.cpu import CpuBackend

        return CpuBackend()
    if place.type == "cuda":
        return _cuda_backend(_index(place))
    raise GraphError(f"got device {str(device)!r}, expected 'cpu' or 'cuda'")


def numbered(device: str | torch.device) -> torch.device:
    """The device with its number: "cuda" alone is torch's current GPU, which may be another one later."""
    place = torch.device(device)
    return torch.device("cuda", _index(place)) if place.type == "cuda" else place


def _index(place: torch.device) -> int:
    if place.index is not None or not torch.cuda.is_available():
        return place.index or 0
    try:
        return torch.cuda.current_device()
    except RuntimeError as error:  # in a process that was forked from one that uses it, say
        reason = str(error).strip().splitlines()[0]
        raise GraphError(f"got device 'cuda', which torch cannot use here: {reason}; use 'cpu'") from error


def device_of(weight: torch.Tensor | None) -> torch.device:
    """Where a graph is computed on unless the user says so: the GPU that holds its weights, else the CPU.

    Warns with DeviceWarning, and gives the CPU, where that GPU cannot be used.
    """
    if weight is None or weight.device.type != "cuda":
        return torch.device("cpu")
    try:
        get_backend(weight.device)
    except GraphError as error:
        warnings.warn(
            f"computing on the CPU, though the model is on a GPU: {error}", DeviceWarning, stacklevel=3
        )
        return torch.device("cpu")
    return weight.device


@cache
def _cuda_backend(index: int) -> Backend:
    from mge_gpu.backends.cuda import CudaBackend
    from mge_gpu.backends.cuda.cupy_runtime import CupyRuntime

    return CudaBackend(CupyRuntime(index))


__all__ = ["Adjacency", "Backend", "Block", "DeviceWarning", "device_of", "get_backend", "numbered"]
