"""Erdős-Rényi-Kernel: ER whose layer densities also count the kernel's extent."""

from collections.abc import Sequence
from math import prod

from torch import Tensor, nn

from mge_gpu.errors import PruningError
from mge_gpu.pruning._copy import dense_weights
from mge_gpu.pruning.er import erdos_renyi_masks


def erk(model: nn.Module, sparsity: float, *, seed: int = 0, power: float = 1.0) -> dict[str, Tensor]:
    """Random masks with density_l = ε [(n_in + n_out + k_h + k_w) / (n_in n_out k_h k_w)]^power, at most 1.

    A linear layer has no kernel terms. Layers that would pass 1 stay dense and the others share the rest,
    so that the total is exact. Paper: Evci et al., "Rigging the Lottery", ICML 2020.
    Raises PruningError on a negative ``power``.
    """
    if not power >= 0:
        raise PruningError(f"erk: power must be 0 or more, got {power!r}")
    weights = dense_weights(model)
    ratios = [erk_ratio(weight.shape) ** power for weight in weights.values()]
    return erdos_renyi_masks(weights, ratios, sparsity, seed)


def erk_ratio(shape: Sequence[int]) -> float:
    """(sum of the weight's dims) / (product of the weight's dims).

    >>> erk_ratio((4, 2, 3, 3)) == 12 / 72
    True
    """
    return sum(shape) / prod(shape)
