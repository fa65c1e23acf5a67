"""What stands for a GPU keeps host and device apart as torch does."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from tests.kernels.pretend import There, pretend

X = torch.arange(6.0).view(2, 3)


@pytest.mark.parametrize(
    "operation",
    [
        lambda x: x + X,
        lambda x: X @ x.t(),
        lambda x: torch.cat([x, X]),
        lambda x: x.add_(X),
        lambda x: torch.where(X > 2, x, x),
        lambda x: X[x > 2],
        lambda x: torch.mul(x, x, out=torch.empty(2, 3)),
    ],
)
def test_tensors_of_both_are_refused(operation: Callable[[torch.Tensor], object], gpu: str) -> None:
    with pytest.raises((RuntimeError, IndexError)):
        operation(X.to(gpu))


@pytest.mark.parametrize(
    "operation",
    [
        lambda x: x + 1,
        lambda x: x * torch.tensor(2.0),
        lambda x: x[torch.tensor([1, 0])],
        lambda x: x[:, [2, 0]],
        lambda x: torch.zeros_like(x).copy_(X),
        lambda x: torch.linalg.eigvalsh(x @ x.t()),
        lambda x: torch.tensor([1.0, 2.0], device=x.device),
        lambda x: nn.Linear(3, 2, bias=False).to(x.device).requires_grad_(False)(x) * 0,
    ],
)
def test_what_torch_allows(operation: Callable[[torch.Tensor], torch.Tensor], gpu: str) -> None:
    there, here = operation(X.to(gpu)), operation(X.clone())
    assert there.device.type == "cuda" and there.shape == here.shape and there.dtype is here.dtype
    torch.testing.assert_close(there.cpu(), here)
    assert there.cpu().device.type == "cpu" and float(there.sum()) == pytest.approx(float(here.sum()))


def test_arrays_of_the_host_are_no_view_of_it(gpu: str) -> None:
    with pytest.raises((TypeError, RuntimeError)):
        X.to(gpu).numpy()


def test_it_ends() -> None:
    found = torch.cuda.is_available()
    with pretend():
        assert torch.cuda.is_available() and isinstance(torch.zeros(2, device="cuda"), There)
    assert torch.cuda.is_available() == found and type(torch.zeros(2)) is torch.Tensor
