"""Expansion: extreme eigenvalues of the weighted adjacency and Laplacian."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import cycle
from typing import Any

import numpy as np

from mge_gpu.backends.adjacency import Block
from mge_gpu.backends.cpu.serial import run_serial
from mge_gpu.backends.cpu.threads import alone
from mge_gpu.errors import MetricError
from mge_gpu.linalg import kernels
from mge_gpu.linalg.lanczos import LanczosInfo, extreme_eigenvalues, singular_values
from mge_gpu.linalg.largest import largest_eigenvalue
from mge_gpu.metrics import spectra
from mge_gpu.metrics.base import Measured, Workspace, metric
from mge_gpu.metrics.colours import Numbered, by_colour, laplacian_signs
from mge_gpu.metrics.memory import make_room
from mge_gpu.metrics.quotient import Quotient, quotient
from mge_gpu.metrics.together import Together

TOLERANCE = 3e-5
"""Bound on the relative error of an eigenvalue; mostly it is about the square of that."""

FINE, FINE_NODES = 1e-7, 1 << 14
"""The bound for graphs of at most so many nodes, in double precision: it costs next to nothing."""


ROUGH = 0.01
"""A gap is a small difference of large values: from this part of it on, what it may be off is said."""

LARGE = 1 << 19
"""Nodes from which on a batch takes one graph at a time, and components are worth knowing."""


def _accuracy(w: Workspace) -> dict[str, Any]:
    """How accurately eigenvalues are found, and in which precision."""
    fine = w.num_nodes <= FINE_NODES
    return {
        "tol": FINE if fine else TOLERANCE,
        "dtype": np.float64 if fine else np.float32,
        "like": w.backend.prototype(),
    }


def _single(w: Workspace) -> bool:
    return _accuracy(w)["dtype"] is np.float32


def _operator(w: Workspace, legs: Callable[[Numbered], tuple[Sequence[Block], Sequence[Block]]]) -> Any:
    """Products, in the graph's precision, with the blocks that ``legs`` takes of those `by_colour`.

    All of a workspace share their blocks.
    """

    def make(forward: Sequence[Block], backward: Sequence[Block]) -> Any:
        return w.backend.operator(forward, backward, single=_single(w), prepared=w.prepared)

    if isinstance(w, Quotient):
        return w.operator(make, legs, _vectors(w, 0, 1)[0])
    return make(*legs(by_colour(w)))


def _symmetric(w: Workspace) -> Any:
    """x -> (A + A^T) x of nodes in the order of `by_colour`, made once for both metrics."""
    if "symmetric" not in w.operators:
        w.operators["symmetric"] = _operator(w, lambda blocks: (blocks.every, blocks.every))
    return w.operators["symmetric"]


def _note(w: Workspace, info: LanczosInfo, what: str, apply: Any) -> str:
    engines = getattr(apply, "how", "")
    return (
        what
        + (f" of {w.how}" if isinstance(w, Quotient) else "")
        + f", {info.products} products"
        + (f"; {engines}" if engines else "")
        + ("" if info.converged else "; not converged")
    )


def _gap(values: np.ndarray, k: int, info: LanczosInfo, note: str) -> Measured:
    """First less k-th of k absolute values, of which missing ones are zero; the note says if it is rough."""
    magnitude = np.sort(np.abs(values))[::-1].tolist() + [0.0] * k
    gap, error = magnitude[0] - magnitude[k - 1], 2 * float(info.bounds.max(initial=0.0))
    return Measured(gap, note + (f"; certain to within {error:.2g}" if error > ROUGH * gap else ""))


def _halves(w: Workspace, sizes: list[int]) -> tuple[Any, Any, Any]:
    """Products with the block between two colours: (to the second, to the first, engine).

    Vectors are of the nodes of one colour; a product may be overwritten by the next one.
    """
    n, (split, _) = sum(sizes), sizes
    first, second = slice(0, split), slice(split, n)
    to_second = _operator(w, lambda blocks: (blocks.ahead, blocks.back))
    to_first = _operator(w, lambda blocks: (blocks.back, blocks.ahead))
    ahead, back = _vectors(w, n, 2)  # what is read of one colour, and what was written of the other

    def through(apply: Any, here: slice, there: slice, x: Any, y: Any) -> Any:
        def one(given: Any) -> Any:
            x[here] = given
            return apply(x, y)[there]

        return _rows(one)

    return (
        through(to_second, first, second, ahead, back),
        through(to_first, second, first, back, ahead),
        to_second,
    )


def _vectors(w: Workspace, n: int, count: int) -> list[Any]:
    """Vectors of zeros in the precision of the spectral metrics."""
    options = _accuracy(w)
    return [np.zeros(n, options["dtype"], like=options["like"]) for _ in range(count)]


@metric("spectral_gap")
def spectral_gap(w: Workspace) -> Measured:
    """|lambda|_1 - |lambda|_3: first and third largest absolute eigenvalue of the weighted A + A^T.

    Where the layers can be coloured with two colours the eigenvalues are the singular values of the
    block between them, each with both signs: the gap is sigma_1 - sigma_2, from half-size vectors. Where
    all edges of a large graph lie in one component, sigma_1 is simple (Perron and Frobenius) and no copy
    is looked for. Where positions can be exchanged (the tokens of a transformer), one stands for all: see
    `quotient`.
    Eigenvalues that a graph of fewer than three nodes lacks count as zero. Where the bounds of the two
    eigenvalues leave the gap uncertain by more than 1 %, ``how`` says by how much.
    """
    if isinstance(w, Together):
        return spectra.gaps(w, _accuracy(w)["tol"], _single(w))
    orbits = quotient(w)
    values, k, info, note = _largest(orbits or w)
    if orbits is None or _most_within(orbits) <= np.append(np.abs(values), k * [0.0])[k - 1]:
        return _gap(values, k, info, note)
    value, inner = _within(orbits)
    bounds = np.concatenate([info.bounds, inner.bounds])
    note += "" if inner.converged else "; not converged within a token"
    return _gap(np.append(values, k * [value]), k, replace(info, bounds=bounds), note)


def _largest(w: Workspace) -> tuple[np.ndarray, int, LanczosInfo, str]:
    """Largest absolute eigenvalues of A + A^T, which of them the gap goes to, and how they were found.

    With two colours one of each pair.
    """
    sizes = by_colour(w).sizes
    if sizes is None:
        apply, n = _symmetric(w), w.graph.num_nodes
        (image,) = _vectors(w, n, 1)
        products = _rows(lambda x: apply(x, image))
        values, info = extreme_eigenvalues(products, n, 3, seed=w.seed, **_accuracy(w))
        return values, 3, info, _note(w, info, "Lanczos on the adjacency", apply)
    large = w.graph.num_nodes >= LARGE  # small ones do without the compressed adjacency
    connected = large and w.num_components - w.num_disconnected <= 1
    make_room(w, "spectral_gap")  # of what the search left
    to_second, to_first, engine = _halves(w, sizes)
    values, info = singular_values(
        to_second,
        to_first,
        (sizes[1], sizes[0]),
        2,
        seed=w.seed,
        copies=not connected,
        **_accuracy(w),
    )
    return values, 2, info, _note(w, info, "Lanczos on half of the two-coloured adjacency", engine)


def _most_within(w: Quotient) -> float:
    """What no eigenvalue within a thread exceeds: the largest sum of a row (Gershgorin)."""
    one = np.ones_like(_accuracy(w)["like"], _accuracy(w)["dtype"], shape=w.graph.num_nodes)
    return float(_symmetric(w).within(one).max())


def _within(w: Quotient, strength: Any = None) -> tuple[float, LanczosInfo]:
    """The largest eigenvalue within a thread that can be exchanged, of A or (``strength``) of D - A.

    There are at least three of each: `orbits.FEWEST`.
    """
    apply, n, options = _symmetric(w).within, w.graph.num_nodes, _accuracy(w)
    start = np.random.default_rng(w.seed).standard_normal(n, options["dtype"]) * (w.sizes > 1)
    images = cycle(_vectors(w, n, 3))

    def product(x: Any) -> Any:
        image = apply(x, next(images))
        return image if strength is None else kernels.diagonal_less(strength, x, image)

    return largest_eigenvalue(product, n, start=np.asarray(start, like=options["like"]), **options)


def _start(w: Workspace, strength: Any) -> Any:
    """A first vector for the largest eigenvalue of the Laplacian: see `colours.laplacian_signs`.

    Nodes are in the order of `by_colour`.
    """
    largest = float(strength.max()) if len(strength) else 0.0
    if not 0 < largest < np.inf:
        return None
    start = np.asarray(laplacian_signs(w, strength.dtype.type, numbered=True), like=strength)
    for _ in range(2):
        start *= strength
        start *= strength.dtype.type(1 / largest)
    return start


@metric("spectral_radius")
def spectral_radius(w: Workspace) -> Measured:
    """Largest eigenvalue of the weighted Laplacian D - A of the undirected graph."""
    if isinstance(w, Together):
        return spectra.radii(w, _accuracy(w)["tol"], _single(w))
    orbits = quotient(w)
    value, note, strength = _radius(orbits or w)
    if orbits is not None and by_colour(orbits).sizes is None:  # else a vector with the colours' signs has it
        inner, found = _within(orbits, strength)
        value = max(value, inner)
        note += "" if found.converged else "; not converged within a token"
    return Measured(value, note)


def _radius(w: Workspace) -> tuple[float, str, Any]:
    """The largest eigenvalue of D - A, how it was found, and the diagonal of D."""
    apply, n = _symmetric(w), w.graph.num_nodes
    options = _accuracy(w)
    if isinstance(w, Quotient):
        strength = apply(apply.root) / apply.root
    else:
        strength = apply(np.ones_like(options["like"], options["dtype"], shape=n))
    images = cycle(_vectors(w, n, 3))
    value, info = largest_eigenvalue(
        lambda x: kernels.diagonal_less(strength, x, apply(x, next(images))),
        n,
        start=_start(w, strength),
        **options,
    )
    return value, _note(w, info, "Lanczos on the Laplacian", apply), strength


def measure_batch(workspaces: Sequence[Workspace], keys: Sequence[str]) -> list[dict[str, Measured]]:
    """The spectral metrics of many graphs, one graph a core at a time.

    A product with a small graph is over before a second thread has started on it: whole problems are
    shared out among the cores instead, and nothing is handed over inside one. Large graphs go one by
    one, since their vectors would not fit in memory side by side; so does a single one. The values are
    those of one by one up to the rounding of sums.

    Args:
        workspaces: of the graphs; any sizes.
        keys: of "spectral_gap" and "spectral_radius".

    Returns:
        for each graph its values by key.

    Raises:
        MetricError: another key.
    """
    known = {"spectral_gap": spectral_gap, "spectral_radius": spectral_radius}
    for key in keys:
        if key not in known:
            raise MetricError(f"got metric {key!r}, expected some of {', '.join(known)}")
    out: list[dict[str, Measured]] = [{} for _ in workspaces]
    several = len(workspaces) > 1
    side_by_side = [several and w.backend.shares_cores and w.graph.num_nodes < LARGE for w in workspaces]
    small = [k for k, together in enumerate(side_by_side) if together]

    def measure(j: int) -> None:
        w = workspaces[small[j]]
        out[small[j]] = alone(lambda: {key: known[key](w) for key in keys})

    run_serial(measure, len(small))
    for k, w in enumerate(workspaces):
        if not side_by_side[k]:
            with w.backend.active():
                out[k] = {key: known[key](w) for key in keys}
    return out


def _rows(apply):  # type: ignore[no-untyped-def]
    """Apply a vector function to each row of a (b, n) array."""
    return lambda rows: apply(rows[0])[None] if len(rows) == 1 else np.stack([apply(x).copy() for x in rows])
