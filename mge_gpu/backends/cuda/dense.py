"""Products with blocks that keep most of their weights, as dense matrix products (cuBLAS, through torch).

W (written channels, read channels * table rows) times Z, which holds what each of these reads of x for each
position. Where the table is one row that says "the same position", Z is x itself.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from mge_gpu.backends.cuda.positions import says_itself
from mge_gpu.backends.cuda.resident import uploaded
from mge_gpu.backends.cuda.runtime import Runtime
from mge_gpu.backends.precision import plain

if TYPE_CHECKING:
    from mge_gpu.backends.cuda.gather import Leg

OVERHEAD = 40e-6
"""Seconds that the operations of a product take where there is next to nothing to multiply."""

GATHERED = 1e12
"""Edges a second that are gathered: 0.3e12 to 1.3e12 in single layers on an H200."""

MULTIPLIED = 15e12
"""Multiplications a second of a dense product in single precision: half of what an H100 has."""

BANDWIDTH = 2e12
"""Bytes a second, of weights and of Z."""

ENTRY = 16
"""Bytes of a weight that is gathered."""

LARGEST = 1 << 28
"""Bytes of a dense matrix, at most, and of Z at a time."""


def pays(leg: "Leg", itemsize: int) -> bool:
    """Whether a dense product takes less time than gathering, by the rates above.

    The spectra of ResNet-50 at 60 and 80 % took 2 to 26 % longer on an H200 with half or a quarter of
    ``GATHERED`` or twice ``OVERHEAD``.
    """
    weights = leg.far.channels * leg.near.channels * leg.geometry.taps.rows
    padded = leg.near.channels * (int(leg.geometry.near.max(initial=-1)) + 2)
    if max(weights, padded) * itemsize > LARGEST:
        return False
    positions = leg.geometry.positions
    gathered = max(leg.edges / GATHERED, len(leg.tap) * ENTRY / BANDWIDTH)
    read = weights // max(leg.far.channels, 1) * positions  # values of Z, written and read
    moved = itemsize * (weights + 2 * read) / BANDWIDTH
    return OVERHEAD + moved + weights * positions * itemsize / 4 / MULTIPLIED < gathered


class Weights:
    """A leg's weights as a dense matrix on the device, and where it reads x."""

    def __init__(self, leg: "Leg", there: Callable[[np.ndarray], Tensor], dtype: torch.dtype) -> None:
        taps = leg.geometry.taps
        rows, channels = taps.rows, leg.near.channels
        table = leg.geometry.table(max(leg.geometry.step, 1), leg.geometry.positions)
        self.reach = int(table.max(initial=-1)) + 1
        self.same = says_itself(table, leg.geometry.positions)
        self.padded = bool((table < 0).any())
        self.where = there(np.where(table < 0, self.reach, table).reshape(rows, -1))  # (rows, positions)
        far, near, tap = (there(x) for x in (leg.far.channel, leg.near.channel, leg.tap))
        first, depth, weight = there(taps.first), there(taps.depth), there(leg.block.weight)
        place, count = (far.long() * channels + near) * rows + first[tap], depth[tap]
        if not taps.single:  # a nonzero reads several rows
            begin = count.cumsum(0) - count
            within = torch.arange(int(count.sum()), device=place.device) - begin.repeat_interleave(count)
            place, weight = place.repeat_interleave(count) + within, weight.repeat_interleave(count)
        matrix = torch.zeros(leg.far.channels * channels * rows, dtype=dtype, device=place.device)
        matrix.index_put_((place,), weight.to(dtype), accumulate=True)
        self.matrix = matrix.view(leg.far.channels, channels * rows)


class Dense:
    """The product with one leg."""

    def __init__(self, leg: "Leg", weights: Weights) -> None:
        self.leg, self.weights = leg, weights

    def add(self, x: Tensor, begin: int, y: Tensor) -> None:  # (M,), M at least begin + N; (N,)
        """Add the product with x from ``begin`` on to y."""
        w, far, near = self.weights, self.leg.far, self.leg.near
        positions, step = w.where.shape[1], max(self.leg.geometry.step, 1)
        read = _matrix(x, near.channels, w.reach, near.stride, 1, begin + near.offset)
        written = _matrix(y, far.channels, positions, far.stride, step, far.offset)
        if w.same:
            written.addmm_(w.matrix, read)
            return
        if w.padded:  # a zero behind each channel, for what is read beside the map
            wide = x.new_zeros(near.channels, w.reach + 1)
            wide[:, : w.reach] = read
            read = wide
        size = max(1, LARGEST // (w.matrix.shape[1] * x.element_size()))
        for at in range(0, positions, size):
            part = w.where[:, at : at + size]
            z = read.index_select(1, part.reshape(-1)).view(w.matrix.shape[1], -1)
            written[:, at : at + size].addmm_(w.matrix, z)


def _matrix(x: Tensor, rows: int, columns: int, stride: int, step: int, offset: int) -> Tensor:  # (N,)
    """(rows, columns) of x. A single row's stride says nothing, but cuBLASLt refuses one too short."""
    return x.as_strided((rows, columns), (stride if rows > 1 else columns * step, step), offset)


def add(products: Sequence[tuple[Dense, int]], x: Tensor, y: Tensor) -> None:  # (M,), (N,)
    """Add several products to y, each of x from where it is said on."""
    with plain(x.device), torch.no_grad():
        for product, begin in products:
            product.add(x, begin, y)


def product(runtime: Runtime, leg: "Leg", dtype: Any, ready: dict[Any, Any]) -> Dense:
    """The product with a leg in a type of NumPy's; ``ready`` keeps its weights for others."""

    def there(array: np.ndarray) -> Tensor:
        return runtime.tensor(uploaded(runtime, array))

    key = "dense", id(leg.geometry), *leg.key, dtype
    if key not in ready:  # the geometry stays as long as its number is a key
        weights = Weights(leg, there, torch.float32 if dtype == np.float32 else torch.float64)
        ready[key] = leg.geometry, weights
    return Dense(leg, ready[key][1])
