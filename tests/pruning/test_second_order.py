"""Hessian products against explicit Hessians, and what cannot be differentiated twice."""

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from mge_gpu.errors import PruningError
from mge_gpu.pruning import prune
from mge_gpu.pruning._second_order import hessian_product


def test_the_product_is_that_of_the_explicit_hessian() -> None:
    torch.manual_seed(0)
    a, b, unused = (
        torch.randn(size, dtype=torch.float64, requires_grad=True) for size in ((2, 3), (4,), (2,))
    )

    def value(a: Tensor, b: Tensor) -> Tensor:
        return torch.tanh(a.sum() * b).pow(2).sum() + a.pow(3).sum() + (a.exp().sum(0)[:2] * b[:2]).sum()

    vector = {"a": torch.randn(2, 3).double(), "b": torch.randn(4).double(), "unused": torch.ones(2).double()}
    found = hessian_product("test", value(a, b), {"a": a, "b": b, "unused": unused}, vector)
    blocks = torch.autograd.functional.hessian(value, (a.detach(), b.detach()))
    for name, row in zip("ab", blocks, strict=True):
        expected = sum(torch.tensordot(row[i], vector[key], vector[key].ndim) for i, key in enumerate("ab"))
        assert torch.allclose(found[name], expected, rtol=1e-10)
    assert not found["unused"].any()


def test_a_linear_value_has_no_curvature() -> None:
    w = torch.ones(3, requires_grad=True)
    assert not hessian_product("test", (2 * w).sum(), {"w": w}, {"w": torch.ones(3)})["w"].any()


class Once(torch.autograd.Function):
    @staticmethod
    def forward(context: object, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    @once_differentiable
    def backward(context: object, gradient: Tensor) -> Tensor:
        return gradient


class Gate(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return Once.apply(x)


@pytest.mark.parametrize("method", ["grasp", "prospr"])
def test_what_has_no_second_derivative(method: str) -> None:
    model = nn.Sequential(nn.Linear(3, 4), Gate(), nn.Tanh(), nn.Linear(4, 2))
    options = {"samples_per_class": 2} if method == "grasp" else {}
    data = (torch.randn(4, 3), torch.tensor([0, 1, 0, 1]))
    with pytest.raises(PruningError, match=f"{method} needs second derivatives.*snip for example"):
        prune(model, method, 0.5, data=data, **options)
    prune(model, "snip", 0.5, data=data)
