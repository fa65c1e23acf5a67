"""How work is cut and spread over threads."""

import _thread
import signal
import threading
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mge_gpu.backends.cpu.threads import balanced, call, num_threads, run


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


@pytest.fixture
def fresh_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Two cores, no threads of other tests, and Ctrl-C heard (a job in the background ignores it)."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    monkeypatch.setattr("mge_gpu.backends.cpu.threads.num_threads", lambda: 2)
    monkeypatch.setattr("mge_gpu.backends.cpu.threads._pools", {})
    yield
    signal.signal(signal.SIGINT, before)


def test_ctrl_c_does_not_wait_for_what_is_running(fresh_threads: None) -> None:
    """Both tasks under way are abandoned, the others never begin, and the next call finds new threads."""
    left, begun, ended = threading.Event(), [], threading.Semaphore(0)
    both = threading.Barrier(2, timeout=30)

    def task(k: int) -> None:
        begun.append(k)
        if both.wait() == 0:
            _thread.interrupt_main()
        if left.wait(timeout=30):
            ended.release()

    with pytest.raises(KeyboardInterrupt):
        run(task, 10)
    left.set()  # if `run` had waited for its tasks, theirs would have timed out
    assert sorted(begun) == [0, 1]
    assert run(lambda k: k, 3) == [0, 1, 2] and call(max, 2, 5) == 5
    assert ended.acquire(timeout=30) and ended.acquire(timeout=30) and sorted(begun) == [0, 1]


def test_a_serial_kernel_is_abandoned_too(fresh_threads: None) -> None:
    left, ended = threading.Event(), threading.Event()

    def kernel() -> None:
        _thread.interrupt_main()
        if left.wait(timeout=30):
            ended.set()

    with pytest.raises(KeyboardInterrupt):
        call(kernel)
    left.set()
    assert ended.wait(timeout=30)


def test_short_tasks_are_worked_on_by_the_caller_too(fresh_threads: None) -> None:
    meeting = threading.Barrier(2, timeout=30)
    workers = run(lambda k: (meeting.wait(), threading.current_thread())[1], 2, short=True)
    assert threading.current_thread() in workers and len(set(workers)) == 2
    assert threading.current_thread() not in run(lambda k: threading.current_thread(), 4)
    with pytest.raises(ZeroDivisionError):
        run(lambda k: 1 // k, 3, short=True)


def test_a_task_may_call_run(fresh_threads: None) -> None:
    assert run(lambda k: sum(run(lambda j: j * k, 4)), 3) == [0, 6, 12]


def test_no_task_begins_after_an_error(fresh_threads: None) -> None:
    begun = []

    def fails(k: int) -> None:
        begun.append(k)
        raise ValueError(str(k))

    with pytest.raises(ValueError):
        run(fails, 100)
    assert len(begun) <= 2
