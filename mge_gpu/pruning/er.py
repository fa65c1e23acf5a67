"""Erdős-Rényi: layer densities that fall with the layer's width, positions are random."""

from collections.abc import Sequence

from torch import Tensor, nn

from mge_gpu.pruning._copy import dense_weights
from mge_gpu.pruning._select import allot, kept_count, random_masks


def er(model: nn.Module, sparsity: float, *, seed: int = 0) -> dict[str, Tensor]:
    """Random masks with density_l = ε (n_in + n_out) / (n_in n_out), at most 1.

    n_in and n_out are the second and first dim of the weight; the kernel's extent is ignored, for
    convolutions too (:func:`mge_gpu.pruning.erk.erk` counts it). ε is such that the whole network has the
    asked density; layers that would pass 1 stay dense and the others share the rest
    (see :func:`densities`). Paper: Mocanu et al., Nature Communications 2018. What the MGE paper
    publishes as "er" is ERK without that last step.
    """
    weights = dense_weights(model)
    ratios = [er_ratio(weight.shape) for weight in weights.values()]
    return erdos_renyi_masks(weights, ratios, sparsity, seed)


def er_ratio(shape: Sequence[int]) -> float:
    """(n_in + n_out) / (n_in n_out) of a weight of this shape.

    >>> er_ratio((4, 2, 3, 3))
    0.75
    """
    return (shape[0] + shape[1]) / (shape[0] * shape[1])


def erdos_renyi_masks(
    weights: dict[str, Tensor], ratios: Sequence[float], sparsity: float, seed: int
) -> dict[str, Tensor]:
    """Random masks whose layer densities are proportional to ``ratios``, with an exact total."""
    sizes = [weight.numel() for weight in weights.values()]
    layers = densities(ratios, sizes, 1 - sparsity)
    quotas = [density * size for density, size in zip(layers, sizes, strict=True)]
    return random_masks(weights, allot(quotas, sizes, kept_count(sum(sizes), sparsity)), seed)


def densities(ratios: Sequence[float], sizes: Sequence[int], density: float) -> list[float]:
    """Layer densities min(1, ε ratio_l) with Σ density_l size_l = density Σ size_l.

    While ε times the largest ratio passes 1, the layers of that ratio become dense (the set D) and
    ε = [density Σ_l size_l - Σ_{l in D} size_l] / Σ_{l not in D} ratio_l size_l is computed anew
    (Evci et al., "Rigging the Lottery", ICML 2020).

    >>> densities([1.0, 0.5], [10, 100], 0.9)
    [1.0, 0.89]
    """
    budget = density * sum(sizes)
    dense: set[int] = set()
    while len(dense) < len(sizes):
        free = [layer for layer in range(len(sizes)) if layer not in dense]
        rest = budget - sum(sizes[layer] for layer in dense)
        epsilon = rest / sum(ratios[layer] * sizes[layer] for layer in free)
        largest = max(ratios[layer] for layer in free)
        if epsilon * largest <= 1:
            return [1.0 if layer in dense else epsilon * ratios[layer] for layer in range(len(sizes))]
        dense.update(layer for layer in free if ratios[layer] == largest)
    return [1.0] * len(sizes)
