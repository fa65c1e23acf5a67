"""Pruning in steps of exponentially falling density, with scores computed anew under each mask."""

import warnings
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

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

Score = Callable[[dict[str, Tensor]], Mapping[str, Tensor]]


def prune_in_steps(
    method: str,
    weights: Mapping[str, Tensor],
    sparsity: float,
    steps: int,
    score: Score,
    *,
    regrow: bool = False,
    progress: Callable[[str, float | None], None] | None = None,
) -> ScoredMasks:
    """Masks after ``steps`` steps, the t-th of which keeps (1 - sparsity)^(t / steps) of all weights.

    ``score(masks)`` gives scores of 0 or more under the masks of the step before, which are on the weights'
    device; the best over all layers are kept. A pruned weight returns only with ``regrow``. The scores that
    are handed on are the step that a weight survived and, within the step, its score; with ``regrow`` those
    of the last step.

    Raises PruningError on scores that are not finite, or all zero in the first step. Warns with
    LayerCollapseWarning when they are all zero later: the network is cut, and the rest goes by order.
    """
    device = next(iter(weights.values())).device
    total = sum(weight.numel() for weight in weights.values())
    candidates = torch.arange(total, device=device)
    flat = torch.ones(total, dtype=torch.bool, device=device)
    survived = torch.empty(total, dtype=torch.float64, device=device)
    for step in range(1, steps + 1):
        found = score(as_masks(flat, weights))
        check_finite(found)
        scores = torch.cat([found[name].detach().flatten() for name in weights])[candidates]
        if not bool(scores.any()):
            _nothing_ranked(method, step, steps)
        best = top(scores, kept_after(total, sparsity, step, steps))
        # What stays a candidate is written in a later step: most weights only once.
        done = torch.ones_like(best) if regrow or step == steps else ~best
        survived[candidates[done]] = step + best[done].double() + _growing(scores[done])
        flat = torch.zeros_like(flat)
        flat[candidates[best]] = True
        if not regrow:
            candidates = candidates[best]
        if progress is not None:
            progress(f"{method} step {step}/{steps}", step / steps)
    return ScoredMasks(as_masks(flat.cpu(), weights), as_masks(survived.cpu(), weights))


@torch.no_grad()
def hide(
    weights: Mapping[str, Tensor], masks: Mapping[str, Tensor], initial: Mapping[str, Tensor] | None = None
) -> None:
    """Set the weights outside the masks to 0; with ``initial``, those inside to these values."""
    for name, mask in masks.items():
        if initial is not None:
            weights[name].copy_(initial[name])
        weights[name].masked_fill_(~mask, 0)


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
