"""As many samples of each class as asked, in batches in which the classes are mixed."""

import warnings
from collections.abc import Iterable

import torch
from torch import Tensor

from mge_gpu.errors import DataError
from mge_gpu.pruning._loss import check_labels


def class_samples(
    method: str, stream: Iterable[tuple[Tensor, Tensor]], per_class: int, classes: int | None
) -> tuple[Tensor, Tensor]:  # -> (n, *input_shape), (n,) int64
    """The first ``per_class`` samples of each class in a stream of batches (inputs, labels).

    Reading stops when ``classes`` classes are complete, else (None: always) at the end of the stream. A class
    with fewer samples gives all that it has, which a warning says.

    Raises DataError when labels or shapes do not fit.
    """
    held: dict[int, list[Tensor]] = {}
    complete = 0
    for inputs, labels in stream:
        check_labels(labels)
        for number, label in enumerate(labels.tolist()):
            samples = held.setdefault(label, [])
            if len(samples) < per_class:
                samples.append(inputs[number].clone())  # a view would keep the whole batch
                complete += len(samples) == per_class
        if complete == classes:
            break
    if few := [f"{label}: {len(held[label])}" for label in sorted(held) if len(held[label]) < per_class]:
        warnings.warn(
            f"{method}: {len(few)} of {len(held)} classes have fewer than samples_per_class={per_class} "
            f"samples in the data, all of theirs are used (class: samples) {', '.join(few[:10])}"
            f"{', ...' if len(few) > 10 else ''}",
            stacklevel=5,
        )
    found = [sample for samples in held.values() for sample in samples]
    if len(shapes := {tuple(sample.shape) for sample in found}) > 1:
        raise DataError(f"{method}: the samples have different shapes: {sorted(shapes)[:3]}")
    counts = torch.tensor([len(samples) for samples in held.values()])
    return torch.stack(found), torch.tensor(list(held)).repeat_interleave(counts)


def mixed_order(labels: Tensor) -> Tensor:  # (n,) int64 -> (n,) int64
    """A random order in which each class is spread evenly, so that every stretch holds its share of it.

    The j-th of n_c samples of a class gets a random place in [j / n_c, (j + 1) / n_c). Draws from torch's
    global generator.
    """
    places = torch.empty(len(labels), dtype=torch.float64)
    for label in labels.unique():
        members = (labels == label).nonzero().flatten()
        jitter = torch.rand(len(members), dtype=torch.float64)
        places[members] = (torch.randperm(len(members)) + jitter) / len(members)
    return places.argsort()
