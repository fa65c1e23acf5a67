"""Indexing by constants: gathers, rolls, diagonals, sliding views."""

from collections.abc import Sequence
from math import prod

import numpy as np

from mge_gpu.tracing.relation import function
from mge_gpu.tracing.tracer import Call, Const
from mge_gpu.tracing.value import Value, map_dim, permute, reshape


def pick(value: Value, index: np.ndarray) -> Value:
    """The elements at a table of flat indices (C order); -1 is an element without nodes."""
    flat = map_dim(reshape(value, (prod(value.shape),)), 0, function(index.ravel().astype(np.int64)))
    return reshape(flat, index.shape)


def pick_dims(value: Value, dims: Sequence[int], indices: Sequence[np.ndarray]) -> Value:
    """Advanced indexing: ``indices``, one for each of ``dims``, broadcast against each other."""
    rank = len(value.shape)
    sizes = [value.shape[d] for d in dims]
    tables = np.broadcast_arrays(*[np.where(i < 0, i + n, i) for i, n in zip(indices, sizes, strict=True)])
    flat = np.ravel_multi_index(tuple(tables), sizes)
    rest = [d for d in range(rank) if d not in dims]
    moved = permute(value, [*dims, *rest])
    moved = reshape(moved, (prod(sizes), *(value.shape[d] for d in rest)))
    moved = map_dim(moved, 0, function(flat.ravel().astype(np.int64)))
    moved = reshape(moved, (*flat.shape, *(value.shape[d] for d in rest)))
    together = list(dims) == list(range(dims[0], dims[-1] + 1))
    before = sum(d < dims[0] for d in rest) if together else 0  # indices apart: their dims come first
    k = flat.ndim
    return permute(moved, [*range(k, k + before), *range(k), *range(k + before, k + len(rest))])


def index_select(call: Call) -> Value:
    """aten.index_select by a constant index."""
    return map_dim(call.value(), call.args[1], function(call.constant(2).cpu().numpy().astype(np.int64)))


def index(call: Call) -> Value:
    """aten.index.Tensor by constant indices of any rank, or by constant masks."""
    dims: list[int] = []
    indices: list[np.ndarray] = []
    at = 0
    for entry in call.args[1]:
        if entry is None:
            at += 1
            continue
        if not isinstance(entry, Const):
            raise call.error("the index depends on the network's input", "index by a constant")
        table = call.evaluate(entry).cpu().numpy()
        found = np.nonzero(table) if table.dtype == bool else (table,)
        dims.extend(range(at, at + len(found)))
        indices.extend(found)
        at += len(found)
    return pick_dims(call.value(), dims, indices)


def gather(call: Call) -> Value:
    """aten.gather and take_along_dim by a constant index."""
    value, takes = call.value(), "gather" not in call.op
    dim, table = (call.arg(2, "dim"), call.constant(1)) if takes else (call.args[1], call.constant(2))
    at = table.cpu().numpy().astype(np.int64)
    places = np.arange(prod(value.shape)).reshape(value.shape)
    if dim is None:
        return pick(value, places.ravel()[at])
    dim %= len(value.shape)
    if takes:
        wide = [n if d == dim else max(n, at.shape[d]) for d, n in enumerate(value.shape)]
        places = np.broadcast_to(places, wide)
        at = np.broadcast_to(at, [at.shape[d] if d == dim else n for d, n in enumerate(wide)])
    else:
        places = places[tuple(slice(None) if d == dim else slice(n) for d, n in enumerate(at.shape))]
    return pick(value, np.take_along_axis(places, at, dim))


def roll(call: Call) -> Value:
    """aten.roll: shifts, dims; without dims the flattened tensor is rolled."""
    value, dims = call.value(), call.arg(2, "dims", [])
    shifts = [call.args[1]] if isinstance(call.args[1], int) else list(call.args[1])
    if not dims:
        return pick(value, np.roll(np.arange(prod(value.shape)).reshape(value.shape), shifts))
    for shift, dim in zip(shifts, [dims] if isinstance(dims, int) else dims, strict=True):
        value = map_dim(value, dim, function(np.roll(np.arange(value.shape[dim]), shift)))
    return value


def repeat_interleave(call: Call) -> Value:
    """aten.repeat_interleave.self_int: each index of a dim so many times."""
    value, times, dim = call.value(), call.args[1], call.arg(2, "dim")
    if not isinstance(times, int):
        raise call.error("a repeat count of each element", "repeat by one number")
    if dim is None:
        value, dim = reshape(value, (prod(value.shape),)), 0
    return map_dim(value, dim, function(np.repeat(np.arange(value.shape[dim]), times)))


def diagonal(call: Call) -> Value:
    """aten.diagonal: offset, dim1, dim2; the diagonal becomes the last dim."""
    value = call.value()
    places = np.arange(prod(value.shape)).reshape(value.shape)
    offset, one, two = (call.arg(k, n, k - 1) for k, n in ((1, "offset"), (2, "dim1"), (3, "dim2")))
    return pick(value, np.diagonal(places, offset, one, two))


def sliding(call: Call) -> Value:
    """aten.unfold (Tensor.unfold): dim, size, step; the windows' elements become the last dim."""
    value, (dim, size, step) = call.value(), call.args[1:4]
    rank = len(value.shape)
    dim %= rank
    count = (value.shape[dim] - size) // step + 1
    at = np.arange(count)[:, None] * step + np.arange(size)[None]
    value = map_dim(value, dim, function(at.ravel()))
    value = reshape(value, (*value.shape[:dim], count, size, *value.shape[dim + 1 :]))
    return permute(value, [d for d in range(rank + 1) if d != dim + 1] + [dim + 1])
