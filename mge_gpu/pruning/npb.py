"""NPB: node-path balancing, layer densities given and positions from an integer program."""

from collections.abc import Callable, Sequence
from math import prod
from numbers import Real

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor, nn

from mge_gpu.errors import PruningError
from mge_gpu.pruning._balance import Balance, kernel_counts
from mge_gpu.pruning._copy import dense_copy, scoring
from mge_gpu.pruning._loss import check_positive
from mge_gpu.pruning._select import allot, as_masks, kept_count
from mge_gpu.pruning._units import UnitGraph, UnitLayer, unit_graph
from mge_gpu.pruning.er import densities, er_ratio
from mge_gpu.pruning.erk import erk_ratio

DENSITIES: dict[str, Callable[[Sequence[int]], float]] = {
    "erk": erk_ratio,
    "er": er_ratio,
    "uniform": lambda shape: 1.0,
}


def npb(
    model: nn.Module,
    sparsity: float,
    *,
    input_shape: Sequence[int],
    seed: int = 0,
    density: str = "erk",
    alpha: float = 0.99,
    beta: float = 0.001,
    max_p: int = 5,
    min_n: int = 1,
    chunk: int | None = None,
    progress: Callable[[str, float | None], None] | None = None,
) -> dict[str, Tensor]:
    """Many effective nodes and many paths at once, layer by layer from the input, without data.

    Each layer has its density (``density``: "erk", "er" or "uniform"), n weights. How many of them each
    kernel gets, M[o, i] between 0 and ``max_p``, maximises alpha A + (1 - alpha) B + beta Reg with

    - A = [C_in + C_out - Σ_i (min_n - Σ_o M)₊ - Σ_o (min_n - Σ_i M)₊] / (C_in + C_out), the channels that
      have ``min_n`` weights;
    - B = Σ P_i M[o, i] / (the most that n weights can have), P_i the number of paths from the input, under
      the masks so far, to a weight that reads channel i, the mean over its taps;
    - Reg = (n - empty kernels) / n.

    The optimum is exact: the structure of the program (see ``_balance.py``) makes a solver needless, no gap
    is left and no layer need be cut. ``chunk`` cuts the outputs of ungrouped layers all the same into
    that many at a time, each with its share of n, as published runs do (16 for ResNet-18). Which taps of a
    kernel are kept is random, among those that ever meet the layer's input. Weights that no path passes
    then move to the fullest kernels that paths pass, where these have taps left, ``max_p`` or not.

    ``max_p`` does not hold in layers that read the network's input, and is raised in a layer whose n weights
    do not fit otherwise. A weight that several layers share is decided where it is used first. Weights that
    the forward pass does not use are drawn at random.

    Paper: Pham et al., "Towards Data-Agnostic Pruning At Initialization: What Makes a Good Sparse Mask?",
    NeurIPS 2023. Raises PruningError on options outside their range, when the model fails on
    ``input_shape`` or when a layer's weights cannot be told apart; TracingError when it cannot be traced.

    >>> masks = npb(nn.Sequential(nn.Linear(6, 8), nn.Linear(8, 4)), 0.8, input_shape=(6,))
    >>> int(sum(mask.sum() for mask in masks.values()))
    16
    """
    if density not in DENSITIES:
        raise PruningError(f"npb: density must be one of {', '.join(DENSITIES)}, got {density!r}")
    for option, value, top in (("alpha", alpha, 1.0), ("beta", beta, np.inf)):
        if not isinstance(value, Real) or not 0 <= value <= top or value == np.inf:
            raise PruningError(f"npb: {option} must be a number from 0 to {top:g}, got {value!r}")
    for option, whole in (("max_p", max_p), ("min_n", min_n), ("chunk", 1 if chunk is None else chunk)):
        check_positive("npb", option, whole)
    rng = np.random.default_rng(seed)
    with scoring(model, seed):
        network, weights = dense_copy(model)
        graph = unit_graph(network, weights, input_shape)
    sizes = [weight.numel() for weight in weights.values()]
    ratios = [DENSITIES[density](weight.shape) for weight in weights.values()]
    quotas = [d * n for d, n in zip(densities(ratios, sizes, 1 - sparsity), sizes, strict=True)]
    budgets = allot(quotas, sizes, kept_count(sum(sizes), sparsity))
    kept = _balanced(graph, sizes, budgets, Balance(alpha, beta, min_n), max_p, chunk, rng, progress)
    return as_masks(torch.from_numpy(kept), weights)


