"""Pooling and reductions: a consumer is linked to every node of the window, undivided."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from mge_gpu.tracing.handlers import sums
from mge_gpu.tracing.relation import Relation, adaptive_windows, from_lists, windows
from mge_gpu.tracing.tracer import Call, Const
from mge_gpu.tracing.value import Value, drop_dim, map_dim


def _each(x: Any, rank: int) -> list[int]:
    values = [x] if isinstance(x, int) else list(x)
    return values * rank if len(values) == 1 else values


def _pool(call: Call, rank: int, dilation: Any) -> Value:
    value, shape = call.value(), call.shape
    size = _each(call.arg(1, "kernel_size"), rank)
    stride = _each(call.arg(2, "stride") or size, rank)
    padding = _each(call.arg(3, "padding", 0), rank)
    dilations = _each(dilation, rank)
    for a in range(rank):
        dim = len(shape) - rank + a
        window = windows(value.shape[dim], size[a], stride[a], padding[a], dilations[a], shape[dim])
        value = map_dim(value, dim, window)
    return value


def _rank(call: Call) -> int:
    return int(next(c for c in call.op if c.isdigit()))


def max_pool(call: Call) -> Value:
    """aten.max_pool{1,2,3}d: kernel_size, stride, padding, dilation, ceil_mode."""
    return _pool(call, _rank(call), call.arg(4, "dilation", 1))


def max_pool_with_indices(call: Call) -> list[Any]:
    """aten.max_pool{2,3}d_with_indices: (values, indices)."""
    return [max_pool(call), None]


def average_pool(call: Call) -> Value:
    """aten.avg_pool{1,2,3}d: kernel_size, stride, padding, ceil_mode, ..."""
    return _pool(call, _rank(call), 1)


def adaptive_pool(call: Call) -> Value:
    """aten.adaptive_{avg,max}_pool{1,2,3}d: output size."""
    value, shape, rank = call.value(), call.shape, _rank(call)
    for dim in range(len(shape) - rank, len(shape)):
        if value.shape[dim] != shape[dim]:
            value = map_dim(value, dim, adaptive_windows(value.shape[dim], shape[dim]))
    return value


def adaptive_pool_with_indices(call: Call) -> list[Any]:
    """aten.adaptive_max_pool{1,2,3}d: (values, indices)."""
    return [adaptive_pool(call), None]


def _reduce(value: Value, dims: Sequence[int], keep: bool) -> Value:
    rank = len(value.shape)
    for dim in sorted((d % rank for d in dims), reverse=True):
        n = value.shape[dim]
        value = map_dim(value, dim, Relation(np.array([0, n]), np.arange(n)))
        if not keep:
            value = drop_dim(value, dim)
    return value


def _over(call: Call, index: int) -> Value:
    value = call.value()
    dims, keep = (
        call.arg(index, "dim"),
        bool(call.arg(index + 1, "keepdim", call.kwargs.get("keepdim", False))),
    )
    if dims is None or (isinstance(dims, (list, tuple)) and not dims):
        dims = range(len(value.shape))
    return _reduce(
        value, [dims] if isinstance(dims, int) else list(dims), len(call.shape) == len(value.shape) or keep
    )


def reduction(call: Call) -> Value:
    """mean, sum, amax, amin, var, std, prod, logsumexp over dims: one window."""
    return _over(call, 1)


def norm(call: Call) -> Value:
    """aten.linalg_vector_norm, norm: order, dims."""
    return _over(call, 2)


def two_reductions(call: Call) -> list[Any]:
    """aten.var_mean, std_mean."""
    return [_over(call, 1)] * 2


def maximum(call: Call) -> Any:
    """aten.max and min: of two tensors, of a whole tensor, or over a dim with the indices."""
    if isinstance(call.arg(1, "other"), (Value, Const)):
        return sums.multiply(call)
    return [_over(call, 1), None] if isinstance(call.node.meta["val"], (list, tuple)) else _over(call, 1)


def cumulative(call: Call) -> Value:
    """cumsum, cumprod, logcumsumexp over a dim: element i is linked to the nodes of elements 0 to i."""
    value, dim = call.value(), call.args[1]
    n = value.shape[dim]
    return map_dim(value, dim, from_lists([range(i + 1) for i in range(n)]))
