"""The integer program of node-path balancing against brute force and against HiGHS."""

from itertools import product

import numpy as np
import pytest
import scipy.optimize
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from mge_gpu.pruning._balance import Balance, kernel_counts, objective

BALANCES = st.builds(
    Balance,
    st.sampled_from([0.0, 0.01, 0.5, 0.99, 1.0]),
    st.sampled_from([0.0, 0.001, 1.0, 2.0]),
    st.integers(1, 3),
)


@settings(max_examples=150, deadline=None)
@given(data=st.data(), balance=BALANCES, seed=st.integers(0, 99))
def test_no_integer_matrix_is_better(data: st.DataObject, balance: Balance, seed: int) -> None:
    groups, width, inside = data.draw(
        st.sampled_from([(1, 2, 2), (1, 3, 2), (1, 2, 3), (2, 1, 1), (2, 2, 1), (2, 1, 2), (3, 1, 1)])
    )
    channels = groups * inside
    limit = np.array(data.draw(st.lists(st.integers(0, 2), min_size=channels, max_size=channels)))
    mass = np.array(
        data.draw(st.lists(st.sampled_from([0.0, 1.0, 1.0, 2.5, 7.0]), min_size=channels, max_size=channels))
    )
    n = data.draw(st.integers(0, int(limit.sum()) * width))
    counts = kernel_counts(mass, limit, groups, groups * width, n, balance, np.random.default_rng(seed))
    # (C_out, C_in / groups): output o of group g reads the input channels of g
    bound = np.repeat(limit.reshape(groups, inside), width, axis=0)
    assert counts.sum() == n and (counts >= 0).all() and (counts <= bound).all()
    best = max(
        objective(np.array(m).reshape(bound.shape), mass, limit, groups, balance)
        for m in product(*(range(b + 1) for b in bound.ravel()))
        if sum(m) == n
    )
    assert objective(counts, mass, limit, groups, balance) == pytest.approx(best, abs=1e-9)


def highs(mass: np.ndarray, cap: int, outputs: int, n: int, balance: Balance) -> np.ndarray:
    """The program as published, solved as a mixed-integer program."""
    inputs = len(mass)
    cells = outputs * inputs
    top = np.sort(np.repeat(mass, cap * outputs))[::-1][:n].sum()
    # variables: M (cells), empty (cells), deficits of rows and of columns
    paths = (1 - balance.alpha) * np.tile(mass, outputs) / top
    node = balance.alpha / (inputs + outputs)
    cost = np.concatenate([-paths, np.full(cells, balance.beta / n), np.full(inputs + outputs, node)])
    eye, one = sp.eye_array(cells), np.ones
    rows = sp.kron(one((1, outputs)), sp.eye_array(inputs))
    columns = sp.kron(sp.eye_array(outputs), one((1, inputs)))
    sums = sp.vstack([rows, columns])
    some = sp.hstack([eye, eye, sp.csr_array((cells, inputs + outputs))])
    enough = sp.hstack([sums, sp.csr_array((inputs + outputs, cells)), sp.eye_array(inputs + outputs)])
    total = sp.hstack([sp.csr_array(one((1, cells))), sp.csr_array((1, cells + inputs + outputs))])
    found = scipy.optimize.milp(
        cost,
        integrality=np.concatenate([one(cells), np.zeros(cells + inputs + outputs)]),
        bounds=scipy.optimize.Bounds(
            0, np.concatenate([np.full(cells, cap), np.full(cells + inputs + outputs, np.inf)])
        ),
        constraints=[
            scipy.optimize.LinearConstraint(some, 1, np.inf),
            scipy.optimize.LinearConstraint(enough, balance.min_n, np.inf),
            scipy.optimize.LinearConstraint(total, 0, n),
        ],
        options={"mip_rel_gap": 0},
    )
    assert found.success
    return np.round(found.x[:cells]).astype(int).reshape(outputs, inputs)


@pytest.mark.parametrize(
    "balance", [Balance(), Balance(0.01, 1.0), Balance(0.01, 2.0, 3), Balance(0.5, 0.0, 2)]
)
@pytest.mark.parametrize("n", [7, 30, 120])
def test_equals_a_mixed_integer_solver(balance: Balance, n: int) -> None:
    rng = np.random.default_rng(n)
    mass = rng.integers(1, 50, 9).astype(float)
    limit = np.full(9, 5)
    counts = kernel_counts(mass, limit, 1, 8, n, balance, rng)
    expected = objective(highs(mass, 5, 8, n, balance), mass, limit, 1, balance)
    assert objective(counts, mass, limit, 1, balance) == pytest.approx(expected, abs=1e-7)


def test_ties_are_spread_evenly() -> None:
    counts = kernel_counts(np.ones(8), np.full(8, 9), 1, 6, 50, Balance(), np.random.default_rng(0))
    assert set(counts.sum(0)) <= {6, 7} and set(counts.sum(1)) <= {8, 9}
