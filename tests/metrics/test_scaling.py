"""Sums of values with exponents of their own against fractions, whatever the exponents."""

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mge_gpu.backends import get_backend
from mge_gpu.backends.cuda import CudaBackend
from mge_gpu.metrics.scaling import NOTHING, Scaled, added, log_totals
from tests.kernels.host_runtime import COMPILER

CPU = get_backend("cpu")
SHAPE = 3, 2, 2, 2  # rows, before, networks, behind


@st.composite
def parts_of_sums(draw: st.DrawFn) -> list[Scaled]:
    """Up to three parts: values of some or the very smallest size, and zeros, whole rows of them as well."""
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    reach = draw(st.sampled_from([0, 30, 3000]))
    lowest = draw(st.sampled_from([(-300, 300), (-1074, -1000)]))
    parts = []
    for _ in range(draw(st.integers(1, 3))):
        values = np.ldexp(generator.random(SHAPE), generator.integers(*lowest, SHAPE))
        values[generator.random(SHAPE) < 0.4] = 0
        values.transpose(0, 2, 1, 3)[generator.random((3, 2)) < 0.3] = 0
        parts.append(Scaled(values, generator.integers(-reach, reach + 1, (3, 2))))
    return parts


def exact(part: Scaled) -> np.ndarray:
    """The values as fractions, of SHAPE."""
    found = np.empty(part.values.shape, object)
    for at, value in np.ndenumerate(part.values):
        exponent = int(part.exponent[at[0], at[2]])
        assert value == 0 or exponent > NOTHING
        found[at] = Fraction(value) * Fraction(2) ** exponent if value else Fraction(0)
    return found


@given(parts_of_sums())
def test_sums(parts: list[Scaled]) -> None:
    check_sum(parts, added(parts, CPU))


@pytest.mark.skipif(COMPILER is None, reason="no C++ compiler: the CUDA kernels are not run here")
@pytest.mark.parametrize("threads", [1, 3])
@given(parts_of_sums())
def test_sums_on_kernels(threads: int, runtime_of: Callable[[int], Any], parts: list[Scaled]) -> None:
    check_sum(parts, added_there(parts, CudaBackend(runtime_of(threads))))


@pytest.mark.skipif(COMPILER is None, reason="no C++ compiler: the CUDA kernels are not run here")
def test_sums_of_many_values(runtime_of: Callable[[int], Any]) -> None:
    """More than a team takes at a time, in rows of which one is the largest by far, by teams of a block."""
    generator = np.random.default_rng(0)
    shape = 3, 1, 2, 5000
    values = np.ldexp(generator.random(shape), generator.integers(-90, 90, shape))
    parts = [Scaled(values, generator.integers(-9, 9, (3, 2))) for _ in range(2)]
    found, expected = added_there(parts, CudaBackend(runtime_of(64))), added(parts, CPU)
    assert np.array_equal(found.values, expected.values) and np.array_equal(found.exponent, expected.exponent)


def added_there(parts: list[Scaled], backend: CudaBackend) -> Scaled:
    """The sum by kernels."""
    with backend.active():
        there = [Scaled(*map(backend.xp.asarray, part)) for part in parts]
        return Scaled(*map(backend.host, added(there, backend)))


def check_sum(parts: list[Scaled], found: Scaled) -> None:
    """A sum against that of fractions."""
    expected = sum(exact(p) for p in parts)
    largest = expected.max((1, 3))
    largest[1:] = largest[1:].max(0)  # rows that share exponents
    assert (found.exponent[1] == found.exponent[2]).all() and found.values.max() <= len(parts)
    for at, value in np.ndenumerate(exact(found)):
        if (
            expected[at] * 2**1000 < largest[at[0], at[2]]
        ):  # of these less than 2^-1000 of the largest is left
            assert value * 2**999 < largest[at[0], at[2]] or value == 0
        else:
            assert abs(value - expected[at]) <= expected[at] * Fraction(1, 2**50)
    assert (np.array(found.exponent == NOTHING)[0] == (largest[0] == 0)).all()


@given(parts_of_sums())
def test_logarithms(parts: list[Scaled]) -> None:
    parts = [added([p], CPU) for p in parts]
    found = log_totals(parts, 3, 2, CPU)
    total = sum(exact(p) for p in parts).sum((1, 3))
    for at, x in np.ndenumerate(total):
        expected = math.log(x.numerator) - math.log(x.denominator) if x else -math.inf
        assert found[at] == expected or abs(found[at] - expected) <= 1e-12 * max(1, abs(expected))


def test_no_parts_and_no_nodes() -> None:
    assert (log_totals([], 3, 2, CPU) == -np.inf).all()
    empty = Scaled(np.zeros((1, 1, 2, 0)), np.zeros((1, 2), np.int64))
    assert added([empty, empty], CPU).values.shape == (1, 1, 2, 0)
    assert (log_totals([empty], 1, 2, CPU) == -np.inf).all()
