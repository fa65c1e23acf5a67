"""Products with the adjacency, block by block."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from mge_gpu.backends.adjacency import Block
from mge_gpu.backends.cuda.resident import Resident, resident_block
from mge_gpu.backends.cuda.runtime import Runtime


class Operator:
    """x -> A^T x (towards targets) over some blocks plus A x over some."""

    def __init__(self, runtime: Runtime, work: list[tuple[Resident, int, bool, bool]], dtype: Any) -> None:
        self.runtime, self.work, self.dtype = runtime, work, dtype

    @property
    def how(self) -> str:
        """Which engines were chosen."""
        return f"{len(self.work)} blocks by atomic additions"

    def __call__(self, x: Any) -> Any:
        """The product, (N,) of x's dtype."""
        with self.runtime.active():
            return self._product(x)

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
) -> Operator:
    """An operator over blocks; those that share ``prepared`` share what lies on the device."""
    ready: dict[Any, Any] = {} if prepared is None else prepared
    ahead, back = {id(b) for b in forward}, {id(b) for b in backward}
    every = {id(b): b for b in (*forward, *backward)}
    for key, block in every.items():
        if key not in ready:
            ready[key] = resident_block(runtime, block)
    work = [(ready[k], len(b.tap), k in ahead, k in back) for k, b in every.items()]
    return Operator(runtime, work, np.float32 if single else np.float64)
