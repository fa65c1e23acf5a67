"""Compiling kernels, with and without counted references.

Numba counts how often an array is referred to, by atomic additions: in the innermost loop as well, wherever
there a name or an argument of an inlined function is bound to it (numba issue 2350). A nonzero weight took
47 ns on a map of 7 x 7 for the 13 that it takes without, and more where two cores are at the same counter. A
kernel that makes no array does without. Numba's option for that has an underscore; a version that lacks it
counts as usual.
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
