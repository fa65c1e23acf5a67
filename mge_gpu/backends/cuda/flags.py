"""How many flags are set."""

from typing import Any

import numpy as np


def counts(flags: Any) -> Any:
    """See `Backend.counts`.

    CuPy sums up integers by kernels that come with it. For the sum, the any and the count of flags it
    compiles CUB: for five seconds each.
    """
    return flags.astype(np.int64).sum(-1)
