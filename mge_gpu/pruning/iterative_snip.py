"""Iterative SNIP: connection sensitivity, pruned in steps."""

from collections.abc import Callable
from itertools import islice
from typing import Any

from torch import Tensor, nn

from mge_gpu.pruning._copy import dense_copy, scoring
from mge_gpu.pruning._loss import Loss, check_positive, loss_gradients, set_bn_mode
from mge_gpu.pruning._run import repeated
from mge_gpu.pruning._steps import hide, prune_in_steps


def iterative_snip(
    model: nn.Module,
    sparsity: float,
    *,
    data: Any,
    seed: int = 0,
    steps: int = 10,
    batches: int = 1,
    bn_mode: str = "train",
    loss: Loss | None = None,
    progress: Callable[[str, float | None], None] | None = None,
) -> dict[str, Tensor]:
    """SNIP in ``steps`` exponential steps, with sensitivities computed anew under each mask.

    S = |m θ ∇L(m θ)|, the gradient summed over ``batches`` batches a step; after step t the density is
    (1 - sparsity)^(t / steps), globally ranked, and a pruned weight never returns. Every step takes the next
    batches of ``data``; where these end, they are read again from the start. Other options as for
    :func:`mge_gpu.pruning.snip.snip`, which this is for one step.
    Paper: de Jorge et al., "Progressive Skeletonization: Trimming more fat from a network at
    initialization", ICLR 2021, whose code takes 10 steps.

    Raises DataError on data that do not fit, PruningError on bad options or when the model fails.
    """
    return sensitivity_in_steps(
        "iterative_snip", model, sparsity, data, seed, steps, batches, bn_mode, loss, progress
    )


def sensitivity_in_steps(
    method: str,
    model: nn.Module,
    sparsity: float,
    data: Any,
    seed: int,
    steps: int,
    batches: int,
    bn_mode: str,
    loss: Loss | None,
    progress: Callable[[str, float | None], None] | None,
    regrow: bool = False,
) -> dict[str, Tensor]:
    """Pruning in steps by |θ_init ∇L(m θ_init)|; with ``regrow`` pruned weights may return."""
    check_positive(method, "steps", steps)
    check_positive(method, "batches", batches)
    with scoring(model, seed):
        network, weights = dense_copy(model)
        set_bn_mode(method, network, bn_mode)
        initial = {name: weight.detach().clone() for name, weight in weights.items()}
        parameter = next(iter(weights.values()))
        stream = repeated(data, parameter.device, parameter.dtype)

        def score(masks: dict[str, Tensor]) -> dict[str, Tensor]:
            hide(weights, masks, initial)
            found = loss_gradients(method, network, weights, islice(stream, batches), loss)
            return {name: (initial[name] * gradient).abs() for name, gradient in found.items()}

        return prune_in_steps(method, weights, sparsity, steps, score, regrow=regrow, progress=progress)
