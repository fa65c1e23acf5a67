"""Elementwise ops: what passes through, and the three kinds of sum (design: fresh, skip, structural)."""

from dataclasses import replace
from typing import Any

import numpy as np
from torch.fx import Node

from mge_gpu.tracing.handlers import masks
from mge_gpu.tracing.relation import function
from mge_gpu.tracing.tracer import Call, Const, identity_layer
from mge_gpu.tracing.value import Term, Value, broadcast, map_dim, reshape, structural_sum


def passes(call: Call) -> Value:
    """Normalisation, activation, dropout, copies: no nodes, the tensor is what it was."""
    return call.value()


def passes_first(call: Call) -> list[Any]:
    """The same for ops that return a tuple whose first entry is the tensor."""
    return [call.value(), None, None]


def copy(call: Call) -> Value:
    """aten.copy_: the tensor is what was written into it."""
    return broadcast(call.value(1), call.shape).stale()


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
    A tensor minus a statistic of itself is a normalisation; a constant added to attention scores may be
    a mask.
    """
    values, shape = _operands(call), call.shape
    if len(values) < 2:
        return _plus_constant(call, values[0]) if values else Value(shape)
    if call.op.startswith(("aten.sub", "aten.rsub")) and (kept := _normalised(call)):
        return kept
    return _sum(call, *values)


def _sum(call: Call, a: Value, b: Value) -> Value:
    tracer, shape = call.tracer, call.shape
    fresh = [v for v in (a, b) if v.fresh is not None]
    if a.fresh is not None and b.fresh is not None:
        if a.fresh != b.fresh and a.shape == b.shape and _one_layout(call, a, b):
            tracer.merge(a.fresh, b.fresh)
            return a
    elif fresh and fresh[0].shape == shape and not masks.feeds_softmax(call.node):  # scores are no skip
        skip = b if fresh[0] is a else a
        identity_layer(tracer, call, fresh[0], broadcast(skip, shape))
        return fresh[0].stale()
    return structural_sum((a, b), shape)


def _plus_constant(call: Call, value: Value) -> Value:
    value = broadcast(value, call.shape)
    constant = next((x for x in call.args[:2] if isinstance(x, Const)), None)
    if masks.feeds_softmax(call.node):
        return value if constant is None else masks.exclude(value, masks.closed(call.evaluate(constant)))
    return replace(value, excluded=None)


def add_product(call: Call) -> Value:
    """aten.addcmul, addcdiv: input + value * tensor1 * tensor2 (or their quotient)."""
    first, one, two = (x if isinstance(x, Value) else Value(x.shape) for x in call.args[:3])
    product = _times(call, [v for v in (one, two) if v.terms])
    if first.terms and product.terms:
        return _sum(call, first, product)
    return broadcast(first if first.terms else product, call.shape)


def lerp(call: Call) -> Value:
    """aten.lerp: start + weight * (end - start)."""
    return structural_sum([x for x in call.args[:3] if isinstance(x, Value)], call.shape)


def _one_layout(call: Call, a: Value, b: Value) -> bool:
    """Whether two fresh outputs can be one partition: equal shapes, elements in the same order."""
    tracer = call.tracer
    pa, pb = (tracer.partitions[tracer.resolve(v.fresh)] for v in (a, b) if v.fresh is not None)
    return pa[1:] == pb[1:] and _same_layout(a.terms[0].factors, b.terms[0].factors)


def multiply(call: Call) -> Value:
    """A product or quotient: consumers are linked to the nodes of both factors.

    A tensor times a function of itself, element by element (x * sigmoid(x)) or by way of a reduction
    (x / norm(x)), is an activation or a normalisation.
    """
    values = _operands(call)
    if len(values) == 2 and (kept := _normalised(call)):
        return kept
    return _times(call, values)


def _times(call: Call, values: list[Value]) -> Value:
    if len(values) == 2 and _same_nodes(*values):
        call.tracer.origins.combined(call.node, call.node.all_input_nodes)
        return replace(values[0], fresh=_enclosed(call))
    if len(values) < 2:
        return broadcast(values[0], call.shape) if values else Value(call.shape)
    return structural_sum(values, call.shape)


def _normalised(call: Call) -> Value | None:
    """The operand that passes through if the other is a statistic of it."""
    tracer = call.tracer
    sources = [n for n in call.node.args[:2] if isinstance(n, Node) and isinstance(tracer.env[n], Value)]
    kept = tracer.origins.combined(call.node, sources)
    if kept is None or tracer.env[kept].shape != call.shape:
        return None
    return replace(tracer.env[kept], fresh=_enclosed(call))


def _enclosed(call: Call) -> int | None:
    """The partition whose plain output f(x) still is: x must be read for this alone."""
    origin = call.tracer.origins.enclosed(call.node)
    return None if origin is None else call.tracer.unread.get(origin)


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
