"""The runtime of a real GPU, as far as it can be without one: a CuPy that fails, shortages, streams."""

import sys
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch

from mge_gpu.backends import get_backend, numbered
from mge_gpu.backends.cuda.cupy_runtime import CupyRuntime
from mge_gpu.errors import GraphError


class Stream:
    """What torch says of a stream."""

    def __init__(self, address: int) -> None:
        self.cuda_stream, self.waited = address, list[int]()

    def wait_stream(self, other: "Stream") -> None:
        """Note it."""
        self.waited.append(other.cuda_stream)


class OutOfMemory(MemoryError):
    """CuPy's own error: how much was wanted, and how much there is in use."""


class Cupy(SimpleNamespace):
    """As much of CuPy as a runtime asks for before it launches anything; notes which streams it works on."""

    def __init__(self, zeros: Callable[..., Any] = np.zeros) -> None:
        self.entered: list[int] = []

        @contextmanager
        def entering(stream: Any) -> Iterator[None]:
            self.entered.append(stream.__cuda_stream__()[1])
            yield

        @contextmanager
        def allocating(allocator: Callable[[int], Any]) -> Iterator[None]:
            self.allocate = allocator
            yield

        cuda = SimpleNamespace(
            Stream=SimpleNamespace(from_external=entering),
            Device=lambda index: nullcontext(),
            using_allocator=allocating,
            UnownedMemory=lambda *args: SimpleNamespace(args=args),
            MemoryPointer=lambda memory, offset: memory,
            memory=SimpleNamespace(OutOfMemoryError=OutOfMemory),
        )
        super().__init__(__version__="14.2.0", cuda=cuda, zeros=zeros, asnumpy=np.asarray)


@pytest.fixture
def torch_sees_a_gpu(monkeypatch: pytest.MonkeyPatch) -> dict[str, Stream]:
    """Returns where the current stream is set."""
    now = {"stream": Stream(7)}
    for name, known in {
        "is_available": lambda: True,
        "device_count": lambda: 2,
        "current_device": lambda: 0,
        "current_stream": lambda device=None: now["stream"],
        "get_device_capability": lambda device: (9, 0),
        "get_device_properties": lambda device: SimpleNamespace(multi_processor_count=132),
    }.items():
        monkeypatch.setattr(torch.cuda, name, known)
    return now


