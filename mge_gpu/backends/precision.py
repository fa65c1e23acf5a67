"""Matrix products in the precision of their factors."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def plain(device: torch.device) -> Iterator[None]:
    """Within it matrix products are in the precision of their factors, whatever training has been set to."""
    matmul = torch.backends.cuda.matmul
    before = matmul.fp32_precision
    try:
        if before != "ieee":
            matmul.fp32_precision = "ieee"
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        if before != "ieee":
            # what follows the setting for all of torch goes on following it
            matmul.fp32_precision = "none" if before == torch.backends.fp32_precision else before  # type: ignore[attr-defined]