def _balanced(
    graph: UnitGraph,
    sizes: Sequence[int],
    budgets: Sequence[int],
    balance: Balance,
    max_p: int,
    chunk: int | None,
    rng: np.random.Generator,
    progress: Callable[[str, float | None], None] | None,
) -> np.ndarray:  # (prunable,) bool
    kept = np.zeros(graph.prunable + len(graph.fixed), bool)
    kept[graph.prunable :] = True
    own, shares = _shares(graph, sizes, budgets, kept, rng)
    paths = [np.zeros((n, p)) for n, p in zip(np.diff(graph.offset), graph.positions, strict=True)]
    for p in range(len(paths)):
        paths[p][np.isin(np.arange(graph.offset[p], graph.offset[p + 1]), graph.inputs)] = 1
    for k, layer in enumerate(graph.layers):
        inflow = _inflow(graph, layer, paths)
        if shares[k]:
            reaching = inflow.sum(2)  # (C_in, taps)
            live = graph.reads(layer, np.ones(graph.units, bool))
            first = bool(np.isin(layer.unit, graph.inputs).all())
            cap = layer.weights.shape[2] if first else max_p
            if own[k].all():
                chosen = _layer(layer, live, reaching, shares[k], cap, balance, chunk, rng)
                on_path = (reaching > 0).reshape(live.shape)
                chosen = _reassigned(layer, chosen, on_path, rng)
            else:  # another layer has decided some of its weights: the others are drawn
                chosen = _taps(np.full(1, shares[k]), own[k].reshape(1, -1), rng).reshape(own[k].shape)
            kept[layer.weights[own[k]]] = chosen[own[k]]
        _add_paths(graph, layer, kept, inflow, paths)
        if progress is not None:
            progress(f"npb layer {k + 1}/{len(graph.layers)}", (k + 1) / len(graph.layers))
    forth, _ = graph.reached(kept)
    back = np.zeros(graph.units, bool)
    back[graph.outputs] = True
    for k in reversed(range(len(graph.layers))):
        layer = graph.layers[k]
        if shares[k] and own[k].all():
            on_path = graph.reads(layer, forth) & graph.writes(layer, back)
            kept[layer.weights] = _reassigned(layer, kept[layer.weights], on_path, rng)
        graph.backward(layer, kept, back)
    return kept[: graph.prunable]


def _shares(
    graph: UnitGraph, sizes: Sequence[int], budgets: Sequence[int], kept: np.ndarray, rng: np.random.Generator
) -> tuple[list[np.ndarray], list[int]]:
    """Which of its weights each layer decides, and how many it keeps: its share of its parameters' budgets.

    Marks a random part of the weights that no layer uses as kept.
    """
    ends = np.cumsum(sizes)
    free = np.ones(len(kept), bool)
    free[graph.prunable :] = False
    own, users = [], []
    for layer in graph.layers:
        mine = free[layer.weights]
        free[layer.weights[mine]] = False
        own.append(mine)
        users.append(np.bincount(np.searchsorted(ends, layer.weights[mine], "right"), minlength=len(sizes)))
    shares = [0] * len(graph.layers)
    for p, (size, budget) in enumerate(zip(sizes, budgets, strict=True)):
        parts = [int(u[p]) for u in users]
        unused = np.flatnonzero(free[ends[p] - size : ends[p]]) + ends[p] - size
        counts = allot([budget * n / size for n in [*parts, len(unused)]], [*parts, len(unused)], budget)
        kept[rng.permutation(unused)[: counts[-1]]] = True
        shares = [share + count for share, count in zip(shares, counts, strict=False)]
    return own, shares


