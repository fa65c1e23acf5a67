"""Values as sets: each node at most once an element, and elements that a constant mask empties."""

from collections.abc import Sequence
from dataclasses import replace
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from mge_gpu.tracing.relation import Relation, concatenate, distinct, outer_sum, reorder, split
from mge_gpu.tracing.value import Factor, Term, Value

if TYPE_CHECKING:
    from mge_gpu.tracing.tracer import Call

MAX_TABLE = 2**24
"""Members of the largest table that is written out to find the nodes that two routes have in common."""


def distinct_rows(value: Value) -> Value:
    """Each member of each factor's rows once."""
    terms = (
        replace(t, factors=tuple(Factor(f.dims, distinct(f.relation)) for f in t.factors))
        for t in value.terms
    )
    return replace(value, terms=tuple(terms))


def hide(value: Value, mask: np.ndarray) -> Value:
    """Empty the elements where ``mask`` is set; it has the value's rank, with 1 where it does not vary."""
    if not mask.any():
        return value
    varies = [d for d in range(mask.ndim) if mask.shape[d] > 1 and (mask != mask.take([0], axis=d)).any()]
    for d in range(mask.ndim):
        if d not in varies:
            mask = mask.take([0], axis=d)
    if not varies:  # all of it
        return replace(value, terms=())
    return replace(value, terms=tuple(_hide_term(t, value.shape, mask, varies) for t in value.terms))


def _hide_term(term: Term, shape: Sequence[int], mask: np.ndarray, varies: Sequence[int]) -> Term:
    tied = [f for f in term.factors if set(f.dims) & set(varies)]
    dims = sorted({d for f in tied for d in f.dims})
    joint = _joint(tied, shape, dims)
    where = mask.reshape([mask.shape[d] for d in dims]) if len(dims) == mask.ndim else _squeeze(mask, dims)
    empty = np.broadcast_to(where, [shape[d] for d in dims]).ravel()
    joint = joint.take(np.where(empty, -1, np.arange(len(joint))))
    rest = [f for f in term.factors if not set(f.dims) & set(varies)]
    return Term(term.source, (*rest, Factor(tuple(dims), joint)))


def _squeeze(mask: np.ndarray, dims: Sequence[int]) -> np.ndarray:
    return mask.squeeze(tuple(d for d in range(mask.ndim) if d not in dims))


def _joint(factors: Sequence[Factor], shape: Sequence[int], dims: Sequence[int]) -> Relation:
    flat = [d for f in factors for d in f.dims]
    joint = outer_sum([f.relation for f in factors])
    return reorder(joint, [shape[d] for d in flat], [flat.index(d) for d in dims])


def as_set(value: Value, call: "Call") -> Value:
    """The same links with every multiplicity 1."""
    shapes = {t.source: call.tracer.partitions[t.source][1] for t in value.terms}
    done: list[Term] = []
    for term in distinct_rows(value).terms:
        if not _proper(term):
            term = _tabulate([term], value.shape, call)
        clash = [t for t in done if t.source == term.source and not _apart(t, term, shapes[t.source])]
        done = [t for t in done if not any(t is c for c in clash)]
        while clash and (both := _joined(clash[-1], term)):
            clash, term = clash[:-1], both
        if clash:
            term = _tabulate([*clash, term], value.shape, call)
        done.append(term)
    return replace(value, terms=tuple(done))


def _joined(a: Term, b: Term) -> Term | None:
    """One term for two that differ in one factor at most: its rows list the nodes of both, each once."""
    mine, other = (
        {f.dims: f.relation for f in t.factors if f.dims}
        | {(): outer_sum([f.relation for f in t.factors if not f.dims])}
        for t in (a, b)
    )
    if mine.keys() != other.keys():
        return None
    differ = [d for d, r in mine.items() if not _equal(r, other[d])]
    if len(differ) > 1:
        return None
    for d in differ:
        mine[d] = distinct(concatenate([mine[d], other[d]]))
    joined = Term(a.source, tuple(Factor(d, r) for d, r in mine.items()))
    return joined if _proper(joined) else None


def _equal(a: Relation, b: Relation) -> bool:
    return np.array_equal(a.ptr, b.ptr) and np.array_equal(a.idx, b.idx)


