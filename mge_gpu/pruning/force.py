"""FORCE: connection sensitivity in steps, in which a pruned weight may return."""

from collections.abc import Callable
from itertools import islice
from typing import Any

from torch import Tensor, nn

from mge_gpu.pruning._copy import dense_copy, scoring
from mge_gpu.pruning._loss import Loss, check_positive, loss_gradients, set_bn_mode
from mge_gpu.pruning._run import repeated
from mge_gpu.pruning._steps import hide, prune_in_steps


def force(
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
    """Foresight connection sensitivity: keep the weights that matter in the network that pruning leaves.

    S = |θ_init ∇L(m θ_init)| for masked weights too: one that would now change the loss more than one that
    is kept returns with its initial value. Densities, data, options and paper as for
    :func:`mge_gpu.pruning.iterative_snip.iterative_snip`; one step is SNIP.

    Raises DataError on data that do not fit, PruningError on bad options or when the model fails.
    """
    check_positive("force", "steps", steps)
    check_positive("force", "batches", batches)
    with scoring(model, seed):
        network, weights = dense_copy(model)
        set_bn_mode("force", network, bn_mode)
        initial = {name: weight.detach().clone() for name, weight in weights.items()}
        parameter = next(iter(weights.values()))
        stream = repeated(data, parameter.device, parameter.dtype)

        def score(masks: dict[str, Tensor]) -> dict[str, Tensor]:
            hide(weights, masks, initial)
            found = loss_gradients("force", network, weights, islice(stream, batches), loss)
            return {name: (initial[name] * gradient).abs() for name, gradient in found.items()}

        return prune_in_steps("force", weights, sparsity, steps, score, regrow=True, progress=progress)
