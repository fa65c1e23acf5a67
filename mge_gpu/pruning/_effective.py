"""Reach an effective sparsity by bisection on the direct one."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mge_gpu.errors import PruningError
from mge_gpu.metrics import effective_masks
from mge_gpu.pruning._select import ScoredMasks, as_masks, kept_count, top
from mge_gpu.tracing import trace

Masks = dict[str, Tensor]


@dataclass(frozen=True)
class EffectiveReport:
    """How near the bisection came: what was asked, what was found, and at which direct sparsity."""

    target: float
    effective_sparsity: float
    direct_sparsity: float
    evaluations: int

    @property
    def error(self) -> float:
        """Found minus asked."""
        return self.effective_sparsity - self.target


def bisect_effective(
    prune_at: Callable[[float], Masks],
    effective_density: Callable[[Masks], float],
    target: float,
    *,
    resolution: float = 1e-6,
    tolerance: float = 0.0,
) -> tuple[Masks, EffectiveReport]:
    """The masks of ``prune_at(direct sparsity)`` whose effective sparsity is nearest to ``target``.

    The effective sparsity is 1 - ``effective_density(masks)``, the share of weights that lie on no path from
    an input to an output, or are pruned; it is never below the direct one, so that the search runs
    over [0, ``target``]. It ends when the two direct sparsities that enclose the target are ``resolution``
    apart (1 / number of weights tells single weights apart) or the error is at most ``tolerance``. Cost:
    about log2(target / resolution) calls of each function.

    For masks of one fixed order of weights (a score that does not depend on the sparsity), every kept set
    contains the sparser ones, the effective density falls with the direct one, and the result is the nearest
    there is; where one weight cuts many off, that may still be far. Methods that score or draw anew at each
    sparsity (iterative ones, random ones whose layer counts move) promise no order: the search then ends at
    one crossing of several, and the report says what was reached.
    Paper: Vysogorets and Kempe, "Connectivity matters: neural network pruning through the lens of effective
    sparsity", JMLR 2023.

    Raises PruningError on a target outside [0, 1), when the dense network is effectively sparser than that
    already, or when a density contradicts its meaning.

    >>> import torch
    >>> masks, report = bisect_effective(
    ...     lambda s: {"w": torch.arange(100) >= round(100 * s)},
    ...     lambda masks: masks["w"].float().mean().item() ** 2,
    ...     0.75,
    ... )
    >>> int(masks["w"].sum()), round(report.effective_sparsity, 6)
    (50, 0.75)
    """
    if not 0 <= target < 1:
        raise PruningError(f"an effective sparsity must be in [0, 1), got {target!r}")
    evaluations = 0

    def measure(direct: float) -> tuple[Masks, EffectiveReport]:
        nonlocal evaluations
        masks = prune_at(direct)
        density = effective_density(masks)
        kept, total = sum(int(m.sum()) for m in masks.values()), sum(m.numel() for m in masks.values())
        evaluations += 1
        if not -1e-9 <= density <= kept / total + 1e-9:
            raise PruningError(
                f"an effective density of {density:g} where {kept} of {total} weights are kept; expected one "
                "between 0 and the direct density"
            )
        return masks, EffectiveReport(target, 1 - density, direct, evaluations)

    best = measure(0.0)
    if best[1].error > tolerance:
        raise PruningError(
            f"the dense network's effective sparsity is {best[1].effective_sparsity:g} already, above the "
            f"asked {target:g}; ask for more, or remove what leads nowhere"
        )
    low, high = 0.0, target
    direct = target
    while abs(best[1].error) > tolerance:
        found = measure(direct)
        if abs(found[1].error) < abs(best[1].error):
            best = found
        if found[1].error < 0:
            low = direct
        else:
            high = direct
        if high - low <= resolution:
            break
        direct = (low + high) / 2
    masks, report = best
    return masks, EffectiveReport(target, report.effective_sparsity, report.direct_sparsity, evaluations)


def prune_effectively(
    model: nn.Module, input_shape: Sequence[int], target: float, prune_at: Callable[[float], Masks]
) -> tuple[Masks, EffectiveReport]:
    """`bisect_effective` on the traced model.

    A method that ranks all weights at once is run once, at ``target``, and its ranking is cut at each direct
    sparsity; any other is run at each.
    """
    program = trace(model, input_shape)
    found = prune_at(target)
    total = sum(mask.numel() for mask in found.values())
    cut = _cut_of(found) or prune_at

    def density(masks: Masks) -> float:
        return sum(int(mask.sum()) for mask in effective_masks(program, masks).values()) / total

    return bisect_effective(cut, density, target, resolution=0.5 / total, tolerance=0.5 / total)


def _cut_of(found: Masks) -> Callable[[float], Masks] | None:
    """Masks at a sparsity by the scores of ``found``, if these alone decided over its weights."""
    if not isinstance(found, ScoredMasks):
        return None
    scores = torch.cat([found.scores[name].flatten() for name in found])
    kept = torch.cat([mask.flatten() for mask in found.values()])
    if not torch.equal(top(scores, int(kept.sum())), kept):
        return None
    return lambda sparsity: as_masks(top(scores, kept_count(len(scores), sparsity)), found)
