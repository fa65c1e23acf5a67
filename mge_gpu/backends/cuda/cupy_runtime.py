"""The runtime of a real GPU: CuPy's arrays and NVRTC, torch's memory and torch's current stream."""

import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mge_gpu.errors import GraphError

OLDEST = (8, 0)
"""The compute capability below which kernels are not compiled."""

OLDEST_CUPY = (14, 2)
"""Older ones have no streams by address, or sort wrongly where memory is short, or fail for no values."""

BLOCK = 256
"""Threads of a block."""

WIDE = {"wedge_counts": 1024, "wedge_counts_of_hubs": 512, "two_hop_sizes_of_hubs": 512}
"""The same where scratch leaves room for few blocks: one on a multiprocessor."""

WAVES = 32
"""Blocks a multiprocessor is given at most: kernels go on in strides of the grid."""

RESIDENT = 3
"""Blocks that run on a multiprocessor at the same time: kernels that are launched together are bounded so."""

SCRATCH = 6 << 30
"""Bytes that the scratch of a launch may take, or half of the free memory where that is less."""


def sources() -> Any:
    """The folder of the CUDA sources: beside this very package in a checkout, else the installed one."""
    beside = Path(__file__).parents[3] / "kernels"
    return beside if (beside / "device.cuh").exists() else files("mge_gpu.kernels")


@cache
def source_text(name: str) -> str:
    """``kernels/<name>.cu`` with its headers written out: CuPy's cache on disk goes by this text alone."""
    seen: set[str] = set()

    def written_out(file: str) -> str:
        if file in seen:
            return ""
        seen.add(file)
        text = (sources() / file).read_text()
        return re.sub(r'^#include "(\w+\.cuh)"$', lambda m: written_out(m[1]), text, flags=re.MULTILINE)

    return written_out(f"{name}.cu").replace("#pragma once\n", "")


