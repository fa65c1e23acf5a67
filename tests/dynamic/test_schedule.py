"""When each method changes the topology, and by how much, against the published formulas."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mge_gpu.dynamic.dsr import DSR
from mge_gpu.dynamic.itop import ITOP, GradientITOP
from mge_gpu.dynamic.rigl import RigL
from mge_gpu.dynamic.rule import Rule
from mge_gpu.dynamic.schedule import cosine, doubled_interval, is_due
from mge_gpu.dynamic.set_ import SET
from mge_gpu.dynamic.snfs import SNFS
from mge_gpu.dynamic.static import Static


def updates(rule: Rule) -> list[int]:
    return [step for step in range(2 * rule.total_steps) if rule.due(step)]


@given(st.floats(0, 1), st.floats(0, 1), st.integers(0, 400), st.integers(1, 200))
def test_cosine(start: float, final: float, step: int, end: int) -> None:
    expected = final + 0.5 * (start - final) * (1 + math.cos(math.pi * min(step / end, 1)))
    assert cosine(start, step, end, final) == pytest.approx(expected, abs=1e-12)
    assert cosine(start, 0, end, final) == pytest.approx(start)
    assert cosine(start, end, end, final) == pytest.approx(final)


@given(st.integers(-3, 500), st.integers(1, 60), st.floats(0, 400))
def test_is_due(step: int, interval: int, end: float) -> None:
    assert is_due(step, interval, end) == (step in range(interval, 500, interval) and step < end)


@given(st.integers(1, 500), st.integers(1, 60), st.lists(st.floats(0, 500), max_size=4))
def test_doubled_interval(step: int, interval: int, bounds: list[float]) -> None:
    expected = interval
    for bound in bounds:
        expected *= 2 if step >= bound else 1
    assert doubled_interval(step, interval, bounds) == expected


def test_rigl_ends_at_three_quarters() -> None:
    rule = RigL(1000)
    assert updates(rule) == [100, 200, 300, 400, 500, 600, 700]
    assert [rule.fraction(t) for t in (0, 375, 750)] == pytest.approx([0.3, 0.15, 0.0])
    assert updates(RigL(800)) == [100, 200, 300, 400, 500]  # not at T_end itself
    assert updates(RigL(1000, interval=250, end=1.0)) == [250, 500, 750]


@pytest.mark.parametrize("kind", [SET, SNFS])
def test_once_an_epoch_but_not_after_the_last(kind: type[Rule]) -> None:
    assert updates(kind(40, steps_per_epoch=10)) == [10, 20, 30]
    assert updates(kind(40, steps_per_epoch=10, interval=15)) == [15, 30]


@pytest.mark.parametrize(("kind", "interval"), [(ITOP, 1500), (GradientITOP, 4000)])
def test_itop_updates_rarely_over_the_whole_run(kind: type[ITOP], interval: int) -> None:
    rule = kind(12_000)
    assert updates(rule) == list(range(interval, 12_000, interval))
    assert [rule.fraction(t) for t in (0, 6000, 12_000)] == pytest.approx([0.5, 0.2525, 0.005])


def test_snfs_anneals_its_drop_rate() -> None:
    rule = SNFS(1000, interval=1)
    assert [rule.fraction(t) for t in (0, 500, 1000)] == pytest.approx([0.5, 0.2525, 0.005])


def test_dsr_doubles_its_interval_three_times() -> None:
    rule = DSR(8000, interval=100, end=0.8)
    assert updates(rule) == [
        *range(100, 1600, 100),  # a quarter of the 6,400 steps that it updates in
        *range(1600, 3200, 200),
        *range(3200, 4800, 400),
        *range(4800, 6400, 800),
    ]


def test_static_never_updates() -> None:
    assert updates(Static(50)) == [] and Static().settings() == {}
