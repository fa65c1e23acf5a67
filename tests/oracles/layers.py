"""Draws of single layers, pools and elementwise passes of any geometry that fits the value they read."""

from collections.abc import Sequence
from typing import Any, Protocol, TypeVar

import torch
import torch.nn.functional as F
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.oracles.networks import Case

T = TypeVar("T")


class Draw(Protocol):
    """What hypothesis hands to a composite strategy."""

    def __call__(self, strategy: st.SearchStrategy[T]) -> T: ...


def integer(draw: Draw, low: int, high: int) -> int:
    """An integer from ``low`` to ``high``, both included."""
    return draw(st.integers(low, high))


def pick(draw: Draw, items: Sequence[T]) -> T:
    """One of the items."""
    return draw(st.sampled_from(list(items)))


def chance(draw: Draw, one_in: int) -> bool:
    """True once in so many draws."""
    return integer(draw, 1, one_in) == one_in


def channel_dim(case: Case, v: int) -> int:
    """The dim that a layer's weights act on, batch included: the last of tokens, 1 of images and signals."""
    return 2 if len(case.shape(v)) == 2 and not is_signal(case) else 1


def is_signal(case: Case) -> bool:
    """Whether the network reads signals (C, L): its two-dimensional values are channels first."""
    return len(case.input_shape) == 2 and case.input_shape[1] >= 5


def layer(draw: Draw, case: Case, v: int) -> int:
    """Any parametric layer that can read ``v``, and something elementwise behind it."""
    rank = len(case.shape(v))
    if rank == 1 or (rank == 2 and not is_signal(case)):
        made: nn.Module = nn.Linear(case.shape(v)[-1], integer(draw, 1, 4), bias=chance(draw, 2))
    elif chance(draw, 4) and case.values[v].numel() <= 80:
        made = _transposed(draw, case.shape(v))
    else:
        made = _convolution(draw, case.shape(v))
    return passes(draw, case, case.add("layer", made, v))


def _convolution(draw: Draw, shape: tuple[int, ...]) -> nn.Module:
    channels, sizes = shape[0], shape[1:]
    kernel = [integer(draw, 1, 3) for _ in sizes]
    dilation = [pick(draw, [1, 1, 2]) for _ in sizes]
    stride = [pick(draw, [1, 1, 2, 3]) for _ in sizes]
    padding: Any = [integer(draw, 0, d * (k - 1)) for k, d in zip(kernel, dilation, strict=True)]
    for axis, n in enumerate(sizes):  # what does not fit becomes pointwise on its axis
        if dilation[axis] * (kernel[axis] - 1) + 1 > n + 2 * padding[axis]:
            kernel[axis], padding[axis] = 1, 0
    if chance(draw, 5):
        stride, padding = [1] * len(sizes), "same"
    groups, out = _groups(draw, channels)
    make: Any = nn.Conv2d if len(sizes) == 2 else nn.Conv1d
    return make(channels, out, tuple(kernel), tuple(stride), padding if padding == "same" else tuple(padding),
                tuple(dilation), groups, bias=chance(draw, 2))  # fmt: skip


def _groups(draw: Draw, channels: int) -> tuple[int, int]:
    """Groups and output channels: dense, grouped, or depthwise with a multiplier."""
    groups = pick(draw, [1, 1, *(g for g in range(2, channels + 1) if channels % g == 0)])
    return groups, groups * integer(draw, 1, 3 if groups == 1 else 2)


