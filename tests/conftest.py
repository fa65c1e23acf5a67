"""What every test can ask for: the device to run on, a fixed seed, reproducible hypothesis examples."""

import os
import random
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

# Each xdist worker would start a BLAS and an OpenMP pool as wide as the machine; together they fight for its
# cores. Set before numpy and torch are imported, and only where the caller has not decided.
if "PYTEST_XDIST_WORKER" in os.environ:
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(variable, "1")

# The same examples in every run: a failure is then a change of the code (see `tests` for new ones).
# No deadline, since the first example of a test may compile a numba kernel.
settings.register_profile(
    "mge_gpu",
    derandomize=True,
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.register_profile("new", settings.get_profile("mge_gpu"), derandomize=False)
settings.load_profile("mge_gpu")


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--device cuda`` runs the tests that take ``device``, ``gpu`` or ``runtime_of`` on a GPU, too."""
    parser.addoption(
        "--device",
        choices=("cpu", "cuda"),
        default="cpu",
        help="run the tests of devices there too, besides the CPU and what stands for a GPU without one",
    )


def pytest_configure(config: pytest.Config) -> None:
    """What a test can be marked with."""
    config.addinivalue_line("markers", "gradients: needs autograd, which a pretended GPU has not")
    config.addinivalue_line("markers", "memory: needs a GPU's memory, which can be short")


def pytest_itemcollected(item: pytest.Item) -> None:
    """A GPU whose memory is short hands over to the CPU and warns: tests of the GPU would pass without it."""
    item.add_marker(pytest.mark.filterwarnings("error::mge_gpu.backends.cuda.shortage.GpuMemoryWarning"))


def pytest_sessionstart(session: pytest.Session) -> None:
    """Where memory is watched (docs/kernels.md) each array lies alone: what is read beside it shows."""
    if os.environ.get("MGE_SANITIZE"):
        from mge_gpu.backends.cuda import resident

        resident.PACKED = -1


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run what takes a device on all that there are, a pretended GPU where none is asked for."""
    asked = ["cuda"] if metafunc.config.getoption("--device") == "cuda" else []
    only_there = any(metafunc.definition.get_closest_marker(name) for name in ("gradients", "memory"))
    pretended = [] if asked or only_there else ["pretended"]
    missing = pytest.param("cuda", marks=pytest.mark.skip(reason="needs a GPU: run with --device cuda"))
    for name, kinds in (("device", ["cpu", *pretended]), ("gpu", pretended), ("runtime_of", ["host"])):
        if name in metafunc.fixturenames:
            metafunc.parametrize(name, [*kinds, *asked] or [missing], indirect=True)


def _on(kind: str) -> AbstractContextManager[object]:
    """Within it torch has the device. Asked for and missing is a failure, never a silent skip."""
    if kind == "pretended":
        from tests.kernels.pretend import pretend

        return pretend()
    if kind == "cuda":
        import torch

        if not torch.cuda.is_available():
            pytest.fail("--device cuda was asked for, but torch sees no CUDA device", pytrace=False)
    return nullcontext()


@pytest.fixture
def device(request: pytest.FixtureRequest) -> Iterator[str]:
    """The device to run on, by torch's name."""
    with _on(request.param):
        yield "cpu" if request.param == "cpu" else "cuda"


@pytest.fixture
def gpu(request: pytest.FixtureRequest) -> Iterator[str]:
    """The device "cuda": a GPU if asked for, else what stands for one (tests/kernels/pretend.py)."""
    with _on(request.param):
        yield "cuda"


@pytest.fixture
def runtime_of(request: pytest.FixtureRequest) -> Callable[[int], Any]:
    """Makes the runtime of a CUDA backend: kernels on the host, in blocks of so many threads; or a GPU."""
    if request.param == "host":
        from tests.kernels.host_runtime import HostRuntime

        return HostRuntime
    with _on(request.param):
        from mge_gpu.backends.cuda.cupy_runtime import CupyRuntime

        return lambda threads: CupyRuntime()


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Torch multiplies on one thread: for small tensors others would wait longer than they work."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def seed() -> Iterator[int]:
    """Seed python, numpy and torch; returns the seed."""
    import numpy
    import torch

    value = 1234
    state = random.getstate(), numpy.random.get_state()
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        random.seed(value)
        numpy.random.seed(value)
        torch.manual_seed(value)
        yield value
    random.setstate(state[0])
    numpy.random.set_state(state[1])


@pytest.fixture
def gloo(monkeypatch: pytest.MonkeyPatch) -> str:
    """torch's way between processes, which by itself asks for the host's name: that may have no address.

    Skips where torch is built without it.
    """
    import torch

    if not (torch.distributed.is_available() and torch.distributed.is_gloo_available()):
        pytest.skip("torch is built without gloo")
    loopback = next(name for _, name in socket.if_nameindex() if name.startswith("lo"))
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", loopback)
    return "gloo"
