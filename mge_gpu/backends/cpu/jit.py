"""Compiling kernels, with and without counted references.

Numba counts how often an array is referred to, by atomic additions: wherever a name or an argument of an
inlined function is bound to it, also in the innermost loop. That took up to 40 ns a nonzero weight, and more
with two cores at the same counter. A kernel that makes no array does without. The option for that is not
part of numba's documented ones: where a version does not have it, kernels are compiled as usual.
"""

from collections.abc import Callable
from typing import Any

import numba
from numba.core.options import DefaultOptions

UNCOUNTED: dict[str, Any] = {"_nrt": False} if hasattr(DefaultOptions, "_nrt") else {}

jit: Callable[..., Any] = numba.njit(nogil=True, cache=True)
"""For kernels that make arrays, or return them."""

jit_in_place: Callable[..., Any] = numba.njit(nogil=True, cache=True, **UNCOUNTED)
"""For those that only write to arrays they are given, and call none of the others."""

SUM: dict[str, Any] = {
    "nogil": True,
    "cache": True,
    "fastmath": {"reassoc", "contract"},
    "error_model": "numpy",
    **UNCOUNTED,
}
"""Options of kernels in place whose sums may be added up in any order."""
