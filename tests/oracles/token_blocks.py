"""Blocks of transformers: attention over all tokens, in shifted windows, with masks and learned tokens."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.oracles import layers
from tests.oracles.attention import FORMS, Attention
from tests.oracles.layers import Draw, chance, integer, pick
from tests.oracles.networks import Case


class LearnedQuery(nn.Module):
    """Attention pooling: learned queries, so that only key and value depend on the input."""

    def __init__(self, queries: int, width: int, form: str) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.rand(1, queries, width))
        self.attention = Attention(form)

    def forward(self, key: Tensor, value: Tensor) -> Tensor:
        return self.attention(self.query.to(key.dtype).expand(key.shape[0], -1, -1), key, value)

    def surrogate(self, key: Tensor, value: Tensor) -> Tensor:
        return self.attention.surrogate(self.query.to(key.dtype), key, value)


class ClassToken(nn.Module):
    """A learned token in front of the others."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.rand(1, 1, width))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat((self.token.to(x.dtype).expand(x.shape[0], -1, -1), x), dim=1)


class Position(nn.Module):
    """A learned position added to each token."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.position = nn.Parameter(torch.rand(1, *shape))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.position


def _heads(count: int) -> Any:
    return lambda x: x.unflatten(-1, (count, -1)).transpose(-3, -2)


def _joined(x: Tensor) -> Tensor:
    return x.transpose(-3, -2).flatten(-2)


def _mask(draw: Draw, rows: int, columns: int) -> Tensor | None:
    kind = pick(draw, ["none", "none", "bool", "additive"])
    if kind == "none":
        return None
    allowed = torch.rand(rows, columns) < 0.6
    allowed[:, 0] = True  # a token that attends to none is not defined
    if kind == "bool":
        return allowed
    return torch.zeros(rows, columns).masked_fill(~allowed, pick(draw, [-100.0, float("-inf")]))


def self_attention(draw: Draw, case: Case, v: int) -> int:
    """q, k, v of one value (fused or apart), heads, attention, projection, at times the skip."""
    tokens, width = case.shape(v)[-2], case.shape(v)[-1]
    heads = integer(draw, 1, 2)
    inner = heads * integer(draw, 1, 2)
    if chance(draw, 2):
        made = case.add("layer", nn.Linear(width, 3 * inner), v)
        parts = [
            case.add("route", lambda x, k=k: x.chunk(3, -1)[k], made, label=f"part {k}") for k in range(3)
        ]
    else:
        parts = [case.add("layer", nn.Linear(width, inner), v) for _ in range(3)]
    if chance(draw, 4):  # cosine attention
        parts[:2] = [
            case.add("pass", lambda x: F.normalize(x, dim=-1), p, label="normalize") for p in parts[:2]
        ]
    parts = [case.add("view", _heads(heads), p, label="heads") for p in parts]
    bias = torch.randn(heads, tokens, tokens) if chance(draw, 3) else None
    causal = chance(draw, 5)
    mask = None if causal else _mask(draw, tokens, tokens)
    out = case.add("set", Attention(pick(draw, FORMS), mask, bias, causal and bias is None), *parts)
    out = case.add("view", _joined, out, label="join heads")
    out = layers.passes(draw, case, case.add("layer", nn.Linear(inner, width), out))
    return case.add("add", _plus, v, out) if chance(draw, 2) else out


def windowed_attention(draw: Draw, case: Case, v: int) -> int:
    """Windows of 2 x 2 pixels, rolled or not, with the mask of the seam or without it."""
    c, h, w = case.shape(v)
    if h % 2 or w % 2:
        v = case.add("route", nn.ZeroPad2d((0, w % 2, 0, h % 2)), v)
    h, w = case.shape(v)[1:]
    shift = (integer(draw, 0, 1), integer(draw, 0, 1))

    def apart(x: Tensor) -> Tensor:
        x = torch.roll(x, (-shift[0], -shift[1]), (2, 3))
        return x.view(1, c, h // 2, 2, w // 2, 2).permute(0, 2, 4, 3, 5, 1).reshape(1, h * w // 4, 4, c)

    def together(x: Tensor) -> Tensor:
        x = x.view(1, h // 2, w // 2, 2, 2, c).permute(0, 5, 1, 3, 2, 4).reshape(1, c, h, w)
        return torch.roll(x, shift, (2, 3))

    out = case.add("view", apart, v, label="windows")
    parts = [case.add("layer", nn.Linear(c, 2), out) for _ in range(3)]
    parts = [case.add("view", lambda x: x.unsqueeze(2), p, label="one head") for p in parts]
    mask = None
    if any(shift) and chance(draw, 2):
        regions = torch.randint(0, 2, (h * w // 4, 4))
        mask = ((regions[:, :, None] != regions[:, None]) * -100.0).unsqueeze(1)
    out = case.add("set", Attention(pick(draw, ["fused", "matmul", "einsum"]), mask), *parts)
    out = case.add("view", lambda x: x.squeeze(2), out, label="no heads")
    out = case.add("layer", nn.Linear(2, c), out)
    out = case.add("view", together, out, label="map")
    return case.add("add", _plus, v, out) if chance(draw, 2) else out


def pooling_attention(draw: Draw, case: Case, v: int) -> int:
    """Learned queries attend to the tokens."""
    width = integer(draw, 1, 3)
    parts = [case.add("layer", nn.Linear(case.shape(v)[-1], width), v) for _ in range(2)]
    pooled = LearnedQuery(integer(draw, 1, 3), width, pick(draw, ["fused", "matmul", "einsum"]))
    return case.add("set", pooled, *parts)


def class_token(draw: Draw, case: Case, v: int) -> int:
    """A learned token joins, positions are added; at the end of some networks only that token is read."""
    v = case.add("route", ClassToken(case.shape(v)[-1]), v)
    return case.add("pass", Position(case.shape(v)), v)


def bilinear(draw: Draw, case: Case, v: int) -> int:
    """Products of a value with itself transposed, without projections: routes that meet in one node."""
    if case.shape(v)[0] * case.shape(v)[1] > 24:
        return v
    functions = {
        "gram": lambda x: x @ x.transpose(1, 2),
        "einsum": lambda x: torch.einsum("bij,bkj->bik", x, x),
        "self": lambda x: Attention("matmul").surrogate(x, x, x),
    }
    name = pick(draw, sorted(functions))
    return case.add("set", functions[name], v, label=name)


def _plus(a: Tensor, b: Tensor) -> Tensor:
    return a + b


TOKEN_BLOCKS = [self_attention, self_attention, pooling_attention, class_token, bilinear]
