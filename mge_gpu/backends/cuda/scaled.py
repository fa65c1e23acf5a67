"""Sums of values with powers of two beside them, in one launch for each further part."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from mge_gpu.backends.cuda.runtime import Runtime


def scaled_sum(runtime: Runtime, values: Sequence[Any], exponents: Sequence[Any]) -> tuple[Any, Any]:
    """See `Backend.scaled_sum`. A single part is scaled alone."""
    found = values[0], exponents[0]
    if not found[0].size:
        return found
    for other in list(zip(values[1:], exponents[1:], strict=True)) or [(None, None)]:
        found = _added(runtime, *found, *other)
    return found


def _added(runtime: Runtime, a: Any, a_exponent: Any, b: Any, b_exponent: Any) -> tuple[Any, Any]:
    xp = runtime.xp
    most = xp.zeros(1 + 2 * a_exponent.size, np.uint64)
    out, exponent = xp.empty(a.shape, np.float64), xp.empty(a_exponent.shape, np.int64)
    sizes = map(np.int64, a.shape)
    runtime.launch_together("scaled", "scaled_sum", a, a_exponent, b, b_exponent, *sizes, most, out, exponent)
    return out, exponent
