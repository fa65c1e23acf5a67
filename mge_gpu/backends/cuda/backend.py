"""`CudaBackend`: the primitives of `mge_gpu.backends.Backend` by the kernels of ``kernels/*.cu``."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import partial, wraps
from typing import Any, Concatenate, Literal, ParamSpec, TypeVar

import numpy as np
import torch

from mge_gpu.backends.adjacency import Adjacency, Block, total_weight
from mge_gpu.backends.cpu.representatives import Representatives, representatives
from mge_gpu.backends.cuda import coo, cuts, forest, peel, powers, product, reach, scaled
from mge_gpu.backends.cuda.flags import counts
from mge_gpu.backends.cuda.local import Neighbourhoods
from mge_gpu.backends.cuda.resident import Resident, resident_adjacency, resident_block
from mge_gpu.backends.cuda.runtime import Runtime
from mge_gpu.backends.cuda.shortage import Outcome, attempt, on_host
from mge_gpu.errors import DeviceMemoryError, NotEnoughMemoryError

P = ParamSpec("P")
R = TypeVar("R")


def _active(
    method: Callable[Concatenate["CudaBackend", P], R],
) -> Callable[Concatenate["CudaBackend", P], R]:
    """A method that makes its arrays and runs its kernels on the backend's device."""

    @wraps(method)
    def inside(self: "CudaBackend", *args: P.args, **kwargs: P.kwargs) -> R:
        with self.runtime.active():
            return method(self, *args, **kwargs)

    return inside


def _on_device(
    method: Callable[Concatenate["CudaBackend", P], R],
) -> Callable[Concatenate["CudaBackend", P], R]:
    """The same for a primitive that the CPU backend has, too: it steps in where memory is short.

    But not within `CudaBackend.within_memory`.
    """

    @wraps(method)
    def inside(self: "CudaBackend", *args: P.args, **kwargs: P.kwargs) -> R:
        with self.runtime.active():
            if not self._host_helps:
                return method(self, *args, **kwargs)
            found = self._twice(lambda: method(self, *args, **kwargs), kwargs.get("prepared"))
            if found is not Outcome.SHORT:
                return found
            return on_host(self, method.__name__, args, kwargs)  # type: ignore[no-any-return]

    return inside


