"""Attention against the Jacobian of the module itself, in every form that networks write it in."""

import pytest
import torch
from torch import Tensor, nn

from tests.graph.test_jacobian import assert_equal_graphs
from tests.oracles.attention import FORMS, Attention
from tests.oracles.networks import Case


def heads(x: Tensor, count: int) -> Tensor:
    """(B, N, C) -> (B, heads, N, C / heads)."""
    return x.unflatten(-1, (count, -1)).transpose(1, 2)


def attend(case: Case, v: int, module: nn.Module, count: int = 2, width: int = 4) -> int:
    """Projections, attention with ``count`` heads, projection."""
    parts = []
    for _ in range(3):
        p = case.add("layer", nn.Linear(case.shape(v)[-1], width), v)
        parts.append(case.add("view", lambda x: heads(x, count), p, label="heads"))
    out = case.add("set", module, *parts)
    out = case.add("view", lambda x: x.transpose(1, 2).flatten(2), out, label="join heads")
    return case.add("layer", nn.Linear(width, 3), out)


MASKS = {
    "none": None,
    "pairs": torch.tensor([[1, 1, 0, 0], [1, 0, 1, 0], [0, 1, 1, 1], [0, 0, 0, 1]]).bool(),
    "additive": torch.tensor([[0.0, -100, 0, -1], [0, 0, -torch.inf, 0], [0, 0, 0, 0], [-100, -100, 0, 0]]),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("bias", [False, True])
def test_attention(form: str, mask: str, bias: bool) -> None:
    torch.manual_seed(0)
    case = Case((4, 3))
    module = Attention(form, MASKS[mask], torch.randn(2, 4, 4) if bias else None)
    case.outputs = (attend(case, 0, module),)
    assert_equal_graphs(case, True, False)


@pytest.mark.parametrize("form", FORMS)
def test_causal_attention(form: str) -> None:
    torch.manual_seed(0)
    case = Case((4, 3))
    case.outputs = (attend(case, 0, Attention(form, causal=True)),)
    assert_equal_graphs(case, True, False)
