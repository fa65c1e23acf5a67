"""Values: what a tensor of the traced network is made of, in nodes of the graph.

A value is a sum of terms; a term links each element of the tensor to nodes of one partition. The
node of element (i, j, ...) is the sum of one offset a factor, each factor a relation over some of
the tensor's dims: a route in closed form that stays a few small tables however large the tensor.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from math import prod

import numpy as np

from mge_gpu.tracing.relation import Relation, arange, compose, outer_sum, reorder, split


@dataclass(frozen=True)
class Factor:
    """A relation over the tensor dims ``dims`` (in the order of its rows, C order)."""

    dims: tuple[int, ...]
    relation: Relation


@dataclass(frozen=True)
class Term:
    """The part of a tensor that comes from one partition."""

    source: int
    factors: tuple[Factor, ...]
    halo: tuple[int, ...] | None = None  # zero padding of the input that has nodes, (before, after) a dim


@dataclass(frozen=True)
class Value:
    """A tensor as a structural sum of terms; ``fresh`` is the partition it is the plain output of.

    ``excluded`` marks the elements that a constant mask sets to zero (pairs of tokens that do not attend
    to each other): they hide what they are multiplied with.
    """

    shape: tuple[int, ...]
    terms: tuple[Term, ...] = ()
    fresh: int | None = field(default=None)
    excluded: np.ndarray | None = field(default=None)  # bool, of this shape

    def stale(self) -> "Value":
        """The same value, no longer the fresh output of a layer."""
        return replace(self, fresh=None)


def output_value(source: int, shape: Sequence[int], fresh: bool = True) -> Value:
    """The value that stands for all of a partition; ``shape`` has the batch dim in front."""
    strides = [prod(shape[d + 1 :]) for d in range(len(shape))]
    factors = tuple(Factor((d,), arange(n, strides[d])) for d, n in enumerate(shape))
    return Value(tuple(shape), (Term(source, factors),), source if fresh else None)


def _joint(term: Term, shape: Sequence[int], dims: Sequence[int]) -> Relation:
    """The relation over the product of ``dims``, which must be a union of whole factors."""
    inside = [f for f in term.factors if f.dims and set(f.dims) <= set(dims)]
    flat = [d for f in inside for d in f.dims]
    joint = outer_sum([f.relation for f in inside])
    return reorder(joint, [shape[d] for d in flat], [flat.index(d) for d in dims])


def _each(
    value: Value,
    shape: Sequence[int],
    change: Callable[[Term], tuple[Factor, ...]],
    move: Callable[[np.ndarray], np.ndarray],
) -> Value:
    terms = tuple(Term(t.source, change(t)) for t in value.terms)
    excluded = None if value.excluded is None else move(value.excluded)
    return Value(tuple(shape), terms, value.fresh, excluded)


def permute(value: Value, order: Sequence[int]) -> Value:
    """Reorder the dims: new dim k is old dim ``order[k]``."""
    at = {old: new for new, old in enumerate(order)}
    return _each(
        value,
        [value.shape[d] for d in order],
        lambda t: tuple(Factor(tuple(at[d] for d in f.dims), f.relation) for f in t.factors),
        lambda mask: mask.transpose(order),
    )


def reshape(value: Value, shape: Sequence[int]) -> Value:
    """View the tensor in another shape of the same size (C order)."""
    if tuple(shape) == value.shape:
        return value
    return _each(
        value, shape, lambda t: _reshape_term(t, value.shape, shape), lambda mask: mask.reshape(shape)
    )


def _reshape_term(term: Term, old: Sequence[int], new: Sequence[int]) -> tuple[Factor, ...]:
    ones = {d for d, n in enumerate(old) if n == 1}
    factors: list[Factor] = []
    for f in term.factors:  # a dim of size 1 goes, what it stands for stays
        if f.dims and set(f.dims) <= ones:
            f = Factor((), f.relation)
        elif set(f.dims) & ones:
            f = Factor(tuple(d for d in f.dims if d not in ones), f.relation)
        if f.dims or not f.relation.is_zero:
            factors.append(f)
    out = [f for f in factors if not f.dims]
    bare = Term(term.source, tuple(factors))
    groups, kept = _tied(_aligned(old, new), [f.dims for f in factors])
    out.extend(
        Factor(tuple(kept[d] for d in f.dims), f.relation) for f in factors if f.dims and f.dims[0] in kept
    )
    for olds, news in groups:
        joint = _joint(bare, old, olds)
        sizes = [new[d] for d in news]
        parts = split(joint, sizes) if len(news) > 1 else [joint]
        if parts is None:
            out.append(Factor(tuple(news), joint))
        else:
            out.extend(Factor((d,), r) for d, r in zip(news, parts, strict=True))
    out.extend(Factor((d,), arange(1)) for d, n in enumerate(new) if n == 1)
    return tuple(out)


def _aligned(old: Sequence[int], new: Sequence[int]) -> list[tuple[list[int], list[int]]]:
    """Smallest groups of old and new dims of equal size that a view maps to each other; size 1 left out."""
    a = [d for d, n in enumerate(old) if n != 1]
    b = [d for d, n in enumerate(new) if n != 1]
    groups: list[tuple[list[int], list[int]]] = []
    i = j = 0
    while i < len(a):
        olds, news = [a[i]], [b[j]]
        i, j = i + 1, j + 1
        while (p := prod(old[d] for d in olds)) != (q := prod(new[d] for d in news)):
            if p < q:
                olds.append(a[i])
                i += 1
            else:
                news.append(b[j])
                j += 1
        groups.append((olds, news))
    return groups


def _tied(
    groups: Sequence[tuple[list[int], list[int]]], together: Sequence[tuple[int, ...]]
) -> tuple[list[tuple[list[int], list[int]]], dict[int, int]]:
    """Join the groups that one factor ties; dims of factors that the view leaves alone are renamed only.

    Returns the joined groups and the new name of each dim that is in none of them.
    """
    at = {d: g for g, (olds, _) in enumerate(groups) for d in olds}
    joined = list(range(len(groups)))

    def first(g: int) -> int:
        while joined[g] != g:
            g = joined[g]
        return g

    kept: dict[int, int] = {}
    for dims in together:
        touched = sorted({at[d] for d in dims})
        if all(len(groups[g][0]) == len(groups[g][1]) == 1 for g in touched):
            kept |= {groups[g][0][0]: groups[g][1][0] for g in touched}
            continue
        roots = sorted({first(g) for g in touched})
        for r in roots[1:]:
            joined[r] = roots[0]
    out: dict[int, tuple[list[int], list[int]]] = {}
    for g, (olds, news) in enumerate(groups):
        if olds[0] not in kept:
            a, b = out.setdefault(first(g), ([], []))
            a.extend(olds)
            b.extend(news)
    return list(out.values()), kept


def map_dim(value: Value, dim: int, mapping: Relation) -> Value:
    """Replace coordinate j of ``dim`` by the old coordinates ``mapping[j]``: slices, pools, pads.

    Of a permutation (a roll, a flip) the result is as fresh as the value.
    """
    dim %= len(value.shape)
    shape = [*value.shape[:dim], len(mapping), *value.shape[dim + 1 :]]

    def change(term: Term) -> tuple[Factor, ...]:
        out = []
        for f in term.factors:
            if dim in f.dims:
                around = [mapping if d == dim else arange(value.shape[d]) for d in f.dims]
                strides = [prod(value.shape[d] for d in f.dims[k + 1 :]) for k in range(len(f.dims))]
                scaled = [Relation(r.ptr, r.idx * s) for r, s in zip(around, strides, strict=True)]
                f = Factor(f.dims, compose(outer_sum(scaled), f.relation))
            out.append(f)
        return tuple(out)

    if value.excluded is not None and not mapping.is_function:
        value = replace(value, excluded=None)  # sums over windows are not zero
    mapped = _each(value, shape, change, lambda mask: mask.take(mapping.idx, axis=dim))
    return mapped if len(mapping) == value.shape[dim] and mapping.is_permutation else mapped.stale()


def drop_dim(value: Value, dim: int) -> Value:
    """Remove a dim of size 1."""
    dim %= len(value.shape)
    return reshape(value, value.shape[:dim] + value.shape[dim + 1 :])


def broadcast(value: Value, shape: Sequence[int]) -> Value:
    """Expand to ``shape`` by torch's rules."""
    lead = len(shape) - len(value.shape)
    if lead:
        value = reshape(value, (1,) * lead + value.shape)
    for d, n in enumerate(shape):
        if value.shape[d] != n:
            value = map_dim(value, d, Relation(np.arange(n + 1), np.zeros(n, np.int64)))
    return value


def structural_sum(values: Sequence[Value], shape: Sequence[int]) -> Value:
    """The value whose consumers are linked to the nodes of all operands."""
    terms = [t for v in values for t in broadcast(v, shape).terms]
    return Value(tuple(shape), tuple(Term(t.source, t.factors) for t in terms))
