"""Maps between resolutions: upsampling, pixel shuffle, sliding windows taken apart and put together."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from mge_gpu.tracing.relation import Relation, from_lists, function
from mge_gpu.tracing.tracer import Call
from mge_gpu.tracing.value import Value, map_dim, permute, reshape


def upsample_nearest(call: Call) -> Value:
    """aten.upsample_nearest{1,2,3}d: output y reads input floor(y * n / out)."""
    value, shape = call.value(), call.shape
    given = call.arg(2, "scale_factors") if call.op.endswith(".vec") else None
    for dim in range(2, len(shape)):
        n, out = value.shape[dim], shape[dim]
        scale = 1.0 / given[dim - 2] if given else n / out  # as torch: a given factor is used as it is
        at = np.minimum((np.arange(out, dtype=np.float32) * np.float32(scale)).astype(np.int64), n - 1)
        value = map_dim(value, dim, function(at))
    return value


def pixel_shuffle(call: Call) -> Value:
    """aten.pixel_shuffle: (C r^2, H, W) -> (C, H r, W r)."""
    value, r = call.value(), call.args[1]
    n, c, h, w = value.shape
    opened = reshape(value, (n, c // r**2, r, r, h, w))
    return reshape(permute(opened, (0, 1, 4, 2, 5, 3)), call.shape)


def upsample_smooth(call: Call) -> Value:
    """aten.upsample_{linear1d,bilinear2d,bicubic2d,trilinear3d}: the pixels of nonzero weight, each once.

    Asks torch itself: each axis is interpolated by its own on inputs that are one at a single place.
    """
    value, shape = call.value(), call.shape
    axes = len(shape) - 2
    for a in range(axes):
        n, out = value.shape[2 + a], shape[2 + a]
        if n != 1 or out != 1:
            value = map_dim(value, 2 + a, _interpolation(call, a, n, out))
    return value


def _interpolation(call: Call, axis: int, n: int, out: int) -> Relation:
    axes = len(call.shape) - 2
    hot = torch.eye(n).reshape(n, 1, *(n if a == axis else 1 for a in range(axes)))
    args: list[Any] = list(call.node.args)
    if args[1] is not None:
        args[1] = [out if a == axis else 1 for a in range(axes)]
    elif len(args) > 3:  # by scale factors, which torch uses as they are
        args[3] = [f if a == axis else 1.0 for a, f in enumerate(args[3])]
    operator: Callable[..., torch.Tensor] = call.node.target  # type: ignore[assignment]
    table = operator(hot, *args[1:], **call.node.kwargs)
    line = table[(slice(None), 0, *(slice(None) if a == axis else 0 for a in range(axes)))]
    return from_lists([np.flatnonzero(row).tolist() for row in line.T.numpy()])


def pixel_unshuffle(call: Call) -> Value:
    """aten.pixel_unshuffle: (C, H r, W r) -> (C r^2, H, W)."""
    value, r = call.value(), call.args[1]
    *lead, h, w = value.shape
    k = len(lead)
    opened = reshape(value, (*lead, h // r, r, w // r, r))
    return reshape(permute(opened, (*range(k), k + 1, k + 3, k, k + 2)), call.shape)


def _axis(n: int, size: int, dilation: int, padding: int, stride: int) -> np.ndarray:
    """The place that element t of window y reads, (size, windows), -1 on zero padding."""
    count = (n + 2 * padding - dilation * (size - 1) - 1) // stride + 1
    at = np.arange(size)[:, None] * dilation + np.arange(count)[None] * stride - padding
    return np.where((at >= 0) & (at < n), at, -1)


def windows_apart(call: Call) -> Value:
    """aten.im2col (F.unfold): kernel, dilation, padding, stride; (C, H, W) -> (C k_h k_w, windows)."""
    value = call.value()
    kernel, dilation, padding, stride = call.args[1:5]
    n, c, *sizes = value.shape
    axes = [_axis(*numbers) for numbers in zip(sizes, kernel, dilation, padding, stride, strict=True)]
    for a, axis in enumerate(axes):
        value = map_dim(value, 2 + a, function(axis.ravel()))
    (kh, oh), (kw, ow) = (axis.shape for axis in axes)
    opened = reshape(value, (n, c, kh, oh, kw, ow))
    return reshape(permute(opened, (0, 1, 2, 4, 3, 5)), call.shape)


def windows_together(call: Call) -> Value:
    """aten.col2im (F.fold): output size, kernel, dilation, padding, stride; a pixel sums its windows."""
    value, sizes = call.value(), call.args[1]
    kernel, dilation, padding, stride = call.args[2:6]
    axes = [_axis(*numbers) for numbers in zip(sizes, kernel, dilation, padding, stride, strict=True)]
    (kh, oh), (kw, ow) = (axis.shape for axis in axes)
    n, c = call.shape[:2]
    opened = permute(reshape(value, (n, c, kh, kw, oh, ow)), (0, 1, 2, 4, 3, 5))
    opened = reshape(opened, (n, c, kh * oh, kw * ow))
    for a, axis in enumerate(axes):
        order = np.argsort(axis.ravel(), kind="stable")
        ptr = np.searchsorted(axis.ravel()[order], np.arange(sizes[a] + 1))
        relation = Relation(ptr - ptr[0], order[ptr[0] :].astype(np.int64))
        opened = map_dim(opened, 2 + a, relation)
    return opened
