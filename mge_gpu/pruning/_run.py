"""Run the scored copy of a model and read its output, with errors that say what went in."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from mge_gpu.errors import DataError, PruningError


def run(model: Callable[[Tensor], Any], inputs: Tensor) -> Any:
    """The model's output; PruningError, with the input's shape, when the model raises."""
    try:
        return model(inputs)
    except Exception as error:  # the model is the user's: anything may come
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise PruningError(
            f"the model raised {type(error).__name__} on an input of shape {tuple(inputs.shape)} "
            f"({reason[0]}); check input_shape and data"
        ) from error


def output_tensors(output: Any) -> Iterator[Tensor]:
    """Every floating-point tensor in a model's output (a tensor, or nested tuples, lists and dicts)."""
    if isinstance(output, Tensor):
        if output.is_floating_point():
            yield output
    elif isinstance(output, Mapping):
        for part in output.values():
            yield from output_tensors(part)
    elif isinstance(output, list | tuple):
        for part in output:
            yield from output_tensors(part)


def batches(
    data: Any, count: int, device: torch.device, dtype: torch.dtype
) -> Iterator[tuple[Tensor, Tensor]]:
    """The first ``count`` pairs (inputs, labels) of a loader, an iterable, or one pair of tensors.

    Raises DataError when there are fewer, or when a batch is no pair of tensors of equal length.
    """
    if isinstance(data, list | tuple) and len(data) == 2 and all(isinstance(part, Tensor) for part in data):
        data = [tuple(data)]
    if not isinstance(data, Iterable):
        raise DataError(f"data must yield (inputs, labels) batches, got {type(data).__name__}")
    seen = 0
    for batch in data:
        if seen == count:
            break
        yield _pair(batch, device, dtype)
        seen += 1
        if seen == count:  # do not draw a batch that nobody needs
            break
    if seen < count:
        raise DataError(f"data holds {seen} batches, {count} were asked for")


def gradients(value: Tensor, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """d value / d weight by name; zero for a weight that the pass never used."""
    if not value.requires_grad:
        raise PruningError(
            "the model's output does not depend on any prunable weight in a differentiable way"
        )
    found = torch.autograd.grad(value, list(weights.values()), allow_unused=True)
    return {
        name: torch.zeros_like(weight) if gradient is None else gradient
        for (name, weight), gradient in zip(weights.items(), found, strict=True)
    }


def _pair(batch: Any, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    if not (isinstance(batch, Sequence) and len(batch) == 2 and all(isinstance(p, Tensor) for p in batch)):
        raise DataError(f"each batch must be a pair of tensors (inputs, labels), got {type(batch).__name__}")
    inputs, labels = batch
    if not inputs.ndim or not labels.ndim or len(inputs) != len(labels) or not len(inputs):
        raise DataError(
            f"a batch has inputs of shape {tuple(inputs.shape)} and labels of shape {tuple(labels.shape)}; "
            "expected one label per input"
        )
    inputs = inputs.to(device=device, dtype=dtype if inputs.is_floating_point() else inputs.dtype)
    return inputs, labels.to(device)