def _transposed(draw: Draw, shape: tuple[int, ...]) -> nn.Module:
    channels, sizes = shape[0], shape[1:]
    kernel = [integer(draw, 1, 3) for _ in sizes]
    stride, dilation = [pick(draw, [1, 2]) for _ in sizes], [pick(draw, [1, 1, 2]) for _ in sizes]
    padding = [integer(draw, 0, d * (k - 1) // 2) for k, d in zip(kernel, dilation, strict=True)]
    extra = [integer(draw, 0, max(s, d) - 1) for s, d in zip(stride, dilation, strict=True)]
    groups, out = _groups(draw, channels)
    make: Any = nn.ConvTranspose2d if len(sizes) == 2 else nn.ConvTranspose1d
    return make(channels, out, tuple(kernel), tuple(stride), tuple(padding), tuple(extra), groups,
                chance(draw, 2), tuple(dilation))  # fmt: skip


def branch(draw: Draw, case: Case, v: int, width: int, stride: int) -> int:
    """A layer to ``width`` channels whose output size depends on the stride alone."""
    rank = len(case.shape(v))
    if rank == 1 or (rank == 2 and not is_signal(case)):
        return passes(draw, case, case.add("layer", nn.Linear(case.shape(v)[-1], width), v))
    kernel, dilation = pick(draw, [1, 3]), pick(draw, [1, 1, 2])
    make: Any = nn.Conv2d if rank == 3 else nn.Conv1d
    made = make(case.shape(v)[0], width, kernel, stride, dilation * (kernel // 2), dilation, bias=False)
    return passes(draw, case, case.add("layer", made, v))


def keeping(draw: Draw, case: Case, v: int) -> int:
    """One or two layers whose result has the shape of ``v``, so that it can be added to it."""
    width = case.shape(v)[channel_dim(case, v) - 1]
    inner = branch(draw, case, v, integer(draw, 1, 3), 1) if chance(draw, 2) else v
    return branch(draw, case, inner, width, 1)


def passes(draw: Draw, case: Case, v: int) -> int:
    """None, one or two elementwise steps: they make no nodes."""
    for _ in range(pick(draw, [0, 0, 1, 2])):
        shape = case.shape(v)
        options: list[Any] = [
            nn.ReLU(), nn.GELU(), nn.Hardswish(), nn.Dropout(), nn.ReLU6(inplace=v > 0), _scale,
            _times_own_sigmoid, _root_mean_square, _layer_norm, _unit_length, _response_norm, _gated_by_mean,
        ]  # fmt: skip
        if len(shape) == 3:
            options += [nn.BatchNorm2d(shape[0]), _layer_scale]
            if case.values[v].numel() > 1:  # torch refuses to normalise a single element
                options += [nn.GroupNorm(1, shape[0])]
        if len(shape) == 2 and not is_signal(case):
            options += [nn.LayerNorm(shape[1])]
        v = case.add("pass", pick(draw, options), v)
    return v


def pool(draw: Draw, case: Case, v: int) -> int:
    """A pool: overlapping, padded, dilated, with ceil_mode, adaptive or global."""
    sizes = case.shape(v)[1:]
    kind = pick(draw, ["max", "max", "average", "average", "adaptive average", "adaptive max", "global"])
    if kind == "global":
        return case.add("pool", lambda x: x.mean((2, 3), keepdim=True), v, label="mean over the map")
    if kind.startswith("adaptive"):
        target = tuple(pick(draw, [1, 2, 3, None]) for _ in sizes)
        adaptive: Any = nn.AdaptiveAvgPool2d if kind == "adaptive average" else nn.AdaptiveMaxPool2d
        return case.add("pool", adaptive(target), v)
    kernel = [min(integer(draw, 1, 3), n) for n in sizes]
    stride = tuple(integer(draw, 1, 3) for _ in sizes)
    padding = tuple(integer(draw, 0, k // 2) for k in kernel)
    ceil = chance(draw, 2)
    if kind == "average":
        average: Any = nn.AvgPool2d
        return case.add("pool", average(tuple(kernel), stride, padding, ceil, chance(draw, 2)), v)
    dilation = [pick(draw, [1, 1, 2]) for _ in sizes]
    dilation = [d if d * (k - 1) + 1 <= n else 1 for d, k, n in zip(dilation, kernel, sizes, strict=True)]
    return case.add("pool", nn.MaxPool2d(tuple(kernel), stride, padding, tuple(dilation), ceil_mode=ceil), v)


def _scale(x: Tensor) -> Tensor:
    return x * 0.5 + 1


def _times_own_sigmoid(x: Tensor) -> Tensor:
    return x * torch.sigmoid(x)


def _root_mean_square(x: Tensor) -> Tensor:
    return x * torch.rsqrt(x.pow(2).mean(1, keepdim=True) + 1e-6)


def _layer_norm(x: Tensor) -> Tensor:
    mean = x.mean(1, keepdim=True)
    return (x - mean) / ((x - mean) ** 2).mean(1, keepdim=True).add(1e-6).sqrt() * 0.5 + 1


def _unit_length(x: Tensor) -> Tensor:
    return F.normalize(x, dim=1)


def _response_norm(x: Tensor) -> Tensor:
    size = x.norm(p=2, dim=-1, keepdim=True)
    return x * (size / (size.mean(1, keepdim=True) + 1e-6))


def _gated_by_mean(x: Tensor) -> Tensor:
    return torch.sigmoid(x.mean(-1, keepdim=True)) * x


def _layer_scale(x: Tensor) -> Tensor:
    return x * torch.ones(x.shape[1], 1, 1)