def _layer(
    layer: UnitLayer,
    live: np.ndarray,  # (groups, 1, C_in / groups, taps) bool
    reaching: np.ndarray,  # (C_in, taps) paths to a weight there
    n: int,
    cap: int,
    balance: Balance,
    chunk: int | None,
    rng: np.random.Generator,
) -> np.ndarray:  # (C_out, C_in / groups, taps) bool
    """Solve the program of one layer and choose the taps."""
    outputs, groups = len(layer.weights), layer.groups
    usable = np.broadcast_to(live, layer.by_group(layer.weights).shape).reshape(-1, reaching.shape[1])
    if n >= usable.sum():  # taps that meet nothing have to take the rest
        chosen = usable.ravel().copy()
        chosen[rng.permutation(np.flatnonzero(~chosen))[: n - int(usable.sum())]] = True
        return chosen.reshape(layer.weights.shape)
    taps = live.reshape(reaching.shape).sum(1)
    mass = reaching.sum(1) / np.maximum(taps, 1)
    while np.minimum(taps, cap).sum() * (outputs // groups) < n:
        cap += 1
    limit = np.minimum(taps, cap)
    width = min(chunk, outputs) if chunk and groups == 1 else outputs
    parts = [min(width, outputs - at) for at in range(0, outputs, width)]
    rooms = [int(limit.sum()) * part // groups for part in parts]
    shares = allot([n * part / outputs for part in parts], rooms, n)
    counts = [
        kernel_counts(mass, limit, groups, part, share, balance, rng)
        for part, share in zip(parts, shares, strict=True)
    ]
    return _taps(np.concatenate(counts).ravel(), usable, rng).reshape(layer.weights.shape)


def _taps(
    counts: np.ndarray, usable: np.ndarray, rng: np.random.Generator
) -> np.ndarray:  # (kernels,) int64, (kernels, taps) bool -> (kernels, taps) bool
    """Keep ``counts[k]`` random ones of the usable taps of kernel k."""
    order = np.argsort(np.where(usable, rng.random(usable.shape), 2.0), axis=1)
    chosen = np.zeros(usable.shape, bool)
    np.put_along_axis(chosen, order, np.arange(usable.shape[1]) < counts[:, None], 1)
    return chosen


def _reassigned(
    layer: UnitLayer, chosen: np.ndarray, on_path: np.ndarray, rng: np.random.Generator
) -> np.ndarray:  # (C_out, C_in / groups, taps) bool
    """Move weights off ``on_path`` to free taps on it, those of the fullest kernels first."""
    on_path = np.broadcast_to(on_path, layer.by_group(chosen).shape).reshape(chosen.shape)
    astray, free = np.flatnonzero(chosen & ~on_path), np.flatnonzero(~chosen & on_path)
    if not len(astray) or not len(free):
        return chosen
    fill = (chosen & on_path).sum(2).ravel()[free // chosen.shape[2]]
    free = free[np.lexsort((rng.random(len(free)), -fill))]
    moved = min(len(astray), len(free))
    flat = chosen.ravel().copy()
    flat[rng.permutation(astray)[:moved]] = False
    flat[free[:moved]] = True
    return flat.reshape(chosen.shape)


def _inflow(graph: UnitGraph, layer: UnitLayer, paths: Sequence[np.ndarray]) -> np.ndarray:
    """(C_in, taps, output positions): paths from the input that a weight there passes on."""
    targets = int(graph.positions[layer.target])
    found = np.zeros((len(layer.ptr) - 1, layer.pairs.shape[1], targets))
    rows = layer.rows
    partition = np.searchsorted(graph.offset, layer.unit, "right") - 1
    for p in np.unique(partition):
        from_p = np.flatnonzero(partition == p)
        for t in range(layer.pairs.shape[1]):
            named = layer.pairs[from_p, t]
            for name in np.unique(named[named >= 0]):
                at = slice(graph.pair_ptr[name], graph.pair_ptr[name + 1])
                ends = graph.pair_source[at], graph.pair_target[at]
                route = sp.csr_array((np.ones(len(ends[0])), ends), shape=(paths[p].shape[1], targets))
                chosen = from_p[named == name]
                np.add.at(found, (rows[chosen], t), paths[p][layer.unit[chosen] - graph.offset[p]] @ route)
    return found


def _add_paths(
    graph: UnitGraph, layer: UnitLayer, kept: np.ndarray, inflow: np.ndarray, paths: list[np.ndarray]
) -> None:
    """Count the paths to the layer's outputs over its kept weights."""
    inputs = inflow.reshape(layer.groups, prod(inflow.shape[:2]) // layer.groups, -1)
    mask = layer.by_group(kept[layer.weights]).reshape(layer.groups, -1, inputs.shape[1])
    found = np.matmul(mask.astype(np.float64), inputs)
    start = layer.first - graph.offset[layer.target]
    paths[layer.target][start : start + len(layer.weights)] += found.reshape(len(layer.weights), -1)
    if paths[layer.target].max(initial=0.0) > 2.0**500:  # only ratios count: scale all, lose none
        for x in paths:
            np.copyto(x, np.maximum(x * 2.0**-500, 2.0**-900), where=x > 0)
