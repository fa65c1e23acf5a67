"""Relations against lists of lists."""

from math import prod

import numpy as np
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from mge_gpu.tracing.relation import (
    Relation,
    adaptive_windows,
    arange,
    compose,
    from_lists,
    function,
    outer_sum,
    reorder,
    split,
    windows,
)

Rows = list[list[int]]


def rows_of(relation: Relation) -> Rows:
    assert relation.ptr[0] == 0 and relation.ptr[-1] == len(relation.idx)
    return [relation.idx[a:b].tolist() for a, b in zip(relation.ptr, relation.ptr[1:], strict=False)]


def rows(min_size: int = 0, top: int = 20) -> st.SearchStrategy[Rows]:
    """Rows of none, one or several members, at times with repeats; or functions."""
    member = st.integers(0, top)
    several = st.lists(st.lists(member, max_size=4), min_size=min_size, max_size=5)
    return several | st.lists(member.map(lambda x: [x]), min_size=min_size, max_size=5)


@given(rows())
def test_lists_round_trip(given_rows: Rows) -> None:
    relation = from_lists(given_rows)
    assert rows_of(relation) == given_rows
    assert len(relation) == len(given_rows)
    assert relation.counts.tolist() == [len(r) for r in given_rows]
    assert relation.rows().tolist() == [k for k, r in enumerate(given_rows) for _ in r]
    assert relation.is_function == all(len(r) == 1 for r in given_rows)
    assert relation.is_zero == (given_rows == [[0]])


@given(st.integers(0, 6), st.integers(1, 5))
def test_arange(n: int, stride: int) -> None:
    assert rows_of(arange(n, stride)) == [[k * stride] for k in range(n)]


@given(st.lists(st.integers(-2, 9), max_size=6))
def test_function_leaves_out_the_negative(values: list[int]) -> None:
    assert rows_of(function(np.array(values, np.int64))) == [[v] if v >= 0 else [] for v in values]


@given(st.data(), rows(min_size=1))
def test_compose_follows_both(data: st.DataObject, inner: Rows) -> None:
    outer = data.draw(rows(top=len(inner) - 1))
    composed = compose(from_lists(outer), from_lists(inner))
    assert rows_of(composed) == [[x for m in row for x in inner[m]] for row in outer]


@given(st.data(), rows(min_size=1))
def test_take(data: st.DataObject, given_rows: Rows) -> None:
    index = data.draw(st.lists(st.integers(-1, len(given_rows) - 1), max_size=6))
    taken = from_lists(given_rows).take(np.array(index, np.int64))
    assert rows_of(taken) == [[] if i < 0 else given_rows[i] for i in index]


@given(st.lists(rows(min_size=1), max_size=3))
def test_outer_sum_adds_every_pair(parts: list[Rows]) -> None:
    expected: Rows = [[0]]
    for part in parts:
        expected = [[a + b for a in left for b in right] for left in expected for right in part]
    assert rows_of(outer_sum([from_lists(p) for p in parts])) == expected


@given(st.lists(st.integers(1, 3), min_size=1, max_size=4), st.data())
def test_reorder_transposes_rows(sizes: list[int], data: st.DataObject) -> None:
    order = data.draw(st.permutations(range(len(sizes))))
    given_rows = [[k] * (k % 3) for k in range(prod(sizes))]
    found = rows_of(reorder(from_lists(given_rows), sizes, order))
    index = np.arange(prod(sizes)).reshape(sizes).transpose(order).ravel()
    assert found == [given_rows[k] for k in index]


@given(st.lists(st.integers(1, 4), min_size=1, max_size=3), st.data())
def test_split_is_undone_by_outer_sum(sizes: list[int], data: st.DataObject) -> None:
    """A joint relation made of one shift a dim and a common window comes apart; the parts add up to it."""
    shifts = [data.draw(st.lists(st.integers(0, 30), min_size=n, max_size=n)) for n in sizes]
    window = data.draw(st.lists(st.integers(0, 5), min_size=1, max_size=3))
    joint = outer_sum([*(from_lists([[x] for x in s]) for s in shifts), from_lists([window])])
    parts = split(joint, sizes)
    assert parts is not None and [len(p) for p in parts] == sizes
    assert rows_of(outer_sum(parts)) == rows_of(joint)


@given(st.integers(1, 3), st.integers(1, 3), rows())
def test_split_never_invents(a: int, b: int, given_rows: Rows) -> None:
    """Any relation: either it cannot be split, or the parts add up to it."""
    assume(len(given_rows) >= 1)
    joint = from_lists((given_rows * (a * b))[: a * b])
    parts = split(joint, [a, b])
    if parts is None:
        members = {len(r) for r in rows_of(joint)}
        grid = joint.idx.reshape(a, b, -1) if len(members) == 1 and members != {0} else None
        if grid is not None:  # then some second difference does not vanish
            shift = grid - grid[:1, :1]
            assert (grid - grid[:, :1] - grid[:1] + grid[:1, :1]).any() or (shift != shift[..., :1]).any()
    else:
        assert rows_of(outer_sum(parts)) == rows_of(joint)


@given(st.integers(1, 9), st.integers(1, 4), st.integers(1, 3), st.integers(1, 2), st.data())
def test_windows_are_those_of_max_pool(
    n: int, size: int, stride: int, dilation: int, data: st.DataObject
) -> None:
    padding = data.draw(st.integers(0, size // 2))
    assume(dilation * (size - 1) + 1 <= n + 2 * padding)
    pool = torch.nn.MaxPool1d(size, stride, padding, dilation, ceil_mode=data.draw(st.booleans()))
    hot = torch.eye(n)[:, None]
    pooled = pool(hot)[:, 0]  # (n, outputs): 1 where the window holds element i
    expected = [[i for i in range(n) if pooled[i, y] > 0] for y in range(pooled.shape[1])]
    assert rows_of(windows(n, size, stride, padding, dilation, pooled.shape[1])) == expected


@given(st.integers(1, 12), st.integers(1, 12))
def test_adaptive_windows_are_those_of_torch(n: int, count: int) -> None:
    pooled = torch.nn.AdaptiveAvgPool1d(count)(torch.eye(n)[:, None])[:, 0]
    expected = [[i for i in range(n) if pooled[i, y] > 0] for y in range(count)]
    assert rows_of(adaptive_windows(n, count)) == expected
