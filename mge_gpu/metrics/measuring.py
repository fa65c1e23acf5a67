"""One graph's metrics, one after the other, cheap ones first; what Ctrl-C leaves of them."""

import time
import warnings
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from mge_gpu.backends.cuda.shortage import GpuMemoryWarning
from mge_gpu.errors import DeviceMemoryError
from mge_gpu.metrics.base import METRICS, Measured, Workspace, cheap_first
from mge_gpu.metrics.memory import check_room, make_room
from mge_gpu.metrics.report import Report

Progress = Callable[[str, float | None], Any]


class Tally:
    """What has been measured of a graph so far.

    Args:
        info: what is known of the graph, for the report.
        keys: the metrics that are asked for, in the order of the report.
    """

    def __init__(self, info: Mapping[str, Any], keys: Iterable[str]) -> None:
        self.info, self.keys = dict(info), list(keys)
        self.found: dict[str, Measured] = {}
        self.seconds: dict[str, float] = {}

    def add(self, key: str, measured: Measured, seconds: float) -> None:
        """Note a metric's value and how long it took."""
        self.found[key], self.seconds[key] = measured, seconds

    def report(self) -> Report:
        """The report of what is there; what is not there was interrupted."""
        found = {key: self.found[key] for key in self.keys if key in self.found}
        return Report(
            {k: m.value for k, m in found.items()},
            {k: m.standard_error for k, m in found.items() if m.standard_error is not None},
            {k: m.how for k, m in found.items()},
            {k: self.seconds[k] for k in found},
            self.info,
            [key for key in self.keys if key not in found],
        )


def measure(
    workspace: Workspace, tally: Tally, keys: Collection[str], progress: Progress | None = None
) -> None:
    """Compute some metrics into the tally, cheap ones first; N and E, which normalizing needs, before all.

    Raises:
        NotEnoughMemoryError: before any is computed, if a metric does not fit the CPU's memory.
    """
    check_room(workspace, keys)
    tally.info |= {"nodes": workspace.graph.num_nodes, "edges": workspace.graph.num_edges}
    ordered = cheap_first(keys)
    for k, key in enumerate(ordered):
        if progress is not None:
            progress(key, k / len(ordered))
        begin = time.perf_counter()
        make_room(workspace, key)
        tally.add(key, _measured(workspace, key), time.perf_counter() - begin)


def _measured(workspace: Workspace, key: str) -> Measured:
    """A metric; on the CPU where a GPU's memory is too short for what it keeps between primitives.

    (For a primitive the backend itself goes to the CPU.)
    """
    for _ in range(2):  # again without what is kept for other metrics
        try:
            return workspace.backend.within_memory(lambda: METRICS[key](workspace), host_helps=True)
        except DeviceMemoryError:
            workspace.forget()
    warnings.warn(
        f"the GPU's memory is too short for {key}: it is computed on the CPU", GpuMemoryWarning, stacklevel=3
    )
    return METRICS[key](workspace.on_host)
