"""A CUDA device of torch for machines without one: its tensors lie on the host, out of the host's reach.

What torch refuses between a GPU and the host is refused here, too: an operation on tensors of both, NumPy's
view of a tensor there. The kernels run on the host (`HostRuntime`). There are no gradients: autograd asks the
driver.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor
from torch._guards import detect_fake_mode
from torch._subclasses import FakeTensor
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves, tree_map

from mge_gpu.backends.cpu import threads
from mge_gpu.backends.cuda import CudaBackend
from tests.kernels.host_runtime import HostRuntime
from tests.kernels.strict import DeviceArray

CUDA = torch.device("cuda", 0)

aten = torch.ops.aten
INDEXED = (aten.index, aten.index_put_, aten.index_put, aten._index_put_impl_)
ACROSS = (aten._to_copy, aten.copy_, *INDEXED)
"""Operations that take tensors of both devices: copies, and indices of the host, which torch sends along."""


class There(Tensor):
    """A tensor of the device; ``inner`` is where it really lies."""

    inner: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, inner: Tensor) -> "There":
        made: There = Tensor._make_wrapper_subclass(
            cls,
            inner.shape,
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=CUDA,
        )
        made.inner = inner
        return made

    def tolist(self) -> Any:
        """The values as Python objects: torch itself refuses that to subclasses."""
        return self.inner.tolist()

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


class _Mode(TorchDispatchMode):
    """What makes tensors by the name of a device comes by here."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if any(issubclass(kind, FakeTensor) for kind in types) or detect_fake_mode(args) is not None:
            return func(*args, **(kwargs or {}))  # a network is being traced
        return _run(func, args, kwargs or {})


def _inner(x: Any) -> Any:
    return x.inner if isinstance(x, There) else x


def _run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """An operation on what lies within; its results lie where a GPU's would."""
    given = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
    there = [x for x in given if isinstance(x, There)]
    known = {id(_inner(x)): x for x in given}
    across = func.overloadpacket in ACROSS
    on_device = isinstance(given[0], There) if across and given else bool(there)
    refused = not across if on_device else func.overloadpacket in INDEXED
    if there and refused and any(x.ndim and not isinstance(x, There) for x in given):
        raise RuntimeError(f"Expected all tensors to be on the same device ({func})")
    if kwargs.get("device") is not None:
        on_device = torch.device(kwargs["device"]).type == "cuda"
        kwargs = {**kwargs, "device": "cpu"}
    with _disable_current_modes():
        found = func(*tree_map(_inner, args), **tree_map(_inner, kwargs))

    def outside(x: Any) -> Any:
        return known.get(id(x), There(x) if on_device else x) if isinstance(x, Tensor) else x

    return tree_map(outside, found)


class PretendRuntime(HostRuntime):
    """The kernels on the host, their arrays beside torch's tensors of the device."""

    def tensor(self, array: DeviceArray) -> Tensor:
        """A torch tensor of the device in the array's memory."""
        return There(super().tensor(array))


class _Event:
    """A moment: what is done before it is done, on the host."""

    def __init__(self, enable_timing: bool = False) -> None:
        self.moment = 0.0

    def record(self, stream: Any = None) -> None:
        self.moment = time.perf_counter()

    def synchronize(self) -> None:
        pass

    def elapsed_time(self, other: "_Event") -> float:
        return 1000 * (other.moment - self.moment)


_KNOWN: dict[str, Any] = {
    "_lazy_init": lambda: None,
    "is_available": lambda: True,
    "device_count": lambda: 1,
    "current_device": lambda: 0,
    "current_stream": lambda device=None: mock.Mock(),
    "is_bf16_supported": lambda *args, **kwargs: True,
    "synchronize": lambda device=None: None,
    "default_generators": (mock.Mock(),),
    "get_rng_state": lambda device="cuda": torch.zeros(16, dtype=torch.uint8),
    "set_rng_state": lambda state, device="cuda": None,
    "Event": _Event,
    "reset_peak_memory_stats": lambda device=None: None,
    "max_memory_allocated": lambda device=None: 0,
    "get_device_name": lambda device=None: "pretended",
}
"""What torch asks of a driver."""


def _known() -> dict[str, Any]:
    """The same, but for how torch begins with a GPU where there is one."""
    there = torch.cuda.device_count() > 0
    return {name: stub for name, stub in _KNOWN.items() if not (there and name == "_lazy_init")}


@contextmanager
def pretend() -> Iterator[None]:
    """Within it torch has a CUDA device, whose backend runs the kernels on the host."""
    backend = CudaBackend(PretendRuntime())
    overwritten = torch.__future__.get_overwrite_module_params_on_conversion()
    lifted = torch._C._only_lift_cpu_tensors()
    if hasattr(torch._C, "_ensureCUDADeviceGuardSet"):
        torch._C._ensureCUDADeviceGuardSet()  # a switch of devices that asks no driver, where there is none
    elif not torch.cuda.is_available():
        pytest.skip("this torch switches to no device without its driver: no GPU is pretended")
    torch.__future__.set_overwrite_module_params_on_conversion(True)  # Module.to() keeps the tensors' class
    torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor(..., device=) is made here and goes there
    try:
        with (
            mock.patch.multiple("torch.cuda", **_known()),
            mock.patch("torch._subclasses.fake_tensor.init_gpu_context", lambda *args: None, create=True),
            mock.patch.object(threads._here, "worker", True, create=True),  # modes are a thread's own
            torch.backends.cudnn.flags(enabled=False),
            mock.patch("mge_gpu.backends._cuda_backend", lambda index: backend),
            _Mode(),
        ):
            yield
    finally:
        torch._C._set_only_lift_cpu_tensors(lifted)
        torch.__future__.set_overwrite_module_params_on_conversion(overwritten)
