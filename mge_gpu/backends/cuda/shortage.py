"""What the backend does when the device's memory is short: with less of it, and at last on the host."""

import warnings
from collections.abc import Callable
from enum import Enum
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np

from mge_gpu.backends.cuda.runtime import Runtime
from mge_gpu.errors import NotEnoughMemoryError

if TYPE_CHECKING:
    from mge_gpu.backends.cuda.backend import CudaBackend

R = TypeVar("R")


class GpuMemoryWarning(UserWarning):
    """The GPU's memory was short. Results are the same, by a slower way that the message names."""


class Outcome(Enum):
    """What `attempt` returns in place of a result."""

    SHORT = "memory was short"


def attempt(runtime: Runtime, work: Callable[[], R]) -> R | Literal[Outcome.SHORT]:
    """What ``work`` returns; or SHORT where memory ran out, with all that it had taken given back."""
    try:
        return work()
    except NotEnoughMemoryError:
        raise  # it says more
    except Exception as error:
        if not runtime.is_shortage(error):
            raise
    # the exception holds what the failed work holds: it is gone before anything is freed
    runtime.release()
    return Outcome.SHORT


def on_host(backend: "CudaBackend", primitive: str, args: Any, kwargs: Any) -> Any:
    """The CPU backend's primitive, over copies; its arrays go back to the device."""
    from mge_gpu.backends.cpu import CpuBackend

    warnings.warn(
        f"the GPU's memory is too short for {primitive}: it is computed on the CPU",
        GpuMemoryWarning,
        stacklevel=5,
    )
    array = type(backend.xp.empty(0))

    def host(value: Any) -> Any:
        if type(value) is list:
            return list(map(host, value))
        return backend.runtime.host(value) if isinstance(value, array) else value

    def back(value: Any) -> Any:
        if isinstance(value, tuple):
            return type(value)(map(back, value))
        if callable(value):
            return lambda x, out=None: back(value(host(x)))
        return (
            backend.xp.asarray(value) if isinstance(value, np.ndarray) and primitive not in ON_HOST else value
        )

    return back(getattr(CpuBackend(), primitive)(*map(host, args), **kwargs))


ON_HOST = ("path_counts", "two_hop_sizes", "wedge_counts", "clique_counts")
"""Primitives that return NumPy arrays on every device."""
