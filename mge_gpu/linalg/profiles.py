"""Subspaces of channel profiles times position maps, and an operator of blocks projected on them.

The nodes of partition p are channels x positions: a vector restricted to it is a C_p x Q_p matrix. The
subspace holds all vectors whose matrices are U_p Y_p, with U_p (C_p, r_p) a few orthonormal channel
profiles and Y_p (r_p, Q_p) any maps. A block sum_k W_k (x) R_k projects to sum_k (U_t^T W_k U_s) (x) R_k:
a block again, of r channels instead of C.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from mge_gpu.backends.adjacency import Block

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
    target: np.ndarray, source: np.ndarray, tap: np.ndarray, weight: np.ndarray, u: np.ndarray, out: np.ndarray
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
    def size(self) -> int:
        """Dimension of the subspace."""
        return int(self.offsets[-1])

    def maps(self, y: Floats, p: int) -> Floats:  # (size,) -> (rank, positions)
        """The maps of partition p in a vector of coordinates, a view."""
        return y[self.offsets[p] : self.offsets[p + 1]].reshape(self.ranks[p], self.layouts[p].positions)

    def lift(self, y: Floats) -> Floats:  # (k, size) -> (k, n) float32
        """From coordinates to vectors."""
        out = np.zeros((len(y), sum(z.channels * z.positions for z in self.layouts)), np.float32)
        for p, layout in enumerate(self.layouts):
            if self.ranks[p]:
                for row, coordinates in zip(out, y, strict=True):
                    layout.matrix(row)[:] = self.bases[p] @ self.maps(coordinates, p).astype(np.float32)
        return out

    def restrict(self, x: Floats) -> Floats:  # (k, n) -> (k, size) float32
        """Coordinates of the orthogonal projection of vectors."""
        out = np.empty((len(x), self.size), np.float32)
        for p, layout in enumerate(self.layouts):
            if self.ranks[p]:
                for row, coordinates in zip(x, out, strict=True):
                    self.maps(coordinates, p)[:] = self.bases[p].T @ layout.matrix(row)
        return out

    def project(self, edges: Sequence[Edge]) -> list[Block]:
        """The blocks projected on the subspace; those without profiles at an end are left out."""
        return [self._block(*edge) for edge in edges if self.ranks[edge[0]] and self.ranks[edge[1]]]

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
        parts = []
        for p, layout in enumerate(self.layouts):
            r = self.ranks[p]
            if r:
                pairs = np.einsum("ci,cj->ijc", self.bases[p], self.bases[p]).reshape(r * r, -1)
                table = (pairs @ layout.matrix(d)).reshape(r, r, -1).astype(np.float32)
                parts.append((p, table))

        def add(x: Floats, y: Floats) -> None:
            for p, table in parts:
                _add_diagonal(table, self.maps(x, p), self.maps(y, p))

        return add


def principal_directions(parts: Sequence[Floats]) -> tuple[Floats, Floats]:
    """Left singular directions of [parts...], each (C, Q): energies (m,) descending and directions (C, m).

    Through the smaller of the two Gram matrices, which is accurate enough for directions that matter.
    """
    channels, columns = parts[0].shape[0], sum(x.shape[1] for x in parts)
    if columns < channels:
        x = np.concatenate(parts, axis=1).astype(np.float64)
        energy, right = np.linalg.eigh(x.T @ x)
        energy, right = energy[::-1], right[:, ::-1]
        keep = energy > 1e-12 * max(energy[0], 1e-300)
        return energy[keep], x @ (right[:, keep] / np.sqrt(energy[keep]))
    gram = np.zeros((channels, channels))
    for x in parts:
        gram += x @ x.T
    energy, left = np.linalg.eigh(gram)
    return np.maximum(energy[::-1], 0.0), left[:, ::-1]
