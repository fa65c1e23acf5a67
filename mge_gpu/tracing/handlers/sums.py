"""Elementwise ops: what passes through, and the three kinds of sum (design: fresh, skip, structural)."""

from dataclasses import replace
from typing import Any

import numpy as np
from torch.fx import Node

from mge_gpu.tracing.relation import function
from mge_gpu.tracing.tracer import Call, identity_layer
from mge_gpu.tracing.value import Term, Value, broadcast, map_dim, reshape, structural_sum


def passes(call: Call) -> Value:
    """Normalisation, activation, dropout, copies: no nodes, the tensor is what it was."""
    return call.value()


def passes_first(call: Call) -> list[Any]:
    """The same for ops that return a tuple whose first entry is the tensor."""
    return [call.value(), None, None]


def ignored(call: Call) -> None:
    """Assertions and the like: nothing comes out."""


def _same_nodes(a: Value, b: Value) -> bool:
    """Whether two values link each element to the same nodes."""
    if a.shape != b.shape or len(a.terms) != len(b.terms):
        return False
    for s, t in zip(a.terms, b.terms, strict=True):
        if s.source != t.source or not _same_layout(s.factors, t.factors):
            return False
    return True


def _same_layout(a: Any, b: Any) -> bool:
    return [f.dims for f in a] == [f.dims for f in b] and all(
        np.array_equal(x.relation.ptr, y.relation.ptr) and np.array_equal(x.relation.idx, y.relation.idx)
        for x, y in zip(a, b, strict=True)
    )


def _operands(call: Call) -> list[Value]:
    """The operands that depend on the input (constants and numbers add no edge)."""
    return [x for x in call.args[:2] if isinstance(x, Value) and x.terms]


def add(call: Call) -> Value:
    """A sum or difference of two tensors.

    Both fresh: one partition. One fresh: an identity skip, which adds no edge unless asked for.
    None fresh, or two that differ in shape or layout: consumers are linked to the nodes of both.
    """
    values, shape, tracer = _operands(call), call.shape, call.tracer
    if len(values) < 2:
        return broadcast(values[0], shape) if values else Value(shape)
    a, b = values
    fresh = [v for v in values if v.fresh is not None]
    if a.fresh is not None and b.fresh is not None:
        if a.fresh != b.fresh and a.shape == b.shape and _one_layout(call, a, b):
            tracer.merge(a.fresh, b.fresh)
            return a
    elif fresh and fresh[0].shape == shape:
        skip = b if fresh[0] is a else a
        if tracer.identity_skips:
            identity_layer(tracer, call, fresh[0], broadcast(skip, shape))
        return fresh[0].stale()
    return structural_sum(values, shape)


def _one_layout(call: Call, a: Value, b: Value) -> bool:
    """Whether two fresh outputs can be one partition: equal shapes, elements in the same order."""
    tracer = call.tracer
    pa, pb = (tracer.partitions[tracer.resolve(v.fresh)] for v in (a, b) if v.fresh is not None)
    return pa[1:] == pb[1:] and _same_layout(a.terms[0].factors, b.terms[0].factors)


def multiply(call: Call) -> Value:
    """A product or quotient: consumers are linked to the nodes of both factors.

    A tensor times an elementwise function of itself (x * sigmoid(x)) is an activation.
    """
    values = _operands(call)
    if len(values) == 2 and _same_nodes(*values):
        return replace(values[0], fresh=_gated_by_itself(call))
    if len(values) < 2:
        return broadcast(values[0], call.shape) if values else Value(call.shape)
    return structural_sum(values, call.shape)


def _gated_by_itself(call: Call) -> int | None:
    """The partition whose plain output x * f(x) still is: x must be read by this product only."""
    from mge_gpu.tracing.ops import lookup  # the table is built from this module

    left, right = ([n] for n in call.node.args[:2] if isinstance(n, Node))
    for chain in (left, right):
        while lookup(str(chain[-1].target)) is passes:
            chain.append(chain[-1].all_input_nodes[0])
    common = next((n for n in left if n in right), None)
    if common is None:
        return None
    between = [*left[: left.index(common)], *right[: right.index(common)]]
    alone = all(call.tracer.readers(n) == 1 for n in between)
    if alone and set(common.users) <= {*between, call.node}:
        return call.tracer.unread.get(common)
    return None


def concatenate(call: Call) -> Value:
    """aten.cat: the consumer's channels come from several partitions."""
    tensors, dim = call.args[0], call.arg(1, "dim", 0)
    total, at = call.shape[dim], 0
    terms: list[Term] = []
    for x in tensors:
        size = x.shape[dim]
        if isinstance(x, Value):
            index = np.full(total, -1)
            index[at : at + size] = np.arange(size)
            terms.extend(map_dim(x, dim, function(index)).terms)
        at += size
    return Value(call.shape, tuple(terms))


def stack(call: Call) -> Value:
    """aten.stack: operands side by side along a new dim."""
    tensors, dim = call.args[0], call.arg(1, "dim", 0) % len(call.shape)
    terms: list[Term] = []
    for k, x in enumerate(tensors):
        if isinstance(x, Value):
            index = np.full(len(tensors), -1)
            index[k] = 0
            opened = reshape(x, (*x.shape[:dim], 1, *x.shape[dim:]))
            terms.extend(map_dim(opened, dim, function(index)).terms)
    return Value(call.shape, tuple(terms))
