"""Subspaces of channel profiles times position maps, and an operator of blocks projected on them.

The nodes of partition p are channels x positions: a vector restricted to it is a C_p x Q_p matrix. The
subspace holds all vectors whose matrices are U_p Y_p, with U_p (C_p, r_p) a few orthonormal channel
profiles and Y_p (r_p, Q_p) any maps. A block sum_k W_k (x) R_k projects to sum_k (U_t^T W_k U_s) (x) R_k:
a block again, of r channels instead of C.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numba
import numpy as np
import torch
from numpy.typing import NDArray

from mge_gpu.backends.adjacency import Block
from mge_gpu.backends.cpu.serial import spread_out

Floats = NDArray[np.floating]
Edge = tuple[int, int, Block]  # source partition, target partition, block


class Layout(NamedTuple):
    """How the nodes of a partition lie in a vector."""

    offset: int
    channels: int
    positions: int
    channel_first: bool

    def matrix(self, x: Floats) -> Floats:  # (n,) -> (channels, positions)
        """The partition's elements of a vector, a view."""
        part = x[self.offset : self.offset + self.channels * self.positions]
        if self.channel_first:
            return part.reshape(self.channels, self.positions)
        return part.reshape(self.positions, self.channels).T


@numba.njit(nogil=True, cache=True)
def _contract(
    target: np.ndarray,
    source: np.ndarray,
    tap: np.ndarray,
    weight: np.ndarray,
    u: np.ndarray,
    out: np.ndarray,
) -> None:
    """out[tap, source] += weight u[target] over the nonzeros of a block."""
    for k in range(len(weight)):
        row, profile, w = out[tap[k], source[k]], u[target[k]], weight[k]
        for a in range(len(row)):
            row[a] += w * profile[a]


@numba.njit(nogil=True, cache=True, fastmath={"reassoc", "contract"})
def _add_diagonal(diagonal: np.ndarray, x: np.ndarray, y: np.ndarray) -> None:
    """y[i] += sum_j diagonal[i, j] x[j], element by element along the last axis."""
    for i in range(len(x)):
        out = y[i]
        for j in range(len(x)):
            d, a = diagonal[i, j], x[j]
            for q in range(len(out)):
                out[q] += d[q] * a[q]