def _proper(term: Term) -> bool:
    """Whether no two choices of members can add up to one node: each factor steps over the smaller ones."""
    spans = []
    for f in term.factors:
        r = f.relation
        if len(r.idx) and r.counts.max() > 1:
            step = np.diff(r.idx)
            inner = np.ones(len(step), bool)
            inner[r.ptr[1:-1][(r.ptr[1:-1] > 0) & (r.ptr[1:-1] < len(r.idx))] - 1] = False
            full = r.counts > 0
            widest = int((r.idx[r.ptr[1:][full] - 1] - r.idx[r.ptr[:-1][full]]).max())
            spans.append((int(step[inner].min()), widest))
    spans.sort()
    reach = 0
    for step_, widest in spans:
        if step_ <= reach:
            return False
        reach += widest
    return True


def _apart(a: Term, b: Term, shape: Sequence[int]) -> bool:
    """Whether two terms of one partition, each as a whole, differ in a coordinate of the partition."""
    for d, n in enumerate(shape):
        stride = prod(shape[d + 1 :])
        one, other = (_reached(t, stride, n) for t in (a, b))
        if one is not None and other is not None and not (one & other).any():
            return True
    return False


def _reached(term: Term, stride: int, size: int) -> np.ndarray | None:
    """The coordinates along one dim of the partition that a term reaches, or None if sums may carry."""
    reached = np.zeros(size, bool)
    reached[0] = True
    low = 0
    for f in term.factors:
        idx = f.relation.idx
        low += int((idx % stride).max(initial=0))
        digits = np.unique(idx // stride % size)
        if not len(digits):
            return np.zeros(size, bool)
        at = np.flatnonzero(reached)
        if int(at[-1]) + int(digits[-1]) >= size:
            return None
        reached = np.zeros(size, bool)
        reached[(at[:, None] + digits[None]).ravel()] = True
    return reached if low < stride else None


def _tabulate(terms: Sequence[Term], shape: Sequence[int], call: "Call") -> Term:
    """One term with the nodes of all, each once: a table over the dims that some term varies along."""
    still = {d for d in range(len(shape)) if all(_still(t, d) for t in terms)}
    dims = [d for d in range(len(shape)) if d not in still]
    size = sum(
        prod(len(f.relation.idx) for f in t.factors if not set(f.dims) <= still or not f.dims) for t in terms
    )
    if size > MAX_TABLE:
        raise call.error(
            f"two routes meet in the same nodes and telling them apart takes a table of {size:,} entries, at "
            f"most {MAX_TABLE:,} are made",
            "give query, key and value projections of their own",
        )
    joints = []
    for t in terms:
        factors = [f for f in t.factors if not f.dims or not set(f.dims) <= still]
        joints.append(_joint(factors, shape, dims))
    table = distinct(concatenate(joints))
    zero = Relation(np.array([0, 1]), np.zeros(1, np.int64))
    rows = [Factor((d,), zero.take(np.zeros(shape[d], np.int64))) for d in sorted(still)]
    return Term(terms[0].source, (*_untied(table, dims, shape), *rows))


def _untied(table: Relation, dims: Sequence[int], shape: Sequence[int]) -> list[Factor]:
    """A table over several dims as one factor a dim and what all rows share, if it is of that form."""
    full = (table.counts > 0).reshape([shape[d] for d in dims])
    kept = [np.flatnonzero(full.any(tuple(e for e in range(len(dims)) if e != d))) for d in range(len(dims))]
    if not dims or not full[np.ix_(*kept)].all():
        return [Factor(tuple(dims), table)]
    inside = np.ravel_multi_index(np.ix_(*kept), full.shape).ravel()
    parts = split(table.take(inside), [len(k) for k in kept])
    if parts is None:
        return [Factor(tuple(dims), table)]
    last = parts[-1]
    common = last.idx[last.ptr[0] : last.ptr[1]]
    parts[-1] = Relation(np.arange(len(last) + 1), last.idx[last.ptr[:-1]] - common[0])
    out = []
    for d, r, at in zip(dims, parts, kept, strict=True):
        place = np.full(shape[d], -1)
        place[at] = np.arange(len(at))  # what is empty all along a dim stays so
        out.append(Factor((d,), r.take(place)))
    return [*out, Factor((), Relation(np.array([0, len(common)]), common))]


def _still(term: Term, dim: int) -> bool:
    """Whether a term does not vary along a dim."""
    return any(f.dims == (dim,) and f.relation.is_function and not f.relation.idx.any() for f in term.factors)
