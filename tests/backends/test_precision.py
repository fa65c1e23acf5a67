"""What products set for their time is as it was before."""

from collections.abc import Iterator

import pytest
import torch

from mge_gpu.backends.precision import plain

MATMUL = torch.backends.cuda.matmul


@pytest.fixture(autouse=True)
def settings_are_left() -> Iterator[None]:
    """The rest of the tests finds torch's own."""
    yield
    torch.backends.fp32_precision = "none"  # type: ignore[attr-defined]
    MATMUL.fp32_precision = "none"


@pytest.mark.parametrize("of_matmul", ["none", "ieee", "tf32"])
@pytest.mark.parametrize("of_all", ["none", "ieee", "tf32"])
def test_products_are_plain_and_leave_the_settings(of_all: str, of_matmul: str) -> None:
    torch.backends.fp32_precision = of_all  # type: ignore[attr-defined]
    MATMUL.fp32_precision = of_matmul
    before = MATMUL.fp32_precision
    with plain(torch.device("cpu")):
        assert MATMUL.fp32_precision == "ieee"
    assert MATMUL.fp32_precision == before and torch.backends.fp32_precision == of_all  # type: ignore[attr-defined]


def test_what_followed_the_setting_for_all_still_does() -> None:
    torch.backends.fp32_precision = "tf32"  # type: ignore[attr-defined]
    with plain(torch.device("cpu")):
        assert MATMUL.fp32_precision == "ieee"
    torch.backends.fp32_precision = "ieee"  # type: ignore[attr-defined]
    assert MATMUL.fp32_precision == "ieee"
