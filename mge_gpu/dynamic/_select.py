"""From weights and scores to new masks with exact counts: what every rule of dynamic sparse training does."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from mge_gpu.errors import PruningError
from mge_gpu.pruning._select import top


def drop_smallest(weight: Tensor, mask: Tensor, count: int) -> Tensor:  # (*), (*) bool -> (*) bool
    """The mask without the ``count`` active weights of smallest |weight|; of equal ones the first go.

    Raises PruningError when fewer are active.

    >>> weight = torch.tensor([3.0, -1.0, 0.0, 2.0])
    >>> drop_smallest(weight, torch.tensor([True, True, False, True]), 1)
    tensor([ True, False, False,  True])
    """
    active = weight.detach()[mask]
    _check_count(count, active.numel(), "drop", "active weights")
    kept = mask.clone()
    kept[mask] = ~top(-_comparable(active), count)
    return kept


def grow_random(mask: Tensor, count: int, generator: torch.Generator) -> Tensor:  # (*) bool -> (*) bool
    """The mask with ``count`` more positions, every choice equally likely.

    ``generator`` is a CPU generator, wherever the mask lies: the same seed grows the same positions on every
    device. Raises PruningError when there are fewer free positions.

    >>> mask = torch.tensor([True, False, False, False])
    >>> int(grow_random(mask, 2, torch.Generator().manual_seed(0)).sum())
    3
    """
    free = (~mask).flatten().nonzero().flatten()
    _check_count(count, free.numel(), "grow", "free positions")
    grown = mask.flatten().clone()
    if count:
        chosen = torch.randperm(free.numel(), generator=generator)[:count]
        grown[free[chosen.to(free.device)]] = True
    return grown.view(mask.shape)


def grow_largest(scores: Tensor, mask: Tensor, count: int) -> Tensor:  # (*), (*) bool -> (*) bool
    """The mask with the ``count`` free positions of highest score added; of equal ones the first.

    Raises PruningError when there are fewer free positions.

    >>> grow_largest(torch.tensor([9.0, 1.0, 2.0, 2.0]), torch.tensor([True, False, False, False]), 1)
    tensor([ True, False,  True, False])
    """
    free = ~mask
    candidates = scores.detach()[free]
    _check_count(count, candidates.numel(), "grow", "free positions")
    grown = mask.clone()
    grown[free] = top(_comparable(candidates, absolute=False), count)
    return grown


def rounded_down(fraction: float, count: int) -> int:
    """floor(fraction * count), free of rounding noise.

    >>> rounded_down(0.29, 100)
    29
    """
    return min(math.floor(fraction * count + 1e-9), count)


def rounded_up(fraction: float, count: int) -> int:
    """ceil(fraction * count), free of rounding noise.

    >>> rounded_up(0.07, 100), rounded_up(0.005, 100)
    (7, 1)
    """
    return min(math.ceil(fraction * count - 1e-9), count)


def spread(quotas: Sequence[float], room: Sequence[int]) -> list[float]:
    """Quotas cut at each layer's room; what is cut goes in equal parts to the layers that have room left.

    The sum is kept, as far as there is room at all.

    >>> spread([8.0, 1.0, 0.0], [4, 9, 9])
    [4.0, 3.0, 2.0]
    """
    shares = list(quotas)
    while True:
        excess = sum(max(0.0, share - size) for share, size in zip(shares, room, strict=True))
        shares = [min(share, float(size)) for share, size in zip(shares, room, strict=True)]
        unfilled = [layer for layer, share in enumerate(shares) if share < room[layer]]
        if excess <= 1e-9 or not unfilled:
            return shares
        for layer in unfilled:
            shares[layer] += excess / len(unfilled)


def _comparable(values: Tensor, absolute: bool = True) -> Tensor:
    """Magnitudes in a precision that selection kernels take on every device."""
    values = values.abs() if absolute else values
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values


def _check_count(count: int, available: int, verb: str, what: str) -> None:
    if not 0 <= count <= available:
        raise PruningError(
            f"cannot {verb} {count} of {available} {what}; the count must be in [0, {available}]"
        )
