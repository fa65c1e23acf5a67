"""How work is cut and spread over threads."""

import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mge_gpu.backends.cpu.threads import balanced, num_threads, run


@given(st.lists(st.integers(0, 100), max_size=30), st.integers(1, 6))
def test_cuts_cover_everything_in_order(cost: list[int], parts: int) -> None:
    cuts = balanced(np.array(cost, np.int64), parts)
    assert len(cuts) == parts + 1 and cuts[0] == 0 and cuts[-1] == len(cost)
    assert (np.diff(cuts) >= 0).all()
    largest = max((sum(cost[a:b]) for a, b in zip(cuts, cuts[1:], strict=False)), default=0)
    assert largest <= sum(cost) / parts + max(cost, default=0)


def test_number_of_threads_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NUMBA_NUM_THREADS", raising=False)
    available = num_threads()
    assert available >= 1
    monkeypatch.setenv("NUMBA_NUM_THREADS", "1")
    assert num_threads() == 1
    monkeypatch.setenv("NUMBA_NUM_THREADS", "100000")
    assert num_threads() == available


@pytest.mark.parametrize("threads", ["1", "2"])
def test_results_come_in_order_and_errors_come_through(threads: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mge_gpu.backends.cpu.threads.num_threads", lambda: int(threads))
    assert run(lambda k: k * k, 7) == [k * k for k in range(7)] and run(lambda k: k, 0) == []

    def fails(k: int) -> None:
        if k == 3:
            raise ValueError("task three")

    with pytest.raises(ValueError, match="task three"):
        run(fails, 5)


def test_two_tasks_run_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mge_gpu.backends.cpu.threads.num_threads", lambda: 2)
    meeting = threading.Barrier(2, timeout=30)
    assert sorted(run(lambda k: meeting.wait(), 2)) == [0, 1]
