"""FORCE: connection sensitivity in steps, in which a pruned weight may return."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from mge_gpu.pruning._loss import Loss
from mge_gpu.pruning.iterative_snip import sensitivity_in_steps


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
    return sensitivity_in_steps(
        "force", model, sparsity, data, seed, steps, batches, bn_mode, loss, progress, regrow=True
    )
