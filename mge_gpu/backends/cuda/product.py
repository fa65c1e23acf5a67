"""Products with the adjacency, block by block."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from mge_gpu.backends.adjacency import Block
from mge_gpu.backends.cuda.resident import Resident, resident_block
from mge_gpu.backends.cuda.runtime import Runtime
from mge_gpu.backends.cuda.shortage import Outcome, attempt


class Operator:
    """x -> A^T x (towards targets) over some blocks plus A x over some.

    ``there`` makes an operator on the host, for when the device's memory turns out to be short; without it
    the runtime's exception for that is raised.
    """

    def __init__(
        self,
        runtime: Runtime,
        work: list[tuple[Resident, int, bool, bool]],
        dtype: Any,
        there: Callable[[], Callable[[Any], Any]] | None,
    ) -> None:
        self.runtime, self.work, self.dtype = runtime, work, dtype
        self._there = there
        self._on_host: Callable[[Any], Any] | None = None

    @property
    def how(self) -> str:
        """Which engines were chosen."""
        if self._on_host is not None:
            return "on the CPU, for want of GPU memory"
        return f"{len(self.work)} blocks by atomic additions"

    def __call__(self, x: Any) -> Any:
        """The product, (N,) of x's dtype."""
        with self.runtime.active():
            if self._there is None:
                return self._product(x)
            if self._on_host is None:
                y = attempt(self.runtime, lambda: self._product(x))
                if y is not Outcome.SHORT:
                    return y
                self.work, self._on_host = [], self._there()
            return self._on_host(x)

    def _product(self, x: Any) -> Any:
        xp, wanted = self.runtime.xp, x.dtype
        x = xp.ascontiguousarray(x, self.dtype)
        y = xp.zeros(len(x), self.dtype)
        kernel = "product_f32" if self.dtype == np.float32 else "product_f64"
        for block, size, ahead, back in self.work:
            self.runtime.launch("product", kernel, size, block.table, np.bool_(ahead), np.bool_(back), x, y)
        return y.astype(wanted, copy=False)


def operator(
    runtime: Runtime,
    forward: Sequence[Block],
    backward: Sequence[Block],
    single: bool,
    prepared: dict[Any, Any] | None,
    there: Callable[[], Callable[[Any], Any]] | None,
) -> Operator:
    """An operator over blocks; those that share ``prepared`` share what lies on the device."""
    ready: dict[Any, Any] = {} if prepared is None else prepared
    ahead, back = {id(b) for b in forward}, {id(b) for b in backward}
    every = {id(b): b for b in (*forward, *backward)}
    for key, block in every.items():
        if key not in ready:
            ready[key] = resident_block(runtime, block)
    work = [(ready[k], len(b.tap), k in ahead, k in back) for k, b in every.items()]
    return Operator(runtime, work, np.float32 if single else np.float64, there)
