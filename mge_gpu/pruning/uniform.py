"""Uniform: every layer gets the same density, positions are random."""

from torch import Tensor, nn

from mge_gpu.pruning._copy import dense_weights
from mge_gpu.pruning._select import allot, kept_count, random_masks


def uniform(model: nn.Module, sparsity: float, *, seed: int = 0) -> dict[str, Tensor]:
    """Keep (1 - sparsity) of each layer's weights at random.

    density_l = 1 - sparsity, rounded to whole weights so that the total is exact. The first layer is pruned
    like the others. What the MGE paper publishes as "uniform" is :func:`mge_gpu.pruning.random_global`.
    """
    weights = dense_weights(model)
    sizes = [weight.numel() for weight in weights.values()]
    counts = allot([(1 - sparsity) * size for size in sizes], sizes, kept_count(sum(sizes), sparsity))
    return random_masks(weights, counts, seed)
