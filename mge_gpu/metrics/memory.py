"""Whether the memory that is available holds what metrics of a large graph take, asked before they begin."""

from collections.abc import Container, Iterable, Mapping

import numpy as np

from mge_gpu._memory import bytes_text
from mge_gpu.errors import NotEnoughMemoryError
from mge_gpu.linalg.lanczos import basis_capacity
from mge_gpu.metrics.base import Workspace
from mge_gpu.metrics.colours import by_colour
from mge_gpu.metrics.quotient import quotient

LARGE = 1 << 24
"""Nodes from which on anything is asked: smaller graphs take at most about a gigabyte."""

NODE: Mapping[str, int] = {
    "sink_nodes": 8, "source_nodes": 8, "disconnected_nodes": 8, "removable_out": 8, "removable_in": 8,
    "components": 12, "component_size": 12, "cut_edges": 16, "cut_nodes": 16, "k_core": 8, "two_hop": 8,
    "spectral_radius": 20,
    "motifs": 24,
}  # fmt: skip
"""Bytes a node that a metric takes at least, alone and on the CPU: the arrays it has at the same time."""

SPECTRAL = "spectral_radius", "spectral_gap"
"""Metrics that are those of the quotient where nodes can be exchanged."""

SEARCH = 16
"""The same of the forest, degrees and their sum."""

WORKS_ON: Mapping[str, Container[str]] = {
    "degrees": (
        "sink_nodes", "source_nodes", "disconnected_nodes", "removable_out", "removable_in", "motifs",
    ),
    "forest": ("components", "component_size", "cut_edges", "cut_nodes"),
}  # fmt: skip
"""What a workspace keeps, and the metrics that would have to compute it again."""

AMPLE = 1.5
"""Times what a metric takes at least that is enough, with blocks made ready for products, and scratch."""


def needed(w: Workspace, key: str) -> int:
    """Bytes that a metric takes at least where nothing is kept for others."""
    if key in SPECTRAL:
        w = quotient(w) or w
    return _gap(w) if key == "spectral_gap" else NODE.get(key, 0) * w.graph.num_nodes


def _gap(w: Workspace) -> int:
    """A basis, a vector in double precision, and what a product reads and writes.

    With two colours the forest and degrees come first, if it is not known yet whether all is connected.
    """
    n, sizes = w.graph.num_nodes, by_colour(w).sizes
    if sizes is None:
        return n * (4 * basis_capacity(n, 3, 1, None, np.float32)[0] + 8 + 4)
    short = min(sizes)
    products = short * (4 * basis_capacity(short, 2, 1, None, np.float32)[0] + 8) + 2 * 4 * n
    known = {"num_components", "num_disconnected"} <= vars(w).keys()
    return products if known else max(products, SEARCH * n)


def check_room(w: Workspace, keys: Iterable[str]) -> None:
    """Refuse metrics of a large graph that the CPU's memory cannot hold, before any is computed.

    Raises:
        NotEnoughMemoryError: names them and what they take.
    """
    available = _available(w)
    if available is None:
        return
    short = {key: size for key in keys if (size := needed(w, key)) > available}
    if short:
        raise NotEnoughMemoryError(
            f"of {w.graph.num_nodes:,} nodes "
            + ", ".join(f"{key} takes {bytes_text(size)}" for key, size in short.items())
            + f" at least, {bytes_text(available)} of memory is available; "
            "ask for other metrics by name, metrics=[...], or encode a smaller input"
        )


def make_room(w: Workspace, key: str) -> None:
    """Give back what is kept for other metrics of a large graph where a metric might not fit beside it."""
    available = _available(w)
    if available is not None and AMPLE * needed(w, key) > available:
        w.forget(but=[name for name, keys in WORKS_ON.items() if key in keys])


def _available(w: Workspace) -> int | None:
    """None where nothing is to be asked. For a GPU, see `Backend.within_memory`."""
    if w.graph.num_nodes < LARGE or not w.backend.shares_cores:
        return None
    return w.backend.available_memory()
