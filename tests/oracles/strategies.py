"""Hypothesis strategies that draw small networks block by block: every layer, route and kind of sum."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.oracles import layers
from tests.oracles.layers import Draw, chance, integer, pick
from tests.oracles.networks import Case
from tests.oracles.token_blocks import TOKEN_BLOCKS, windowed_attention

BUDGET = 260  # nodes after which only the head follows; the largest block adds about another hundred


@st.composite
def cases(draw: Draw, kind: str = "any") -> Case:
    """A network of one to four blocks and a head, or a single layer (``kind="layer"``)."""
    torch_seed = integer(draw, 0, 2**31 - 1)
    layout = pick(draw, ["image"] * 9 + ["signal", "tokens", "vector"])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(torch_seed)
        case = Case(_input_shape(draw, layout))
        v = 0
        if kind == "layer":
            v = layers.layer(draw, case, v)
        else:
            for _ in range(integer(draw, 1, 4)):
                if case.nodes < BUDGET:
                    v = block(draw, case, v)
            v = head(draw, case, v)
        case.outputs = case.outputs or (v,)
        zero_some_weights(draw, case)
    return case


def _input_shape(draw: Draw, layout: str) -> tuple[int, ...]:
    if layout == "image":
        return (integer(draw, 1, 3), integer(draw, 3, 7), integer(draw, 3, 7))
    if layout == "signal":
        return (integer(draw, 1, 4), integer(draw, 5, 12))
    return (integer(draw, 2, 6), integer(draw, 2, 5)) if layout == "tokens" else (integer(draw, 2, 12),)


def zero_some_weights(draw: Draw, case: Case) -> None:
    """Prune each layer to its own density, down to none at all."""
    for step in case.steps:
        if step.kind == "layer":
            density = pick(draw, [1.0, 0.7, 0.4, 0.1, 0.0] if chance(draw, 3) else [1.0, 0.7, 0.4])
            weight = step.module.get_parameter("weight")
            with torch.no_grad():
                weight.normal_().mul_((torch.rand(weight.shape) < density).to(weight.dtype))


def block(draw: Draw, case: Case, v: int) -> int:
    """Append a block that fits the layout of value ``v``."""
    if len(case.shape(v)) == 1:
        return pick(draw, [layers.layer, residual, shortcut, layers.passes])(draw, case, v)
    if len(case.shape(v)) == 2:
        blocks = [layers.layer, residual, shortcut, dense, halves, turn, mix, gather]
        if not layers.is_signal(case):
            blocks += TOKEN_BLOCKS
        return pick(draw, blocks)(draw, case, v)
    return pick(draw, IMAGE_BLOCKS)(draw, case, v)


def head(draw: Draw, case: Case, v: int) -> int:
    """A classifier, two classifiers, or nothing where the last step is a layer already."""
    if not any(s.kind == "layer" for s in case.steps):
        v = layers.layer(draw, case, v)
    if case.steps[v - 1].kind == "layer" and chance(draw, 3):
        return v
    dims = tuple(range(2, len(case.shape(v)) + 1))
    if dims and chance(draw, 2):
        v = case.add("pool", lambda x: x.mean(dims), v, label="mean over positions")
    elif dims:
        v = case.add("view", nn.Flatten(), v)
    width = case.shape(v)[0]
    first = case.add("layer", nn.Linear(width, integer(draw, 1, 4)), v)
    if chance(draw, 8):
        case.outputs = (first, case.add("layer", nn.Linear(width, 2), v))
    return first


def downsample(draw: Draw, case: Case, v: int) -> int:
    """A pool or a layer of any geometry."""
    return pick(draw, [layers.pool, layers.layer])(draw, case, v)


def residual(draw: Draw, case: Case, v: int) -> int:
    """x + f(x): the fresh output of f and something that is not fresh."""
    last = layers.keeping(draw, case, v)
    skip = v
    if len(case.shape(v)) == 3 and chance(draw, 6):  # the skip is broadcast over the map
        skip = case.add("pool", nn.AdaptiveAvgPool2d(1), v)
    operands = (last, skip) if chance(draw, 2) else (skip, last)
    v = case.add("add", _plus if chance(draw, 3) else _minus, *operands)
    return layers.passes(draw, case, v)


def shortcut(draw: Draw, case: Case, v: int) -> int:
    """f(x) + g(x), both fresh: one partition; at times with a third."""
    width, stride = integer(draw, 1, 3), pick(draw, [1, 1, 2])
    branches = [layers.branch(draw, case, v, width, stride) for _ in range(pick(draw, [2, 2, 2, 3]))]
    total = branches[0]
    for other in branches[1:]:
        total = layers.passes(draw, case, case.add("add", _plus, total, other))
    return total


def dense(draw: Draw, case: Case, v: int) -> int:
    """Concatenation of branches, or of the input and what is made of it."""
    other = layers.branch(draw, case, v, integer(draw, 1, 2), 1)
    first = v if chance(draw, 2) else layers.branch(draw, case, v, integer(draw, 1, 3), 1)
    dim = layers.channel_dim(case, v)
    return case.add(
        "cat", lambda *x: torch.cat(x, dim), *((first, other) if chance(draw, 2) else (other, first))
    )


def inception(draw: Draw, case: Case, v: int) -> int:
    """A pooled branch beside a convolved one."""
    pooled = case.add("pool", pick(draw, [nn.MaxPool2d, nn.AvgPool2d])(3, 1, 1), v)
    made = layers.branch(draw, case, v, integer(draw, 1, 2), 1)
    return case.add("cat", lambda *x: torch.cat(x, 1), made, pooled)


def halves(draw: Draw, case: Case, v: int) -> int:
    """Two pieces of one value, swapped, added or multiplied (gated linear unit)."""
    dim = layers.channel_dim(case, v)
    if case.values[v].shape[dim] % 2:
        v = layers.branch(draw, case, v, 2, 1)
    how = pick(draw, ["swap", "add", "gate", "drop"])
    a = case.add("route", lambda x: x.chunk(2, dim)[0], v, label="first half")
    if how == "drop":
        return a
    b = case.add("route", lambda x: x.chunk(2, dim)[1], v, label="second half")
    if how == "swap":
        return case.add("cat", lambda *x: torch.cat(x, dim), b, a)
    b = case.add("pass", nn.Sigmoid(), b)
    return case.add("add", _plus, a, b) if how == "add" else case.add("mul", _times, a, b)


def pool_mixer(draw: Draw, case: Case, v: int) -> int:
    """x + pool(x), and pools of two kinds: sums of which no operand is fresh."""
    one = case.add("pool", nn.MaxPool2d(3, 1, 1), v)
    other = v if chance(draw, 2) else case.add("pool", nn.AvgPool2d((1, 3), 1, (0, 1)), v)
    return case.add("add", _plus, one, other)


def two_layers_times(draw: Draw, case: Case, v: int) -> int:
    """f(x) * g(x), at times with one of them mirrored: consumers see the nodes of both."""
    width = integer(draw, 1, 2)
    a, b = (layers.branch(draw, case, v, width, 1) for _ in range(2))
    if chance(draw, 3):
        b = case.add("route", lambda x: x.flip(-1), b, label="mirrored")
    return case.add("mul", _times, a, b)


def gate(draw: Draw, case: Case, v: int) -> int:
    """Squeeze and excitation: one node a channel reaches all its pixels."""
    c = case.shape(v)[0]
    s = case.add("pool", nn.AdaptiveAvgPool2d(1) if chance(draw, 2) else _mean_keep, v)
    s = case.add("layer", nn.Conv2d(c, 2, 1), s)
    s = case.add("pass", nn.ReLU(), s)
    s = case.add("layer", nn.Conv2d(2, c, 1), s)
    s = case.add("pass", nn.Sigmoid(), s)
    return case.add("mul", _times, *((v, s) if chance(draw, 2) else (s, v)))


def gate_from_afar(draw: Draw, case: Case, v: int) -> int:
    """A map times the mean of a layer that reads what the map reads out of order, or across."""
    c = case.shape(v)[0]
    u = gather(draw, case, v) if chance(draw, 2) else turn(draw, case, v)
    made = case.add("layer", nn.Conv2d(case.shape(u)[0], c, pick(draw, [1, 3]), padding=1), u)
    s = case.add("pool", _mean_keep, made)
    return case.add("mul", _times, layers.branch(draw, case, v, c, 1), s)


def shuffle(draw: Draw, case: Case, v: int) -> int:
    """Channel shuffle by views, after a convolution that makes the channels even."""
    v = layers.branch(draw, case, v, pick(draw, [4, 6]), 1)

    def function(x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        return x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)

    return case.add("view", function, v, label="channel shuffle")


def tokens(draw: Draw, case: Case, v: int) -> int:
    """From a map to tokens: (C, H, W) -> (H W, C)."""
    v = case.add("view", lambda x: x.flatten(2).transpose(1, 2), v, label="to tokens")
    v = case.add("pass", nn.LayerNorm(case.shape(v)[-1]), v)
    return case.add("layer", nn.Linear(case.shape(v)[-1], integer(draw, 1, 3)), v)


def turn(draw: Draw, case: Case, v: int) -> int:
    """Exchange the first two dims of tokens, of a signal or of a map."""
    return case.add("view", lambda x: x.transpose(1, 2), v, label="transpose")


def mix(draw: Draw, case: Case, v: int) -> int:
    """Token mixing with its skip: the fresh output passes through a transposition before the sum."""
    t = case.shape(v)[0]
    u = case.add("layer", nn.Linear(t, t), turn(draw, case, v))
    return case.add("add", _plus, v, turn(draw, case, u))


def axial(draw: Draw, case: Case, v: int) -> int:
    """A layer along one side of a map, channel by channel, with its skip or without."""
    upright = chance(draw, 2)

    def turned(v: int) -> int:
        return case.add("view", lambda x: x.transpose(2, 3), v, label="turn") if upright else v

    u = turned(v)
    side = case.shape(u)[-1]
    keep = chance(draw, 2)
    u = turned(case.add("layer", nn.Linear(side, side if keep else integer(draw, 2, 5)), u))
    return case.add("add", _plus, v, u) if keep else u


def resample(draw: Draw, case: Case, v: int) -> int:
    """Upsampling, zero padding, slicing of positions, flipping."""
    functions: list[tuple[str, Callable[[Tensor], Tensor]]] = [
        ("slice", lambda x: x[:, :, 1:, ::2]),
        ("crop", lambda x: F.pad(x, (0, -1, -1, 0))),
        ("pad", lambda x: F.pad(x, (1, 0, 0, 2))),
        ("flip", lambda x: x.flip(2, 3)),
    ]
    if case.values[v][0].numel() <= 40:
        functions += [
            ("upsample by 2", lambda x: F.interpolate(x, scale_factor=2, mode="nearest")),
            ("upsample to a size", nn.Upsample(size=(5, 4), mode="nearest")),
        ]
    label, function = pick(draw, functions)
    if min(case.shape(v)[1:]) < 2 and label in ("slice", "crop"):
        return v
    return case.add("route", function, v, label=label)


def gather(draw: Draw, case: Case, v: int) -> int:
    """Indexing by constants, rolls, constant masks: layouts that may have no closed form."""
    shape = case.shape(v)
    size = case.values[v].numel()
    order = torch.randperm(size)
    one, other = (torch.randint(0, n, (2, 2)) for n in shape[:2])
    kept = torch.rand(shape) < 0.7
    last = shape[-1]
    functions: dict[str, Callable[[Tensor], Tensor]] = {
        "roll all": lambda x: torch.roll(x, 1),
        "roll one": lambda x: torch.roll(x, -1, -1),
        "shuffle": lambda x: x.flatten()[order].reshape(x.shape),
        "zero some": lambda x: x.masked_fill(~kept, 0.0),
        "where": lambda x: torch.where(kept, x, torch.zeros_like(x)),
        "sliding": lambda x: x.unfold(-1, min(2, last), 1).flatten(-2),
        "take along": lambda x: torch.take_along_dim(x, order.argsort().reshape(x.shape) % last, -1),
        "view askew": lambda x: x.reshape(1, shape[-1], *shape[1:-1], shape[0]),
    }
    if size <= 60:
        functions["repeat"] = lambda x: x.repeat_interleave(2, -1)
        functions["tile"] = lambda x: x.repeat(1, *([1] * (len(shape) - 1)), 2)
    if len(shape) == 2:
        functions["pairs"] = lambda x: x[:, one, other].reshape(1, 2, 2)
        functions["lower"] = lambda x: x.tril()
    name = pick(draw, sorted(functions))
    return case.add("route", functions[name], v, label=name)


def smooth(draw: Draw, case: Case, v: int) -> int:
    """Interpolation and running sums: each element is linked to several."""
    functions: dict[str, Callable[[Tensor], Tensor]] = {"running sum": lambda x: x.cumsum(-1)}
    if case.values[v].numel() <= 40:
        functions |= {
            "bilinear": lambda x: F.interpolate(x, size=(5, 3), mode="bilinear"),
            "bilinear, corners": lambda x: F.interpolate(
                x, scale_factor=2, mode="bilinear", align_corners=True
            ),
            "bicubic": lambda x: F.interpolate(x, scale_factor=(1.5, 2.0), mode="bicubic"),
        }
    name = pick(draw, sorted(functions))
    return case.add("pool", functions[name], v, label=name)


def columns(draw: Draw, case: Case, v: int) -> int:
    """Sliding windows taken apart, and put together again; pixels moved into channels."""
    c, h, w = case.shape(v)
    padding = integer(draw, 0, 1)
    window = (min(2, h + 2 * padding), min(3, w + 2 * padding))
    how = pick(draw, ["apart", "there and back", "unshuffle"])
    if how == "unshuffle":
        if h % 2 or w % 2:
            return v
        return case.add("view", nn.PixelUnshuffle(2), v)
    if case.values[v].numel() > 60:
        return v
    apart = nn.Unfold(window, 1, padding, 2 if how == "apart" else 1)
    v = case.add("route", apart, v)
    if how == "apart":
        return case.add("view", lambda x: x.unsqueeze(-1), v, label="columns")
    return case.add("route", nn.Fold((h, w), window, 1, padding, 1), v)


def repeated(draw: Draw, case: Case, v: int) -> int:
    """One module called twice: two partitions with the same weights."""
    c = case.shape(v)[0]
    shared = nn.Conv2d(c, c, 3, padding=1, bias=False)
    return case.add("layer", shared, layers.passes(draw, case, case.add("layer", shared, v)))


def _plus(a: Tensor, b: Tensor) -> Tensor:
    return a + b


def _minus(a: Tensor, b: Tensor) -> Tensor:
    return a - b


def _times(a: Tensor, b: Tensor) -> Tensor:
    return a * b


def _mean_keep(x: Tensor) -> Tensor:
    return x.mean((2, 3), keepdim=True)


IMAGE_BLOCKS = [
    layers.layer, layers.layer, downsample, downsample, residual, residual, shortcut, dense, inception,
    halves, pool_mixer, two_layers_times, gate, shuffle, tokens, resample, repeated, gather, smooth, columns,
    windowed_attention, windowed_attention, tokens, axial, gate_from_afar,
]  # fmt: skip
