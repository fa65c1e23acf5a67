"""`two_largest` against the dense singular value decomposition."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mge_gpu.linalg import singular
from mge_gpu.linalg.singular import two_largest


def dense(matrix: Tensor, binary: bool) -> np.ndarray:
    """The two largest singular values by LAPACK, zeros where there are fewer."""
    array = matrix.cpu().numpy().astype(np.float64)
    found = np.linalg.svd((array != 0) * 1.0 if binary else array, compute_uv=False)
    return np.concatenate([found, [0.0, 0.0]])[:2]


def drawn(sides: list[tuple[int, int]], density: float, seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = [torch.rand(side, generator=generator) for side in sides]
    return [torch.where(x < density, x * torch.randn(x.shape, generator=generator), 0) for x in shapes]


def compare(matrices: list[Tensor], binary: list[bool]) -> None:
    found = two_largest(matrices, binary)
    assert found.shape == (len(matrices), 2) and found.dtype == np.float64
    for matrix, pattern, values in zip(matrices, binary, found, strict=True):
        expected = dense(matrix, pattern)
        np.testing.assert_allclose(values, expected, rtol=1e-10, atol=1e-7 * expected[0])


side = st.integers(1, 24)


@given(
    sides=st.lists(st.tuples(side, side), max_size=12),
    density=st.sampled_from([0.0, 0.05, 0.3, 1.0]),
    seed=st.integers(0, 999),
)
def test_many_sizes_at_once(sides: list[tuple[int, int]], density: float, seed: int) -> None:
    matrices = drawn(sides, density, seed)
    compare(matrices * 2, [False] * len(sides) + [True] * len(sides))


def test_on_device(device: str) -> None:
    matrices = [m.to(device) for m in drawn([(3, 90), (40, 40), (42, 17), (1, 1)], 0.4, 0)]
    compare(matrices * 2, [False] * 4 + [True] * 4)


@settings(max_examples=25)
@given(sides=st.lists(st.tuples(side, side), min_size=1, max_size=4), seed=st.integers(0, 999))
def test_lanczos_takes_large_ones(sides: list[tuple[int, int]], seed: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(singular, "LARGE", 0)
        compare(drawn(sides, 0.3, seed) * 2, [False] * len(sides) + [True] * len(sides))


def test_lanczos_sees_equal_values() -> None:
    """Two components with the same σ: σ₂ = σ₁."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(singular, "LARGE", 0)
        block = torch.ones(30, 20)
        matrix = torch.block_diag(block, block, torch.ones(3, 4))
        np.testing.assert_allclose(two_largest([matrix], [True]), [[600**0.5] * 2], rtol=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_lanczos_where_one_value_dwarfs_the_rest(seed: int) -> None:
    """Nonnegative matrices have σ₁ ≫ σ₂: no copy of σ₁ may pass for σ₂."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(singular, "LARGE", 0)
        matrix = drawn([(700, 1500)], 0.2, seed)[0].abs()
        compare([matrix, matrix], [False, True])


def test_full_pattern_is_exact() -> None:
    assert two_largest([torch.full((7, 11), 0.1)], [True]).tolist() == [[77**0.5, 0.0]]


def test_batches_pad_little_and_stay_small() -> None:
    sizes = [1, 2, 3, 5, 8, 100, 101, 110, 111, 2000, 2001]
    batches = singular._batches(sorted(range(len(sizes)), key=lambda k: -sizes[k]), sizes)
    assert sorted(k for batch in batches for k in batch) == list(range(len(sizes)))
    for batch in batches:
        first, last = sizes[batch[0]], sizes[batch[-1]]
        assert first <= 1.1 * last + 2
        assert len(batch) == 1 or len(batch) * first**2 <= singular.TOGETHER


def test_torch_keeps_its_threads() -> None:
    before = torch.get_num_threads()
    two_largest([torch.rand(5, 5)], [False])
    assert torch.get_num_threads() == before
