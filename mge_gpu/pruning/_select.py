"""From scores or densities to masks that keep exactly as many weights as asked."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from mge_gpu.errors import PruningError

NOTHING_RANKED = (
    "every weight scores zero, so nothing ranks them; the output does not respond to the weights "
    "(a classifier that is initialised to zero?): initialise the layers that are zero, or use another method"
)


class LayerCollapseWarning(UserWarning):
    """A pruning method kept not a single weight of a layer, or left a network that passes no signal."""


class ScoredMasks(dict[str, Tensor]):
    """Masks, and in ``scores`` what their method ranks the weights by (higher: kept longer), by name.

    A method whose masks carry no scores counts as random: none of its weights is better than another.
    """

    def __init__(self, masks: Mapping[str, Tensor], scores: Mapping[str, Tensor]) -> None:
        super().__init__(masks)
        self.scores = dict(scores)


def kept_count(total: int, sparsity: float) -> int:
    """The number of weights to keep: round((1 - sparsity) * total).

    >>> kept_count(1000, 0.98)
    20
    """
    return round((1 - sparsity) * total)


def kept_after(total: int, sparsity: float, step: int, steps: int) -> int:
    """The number of weights to keep after ``step`` of ``steps``, at density (1 - sparsity)^(step / steps).

    >>> [kept_after(1000, 0.99, step, 2) for step in (0, 1, 2)]
    [1000, 100, 10]
    """
    if step == steps:  # the power may differ from the target by rounding
        return kept_count(total, sparsity)
    return kept_count(total, 1 - (1 - sparsity) ** (step / steps))


def allot(quotas: Sequence[float], sizes: Sequence[int], total: int) -> list[int]:
    """Integers near the quotas that sum to ``total``: largest remainders, each at most its size.

    Each quota is rounded down; what is missing goes, one by one, to the largest fractions (ties: the first).

    >>> allot([1.5, 2.5, 1.0], [9, 9, 9], 5)
    [2, 2, 1]
    """
    # A quota that is an integer but for rounding noise must not lose one weight.
    counts = [min(int(quota + 1e-9), size) for quota, size in zip(quotas, sizes, strict=True)]
    order = sorted(range(len(quotas)), key=lambda layer: counts[layer] - quotas[layer])
    while (missing := total - sum(counts)) != 0:
        step = 1 if missing > 0 else -1
        changed = False
        for layer in order if step > 0 else reversed(order):
            if missing != 0 and 0 <= counts[layer] + step <= sizes[layer]:
                counts[layer] += step
                missing -= step
                changed = True
        if not changed:
            raise PruningError(f"cannot keep {total} of {sum(sizes)} weights")
    return counts


def random_masks(weights: Mapping[str, Tensor], counts: Sequence[int], seed: int) -> dict[str, Tensor]:
    """Keep ``counts[l]`` weights of layer l, all choices equally likely."""
    generator = torch.Generator().manual_seed(seed)
    masks = {}
    for (name, weight), count in zip(weights.items(), counts, strict=True):
        mask = torch.zeros(weight.numel(), dtype=torch.bool)
        mask[torch.randperm(weight.numel(), generator=generator)[:count]] = True
        masks[name] = mask.reshape(weight.shape)
    return masks


def top_masks(scores: Mapping[str, Tensor], count: int) -> ScoredMasks:
    """Keep exactly the ``count`` highest scores over all layers; of equal scores the first in order.

    Raises PruningError on NaN or Inf scores, naming the layer, and when all scores are equal to zero.

    >>> top_masks({"a": torch.tensor([1.0, 1.0]), "b": torch.tensor([2.0, 1.0])}, 2)
    {'a': tensor([ True, False]), 'b': tensor([ True, False])}
    """
    check_finite(scores)
    if not any(bool(score.any()) for score in scores.values()):
        raise PruningError(NOTHING_RANKED)
    flat = torch.cat([score.detach().flatten().cpu() for score in scores.values()])
    return ScoredMasks(as_masks(top(flat, count), scores), as_masks(flat, scores))


def check_finite(scores: Mapping[str, Tensor]) -> None:
    """PruningError on NaN or Inf scores, naming the layer."""
    for name, score in scores.items():
        if not is_finite(score):
            raise PruningError(
                f"{name}: the pruning scores are not finite (the pass overflowed); "
                "check that the weights and inputs are finite and of ordinary size"
            )


def is_finite(values: Tensor) -> bool:
    """Whether no value is NaN or Inf: from the extremes, which NaN and Inf are, in one pass over the memory.

    >>> is_finite(torch.tensor([1.0, float("nan"), 2.0])), is_finite(torch.ones(0))
    (False, True)
    """
    return not values.numel() or bool(torch.isfinite(torch.stack(values.aminmax())).all())


def as_masks(flat: Tensor, like: Mapping[str, Tensor]) -> dict[str, Tensor]:  # (N,)
    """Cut a flat mask (or score) over all weights into one of each weight's shape."""
    parts = flat.split([weight.numel() for weight in like.values()])
    return {name: part.reshape(like[name].shape) for name, part in zip(like, parts, strict=True)}


def top(scores: Tensor, count: int) -> Tensor:  # (N,) -> (N,) bool
    """True at exactly the ``count`` highest scores; of equal ones at the first.

    >>> top(torch.tensor([0.0, 3.0, 0.0, 0.0]), 3)
    tensor([ True,  True,  True, False])
    """
    if count <= 0:
        return torch.zeros_like(scores, dtype=torch.bool)
    # Selecting is several times faster than a stable sort of all scores, and as exact.
    threshold = scores.kthvalue(scores.numel() - count + 1).values
    kept = scores > threshold
    ties = (scores == threshold).nonzero().flatten()
    kept[ties[: count - int(kept.sum())]] = True
    return kept
