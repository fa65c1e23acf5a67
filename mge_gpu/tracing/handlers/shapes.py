"""Ops that only move elements: views, permutations, slices, pads, upsampling."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from mge_gpu.tracing.relation import function
from mge_gpu.tracing.tracer import Call
from mge_gpu.tracing.value import Value, broadcast, drop_dim, map_dim, permute, reshape


def view(call: Call) -> Value:
    """view, reshape, flatten, unflatten, unsqueeze, squeeze: the output shape says it all."""
    return reshape(call.value(), call.shape)


def transpose(call: Call) -> Value:
    """aten.transpose.int and aten.t."""
    value = call.value()
    rank = len(value.shape)
    a, b = (call.arg(i, n, d) % rank for i, n, d in ((1, "dim0", 0), (2, "dim1", 1)))
    order = list(range(rank))
    order[a], order[b] = order[b], order[a]
    return permute(value, order)


def transpose_last(call: Call) -> Value:
    """aten.mT: the last two dims exchanged."""
    rank = len(call.value().shape)
    return permute(call.value(), [*range(rank - 2), rank - 1, rank - 2])


def reverse(call: Call) -> Value:
    """aten.numpy_T: the dims in reverse order."""
    return permute(call.value(), list(reversed(range(len(call.shape)))))


def permutation(call: Call) -> Value:
    """aten.permute."""
    value = call.value()
    return permute(value, [d % len(value.shape) for d in call.arg(1, "dims")])


def movedim(call: Call) -> Value:
    """aten.movedim: source dims to destination dims, the others keep their order."""
    value = call.value()
    rank = len(value.shape)
    source, target = (([x] if isinstance(x, int) else list(x)) for x in call.args[1:3])
    source, target = [d % rank for d in source], [d % rank for d in target]
    rest = iter([d for d in range(rank) if d not in source])
    order = [source[target.index(d)] if d in target else next(rest) for d in range(rank)]
    return permute(value, order)


def expand(call: Call) -> Value:
    """aten.expand: a dim of size 1 repeated."""
    return broadcast(call.value(), call.shape)


def slice_(call: Call) -> Value:
    """aten.slice.Tensor: dim, start, end, step."""
    value, dim = call.value(), call.arg(1, "dim", 0)
    picks = range(value.shape[dim])[slice(call.arg(2, "start"), call.arg(3, "end"), call.arg(4, "step", 1))]
    if len(picks) == value.shape[dim]:
        return value
    return map_dim(value, dim, function(np.array(picks, np.int64)))


def select(call: Call) -> Value:
    """aten.select.int: one index of a dim, which goes."""
    value, dim = call.value(), call.arg(1, "dim", 0)
    index = call.arg(2, "index") % value.shape[dim]
    return drop_dim(map_dim(value, dim, function(np.array([index]))), dim)


def narrow(call: Call) -> Value:
    """aten.narrow: dim, start, length."""
    value, dim, start, length = call.value(), *call.args[1:4]
    return map_dim(value, dim, function(np.arange(start, start + length)))


def _pieces(value: Value, dim: int, sizes: Sequence[int]) -> list[Value]:
    ends = np.cumsum(sizes)
    return [map_dim(value, dim, function(np.arange(e - n, e))) for n, e in zip(sizes, ends, strict=True)]


def split(call: Call) -> list[Value]:
    """aten.split.Tensor, split_with_sizes, chunk, tensor_split: the output shapes give the sizes."""
    dim = call.arg(2, "dim", 0)
    outputs = call.node.meta["val"]
    return _pieces(call.value(), dim, [int(o.shape[dim]) for o in outputs])


def unbind(call: Call) -> list[Value]:
    """aten.unbind.int: one value an index of a dim, which goes."""
    value, dim = call.value(), call.arg(1, "dim", 0)
    return [drop_dim(v, dim) for v in _pieces(value, dim, [1] * value.shape[dim])]


def getitem(call: Call) -> Any:
    """An entry of what a handler returned as a list."""
    return call.args[0][call.args[1]]


def flip(call: Call) -> Value:
    """aten.flip."""
    value = call.value()
    for dim in call.args[1]:
        value = map_dim(value, dim, function(np.arange(value.shape[dim])[::-1]))
    return value


def pad(call: Call) -> Value:
    """aten.pad and constant_pad_nd: zeros have no nodes; reflect, replicate, circular read others."""
    value, amounts, mode = call.value(), call.args[1], call.arg(2, "mode", "constant")
    mode = mode if isinstance(mode, str) else "constant"
    rank = len(value.shape)
    for k in range(len(amounts) // 2):
        dim, n = rank - 1 - k, value.shape[rank - 1 - k]
        at = np.arange(-amounts[2 * k], n + amounts[2 * k + 1])
        if mode == "reflect":
            at = np.abs(at)
            at = np.where(at >= n, 2 * (n - 1) - at, at)
        elif mode == "replicate":
            at = np.clip(at, 0, n - 1)
        elif mode == "circular":
            at = at % n
        else:
            at = np.where((at >= 0) & (at < n), at, -1)
        value = map_dim(value, dim, function(at))
    return value


def channel_shuffle(call: Call) -> Value:
    """aten.channel_shuffle: (g, C / g) channels to (C / g, g)."""
    value, g = call.value(), call.args[1]
    n, c, *rest = value.shape
    opened = reshape(value, (n, g, c // g, *rest))
    return reshape(permute(opened, (0, 2, 1, *range(3, len(opened.shape)))), call.shape)


def repeat(call: Call) -> Value:
    """aten.repeat: tile each dim."""
    value, times = call.value(), call.args[1]
    value = reshape(value, (1,) * (len(times) - len(value.shape)) + value.shape)
    times = (1,) * (len(value.shape) - len(times)) + tuple(times)  # as aten.tile does
    for dim, t in enumerate(times):
        if t != 1:
            value = map_dim(value, dim, function(np.tile(np.arange(value.shape[dim]), t)))
    return value
