"""PHEW: random walks through the network, biased towards large weights, decide what is kept."""

import warnings
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from mge_gpu.pruning._copy import dense_copy, scoring
from mge_gpu.pruning._select import as_masks, kept_count
from mge_gpu.pruning._units import UnitGraph, unit_graph
from mge_gpu.pruning._walk_tables import walk_tables


class PathWarning(UserWarning):
    """Fewer weights lie on paths from input to output than are to be kept."""


WALKS = 2000
"""Walks between two looks at how much they still add."""

SLOW = 20
"""Where so many walks add less than one weight, the next walks are made to pass weights that are not kept."""


def phew(
    model: nn.Module,
    sparsity: float,
    *,
    input_shape: Sequence[int],
    seed: int = 0,
    progress: Callable[[str, float | None], None] | None = None,
) -> dict[str, Tensor]:
    """Keep the weights that random walks between input and output pass, until the count is reached.

    Walks go forwards and backwards in turn, from the input and from the output units (channels) in turn. A
    forward step from unit j goes to i with probability ‖W_ij‖₁ / Σ_i ‖W_ij‖₁, a backward step from i to j
    with ‖W_ij‖₁ / Σ_j ‖W_ij‖₁; within a kernel one tap is taken with probability proportional to |w|. Where
    several layers read (or write) a unit, and where a shortcut passes by, each way is equally likely; an
    identity shortcut costs no weight. Where all kernels are zero, they are equally likely.

    What holds: the count is exact, and every kept weight lies on a path of kept weights from an input to an
    output element of the unrolled network (identity shortcuts included). A walk therefore takes no tap that
    sees only zero padding from the positions that it has come by. Two things depart from the paper. Where
    walks hardly add anything any more (low sparsity) they are led through weights that are not kept yet,
    drawn in proportion to |w|. And a last walk that would be too long is not cut: walks limited to the number
    of weights still missing take its place. Only where none fits (weights that no path passes, fewer weights
    asked for than a path has) the rest is drawn at random, and a PathWarning says how many.

    Paper: Patil & Dovrolis, "PHEW: Constructing Sparse Networks that Learn Fast and Generalize Well without
    Training Data", ICML 2021. Raises PruningError when the model fails on ``input_shape`` or when a layer's
    weights cannot be told apart; TracingError when it cannot be traced.

    >>> masks = phew(nn.Sequential(nn.Linear(6, 8), nn.Linear(8, 4)), 0.8, input_shape=(6,))
    >>> int(sum(mask.sum() for mask in masks.values()))
    16
    """
    with scoring(model, seed):
        network, weights = dense_copy(model)
        graph = unit_graph(network, weights, input_shape)
        flat = torch.cat([w.detach().flatten().abs().double().cpu() for w in weights.values()]).numpy()
    rng = np.random.default_rng(seed)
    kept, astray = _walked(graph, flat, kept_count(len(flat), sparsity), rng, progress)
    if astray:
        warnings.warn(
            f"phew: {astray:,} of the {int(kept.sum()):,} weights to keep fit on no path from input to "
            "output; they are drawn at random",
            PathWarning,
            stacklevel=2,
        )
    return as_masks(torch.from_numpy(kept), weights)


def _walked(
    graph: UnitGraph,
    size: np.ndarray,  # (prunable,) float64
    count: int,
    rng: np.random.Generator,
    progress: Callable[[str, float | None], None] | None = None,
) -> tuple[np.ndarray, int]:
    """(prunable,) bool with ``count`` True, and how many of them are on no path."""
    from mge_gpu.pruning import _walks  # compiled on first use

    size = np.concatenate([size, graph.fixed])
    kept = np.zeros(len(size), bool)
    kept[graph.prunable :] = True
    tables = walk_tables(graph, size)
    forth, back = graph.reached(np.ones(len(size), bool))
    inputs, outputs = (u[(forth & back)[u]] for u in (graph.inputs, graph.outputs))
    sets = np.zeros((2, int(graph.positions.max())), np.uint8)
    path, names = (np.zeros(len(graph.layers) + 1, np.int64) for _ in range(2))

    def told() -> None:
        if progress is not None:
            progress("phew", 1 - missing / max(count, 1))

    missing, turn, over = count, 0, not len(inputs)
    while missing and not over:
        added, over = _walks.random_walks(
            tables, size, kept, missing, turn, WALKS, inputs, outputs, sets, path, names, rng
        )
        missing, turn = missing - added, turn + WALKS
        told()
        if added * SLOW < WALKS:
            break
    while missing:
        slots = np.flatnonzero(~kept[tables.weights])
        # In the order of draws without replacement in proportion to |w|; zeros come last.
        with np.errstate(divide="ignore"):
            key = np.log(size[tables.weights[slots]]) + rng.gumbel(size=len(slots))
        order = slots[np.argsort(-key, kind="stable")]
        added = _walks.walks_through(
            tables, size, kept, order, missing, len(graph.layers), sets, path, names, rng
        )
        missing -= added
        told()
        if not added:
            break
    kept = kept[: graph.prunable]
    kept[rng.permutation(np.flatnonzero(~kept))[:missing]] = True
    return kept, missing
