"""Products with the adjacency: gathered where tables of positions fit, else by atomic additions; or dense."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from mge_gpu.backends.adjacency import Block
from mge_gpu.backends.cuda import dense
from mge_gpu.backends.cuda.gather import Gather, make_entries, planned
from mge_gpu.backends.cuda.resident import Resident, resident_block, sharing
from mge_gpu.backends.cuda.runtime import Runtime
from mge_gpu.backends.cuda.shortage import Outcome, attempt


class Operator:
    """x -> A^T x (towards targets) over some blocks plus A x over some.

    ``atomic``: blocks without tables, whose products are atomic additions. ``there`` makes an operator on the
    host, for when the device's memory turns out to be short; without it the runtime's exception for that is
    raised.
    """

    def __init__(
        self,
        runtime: Runtime,
        gather: Gather | None,
        atomic: list[tuple[Resident, int, bool, bool]],
        dtype: Any,
        there: Callable[[], Callable[..., Any]] | None,
    ) -> None:
        self.runtime, self.gather, self.atomic, self.dtype = runtime, gather, atomic, dtype
        self._there = there
        self._on_host: Callable[..., Any] | None = None

    @property
    def how(self) -> str:
        """Which engines were chosen."""
        if self._on_host is not None:
            return "on the CPU, for want of GPU memory"
        launches, products = 0, 0
        if self.gather is not None:
            launches, products = len(self.gather.launches), len(self.gather.dense)
        parts = [f"gathered in {launches} launches"]
        parts += [f"{products} dense products"] if products else []
        return ", ".join([*parts, f"{len(self.atomic)} blocks by atomic additions"])

    def __call__(self, x: Any, out: Any = None) -> Any:
        """The product, (N,) of x's dtype; in ``out`` where that is given."""
        with self.runtime.active():
            if self._there is None:
                return self._product(x, out)
            if self._on_host is None:
                y = attempt(self.runtime, lambda: self._product(x, out))
                if y is not Outcome.SHORT:
                    return y
                self.gather, self.atomic, self._on_host = None, [], self._there()
            return self._on_host(x)

    def _product(self, x: Any, out: Any) -> Any:
        xp, wanted = self.runtime.xp, x.dtype
        x = xp.ascontiguousarray(x, self.dtype)
        y = xp.empty(len(x), self.dtype) if out is None or out.dtype != self.dtype else out
        if self.gather is None:
            y[:] = 0
        else:
            self.gather(x, y)
        kernel = "product_f32" if self.dtype == np.float32 else "product_f64"
        for block, blocks, ahead, back in self.atomic:
            self.runtime.launch("product", kernel, blocks, block.table, np.bool_(ahead), np.bool_(back), x, y)
        return y.astype(wanted, copy=False)


def operator(
    runtime: Runtime,
    forward: Sequence[Block],
    backward: Sequence[Block],
    single: bool,
    prepared: dict[Any, Any] | None,
    there: Callable[[], Callable[..., Any]] | None,
    engine: str | None = None,
) -> Operator:
    """An operator over blocks; those that share ``prepared`` share what lies on the device.

    ``engine`` is `gather.planned`'s.
    """
    ready: dict[Any, Any] = {} if prepared is None else prepared
    dtype = np.float32 if single else np.float64
    plan = planned(forward, backward, np.dtype(dtype).itemsize, ready, engine)
    products = [dense.product(runtime, leg, dtype, ready) for leg in plan.dense]
    for ahead in (True, False):
        missing = [leg for g in plan.groups for leg in g.legs if leg.ahead == ahead and leg.key not in ready]
        if missing:
            made = make_entries(runtime, missing)
            ready.update({leg.key: entries for leg, entries in zip(missing, made, strict=True)})
    atomic = []
    for key, (block, ahead, back) in plan.atomic.items():
        if key not in ready:
            ready[key] = resident_block(runtime, block)
        atomic.append((ready[key], sharing(runtime, block), ahead, back))
    gather = Gather(runtime, plan.groups, products, ready) if plan.groups or products else None
    return Operator(runtime, gather, atomic, dtype, there)
