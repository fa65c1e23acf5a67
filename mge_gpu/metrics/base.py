"""What all metrics share: the registry, and intermediate results computed once a graph."""

from collections.abc import Callable, Collection, Iterable, Iterator
from copy import copy
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch

from mge_gpu.backends import Adjacency, Backend, Block
from mge_gpu.errors import MetricError
from mge_gpu.graph import MultipartiteGraph
from mge_gpu.metrics import sampling


@dataclass(frozen=True)
class Measured:
    """A metric's raw value, how it was computed, and its standard error if it is an estimate."""

    value: int | float
    how: str
    standard_error: float | None = None


class Workspace:
    """A graph with what several metrics need (degrees, a BFS forest), each computed when first asked for.

    Args:
        graph: the graph.
        exact: never estimate, however long it takes.
        seed: of the random start vectors and samples.
        budget: two-step walks that an exact count may take; None takes `sampling.BUDGET`.
    """

    def __init__(
        self, graph: MultipartiteGraph, exact: bool = False, seed: int = 0, budget: int | None = None
    ) -> None:
        self.graph, self.exact, self.seed = graph, exact, seed
        self.budget = sampling.BUDGET if budget is None else budget
        self.prepared: dict[Any, Any] = {}  # blocks as they were made ready for products
        self.operators: dict[str, Any] = {}  # products, and what they are of, for several metrics
        self.backend: Backend = graph.backend

    def forget(self, but: Collection[str] = ()) -> None:
        """Give back what is kept for other metrics, but the attributes named: memory is short."""
        self.prepared.clear()
        self.operators.clear()
        for name in {"degrees", "forest"}.difference(but):
            self.__dict__.pop(name, None)

    @cached_property
    def on_host(self) -> "Workspace":
        """The same graph on the CPU."""
        graph = copy(self.graph)
        graph.device = torch.device("cpu")
        return Workspace(graph, self.exact, self.seed, self.budget)

    @property
    def num_nodes(self) -> int:
        """Number of nodes, N."""
        return self.graph.num_nodes

    @property
    def adjacency(self) -> Adjacency:
        """The compressed adjacency."""
        return self.graph.adjacency

    @cached_property
    def blocks(self) -> list[Block]:
        """The blocks of the adjacency matrix."""
        return [b for _, _, b in self.graph.blocks]

    @cached_property
    def degrees(self) -> tuple[Any, Any]:
        """In- and out-degree of each node, (N,) each, of an integer type that holds N."""
        return self.backend.degrees(self.adjacency)

    @property
    def indeg(self) -> Any:
        """In-degree of each node."""
        return self.degrees[0]

    @property
    def outdeg(self) -> Any:
        """Out-degree of each node."""
        return self.degrees[1]

    @property
    def degree(self) -> Any:
        """Degree of each node in the undirected graph, less than N. Added up anew each time."""
        return self.indeg + self.outdeg

    def partition_of(self, nodes: np.ndarray) -> np.ndarray:
        """The number of each node's partition, of the shape of ``nodes``."""
        offsets = [partition.offset for partition in self.graph.partitions]
        return np.searchsorted(offsets, nodes, side="right") - 1

    @cached_property
    def forest(self) -> Any:
        """BFS parents, (N,) int32; a root has -1."""
        return self.backend.components(self.adjacency)[1]

    @cached_property
    def num_components(self) -> Any:
        """Number of connected components: a count, which stays when the forest is forgotten."""
        return self.total(self.forest < 0)

    @cached_property
    def num_disconnected(self) -> Any:
        """Number of nodes without an edge, which stays as well."""
        return self.total(self.degree == 0)

    @cached_property
    def cuts(self) -> tuple[Any, Any]:
        """Numbers of bridges and of articulation points."""
        bridge, cut = self.backend.cut_marks(self.adjacency, self.forest)
        return self.total(bridge), self.total(cut)

    # Where a metric adds up over nodes. A workspace of many networks (`Together`) does it network by network:
    # what a metric then computes with its arrays are values of all of them.

    def total(self, x: Any) -> Any:
        """Sum of x (N,) over the nodes; x is so small that int64 holds it."""
        return int(self._sums(x))

    def _sums(self, x: Any) -> Any:
        """Sums along the last dimension; of flags, how many are set."""
        return self.backend.counts(x) if x.dtype == np.bool_ else x.sum(-1)

    def exact_total(self, values: np.ndarray, times: np.ndarray, nodes: np.ndarray) -> Any:
        """`exact_sum` over some nodes."""
        return exact_sum(values, times)

    def exact_total_of(self, terms: Callable[..., tuple[Any, Any]], *x: Any) -> Any:
        """`exact_sum` over all nodes of what ``terms`` makes of arrays (N,): int64 values and times.

        It is given some nodes' part of them at a time.
        """
        parts = (slice(at, at + PART) for at in range(0, self.num_nodes, PART))
        return sum(exact_sum(*terms(*(a[part] for a in x))) for part in parts)

    def of_each(self, values: np.ndarray) -> Any:
        """The value of a metric, from those of all networks: the only one."""
        return values.tolist()[0]

    def affordable(self, cost: np.ndarray, nodes: np.ndarray) -> bool:
        """Whether two-step walks from some nodes, ``cost`` (R,) of each, may be counted one by one."""
        return self.exact or int(cost.sum()) <= self.budget


