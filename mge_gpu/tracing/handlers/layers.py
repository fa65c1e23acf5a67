"""Parametric layers: convolutions, transposed convolutions, linear layers."""

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import numpy as np

from mge_gpu.tracing.tracer import Call, identity_taps
from mge_gpu.tracing.value import Value, output_value


def _tuple(x: int | Sequence[int], n: int) -> tuple[int, ...]:
    values = (x,) if isinstance(x, int) else tuple(x)
    return values * n if len(values) == 1 else values


def _join(axes: Sequence[np.ndarray], sizes: Sequence[int]) -> np.ndarray:
    """Join (taps, outputs) tables of the axes to one over all taps and output positions, -1 kept."""
    table = np.zeros((1, 1), np.int64)
    for axis, size in zip(axes, sizes, strict=True):
        both = table[:, None, :, None] * size + axis[None, :, None, :]
        gone = (table < 0)[:, None, :, None] | (axis < 0)[None, :, None, :]
        both = np.where(gone, -1, both)
        table = both.reshape(table.shape[0] * axis.shape[0], -1)
    return table.astype(np.int32)


def _conv_axis(n: int, out: int, k: int, stride: int, before: int, dilation: int) -> np.ndarray:
    at = np.arange(out)[None] * stride + np.arange(k)[:, None] * dilation - before
    return np.where((at >= 0) & (at < n), at, -1)


def _transposed_axis(n: int, out: int, k: int, stride: int, before: int, dilation: int) -> np.ndarray:
    at = np.arange(out)[None] + before - np.arange(k)[:, None] * dilation
    return np.where((at >= 0) & (at % stride == 0) & (at // stride < n), at // stride, -1)


def zero_padding(
    args: Sequence[Any], kwargs: Mapping[str, Any], kernel: Sequence[int]
) -> list[tuple[int, int]]:
    """Zeros (before, after) on each axis of aten.conv{1,2,3}d, whose padding is numbers or a word."""
    given = args[4] if len(args) > 4 else kwargs.get("padding", 0)
    dilation = _tuple(args[5] if len(args) > 5 else kwargs.get("dilation", 1), len(kernel))
    if given == "same":  # torch puts the odd zero behind
        total = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
        return [(n // 2, n - n // 2) for n in total]
    return [(p, p) for p in _tuple(0 if given == "valid" else given, len(kernel))]


def convolution(call: Call) -> Value:
    """aten.conv{1,2,3}d: input, weight, bias, stride, padding (numbers or a word), dilation, groups."""
    kernel = call.args[1].shape[2:]
    stride, dilation = (_tuple(call.arg(i, n, 1), len(kernel)) for i, n in ((3, "stride"), (5, "dilation")))
    padding = [before for before, _ in zero_padding(call.args, call.kwargs, kernel)]
    return _conv(call, stride, padding, dilation, call.arg(6, "groups", 1), transposed=False)


def transposed_convolution(call: Call) -> Value:
    """aten.conv_transpose{1,2,3}d: input, weight, bias, stride, padding, output_padding, groups, dilation."""
    rank = len(call.args[1].shape) - 2
    stride, padding, dilation = (
        _tuple(call.arg(i, n, default), rank)
        for i, n, default in ((3, "stride", 1), (4, "padding", 0), (7, "dilation", 1))
    )
    return _conv(call, stride, padding, dilation, call.arg(6, "groups", 1), transposed=True)


def general_convolution(call: Call) -> Value:
    """aten.convolution: stride, padding, dilation, transposed, output_padding, groups from argument 3 on."""
    rank = len(call.args[1].shape) - 2
    stride, padding, dilation = (_tuple(call.args[i], rank) for i in (3, 4, 5))
    return _conv(call, stride, padding, dilation, call.args[8], transposed=bool(call.args[6]))


def _conv(
    call: Call,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    transposed: bool,
) -> Value:
    value, weight = call.value(), call.args[1]
    sizes, out, kernel = list(value.shape[2:]), call.shape[2:], weight.shape[2:]
    before = list(padding)
    halo = [t.halo for t in value.terms if t.halo]
    if halo and not transposed and not call.tracer.layers:  # no later padding has nodes
        value = _with_halo(call, value)
        before = [p - halo[0][4 + 2 * a] for a, p in enumerate(padding)]
        sizes = list(value.shape[2:])
    axis = _transposed_axis if transposed else _conv_axis
    axes = [
        axis(n, o, k, s, b, d)
        for n, o, k, s, b, d in zip(sizes, out, kernel, stride, before, dilation, strict=True)
    ]
    if value.shape[0] != 1:  # what is folded into the batch counts as positions
        sizes, axes = [value.shape[0], *sizes], [identity_taps(value.shape[0]), *axes]
    kind = f"conv_transpose{len(kernel)}d" if transposed else f"conv{len(kernel)}d"
    return call.tracer.add_layer(
        call,
        value,
        weight,
        kind=kind,
        channel_dim=1,
        groups=groups,
        transposed=transposed,
        taps=_join(axes, sizes),
    )


def _with_halo(call: Call, value: Value) -> Value:
    """The network's input as its first convolution sees it: with the zero padding that has nodes."""
    (term,) = value.terms
    assert term.halo
    return output_value(term.source, (1, *call.tracer.partitions[term.source][1]), fresh=False)


def linear(call: Call) -> Value:
    """aten.linear: input (..., C_in), weight (C_out, C_in), bias. Acts on each token by itself."""
    return per_token(call, call.value(), call.args[1], transposed=False)


def per_token(call: Call, value: Value, weight: Any, transposed: bool) -> Value:
    """A linear layer on the last dim of ``value``, ``weight`` stored (C_out, C_in) or transposed."""
    return call.tracer.add_layer(
        call,
        value,
        weight,
        kind="linear",
        channel_dim=len(value.shape) - 1,
        groups=1,
        transposed=transposed,
        taps=identity_taps(prod(value.shape[:-1])),
    )
