"""What published tables call "er": Erdős-Rényi-Kernel whose too high probabilities are only clipped."""

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor, nn

from mge_gpu.errors import PruningError
from mge_gpu.pruning._copy import dense_weights
from mge_gpu.pruning.erk import erk_ratio

TOLERANCE = 5
"""The search for ε is content with a count that is fewer than so many weights off."""


def er_published(model: nn.Module, sparsity: float, *, seed: int = 0) -> dict[str, Tensor]:
    """Keep each weight with probability min(1, ε (sum of its layer's dims) / (product of its layer's dims)).

    For comparison with published results only: :func:`mge_gpu.pruning.erk.erk` is the method itself. These
    are ERK's ratios, but what layers above probability 1 cannot hold is lost, and the ε that is used lies one
    step of its search beyond the one found (see :func:`published_epsilon`). So the kept count is **not** the
    asked one: ResNet-20 ends at a density of 0.345, 0.178, 0.094, 0.049, 0.0196 where 0.4, 0.2, 0.1, 0.05,
    0.02 were asked, and since every weight is drawn by itself, it varies with the seed. ``prune`` says how
    near it came (InexactCountWarning). Sparsity 0 keeps everything. This is the MGE paper's "er".

    Raises PruningError where the search for ε does not end.
    """
    weights = dense_weights(model)
    epsilon = published_epsilon([tuple(weight.shape) for weight in weights.values()], 1 - sparsity)
    generator = torch.Generator().manual_seed(seed)
    masks = {}
    for name, weight in weights.items():
        probability = 1.0 if sparsity == 0 else epsilon * erk_ratio(weight.shape)
        masks[name] = torch.rand(weight.shape, generator=generator) < probability
    return masks


def published_epsilon(shapes: Sequence[Sequence[int]], density: float) -> float:
    """The ε of published results, for layers of these shapes: a step beyond ε Σ_l (sum of dims) ≈ density N.

    From ε = 10, each step grows or shrinks ε by a factor 1 ± g, g = 0.5 · 0.95^step, towards the asked
    count, until a step *began* within 5 weights of it: that step is still taken.

    >>> published_epsilon([(100, 100)], 0.1)  # 5 would keep the 1,000 that are asked
    7.375
    """
    per_epsilon = sum(sum(shape) for shape in shapes)
    wanted = density * sum(prod(shape) for shape in shapes)
    epsilon, step = 10.0, 0.5
    for _ in range(1000):
        count = epsilon * per_epsilon
        epsilon *= 1 - step if count > wanted else 1 + step
        step *= 0.95
        if abs(count - wanted) < TOLERANCE:
            return epsilon
    raise PruningError(
        f"er_published: no ε was found that keeps {wanted:.0f} weights (the last keeps {count:.0f}); use erk"
    )