PART = 1 << 24
"""Nodes whose terms of a sum are in memory at a time."""

Metric = Callable[[Workspace], Measured]
METRICS: dict[str, Metric] = {}


def metric(key: str) -> Callable[[Metric], Metric]:
    """Register a function of a `Workspace` under a key of the report."""

    def register(function: Metric) -> Metric:
        METRICS[key] = function
        return function

    return register


def exact_sum(values: np.ndarray, times: np.ndarray | None = None) -> int:
    """The sum of non-negative int64 values (each ``times`` as often) as a Python int, which never overflows.

    >>> exact_sum(np.array([2**62, 2**62, 2**62])) == 3 * 2**62
    True
    """
    return sum(int(piece.sum()) << bits for bits, piece in pieces(values, times))


def pieces(values: Any, times: Any = None) -> Iterator[tuple[int, Any]]:
    """(bits, values of 16 bits, each ``times`` as often), shifted by so many bits: int64 holds their sums."""
    for bits in range(0, 64, 16):
        piece = (values >> bits) & 0xFFFF
        yield bits, piece if times is None else piece * times


CHEAP = (
    "nodes", "edges", "sink_nodes", "source_nodes", "disconnected_nodes", "removable_out", "removable_in",
    "one_hop", "strength",
)  # fmt: skip
"""Metrics that take O(nonzero weights + nodes), however many edges there are."""

_EDGEWISE = (
    "effective_density", "effective_nodes", "components", "component_size", "log_effective_paths",
    "l1_path_norm", "l2_path_norm", "path_kernel_trace", "cut_edges", "cut_nodes", "k_core",
    "spectral_radius", "spectral_gap", "two_hop", "motifs",
)  # fmt: skip
"""The other metrics, those that take longest on large graphs last."""


def wanted(metrics: str | Iterable[str]) -> list[str]:
    """The keys that "all", "cheap", a key or a list of these stand for, each once, in the order asked for.

    Raises:
        MetricError: an unknown key.

    >>> wanted(["k_core", "cheap"])[:3]
    ['k_core', 'nodes', 'edges']
    """
    keys: list[str] = []
    for name in [metrics] if isinstance(metrics, str) else metrics:
        if name == "all":
            keys += METRICS
        elif name == "cheap":
            keys += CHEAP
        elif name in METRICS:
            keys.append(name)
        else:
            raise MetricError(f"got metric {name!r}, expected all, cheap or some of {', '.join(METRICS)}")
    return list(dict.fromkeys(keys))


def cheap_first(keys: Iterable[str]) -> list[str]:
    """The keys in the order in which they are computed, so that an interruption loses as little as it can.

    >>> cheap_first(["motifs", "nodes", "k_core"])
    ['nodes', 'k_core', 'motifs']
    """
    rank = {key: k for k, key in enumerate((*CHEAP, *_EDGEWISE))}
    return sorted(keys, key=lambda key: rank.get(key, len(rank)))