class CupyRuntime:
    """A `Runtime` on a CUDA device.

    Raises:
        GraphError: CuPy is missing, there is no such device, or it is too old.
    """

    def __init__(self, device: int = 0) -> None:
        try:
            import cupy
        except ImportError as error:
            raise GraphError(
                "got device 'cuda', but CuPy is not installed; pip install 'mge_gpu[cuda]', or use 'cpu'"
            ) from error
        except Exception as error:  # it makes its folder of kernels, say
            raise _unusable(error) from error
        if tuple(int(part) for part in cupy.__version__.split(".")[:2]) < OLDEST_CUPY:
            raise GraphError(
                f"got CuPy {cupy.__version__}, expected {'.'.join(map(str, OLDEST_CUPY))} or newer; "
                "pip install -U 'mge_gpu[cuda]', or use 'cpu'"
            )
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if device >= count:
            raise GraphError(f"got device 'cuda:{device}', but torch sees {count} CUDA devices; use 'cpu'")
        capability = torch.cuda.get_device_capability(device)
        if capability < OLDEST:
            raise GraphError(
                f"got a GPU of compute capability {capability[0]}.{capability[1]}, expected 8.0 or newer"
            )
        self.xp, self.device = cupy, device
        self.multiprocessors = torch.cuda.get_device_properties(device).multi_processor_count
        self._modules: dict[str, Any] = {}
        self._kernels: dict[tuple[str, str], Any] = {}
        self._inside = _Inside()
        self._last: torch.cuda.Stream | None = None
        try:
            self._try()
        except Exception as error:
            if self.is_shortage(error):
                return  # what is asked of it will say so, or find that there is memory again
            raise _unusable(error) from error

    def _try(self) -> None:
        """Does CuPy find the driver, NVRTC and its headers?"""
        with self.active():
            self.host(self.xp.zeros(1, np.int32) + 1)

    def _allocate(self, size: int) -> Any:
        """Memory of torch's current stream, for CuPy.

        It is torch's to free. A function of Python that frees it would be where Ctrl-C is noticed while an
        array dies, which loses both; and what the cycle collector finds is freed without CuPy's help.
        """
        cuda = self.xp.cuda
        try:
            held = torch.UntypedStorage(size, device=torch.device("cuda", self.device))
        except torch.OutOfMemoryError:  # CuPy's sorts and histograms know their own error only
            taken = torch.cuda.memory_allocated(self.device)
            raise cuda.memory.OutOfMemoryError(size, taken) from None
        return cuda.MemoryPointer(cuda.UnownedMemory(held.data_ptr(), size, held, self.device), 0)

    def is_shortage(self, error: Exception) -> bool:
        """Whether an exception says that the device's memory is short: torch's and CuPy's, or the driver's.

        The driver's own says so where a kernel is loaded, cuBLAS's and cuSOLVER's where they begin, while
        torch holds all memory.
        """
        if isinstance(error, torch.OutOfMemoryError | MemoryError):
            return True
        return isinstance(error, RuntimeError) and any(words in str(error) for words in SHORT)

    @contextmanager
    def active(self) -> Iterator[None]:
        """Arrays come from torch's allocator and work goes to torch's current stream."""
        stream = torch.cuda.current_stream(self.device)
        if self._inside.stream == stream and torch.cuda.current_device() == self.device:
            yield
            return
        if self._last is not None and self._last != stream:
            stream.wait_stream(self._last)  # what is kept between calls was written, and may be read, there
        cuda, before, self._last = self.xp.cuda, self._inside.stream, stream
        there = cuda.Stream.from_external(_Stream(stream.cuda_stream))
        with cuda.Device(self.device), cuda.using_allocator(self._allocate), there:
            self._inside.stream = stream
            try:
                yield
            finally:
                if before is not None and before != stream:
                    before.wait_stream(stream)
                    self._last = before
                self._inside.stream = before

    def launch(self, source: str, kernel: str, blocks: int, *args: Any) -> None:
        """Run a kernel on the current stream."""
        if blocks < 1:
            return
        grid = min(blocks, WAVES * self.multiprocessors)
        self._kernel(source, kernel)((grid,), (WIDE.get(kernel, BLOCK),), _given(args))

    def launch_together(self, source: str, kernel: str, *args: Any) -> None:
        """Run a kernel on the current stream by blocks that run at the same time: the driver sees to it."""
        grid, function = RESIDENT * self.multiprocessors, self._kernel(source, kernel).kernel
        function((grid,), (BLOCK,), _given(args), enable_cooperative_groups=True)

    def _kernel(self, source: str, kernel: str) -> Any:
        if (source, kernel) not in self._kernels:
            if source not in self._modules:
                self._modules[source] = self.xp.RawModule(
                    code=source_text(source), options=("--std=c++17", "-lineinfo"), backend="nvrtc"
                )
            self._kernels[source, kernel] = self._modules[source].get_function(kernel)
        return self._kernels[source, kernel]

    def threads(self, count: int) -> int:
        """Blocks that hold so many threads."""
        return -(-count // BLOCK)

    def teams(self, count: int) -> int:
        """Blocks that hold so many teams."""
        return -(-count // (BLOCK // 32))

    def workers(self, kernel: str, count: int, scratch: int) -> int:
        """Blocks for which so much scratch each fits."""
        fitting = min(SCRATCH, self.available_memory() // 2) // max(scratch, 1)
        resident = self.multiprocessors * (1 if kernel in WIDE else 4)
        return max(1, min(count, resident, fitting))

    def available_memory(self) -> int:
        """What is free on the device, and what torch holds without using it."""
        free, _ = torch.cuda.mem_get_info(self.device)
        stats = torch.cuda.memory_stats_as_nested_dict(self.device)  # memory_allocated takes 0.2 ms
        taken, used = (stats[f"{what}_bytes"]["all"]["current"] for what in ("reserved", "allocated"))
        return int(free + taken - used)

    def release(self) -> None:
        """torch's allocator keeps nothing that is unused, and CuPy no memory of the host that it locked."""
        self.xp.get_default_pinned_memory_pool().free_all_blocks()
        with torch.cuda.device(self.device):
            torch.cuda.empty_cache()

    def tensor(self, array: Any) -> torch.Tensor:
        """A torch tensor in the array's memory (DLPack)."""
        shared: torch.Tensor = torch.from_dlpack(array)
        return shared

    def address(self, array: Any) -> int:
        """Address of an array's first element."""
        return int(array.data.ptr)

    def host(self, array: Any) -> np.ndarray:
        """A copy in the host's memory."""
        copied: np.ndarray = self.xp.asnumpy(array)
        return copied


REPAIR = "pip install a CuPy for torch's version of CUDA (cupy-cuda12x, cupy-cuda13x), or use 'cpu'"

SHORT = "out of memory", "ALLOC_FAILED", "CUBLAS_STATUS_NOT_INITIALIZED", "cusolverDnCreate"
"""In the messages of drivers and libraries; the last two where a library finds no room for itself."""


class _Inside(threading.local):
    """The stream that a thread's work goes to at present."""

    stream: torch.cuda.Stream | None = None


class _Stream:
    """A stream by its address, for CuPy: the streams of older torch do not say it themselves."""

    def __init__(self, address: int) -> None:
        self.address = address

    def __cuda_stream__(self) -> tuple[int, int]:
        return 0, self.address  # version of the protocol


def _given(args: Sequence[Any]) -> tuple[Any, ...]:
    """Arguments of a kernel as CuPy takes them."""
    return tuple(np.uint64(0) if a is None else a for a in args)


def _unusable(error: Exception) -> GraphError:
    said = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    return GraphError(f"got device 'cuda', but CuPy cannot be used: {said}; {REPAIR}")
