"""The kernels of ``kernels/*.cu`` compiled by g++ and run on the host, over arrays as strict as a GPU's."""

import ctypes
import hashlib
import os
import shutil
import subprocess
import tempfile
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.kernels.strict import DeviceArray, StrictNumpy

KERNELS = Path(__file__).parents[2] / "kernels"
CACHE = Path(__file__).parents[2] / ".pytest_cache" / "kernels"
COMPILER = shutil.which("g++") or shutil.which("c++")
TOGETHER = 3
"""Blocks that run at the same time, where a kernel wants that."""
SANITIZE = os.environ.get("MGE_SANITIZE", "")
"""What ``-fsanitize`` is given: memory errors and races of the kernels, see docs/kernels.md."""


def compile_on_host(source: str) -> ctypes.CDLL:
    """Compile ``kernels/<source>.cu`` behind ``host_shim.h``, once for each state of the sources."""
    texts = [(KERNELS / f"{source}.cu").read_bytes()]
    texts += [p.read_bytes() for p in sorted(KERNELS.glob("*.cuh")) + [KERNELS / "host_shim.h"]]
    texts.append(SANITIZE.encode())
    name = f"mge_gpu_{source}_{hashlib.sha256(b''.join(texts)).hexdigest()[:16]}.so"
    target = CACHE / name
    if not target.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE) as folder:
            made = Path(folder) / name
            command = [
                str(COMPILER),
                "-std=c++17",
                "-O2",
                "-Wall",
                "-Wextra",
                "-Werror",
                "-shared",
                "-fPIC",
                "-pthread",
            ]
            if SANITIZE:
                command += [f"-fsanitize={SANITIZE}", "-fno-sanitize-recover=undefined", "-g"]
            command += ["-DMGE_HOST", "-x", "c++", "-I", str(KERNELS)]
            command += [str(KERNELS / f"{source}.cu"), "-o", str(made)]
            done = subprocess.run(command, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
            made.replace(target)
    return ctypes.CDLL(str(target))


class HostRuntime:
    """A `Runtime` of the host: blocks run one after the other, in a random order, their threads together."""

    xp = StrictNumpy()

    def __init__(self, threads: int = 1, most_blocks: int = 7, seed: int = 0) -> None:
        self.block, self.most_blocks = threads, most_blocks
        self.generator = np.random.default_rng(seed)
        self.libraries: dict[str, ctypes.CDLL] = {}
        self.launched: set[str] = set()

    def is_shortage(self, error: Exception) -> bool:
        """As torch and CuPy say it."""
        return isinstance(error, torch.OutOfMemoryError | MemoryError)

    def active(self) -> AbstractContextManager[None]:
        """Nothing to prepare."""
        return nullcontext()

    def launch(self, source: str, kernel: str, blocks: int, *args: Any) -> None:
        """Run a kernel; fewer blocks than are asked for, so that each goes on in strides."""
        if blocks > 0:
            self.run(source, kernel, min(blocks, self.most_blocks), *args)

    def launch_together(self, source: str, kernel: str, *args: Any) -> None:
        """Run a kernel by blocks that run at the same time."""
        self.run(source, kernel, TOGETHER, *args)

    def run(self, source: str, kernel: str, blocks: int, *args: Any) -> None:
        """Run a kernel by so many blocks, in a random order."""
        if source not in self.libraries:
            self.libraries[source] = compile_on_host(source)
        order = self.generator.permutation(blocks).astype(np.uint32)
        cells = [_cell(a) for a in args]
        pointers = (ctypes.c_void_p * len(cells))(*(c.ctypes.data for c in cells))
        function = getattr(self.libraries[source], f"{kernel}_on_host")
        sizes = ctypes.c_uint(len(order)), ctypes.c_uint(self.block)
        function(*sizes, ctypes.c_void_p(order.ctypes.data), pointers)
        self.launched.add(kernel)

    def threads(self, count: int) -> int:
        """Blocks of that many threads."""
        return -(-count // self.block)

    def teams(self, count: int) -> int:
        """Blocks of that many teams: warps, or whole blocks."""
        return -(-count // (self.block // 32 if self.block % 32 == 0 else 1))

    def workers(self, kernel: str, count: int, scratch: int) -> int:
        """Three blocks at most, so that they take turns."""
        return min(count, 3)

    def available_memory(self) -> int | None:
        """Enough."""
        return None

    def release(self) -> None:
        """Nothing is held."""

    def tensor(self, array: DeviceArray) -> torch.Tensor:
        """A torch tensor in the array's memory."""
        return torch.from_numpy(array.array)

    def address(self, array: DeviceArray) -> int:
        """Where the array lies."""
        return int(array.array.ctypes.data)

    def host(self, array: DeviceArray) -> np.ndarray:
        """A copy."""
        return array.get()


def _cell(argument: Any) -> np.ndarray:
    """What holds the value of an argument: an address, or a scalar."""
    if argument is None:
        return np.zeros(1, np.uint64)
    if isinstance(argument, DeviceArray):
        assert argument.array.flags.c_contiguous
        return np.array([argument.array.ctypes.data], np.uint64)
    assert isinstance(argument, np.generic), f"an argument without a type: {argument!r}"
    return np.array([argument])
