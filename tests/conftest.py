"""What every test can ask for: the device to run on, a fixed seed, reproducible hypothesis examples."""

import os
import random
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

# Each xdist worker would start a BLAS and an OpenMP pool as wide as the machine; together they fight for its
# cores. Set before numpy and torch are imported, and only where the caller has not decided.
if "PYTEST_XDIST_WORKER" in os.environ:
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(variable, "1")

# The same examples in every run: a failure is then a change of the code. No deadline, since the first
# example of a test may compile a numba kernel.
settings.register_profile(
    "mge_gpu",
    derandomize=True,
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("mge_gpu")


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--device cuda`` runs the tests that take ``device`` there too, besides the CPU."""
    parser.addoption(
        "--device",
        choices=("cpu", "cuda"),
        default="cpu",
        help="run the tests that take the `device` fixture there too, besides the CPU",
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test that takes ``device`` on the CPU and on the device that was asked for."""
    if "device" in metafunc.fixturenames:
        asked = metafunc.config.getoption("--device")
        metafunc.parametrize("device", sorted({"cpu", asked}), indirect=True)


@pytest.fixture
def device(request: pytest.FixtureRequest) -> str:
    """The device to run on. Asked for and missing is a failure, never a silent skip."""
    if request.param == "cuda":
        import torch

        if not torch.cuda.is_available():
            pytest.fail("--device cuda was asked for, but torch sees no CUDA device", pytrace=False)
    return str(request.param)


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
