"""SNIP: single-shot pruning by connection sensitivity, from labelled data."""

from typing import Any

from torch import Tensor, nn

from mge_gpu.pruning._copy import dense_copy, scoring
from mge_gpu.pruning._loss import Loss, check_positive, loss_gradients, set_bn_mode
from mge_gpu.pruning._run import batches as take_batches
from mge_gpu.pruning._select import kept_count, top_masks


def snip(
    model: nn.Module,
    sparsity: float,
    *,
    data: Any,
    seed: int = 0,
    batches: int = 1,
    bn_mode: str = "train",
    loss: Loss | None = None,
) -> dict[str, Tensor]:
    """Keep the weights whose removal would change the loss most, in one shot, globally ranked.

    S = |∂L/∂c| at c = 1 for the weights c θ, that is |θ ∂L/∂θ|; over several ``batches`` the gradients are
    summed before the absolute value. ``data`` yields pairs (inputs, labels). ``bn_mode``: "train"
    normalises by the statistics of the batch, "eval" by the running ones; all other layers are in
    evaluation mode (no dropout). ``loss(output, labels)`` is cross entropy unless given.
    Paper: Lee et al., "SNIP: Single-shot Network Pruning based on Connection Sensitivity", ICLR 2019.

    Raises DataError on data that do not fit, PruningError on bad options or when the model fails.
    """
    with scoring(model, seed):
        return top_masks(
            scores := snip_scores(model, data=data, batches=batches, bn_mode=bn_mode, loss=loss),
            kept_count(sum(score.numel() for score in scores.values()), sparsity),
        )


def snip_scores(
    model: nn.Module, *, data: Any, batches: int = 1, bn_mode: str = "train", loss: Loss | None = None
) -> dict[str, Tensor]:
    """The sensitivities |θ Σ_b ∂L_b/∂θ| by weight name; see :func:`snip`."""
    check_positive("snip", "batches", batches)
    network, weights = dense_copy(model)
    set_bn_mode("snip", network, bn_mode)
    parameter = next(iter(weights.values()))
    drawn = take_batches(data, batches, parameter.device, parameter.dtype)
    sums = loss_gradients("snip", network, weights, drawn, loss)
    return {name: (weight.detach() * sums[name]).abs() for name, weight in weights.items()}
