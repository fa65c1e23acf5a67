"""Many masks of one network measured as one graph: on a GPU, each step of a metric is one launch for all."""

import time
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from mge_gpu.backends.cuda.shortage import GpuMemoryWarning
from mge_gpu.errors import DeviceMemoryError
from mge_gpu.graph.union import Union, union
from mge_gpu.metrics.base import METRICS, Measured, Workspace, cheap_first, pieces
from mge_gpu.metrics.measuring import Tally

TOGETHER = (
    "sink_nodes", "source_nodes", "disconnected_nodes", "removable_out", "removable_in", "components",
    "component_size", "cut_edges", "cut_nodes", "k_core", "spectral_gap", "spectral_radius", "two_hop",
    "motifs", "effective_density", "effective_nodes", "log_effective_paths", "l1_path_norm", "l2_path_norm",
    "path_kernel_trace",
)  # fmt: skip
"""Metrics of which a `Together` gives those of all its networks."""


class OneByOne(Exception):
    """Some network's metric is to be estimated, from a sample of its own, or cannot be computed."""


class Together(Workspace):
    """The workspace of a union: the value of a metric of `TOGETHER` is an array of all networks' values."""

    def __init__(
        self, together: Union, exact: bool = False, seed: int = 0, budget: int | None = None
    ) -> None:
        super().__init__(together.graph, exact, seed, budget)
        self.union, self.networks = together, together.networks
        self._last: tuple[Any, np.ndarray] = None, np.zeros(0, np.int64)

    @property
    def num_nodes(self) -> int:
        """Number of nodes of one network."""
        return self.graph.num_nodes // self.networks

    def total(self, x: Any) -> Any:
        """Sums of x over the nodes of each network, (networks,) Python ints."""
        return self._numbers(self._sums(self.union.rows(x)))

    def exact_total(self, values: np.ndarray, times: np.ndarray, nodes: np.ndarray) -> Any:
        """`exact_sum` of each network, (networks,) Python ints."""
        where = self._network_of(nodes)
        return sum(  # counts of fewer than 2^31 nodes: float64 holds the sums
            _objects(np.bincount(where, piece, self.networks).astype(np.int64)) << bits
            for bits, piece in pieces(values, times)
        )

    def exact_total_of(self, terms: Callable[..., tuple[Any, Any]], *x: Any) -> Any:
        """The same over all nodes, of all at once."""
        values, times = map(self.union.rows, terms(*x))
        return sum(self._numbers(piece.sum(1)) << bits for bits, piece in pieces(values, times))

    def of_each(self, values: np.ndarray) -> Any:
        """All of them."""
        return values

    def affordable(self, cost: np.ndarray, nodes: np.ndarray) -> bool:
        """Whether that holds for each network; else raises OneByOne."""
        most = np.bincount(self._network_of(nodes), cost, self.networks).max(initial=0)
        if not self.exact and most > self.budget:
            raise OneByOne
        return True

    def _network_of(self, nodes: np.ndarray) -> np.ndarray:
        if self._last[0] is not nodes:
            self._last = nodes, self.union.network_of(nodes)
        return self._last[1]

    def _numbers(self, found: Any) -> np.ndarray:
        return _objects(self.backend.host(found))


def _objects(values: np.ndarray) -> np.ndarray:
    """Python ints, which never overflow."""
    return np.array(values.tolist(), object)


def measure_together(
    workspaces: Sequence[Workspace],
    tallies: Sequence[Tally],
    keys: Sequence[str],
    progress: Callable[[str], Any] = lambda key: None,
) -> None:
    """Add to the tallies the metrics of `TOGETHER` among the keys, cheap ones first.

    Where memory is short half of the networks go together, and so on; a single one is left alone, and so is a
    metric that is to be estimated.
    """
    keys = [k for k in cheap_first(keys) if k in TOGETHER and any(k not in t.found for t in tallies)]
    count = len(workspaces)
    if count < 2 or not keys or _at_once(workspaces, tallies, keys, progress):
        return
    warnings.warn(_short(count), GpuMemoryWarning, stacklevel=2)
    for half in (slice(0, count // 2), slice(count // 2, None)):
        measure_together(workspaces[half], tallies[half], keys, progress)


def _at_once(
    workspaces: Sequence[Workspace],
    tallies: Sequence[Tally],
    keys: Sequence[str],
    progress: Callable[[str], Any],
) -> bool:
    """Measure all networks in one graph; False where memory ran out on the way."""
    begin = time.perf_counter()
    one = workspaces[0]
    w = Together(union([x.graph for x in workspaces]), one.exact, one.seed, one.budget)
    for key in keys:
        progress(key)
        try:
            found = w.backend.within_memory(partial(METRICS[key], w))
        except OneByOne:
            continue
        except DeviceMemoryError:
            return False
        seconds = (time.perf_counter() - begin) / len(workspaces)
        begin = time.perf_counter()
        values, hows = np.asarray(found.value).tolist(), np.broadcast_to(found.how, len(workspaces)).tolist()
        for tally, value, how in zip(tallies, values, hows, strict=True):
            tally.add(key, Measured(value, f"{how}; {len(workspaces)} masks in one graph"), seconds)
    return True


def _short(count: int) -> str:
    rest = f"{count // 2} go together" if count > 3 else "they go one by one"
    return f"the GPU's memory is too short for {count} masks at the same time: {rest}"
