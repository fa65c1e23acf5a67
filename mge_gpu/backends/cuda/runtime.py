"""What the backend asks of a device: arrays, and launches of the kernels by name."""

from contextlib import AbstractContextManager
from typing import Any, Protocol

import numpy as np
import torch


class Runtime(Protocol):
    """A device that kernels run on. Its arrays are those of ``xp``, which has NumPy's functions."""

    xp: Any

    def is_shortage(self, error: Exception) -> bool:
        """Whether an exception says that the device's memory is short."""

    def active(self) -> AbstractContextManager[None]:
        """Within it arrays are made and kernels run on this device."""

    def launch(self, source: str, kernel: str, blocks: int, *args: Any) -> None:
        """Run ``kernel`` of ``kernels/<source>.cu`` with at most so many blocks.

        Args:
            blocks: blocks that have something to do; nothing is launched where that is 0. Kernels go on in
                strides of the grid, so that fewer blocks do the same.
            args: in the order of the kernel's parameters: arrays of the device, NumPy scalars of the
                parameters' types, None for a null pointer.
        """

    def launch_together(self, source: str, kernel: str, *args: Any) -> None:
        """Run a kernel by as many blocks as run at the same time, so that they can wait for each other.

        Args:
            args: as for `launch`.
        """

    def threads(self, count: int) -> int:
        """Blocks that hold so many threads."""

    def teams(self, count: int) -> int:
        """Blocks that hold so many teams: see ``kernels/device.cuh``."""

    def workers(self, kernel: str, count: int, scratch: int) -> int:
        """Blocks of a kernel, at most ``count`` and as run at a time, that ``scratch`` bytes each fit for."""

    def available_memory(self) -> int | None:
        """Bytes of the device's memory that are free."""

    def release(self) -> None:
        """Give back memory that is held for later use."""

    def tensor(self, array: Any) -> torch.Tensor:
        """A torch tensor in the array's memory."""

    def address(self, array: Any) -> int:
        """Address of an array's first element."""

    def host(self, array: Any) -> np.ndarray:
        """A copy in the host's memory (or the array itself where it lies there)."""