class Profiles:
    """The subspace: for each partition its layout and its profiles U_p, (C_p, r_p) float32 orthonormal.

    Example:
        >>> space = Profiles([Layout(0, 2, 3, True)], [np.array([[0.6], [0.8]], np.float32)])
        >>> space.lift(np.array([[1.0, 0.0, 2.0]], np.float32)).round(2).tolist()
        [[0.6..., 0.0, 1.2..., 0.8..., 0.0, 1.6...]]
    """

    def __init__(self, layouts: Sequence[Layout], bases: Sequence[Floats]) -> None:
        self.layouts, self.bases = list(layouts), list(bases)
        self.ranks = [u.shape[1] for u in bases]
        sizes = [r * z.positions for r, z in zip(self.ranks, layouts, strict=True)]
        self.offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)

    @property
    def nodes(self) -> int:
        """Number of elements of a vector."""
        return sum(z.channels * z.positions for z in self.layouts)

    @property
    def size(self) -> int:
        """Dimension of the subspace."""
        return int(self.offsets[-1])

    def maps(self, y: Floats, p: int) -> Floats:  # (size,) -> (rank, positions)
        """The maps of partition p in a vector of coordinates, a view."""
        return y[self.offsets[p] : self.offsets[p + 1]].reshape(self.ranks[p], self.layouts[p].positions)

    def _each(self, task: Callable[[int], Any]) -> list[Any]:
        """A task for each partition that has profiles, on all cores."""
        active = [p for p, r in enumerate(self.ranks) if r]
        return spread_out(lambda k: task(active[k]), len(active), self.nodes)

    def lift(self, y: Floats) -> Floats:  # (k, size) -> (k, n) float32
        """From coordinates to vectors."""
        out = np.zeros((len(y), self.nodes), np.float32)

        def part(p: int) -> None:
            for row, coordinates in zip(out, y, strict=True):
                self.layouts[p].matrix(row)[:] = multiply(self.bases[p], self.maps(coordinates, p))

        self._each(part)
        return out

    def restrict(self, x: Floats) -> Floats:  # (k, n) -> (k, size) float32
        """Coordinates of the orthogonal projection of vectors."""
        out = np.empty((len(x), self.size), np.float32)

        def part(p: int) -> None:
            for row, coordinates in zip(x, out, strict=True):
                self.maps(coordinates, p)[:] = multiply(self.bases[p].T, self.layouts[p].matrix(row))

        self._each(part)
        return out

    def project(self, edges: Sequence[Edge]) -> list[Block]:
        """The blocks projected on the subspace; those without profiles at an end are left out."""
        chosen = [e for e in edges if self.ranks[e[0]] and self.ranks[e[1]]]
        work = sum(len(b.tap) for _, _, b in chosen)
        return spread_out(lambda k: self._block(*chosen[k]), len(chosen), work)

    def _block(self, s: int, t: int, b: Block) -> Block:
        taps, channels = len(b.pair_count), int(b.source_channel.max(initial=-1)) + 1
        half = np.zeros((taps, channels, self.ranks[t]), np.float32)
        _contract(b.target_channel, b.source_channel, b.tap, b.weight, self.bases[t], half)
        weight = np.einsum("ksa,sb->abk", half, self.bases[s][:channels])
        target, source, tap = (x.ravel().astype(np.int32) for x in np.indices(weight.shape))
        scale = np.array([b.target_position_stride, 0, 1, b.target_position_stride, 0])
        source_stride = 1 if self.layouts[s].channel_first else self.layouts[s].channels
        scale[[1, 4]] = source_stride
        return b._replace(
            source_offset=int(self.offsets[s]),
            target_offset=int(self.offsets[t]),
            source_channel_stride=self.layouts[s].positions,
            target_channel_stride=self.layouts[t].positions,
            target_position_stride=1,
            target_channel=target,
            source_channel=source,
            tap=tap,
            weight=np.ascontiguousarray(weight, np.float32).ravel(),
            runs=b.runs // scale,
        )

    def diagonal(self, d: Floats) -> Callable[[Floats, Floats], None]:
        """(x, y) -> y += U^T diag(d) U x for coordinates: at each position a matrix of its own."""

        def table(p: int) -> tuple[int, Floats]:
            r = self.ranks[p]
            pairs = np.einsum("ci,cj->ijc", self.bases[p], self.bases[p]).reshape(r * r, -1)
            return p, multiply(pairs, self.layouts[p].matrix(d)).reshape(r, r, -1)

        parts = self._each(table)

        def add(x: Floats, y: Floats) -> None:
            for p, values in parts:
                _add_diagonal(values, self.maps(x, p), self.maps(y, p))

        return add


def multiply(a: Floats, b: Floats) -> Floats:  # (m, n), (n, q) -> (m, q) float32
    """a b in single precision."""
    x, y = (torch.from_numpy(np.asarray(m, np.float32)) for m in (a, b))
    result: Floats = torch.mm(x, y).numpy()
    return result


SKETCH = 12


def principal_directions(parts: Sequence[Floats], generator: np.random.Generator) -> tuple[Floats, Floats]:
    """Leading left singular directions of [parts...], each (C, Q): energies (m,) descending, (C, m) float64.

    At most `SKETCH` of them, from a random sketch of the range where there are more (Halko, Martinsson
    and Tropp, SIAM Review 53, 2011).
    """
    channels, columns = parts[0].shape[0], sum(x.shape[1] for x in parts)
    if min(channels, columns) > SKETCH:
        sketch = np.zeros((channels, SKETCH), np.float32)
        for x in parts:
            sketch += multiply(x, generator.standard_normal((x.shape[1], SKETCH), np.float32))
        base = np.linalg.qr(sketch)[0]
    elif channels <= columns:
        base = np.eye(channels, dtype=np.float32)
    else:
        base = np.linalg.qr(np.concatenate(parts, axis=1))[0]
    gram = np.zeros((base.shape[1],) * 2)
    for x in parts:
        inside = multiply(base.T, x)
        gram += multiply(inside, inside.T)
    energy, turn = np.linalg.eigh(gram)
    return np.maximum(energy[::-1], 0.0), base @ turn[:, ::-1]