def failing(error: Exception) -> Callable[..., Any]:
    """A function that raises it."""
    return mock.Mock(side_effect=error)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError(
            "cudaErrorInsufficientDriver: CUDA driver version is insufficient for CUDA runtime version"
        ),
        RuntimeError("Failed to find CUDA headers.\nPlease install"),
        ImportError("libnvrtc.so.13: cannot open shared object file"),
    ],
)
def test_a_cupy_that_does_not_work_is_said(
    error: Exception, torch_sees_a_gpu: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cupy", Cupy(failing(error)))
    with pytest.raises(
        GraphError, match=f"{type(error).__name__}: .*; pip install a CuPy for torch's"
    ) as caught:
        CupyRuntime()
    assert "\n" not in str(caught.value)


def test_a_cupy_that_cannot_be_imported_is_said(
    torch_sees_a_gpu: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Finder:
        @staticmethod
        def find_spec(name: str, path: Any = None, target: Any = None) -> Any:
            if name == "cupy":  # it makes its folder of kernels when it is imported
                raise NotADirectoryError("/dev/null/kernel_cache")

    monkeypatch.delitem(sys.modules, "cupy", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Finder, *sys.meta_path])
    with pytest.raises(GraphError, match="NotADirectoryError: /dev/null/kernel_cache"):
        CupyRuntime()


def test_a_gpu_that_is_full_is_one(torch_sees_a_gpu: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", Cupy(failing(MemoryError())))
    assert CupyRuntime().multiprocessors == 132


def test_memory_is_torchs_to_free(torch_sees_a_gpu: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """By no function of Python: a Ctrl-C would be noticed there, and lost with the memory."""
    monkeypatch.setitem(sys.modules, "cupy", cupy := Cupy())
    here, made = torch.UntypedStorage, list[Any]()

    def storage(size: int, device: torch.device) -> torch.UntypedStorage:
        assert device == torch.device("cuda", 1)
        if size > 100:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        found = here(size)
        made.append(weakref.ref(found))
        return found

    monkeypatch.setattr(torch, "UntypedStorage", storage)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 40)
    runtime = CupyRuntime(1)
    with runtime.active():
        pointer, nothing = cupy.allocate(8), cupy.allocate(0)
        with pytest.raises(OutOfMemory) as caught:
            cupy.allocate(101)
    assert caught.value.args == (101, 40) and runtime.is_shortage(caught.value)
    assert pointer.args[0] != 0 and pointer.args[1] == 8 and pointer.args[3] == 1
    assert nothing.args[:2] == (0, 0)
    assert made[0]() is not None
    del pointer
    assert made[0]() is None


def test_shortages(torch_sees_a_gpu: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """By torch, CuPy, and by the driver and libraries, whose errors are the interpreter's RuntimeError."""
    monkeypatch.setitem(sys.modules, "cupy", Cupy())
    runtime = CupyRuntime()
    for error in (
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory."),
        RuntimeError("CUDA_ERROR_OUT_OF_MEMORY: out of memory"),
        RuntimeError("CUBLAS_STATUS_ALLOC_FAILED"),
        RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"),
        RuntimeError("CUDA error: CUSOLVER_STATUS_ALLOC_FAILED, when calling `cusolverDnCreate(handle)`"),
    ):
        assert runtime.is_shortage(error)
    for other in (RuntimeError("CUDA_ERROR_ILLEGAL_ADDRESS"), ValueError("out of memory"), KeyError()):
        assert not runtime.is_shortage(other)


def test_another_stream_waits_for_the_one_before(
    torch_sees_a_gpu: dict[str, Stream], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is kept between calls was written on the stream of its call."""
    monkeypatch.setitem(sys.modules, "cupy", cupy := Cupy())
    runtime, first, other = CupyRuntime(), torch_sees_a_gpu["stream"], Stream(8)
    cupy.entered.clear()
    with runtime.active(), runtime.active():  # within the same there is nothing to do
        assert cupy.entered == [7]
    torch_sees_a_gpu["stream"] = other
    with runtime.active():
        assert cupy.entered == [7, 8] and other.waited == [7]
        torch_sees_a_gpu["stream"] = first
        with runtime.active():
            assert cupy.entered == [7, 8, 7] and first.waited == [8]
        torch_sees_a_gpu["stream"] = other
        assert other.waited == [7, 7]  # for what was done within
        with runtime.active():
            assert cupy.entered == [7, 8, 7]
        monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
        with runtime.active():  # the same stream, but another GPU is the current one
            assert cupy.entered == [7, 8, 7, 8]
        monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    with pytest.raises(KeyError), runtime.active():
        raise KeyError
    with runtime.active():  # an error has left nothing behind
        assert len(cupy.entered) == 6


def test_the_gpu_without_a_number_is_the_current_one(
    torch_sees_a_gpu: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mge_gpu.backends._cuda_backend", lambda index: index)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    assert get_backend("cuda") == 1 and get_backend("cuda:0") == 0  # type: ignore[comparison-overlap]
    assert numbered("cuda") == torch.device("cuda", 1) and numbered("cpu") == torch.device("cpu")
    forked = RuntimeError("Cannot re-initialize CUDA in forked subprocess.\nUse spawn")
    monkeypatch.setattr(torch.cuda, "current_device", failing(forked))
    with pytest.raises(GraphError, match="cannot use here: Cannot re-initialize CUDA in forked subproc"):
        numbered("cuda")
