"""Expanders: every layer a random bipartite graph with equal degrees on each side."""

from collections.abc import Sequence
from itertools import pairwise
from math import lcm, prod
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from mge_gpu import _weights
from mge_gpu.errors import PruningError
from mge_gpu.pruning._copy import dense_weights
from mge_gpu.pruning._regular import near_regular
from mge_gpu.pruning._select import allot, kept_count


def expander(
    model: nn.Module, sparsity: float, *, seed: int = 0, unit: str = "kernel", exact: bool = False
) -> dict[str, Tensor]:
    """Random biregular layers, which are expanders with high probability, each of density ≈ 1 - sparsity.

    ``unit="kernel"``: output channels are linked to input channels, and a link keeps its whole k_h x k_w
    kernel. ``unit="weight"``: output channels are linked to the C_in k_h k_w elements of the rolled filter,
    a weight a link (the left side of encoding "rolled"). Each group of a grouped convolution is a graph by
    itself. Graphs are simple and drawn uniformly (see :func:`mge_gpu.pruning._regular.near_regular`).

    ``exact=False``: all nodes of a side have the same degree. A layer then keeps a multiple of the least
    common multiple of its sides' sizes, one at least: a 3-to-16 convolution is dense at any sparsity, and so
    is every depthwise one. Layers make up for each other, but the kept count is only **near** the asked one;
    ``prune`` says how near (InexactCountWarning).

    ``exact=True``: the asked count, every layer at its density; degrees of a side differ by one at most, and
    one kernel of a layer may be cut.

    Papers: Prabhu, Varma and Namboodiri, "Deep Expander Networks", ECCV 2018 (by kernels; equal degrees on
    the output side, random on the other); Stewart, Michieli and Ozay, "Data-free model pruning at
    initialization via expanders", CVPR workshops 2023. Raises PruningError on another ``unit``.
    """
    if unit not in ("kernel", "weight"):
        raise PruningError(f"expander: unit must be 'kernel' or 'weight', got {unit!r}")
    places = _weights.prunable_places(model)
    layers = {
        name: _sides(places[name].module, tuple(weight.shape), unit)
        for name, weight in dense_weights(model).items()
    }
    sizes = [layer.size for layer in layers.values()]
    total = kept_count(sum(sizes), sparsity)
    if exact:
        counts = allot([(1 - sparsity) * size for size in sizes], sizes, total)
    else:
        counts = regular_counts([layer.step for layer in layers.values()], sizes, total)
    generator = np.random.default_rng(seed)
    return {
        name: layer.mask(count, generator)
        for (name, layer), count in zip(layers.items(), counts, strict=True)
    }


def regular_counts(steps: Sequence[int], sizes: Sequence[int], total: int) -> list[int]:
    """For each layer a positive multiple of its step near its share of ``total``; sums to near ``total``.

    From the coarsest layer to the finest, each takes the multiple nearest to its share of what the layers
    before it left.

    >>> regular_counts([80, 10, 1], [80, 400, 520], 300)
    [80, 100, 120]
    """
    counts = [0] * len(sizes)
    rest, size_left = total, sum(sizes)
    for layer in sorted(range(len(sizes)), key=lambda i: -steps[i]):
        share = rest * sizes[layer] / size_left
        multiples = min(max(round(share / steps[layer]), 1), sizes[layer] // steps[layer])
        counts[layer] = multiples * steps[layer]
        rest, size_left = max(rest - counts[layer], 0), size_left - sizes[layer]
    return counts


class _Sides(NamedTuple):
    """A weight as ``groups`` bipartite graphs of ``right`` and ``left`` nodes, ``taps`` weights a link."""

    shape: tuple[int, ...]
    groups: int
    right: int
    left: int
    taps: int
    transposed: bool

    @property
    def size(self) -> int:
        return prod(self.shape)

    @property
    def step(self) -> int:
        """The fewest weights that give equal degrees."""
        return lcm(self.right, self.left) * self.groups * self.taps

    def mask(self, count: int, generator: np.random.Generator) -> Tensor:
        """A random mask that keeps ``count`` weights."""
        links = -(-count // self.taps)
        ends = [links * g // self.groups for g in range(self.groups + 1)]
        graphs = np.stack([near_regular(self.right, self.left, b - a, generator) for a, b in pairwise(ends)])
        kept = np.repeat(graphs.reshape(-1), self.taps)
        if surplus := links * self.taps - count:
            link = generator.choice(graphs.reshape(-1).nonzero()[0])
            kept[link * self.taps + generator.permutation(self.taps)[:surplus]] = False
        found = torch.from_numpy(kept)
        if self.transposed:  # stored (in, out, ...)
            inputs = self.shape[0] // self.groups
            found = found.reshape(self.groups, self.right, inputs, -1).transpose(1, 2)
        return found.reshape(self.shape)


def _sides(module: nn.Module, shape: tuple[int, ...], unit: str) -> _Sides:
    groups = int(getattr(module, "groups", 1))
    transposed = isinstance(module, nn.modules.conv._ConvTransposeNd)
    right, left = (shape[1], shape[0] // groups) if transposed else (shape[0] // groups, shape[1])
    taps = prod(shape[2:])
    if unit == "weight":
        left, taps = left * taps, 1
    return _Sides(shape, groups, right, left, taps, transposed)
