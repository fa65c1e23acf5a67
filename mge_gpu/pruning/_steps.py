"""Pruning in exponential steps, with scores that are computed anew under each mask."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from mge_gpu.errors import PruningError
from mge_gpu.pruning._select import NOTHING_RANKED, ScoredMasks, as_masks, kept_after, top

Score = Callable[[dict[str, Tensor]], Mapping[str, Tensor]]


def prune_in_steps(
    method: str,
    weights: Mapping[str, Tensor],
    sparsity: float,
    iterations: int,
    score: Score,
    progress: Callable[[str, float | None], None] | None = None,
) -> ScoredMasks:
    """Keep the weights of highest ``score(masks)`` in ``iterations`` steps; what is pruned never returns.

    After step t the density is (1 - sparsity)^(t / iterations), ranked over all layers. ``masks`` are those
    of the step before, on the weights' device; scores are finite and 0 or more. The scores that are handed on
    are the step that a weight survived, and by its score within the step.

    Raises PruningError when all scores of the first step are zero.
    """
    device = next(iter(weights.values())).device
    total = sum(weight.numel() for weight in weights.values())
    alive = torch.arange(total, device=device)
    flat = torch.ones(total, dtype=torch.bool, device=device)
    survived = torch.empty(total, dtype=torch.float64, device=device)
    for step in range(1, iterations + 1):
        found = score(as_masks(flat, weights))
        scores = torch.cat([found[name].detach().flatten() for name in weights])[alive]
        if step == 1 and not bool(scores.any()):
            raise PruningError(f"{method}: {NOTHING_RANKED}")
        kept = top(scores, kept_after(total, sparsity, step, iterations))
        survived[alive[~kept]] = step + _growing(scores[~kept])
        alive = alive[kept]
        flat = torch.zeros_like(flat)
        flat[alive] = True
        if progress is not None:
            progress(f"{method} step {step}/{iterations}", step / iterations)
    survived[alive] = iterations + 1 + _growing(scores[kept])
    return ScoredMasks(as_masks(flat.cpu(), weights), as_masks(survived.cpu(), weights))


def _growing(scores: Tensor) -> Tensor:
    """Numbers in [0, 1) in the order of the scores, however many orders of magnitude these span."""
    return (scores.double().log2().clamp(-1100, 1099) + 1100) / 2200
