"""SNIP: single-shot pruning by connection sensitivity, from labelled data."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from mge_gpu.errors import DataError, PruningError
from mge_gpu.pruning._copy import dense_copy, scoring
from mge_gpu.pruning._run import batches as take_batches
from mge_gpu.pruning._run import gradients, output_tensors, run
from mge_gpu.pruning._select import kept_count, top_masks

Loss = Callable[[Tensor, Tensor], Tensor]


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
    if not isinstance(batches, int) or isinstance(batches, bool) or batches < 1:
        raise PruningError(f"snip: batches must be a positive integer, got {batches!r}")
    if bn_mode not in ("train", "eval"):
        raise PruningError(f"snip: bn_mode must be 'train' or 'eval', got {bn_mode!r}")
    network, weights = dense_copy(model)
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.train(bn_mode == "train")
    parameter = next(iter(weights.values()))
    sums = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    for inputs, labels in take_batches(data, batches, parameter.device, parameter.dtype):
        output = run(network, inputs)
        if loss is not None:
            value = loss(output, labels)
        else:
            value = cross_entropy(next(output_tensors(output), None), labels)
        for name, gradient in gradients(value, weights).items():
            sums[name] += gradient
    return {name: (weight.detach() * sums[name]).abs() for name, weight in weights.items()}


def cross_entropy(logits: Tensor | None, labels: Tensor) -> Tensor:  # (B, K), (B,) int64 -> ()
    """Mean cross entropy; DataError where the labels are no class numbers of the logits."""
    if logits is None or logits.ndim != 2:
        got = "no tensor" if logits is None else f"an output of shape {tuple(logits.shape)}"
        raise PruningError(f"snip: expected logits of shape (batch, classes), got {got}; pass loss=")
    if labels.ndim != 1 or labels.is_floating_point():
        raise DataError(f"labels must be one integer per input, got {labels.dtype} {tuple(labels.shape)}")
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= logits.shape[1]:
        raise DataError(f"labels run from {low} to {high}, but the model has {logits.shape[1]} classes")
    return nn.functional.cross_entropy(logits, labels.long())
