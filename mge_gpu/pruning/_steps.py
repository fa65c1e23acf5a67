"""Pruning in steps of exponentially falling density, with scores computed anew under each mask."""

import warnings
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from mge_gpu.errors import PruningError
from mge_gpu.pruning._select import (
    NOTHING_RANKED,
    LayerCollapseWarning,
    ScoredMasks,
    as_masks,
    check_finite,
    kept_after,
    top,
)


def prune_in_steps(
    method: str,
    weights: Mapping[str, nn.Parameter],
    sparsity: float,
    steps: int,
    score: Callable[[], Mapping[str, Tensor]],
    *,
    initial: Mapping[str, Tensor] | None = None,
    progress: Callable[[str, float | None], None] | None = None,
) -> ScoredMasks:
    """Masks after ``steps`` steps, the t-th of which keeps (1 - sparsity)^(t / steps) of all weights.

    ``weights`` are changed: they hold the masked values, for which ``score()`` gives the scores, 0 or more. A
    pruned weight never returns, unless ``initial`` is given: the values with which it may. The masks' own
    scores rank weights by the step that removed them last, and within it by their score.

    Raises PruningError on scores that are not finite, or all zero in the first step. Warns with
    LayerCollapseWarning when they are all zero later: the network is cut, and the rest goes by order.
    """
    total = sum(weight.numel() for weight in weights.values())
    candidates = torch.arange(total, device=next(iter(weights.values())).device)
    survived = torch.zeros(total, dtype=torch.float64, device=candidates.device)
    for step in range(1, steps + 1):
        found = score()
        check_finite(found)
        scores = torch.cat([part.detach().flatten() for part in found.values()])[candidates]
        if not bool(scores.any()):
            _nothing_ranked(method, step, steps)
        best = top(scores, kept_after(total, sparsity, step, steps))
        survived[candidates[~best]] = step + _growing(scores[~best])
        kept = candidates[best]
        flat = torch.zeros(total, dtype=torch.bool, device=candidates.device)
        flat[kept] = True
        masks = as_masks(flat, weights)
        with torch.no_grad():
            for name, mask in masks.items():
                if initial is not None:
                    weights[name].copy_(initial[name])
                weights[name].masked_fill_(~mask, 0)
        if initial is None:
            candidates = kept
        if progress is not None:
            progress(f"{method} step {step}/{steps}", step / steps)
    survived[kept] = steps + 1 + _growing(scores[best])
    return ScoredMasks(as_masks(flat.cpu(), weights), as_masks(survived.cpu(), weights))


def _growing(scores: Tensor) -> Tensor:
    """Numbers in [0, 1) in the order of the scores, however many orders of magnitude these span."""
    return (scores.double().log2().clamp(-1100, 1099) + 1100) / 2200


def _nothing_ranked(method: str, step: int, steps: int) -> None:
    if step == 1:
        raise PruningError(f"{method}: {NOTHING_RANKED}")
    warnings.warn(
        f"{method}: no signal passes the network that step {step - 1} of {steps} left, every weight scores "
        "zero and the first in order are kept; take more steps or a lower sparsity",
        LayerCollapseWarning,
        stacklevel=5,
    )