class CudaBackend:
    """Primitives over a `Runtime`; arrays are the runtime's.

    The adjacency used last and the nonzeros that were written down last stay on the device.
    """

    name = "cuda"
    shares_cores = False

    def __init__(self, runtime: Runtime) -> None:
        self.runtime, self.xp = runtime, runtime.xp
        self._last: tuple[Adjacency, Resident] | None = None
        self._around: Neighbourhoods | None = None
        self._host_helps = True
        self._kept = coo.Kept()

    def _forget(self) -> None:
        """Give back what is kept for later calls."""
        self._last = self._around = None
        self._kept.clear()
        self.runtime.release()

    def _twice(self, work: Callable[[], R], prepared: Any = None) -> R | Literal[Outcome.SHORT]:
        """What ``work`` returns, if need be without what is kept of other work and with all that is free."""
        for _ in range(2):
            found = attempt(self.runtime, work)
            if found is not Outcome.SHORT:
                return found
            if isinstance(prepared, dict):
                prepared.clear()
            self._forget()
        return Outcome.SHORT

    def _resident(self, adjacency: Adjacency) -> Resident:
        if self._last is None or self._last[0] is not adjacency:
            self._last = self._around = None  # the old one makes room first
            self._last = adjacency, resident_adjacency(self.runtime, adjacency)
        return self._last[1]

    def active(self) -> AbstractContextManager[None]:
        """What is done with arrays goes to the device, and to torch's current stream."""
        return self.runtime.active()

    def available_memory(self) -> int | None:
        """Bytes of the device's memory that are free."""
        return self.runtime.available_memory()

    def within_memory(self, work: Callable[[], R], host_helps: bool = False) -> R:
        """What ``work`` returns; DeviceMemoryError where the device's memory is short."""
        before, self._host_helps = self._host_helps, host_helps
        try:
            with self.runtime.active():
                found = attempt(self.runtime, work)
        finally:
            self._host_helps = before
        if found is Outcome.SHORT:
            self._forget()
            raise DeviceMemoryError("the GPU's memory is too short")
        return found

    @_active
    def tensor(self, array: Any) -> torch.Tensor:
        """A torch tensor in the array's memory."""
        return self.runtime.tensor(array)

    @_active
    def prototype(self) -> Any:
        """An empty array of the device."""
        return self.xp.empty(0, np.float32)

    @_active
    def host(self, array: Any) -> np.ndarray:
        """A copy in the host's memory."""
        return self.runtime.host(array)

    @_on_device
    def counts(self, flags: Any) -> Any:
        """How many of flags (..., n) bool are set along the last dimension, (...) int64."""
        return counts(flags)

    @_on_device
    def degrees(self, adjacency: Adjacency) -> tuple[Any, Any]:
        """(in-degree, out-degree), each (N,) int64."""
        n, g = adjacency.num_nodes, self._resident(adjacency)
        indeg, outdeg = (self.xp.zeros(n, np.int64) for _ in range(2))
        self.runtime.launch("degrees", "degrees", self.runtime.threads(n), g.table, indeg, outdeg)
        return indeg, outdeg

    @_active
    def coo(
        self, blocks: Sequence[Block], ids: Any = np.int64, floats: Any = np.float32
    ) -> tuple[Any, Any, Any]:
        """Every edge once: source and target of type ``ids``, weight of type ``floats``, block by block."""
        edges = self._twice(lambda: coo.coo(self.runtime, list(blocks), self._kept, ids, floats))
        if edges is Outcome.SHORT:
            raise NotEnoughMemoryError(
                "the edges do not fit the GPU's memory; coo(chunks=True) yields them in pieces, and "
                "topometrics() needs none"
            )
        return edges

    def coo_chunks(
        self, blocks: Sequence[Block], limit: int, ids: Any = np.int64, floats: Any = np.float32
    ) -> Iterator[tuple[Any, Any, Any]]:
        """The edges of `coo` in pieces of at most ``limit``, each edge once."""
        pieces = coo.coo_chunks(self.runtime, list(blocks), limit, ids, floats)
        while True:
            with self.runtime.active():  # not while the caller works on a piece
                piece = next(pieces, None)
            if piece is None:
                return
            yield piece

    def total_weight(self, blocks: Sequence[Block]) -> float:
        """Sum of all edge weights."""
        return total_weight(blocks)

    @_active
    def operator(
        self,
        forward: Sequence[Block],
        backward: Sequence[Block],
        single: bool = False,
        prepared: dict[Any, Any] | None = None,
    ) -> Callable[..., Any]:
        """x -> A^T x (towards targets) over ``forward`` plus A x over ``backward``, (N,) of x's dtype."""

        def there() -> Callable[..., Any]:
            if prepared is not None:
                prepared.clear()  # the blocks that did fit
            return on_host(self, "operator", (forward, backward, single), {})  # type: ignore[no-any-return]

        if not self._host_helps:
            return product.operator(self.runtime, forward, backward, single, prepared, None)
        work = partial(product.operator, self.runtime, forward, backward, single, prepared, there)
        found = attempt(self.runtime, work)
        return there() if found is Outcome.SHORT else found

    def _block(self, block: Block, prepared: dict[Any, Any] | None) -> Resident:
        ready: dict[Any, Any] = {} if prepared is None else prepared
        if id(block) not in ready:
            ready[id(block)] = resident_block(self.runtime, block)
        return ready[id(block)]  # type: ignore[no-any-return]

    @_on_device
    def power_sums(
        self,
        block: Block,
        x: Any,
        terms: Sequence[tuple[int, int, int]],
        size: int,
        backward: bool = False,
        prepared: dict[Any, Any] | None = None,
    ) -> Any:
        """(rows, size) sums of powers of weights times values over edges."""
        ready = {} if prepared is None else prepared
        return powers.power_sums(self.runtime, block, x, terms, size, backward, ready, self._block)

    @_on_device
    def reach(
        self, block: Block, marks: Any, backward: bool = False, prepared: dict[Any, Any] | None = None
    ) -> Any:
        """``marks`` (N,) bool, and nodes that an edge leads to from a marked one, or comes from."""
        ready = {} if prepared is None else prepared
        return reach.reach(self.runtime, block, marks, backward, ready, self._block)

    @_on_device
    def between(self, block: Block, before: Any, behind: Any, prepared: dict[Any, Any] | None = None) -> Any:
        """(nonzeros,) bool: whether a nonzero has an edge from a node of ``before`` to one of ``behind``."""
        return reach.between(self.runtime, block, before, behind, self._block(block, prepared))

    @_on_device
    def scaled_sum(self, values: Sequence[Any], exponents: Sequence[Any]) -> tuple[Any, Any]:
        """The sum of parts, each ``values`` * 2^``exponents``."""
        return scaled.scaled_sum(self.runtime, values, exponents)

    @_on_device
    def neighbour_sums(self, adjacency: Adjacency, x: Any) -> Any:
        """Sum of x over the out-neighbours of each node, (N,) of x's dtype, int64 or float64."""
        kind = "i64" if x.dtype == np.int64 else "f64"
        g, n, hubs = self._resident(adjacency), adjacency.num_nodes, adjacency.num_hubs
        values = x.astype(np.int64 if kind == "i64" else np.float64, copy=False)
        out, shared = self.xp.zeros(n, values.dtype), self.xp.zeros(max(hubs, 1), values.dtype)
        self.runtime.launch("sums", f"hub_sums_{kind}", hubs, g.table, values, shared)
        self.runtime.launch(
            "sums", f"neighbour_sums_{kind}", self.runtime.teams(n), g.table, values, shared, out
        )
        return out.astype(x.dtype, copy=False)

    def _degree(self, adjacency: Adjacency, directed: bool = False) -> Any:
        """(N,) int64, which kernels read; the host, which helps where memory is short, has int32."""
        indeg, outdeg = self.degrees(adjacency)
        return (outdeg if directed else indeg + outdeg).astype(np.int64, copy=False)

    @_on_device
    def components(self, adjacency: Adjacency) -> tuple[int, Any]:
        """(connected components, BFS parent of each node (N,) int32, -1 at roots)."""
        n, g = adjacency.num_nodes, self._resident(adjacency)
        label, _, _ = forest.unite(self.runtime, g, n)
        roots = self.xp.flatnonzero(label == self.xp.arange(n, dtype=np.int32))
        return len(roots), forest.breadth_first(self.runtime, g, self._degree(adjacency), roots)

    @_on_device
    def coreness(self, adjacency: Adjacency) -> Any:
        """Core number of each node of the undirected graph, (N,) int32."""
        degree = self._degree(adjacency).astype(np.int32)
        return peel.coreness(self.runtime, self._resident(adjacency), degree, adjacency.num_hubs)

    @_on_device
    def cut_marks(self, adjacency: Adjacency, parent: Any) -> tuple[Any, Any]:
        """(bridges, articulation points), each (N,) bool, on a certificate of at most 2 (N - 1) edges."""
        return cuts.cut_marks(self.runtime, self._resident(adjacency), parent)

    def representatives(self, adjacency: Adjacency, directed: bool) -> Representatives:
        """Nodes that stand for all with the same two-step surroundings, found on the host."""
        return representatives(adjacency, directed)

    @_on_device
    def path_counts(self, adjacency: Adjacency, nodes: np.ndarray, directed: bool) -> np.ndarray:
        """First and second steps from each node plus one, of lists that nodes share once, (R,) int64."""
        degree = self._degree(adjacency, directed)
        return self._neighbourhoods(adjacency).path_counts(nodes, directed, degree)

    @_on_device
    def two_hop_sizes(self, adjacency: Adjacency, nodes: np.ndarray, cost: np.ndarray) -> np.ndarray:
        """Nodes within two directed steps of each node, itself included, (R,) int64."""
        return self._neighbourhoods(adjacency).two_hop_sizes(nodes)

    @_on_device
    def wedge_counts(self, adjacency: Adjacency, nodes: np.ndarray, cost: np.ndarray) -> np.ndarray:
        """Squares and triangles at each node, (R, 3) int64: see ``kernels/local.cu``."""
        return self._neighbourhoods(adjacency).wedge_counts(nodes, cost)

    @_on_device
    def clique_counts(self, adjacency: Adjacency, nodes: np.ndarray, cost: np.ndarray) -> np.ndarray:
        """Six times the number of 4-cliques at each node, (R,) int64."""
        return self._neighbourhoods(adjacency).clique_counts(nodes)

    def _neighbourhoods(self, adjacency: Adjacency) -> Neighbourhoods:
        there = self._resident(adjacency)
        if self._around is None:
            self._around = Neighbourhoods(self.runtime, adjacency, there)
        return self._around
