"""GraSP: keep the gradient flow, by one product of the loss's Hessian with its gradient."""

from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from mge_gpu.errors import DataError
from mge_gpu.pruning._classes import class_samples, mixed_order
from mge_gpu.pruning._copy import dense_copy, scoring
from mge_gpu.pruning._loss import (
    Loss,
    check_number,
    check_positive,
    loss_gradients,
    loss_of,
    set_bn_mode,
)
from mge_gpu.pruning._run import output_tensors, pairs, run
from mge_gpu.pruning._second_order import hessian_product, twice_differentiable
from mge_gpu.pruning._select import kept_count, top_masks

Batches = list[tuple[Tensor, Tensor]]
Progress = Callable[[str, float | None], None]


def grasp(
    model: nn.Module,
    sparsity: float,
    *,
    data: Any,
    seed: int = 0,
    samples_per_class: int = 10,
    batch_size: int | None = None,
    temperature: float = 200.0,
    bn_mode: str = "train",
    loss: Loss | None = None,
    progress: Progress | None = None,
) -> dict[str, Tensor]:
    """Remove the weights without which the gradient's norm stays largest, in one shot, globally ranked.

    g = Σ_b ∇L_b and H = Σ_b ∇²L_b over the same batches, S = -θ (H g), signed: the highest are removed. L is
    the cross entropy of the logits divided by ``temperature``, or ``loss(output, labels)`` undivided.

    The first ``samples_per_class`` samples of each class are taken from ``data``, which is read until all of
    the model's classes are complete, at most once; a class that does not occur is left out, and a warning
    names those with fewer samples. They are mixed, so that every batch holds its share of every class, in
    batches of about ``batch_size`` samples (None: as many as the data's first batch has). All samples are
    held in CPU memory; the device holds one batch and its graph for two derivatives. ``bn_mode``: "train"
    normalises by the statistics of the batch, "eval" by the running ones; all other layers are in evaluation
    mode.
    Paper: Wang et al., "Picking Winning Tickets Before Training by Preserving Gradient Flow", ICLR 2020.

    Raises DataError on data that do not fit, PruningError on bad options, when the model fails or cannot be
    differentiated twice.
    """
    check_positive("grasp", "samples_per_class", samples_per_class)
    if batch_size is not None:
        check_positive("grasp", "batch_size", batch_size)
    check_number("grasp", "temperature", temperature, "a positive number", lambda value: value > 0)
    with scoring(model, seed), twice_differentiable():
        network, weights = dense_copy(model)
        parameter = next(iter(weights.values()))
        batches = class_batches(
            network, data, parameter.dtype, parameter.device, samples_per_class, batch_size
        )
        set_bn_mode("grasp", network, bn_mode)
        scores = grasp_scores(
            network, weights, batches, temperature=temperature, loss=loss, progress=progress
        )
        total = sum(score.numel() for score in scores.values())
        return top_masks({name: -score for name, score in scores.items()}, kept_count(total, sparsity))


def grasp_scores(
    network: nn.Module,
    weights: Mapping[str, Tensor],
    batches: Batches,
    *,
    temperature: float = 200.0,
    loss: Loss | None = None,
    progress: Progress | None = None,
) -> dict[str, Tensor]:
    """S = -θ (H g) by weight name, from a copy of the model; see :func:`grasp`."""
    parameter = next(iter(weights.values()))
    gradient = loss_gradients(
        "grasp", network, weights, _read(batches, parameter, "gradient", 0.0, progress), loss, temperature
    )
    product = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    for inputs, labels in _read(batches, parameter, "Hessian", 0.5, progress):
        value = loss_of("grasp", run(network, inputs), labels, loss, temperature)
        for name, part in hessian_product("grasp", value, weights, gradient).items():
            product[name] += part
    return {name: -weight.detach() * product[name] for name, weight in weights.items()}


def class_batches(
    network: nn.Module,
    data: Any,
    dtype: torch.dtype,
    device: torch.device,
    samples_per_class: int,
    batch_size: int | None,
) -> Batches:
    """The batches that :func:`grasp` takes from ``data``, on the CPU."""
    stream = pairs(data, torch.device("cpu"), dtype)
    first = next(stream, None)
    if first is None:
        raise DataError("data holds no batch")
    with torch.no_grad():
        logits = next(output_tensors(run(network, first[0][:1].to(device))), None)
    classes = logits.shape[1] if logits is not None and logits.ndim == 2 else None
    inputs, labels = class_samples("grasp", chain([first], stream), samples_per_class, classes)
    order = mixed_order(labels)
    parts = order.tensor_split(-(-len(order) // (batch_size or len(first[0]))))
    return [(inputs[part], labels[part]) for part in parts]


def _read(
    batches: Batches, parameter: Tensor, what: str, start: float, progress: Progress | None
) -> Iterator[tuple[Tensor, Tensor]]:
    """Each batch on the device of the weights; progress runs over half of the work, from ``start``."""
    for number, (inputs, labels) in enumerate(batches, 1):
        yield inputs.to(parameter.device), labels.to(parameter.device)
        if progress is not None:
            progress(f"grasp: {what} of batch {number}/{len(batches)}", start + number / len(batches) / 2)
