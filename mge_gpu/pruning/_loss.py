"""What the methods share that score by a loss: options, batch normalisation's mode, the loss itself."""

import math
from collections.abc import Callable, Iterable, Mapping
from numbers import Real
from typing import Any

import torch
from torch import Tensor, nn

from mge_gpu.errors import DataError, PruningError
from mge_gpu.pruning._recompute import recomputing
from mge_gpu.pruning._run import gradients, output_tensors, run

Loss = Callable[[Tensor, Tensor], Tensor]


def check_positive(method: str, option: str, value: object) -> None:
    """PruningError unless an option is an integer of at least 1."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise PruningError(f"{method}: {option} must be a positive integer, got {value!r}")


def check_number(method: str, option: str, value: Any, expected: str, holds: Callable[[float], bool]) -> None:
    """PruningError unless an option is a finite real number of which ``holds`` is true."""
    real = isinstance(value, Real) and not isinstance(value, bool)
    if not (real and math.isfinite(value) and holds(float(value))):
        raise PruningError(f"{method}: {option} must be {expected}, got {value!r}")


def set_bn_mode(method: str, network: nn.Module, bn_mode: str) -> None:
    """Batch normalisation by the batch ("train") or by the running statistics ("eval").

    All other layers stay as they are: in evaluation mode in a copy from ``dense_copy``.
    """
    if bn_mode not in ("train", "eval"):
        raise PruningError(f"{method}: bn_mode must be 'train' or 'eval', got {bn_mode!r}")
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.train(bn_mode == "train")


def loss_gradients(
    method: str,
    network: nn.Module,
    weights: Mapping[str, Tensor],
    batches: Iterable[tuple[Tensor, Tensor]],
    loss: Loss | None,
    temperature: float = 1.0,
) -> dict[str, Tensor]:
    """The gradients of the loss in ``weights``, by name, summed over batches (inputs, labels)."""
    sums = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    for inputs, labels in batches:
        with recomputing(network, inputs):
            value = loss_of(method, run(network, inputs), labels, loss, temperature)
            found = gradients(value, weights)
        for name, gradient in found.items():
            sums[name] += gradient
    return sums


def loss_of(
    method: str, output: Any, labels: Tensor, loss: Loss | None, temperature: float = 1.0
) -> Tensor:  # () the loss
    """``loss(output, labels)``, or the mean cross entropy of the first output over ``temperature``."""
    if loss is not None:
        return loss(output, labels)
    return cross_entropy(method, next(output_tensors(output), None), labels, temperature)


def cross_entropy(
    method: str, logits: Tensor | None, labels: Tensor, temperature: float = 1.0
) -> Tensor:  # (B, K), (B,) int64 -> ()
    """Mean cross entropy; DataError where the labels are no class numbers of the logits."""
    if logits is None or logits.ndim != 2:
        got = "no tensor" if logits is None else f"an output of shape {tuple(logits.shape)}"
        raise PruningError(f"{method}: expected logits of shape (batch, classes), got {got}; pass loss=")
    check_labels(labels, logits.shape[1])
    return nn.functional.cross_entropy(logits / temperature, labels.long())


def check_labels(labels: Tensor, classes: int | None = None) -> None:  # (B,) int
    """DataError unless there is one integer for each input, of ``classes`` classes where that is known."""
    if labels.ndim != 1 or labels.is_floating_point():
        raise DataError(f"labels must be one integer per input, got {labels.dtype} {tuple(labels.shape)}")
    if classes is None:
        return
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= classes:
        raise DataError(f"labels run from {low} to {high}, but the model has {classes} classes")
