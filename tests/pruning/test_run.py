"""Batches: one pass, a count of them, or without end."""

from itertools import islice

import pytest
import torch

from mge_gpu.errors import DataError, PruningError
from mge_gpu.pruning._run import batches, gradients, pairs, repeated

CPU = torch.device("cpu")
DATA = [(torch.full((2, 1), float(number)), torch.tensor([0, 1])) for number in range(3)]


def numbers(stream: object, count: int = 99) -> list[int]:
    return [int(inputs[0, 0]) for inputs, _ in islice(stream, count)]  # type: ignore[call-overload]


def test_one_pass_and_a_count() -> None:
    assert numbers(pairs(DATA, CPU, torch.float32)) == [0, 1, 2]
    assert numbers(pairs(DATA[1], CPU, torch.float32)) == [1]
    assert numbers(batches(DATA, 2, CPU, torch.float32)) == [0, 1]
    with pytest.raises(DataError, match="holds 3 batches, 4 were asked for"):
        numbers(batches(DATA, 4, CPU, torch.float32))


def test_data_that_end_are_read_again_in_order() -> None:
    assert numbers(repeated(DATA, CPU, torch.float32), 8) == [0, 1, 2, 0, 1, 2, 0, 1]
    assert numbers(repeated(DATA[2], CPU, torch.float32), 2) == [2, 2]


def test_a_loader_that_shuffles_gives_every_batch_once_before_any_again() -> None:
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*DATA[0]), batch_size=1, shuffle=True)
    labels = [int(label) for _, label in islice(repeated(loader, CPU, torch.float32), 20)]
    assert all({labels[i], labels[i + 1]} == {0, 1} for i in range(0, 20, 2))


def test_a_one_way_iterator_must_be_long_enough() -> None:
    assert numbers(repeated(iter(DATA), CPU, torch.float32), 3) == [0, 1, 2]
    with pytest.raises(DataError, match="ended after 3 batches and cannot be read again"):
        numbers(repeated(iter(DATA), CPU, torch.float32), 4)
    with pytest.raises(DataError, match="holds no batch"):
        next(repeated([], CPU, torch.float32))


def test_a_backward_pass_that_raises_is_named() -> None:
    class Stubborn(torch.autograd.Function):
        @staticmethod
        def forward(context: object, x: torch.Tensor) -> torch.Tensor:
            return x.clone()

        @staticmethod
        def backward(context: object, gradient: torch.Tensor) -> torch.Tensor:
            raise RuntimeError("no way back")

    w = torch.ones(2, requires_grad=True)
    with pytest.raises(PruningError, match=r"cannot be differentiated \(no way back\)"):
        gradients(Stubborn.apply(w).sum(), {"w": w})
