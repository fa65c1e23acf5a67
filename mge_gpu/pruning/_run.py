"""Run the scored copy of a model and read its output, with errors that say what went in."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
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


def pairs(data: Any, device: torch.device, dtype: torch.dtype) -> Iterator[tuple[Tensor, Tensor]]:
    """One pass over a loader, an iterable, or one pair of tensors: pairs (inputs, labels) on ``device``.

    Raises DataError when a batch is no pair of tensors of equal length.
    """
    if isinstance(data, list | tuple) and len(data) == 2 and all(isinstance(part, Tensor) for part in data):
        data = [tuple(data)]
    if not isinstance(data, Iterable):
        raise DataError(f"data must yield (inputs, labels) batches, got {type(data).__name__}")
    for batch in data:
        yield _pair(batch, device, dtype)


def batches(
    data: Any, count: int, device: torch.device, dtype: torch.dtype
) -> Iterator[tuple[Tensor, Tensor]]:
    """The first ``count`` of :func:`pairs`, and none drawn beyond them; DataError when there are fewer."""
    seen = 0
    for pair in islice(pairs(data, device, dtype), count):
        seen += 1
        yield pair
    if seen < count:
        raise DataError(f"data holds {seen} batches, {count} were asked for")


def repeated(data: Any, device: torch.device, dtype: torch.dtype) -> Iterator[tuple[Tensor, Tensor]]:
    """:func:`pairs` without end: where the data end, they are read again from the start.

    Raises DataError when there are none, or when they were a one-way iterator.
    """
    seen = before = 0
    while True:
        for pair in pairs(data, device, dtype):
            seen += 1
            yield pair
        if not seen:
            raise DataError("data holds no batch")
        if seen == before:
            raise DataError(
                f"data ended after {seen} batches and cannot be read again; pass a DataLoader or a list, "
                "or ask for fewer steps"
            )
        before = seen


def gradients(value: Tensor, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """d value / d weight by name; zero for a weight that the pass never used."""
    if not value.requires_grad:
        raise PruningError(
            "the model's output does not depend on any prunable weight in a differentiable way"
        )
    try:
        found = torch.autograd.grad(value, list(weights.values()), materialize_grads=True)
    except RuntimeError as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise PruningError(f"the model's output cannot be differentiated ({reason[0]})") from error
    return dict(zip(weights, found, strict=True))


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
