"""The bisection on effective sparsity, on functions whose answer is known."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mge_gpu.errors import PruningError
from mge_gpu.pruning._effective import Masks, bisect_effective

N = 1000


def prune_at(sparsity: float) -> Masks:
    """A fixed order: weight i goes before weight i + 1."""
    return {"w": torch.arange(N) >= N - round((1 - sparsity) * N)}


@given(cuts=st.lists(st.integers(1, N), max_size=5), target=st.floats(0.02, 0.98))
def test_a_fixed_order_gives_the_nearest_there_is(cuts: list[int], target: float) -> None:
    """At each of the cuts a tenth of what still counted is cut off."""

    def effective_density(masks: Masks) -> float:
        kept = int(masks["w"].sum())
        return kept / N * 0.9 ** sum(kept < cut for cut in cuts if cut < N)

    masks, report = bisect_effective(prune_at, effective_density, target, resolution=0.4 / N)
    assert report.effective_sparsity == pytest.approx(1 - effective_density(masks))
    assert torch.equal(masks["w"], prune_at(report.direct_sparsity)["w"])
    assert report.direct_sparsity <= target and report.target == target
    densities = torch.arange(N + 1).double() / N
    for cut in cuts:
        densities[: cut if cut < N else 0] *= 0.9
    assert abs(report.error) == pytest.approx((1 - densities - target).abs().min().item())
    assert report.evaluations < 16


def test_a_jump_is_reported() -> None:
    def effective_density(masks: Masks) -> float:  # below 600 kept weights the network is cut in two
        kept = int(masks["w"].sum())
        return kept / N if kept >= 600 else kept / N / 4

    masks, report = bisect_effective(prune_at, effective_density, 0.6)
    assert int(masks["w"].sum()) == 600
    assert report.error == pytest.approx(-0.2) and report.direct_sparsity == pytest.approx(0.4, abs=1e-3)


def test_without_an_order_it_still_ends_and_says_what_was_reached() -> None:
    def jittery(masks: Masks) -> float:
        kept = int(masks["w"].sum())
        return kept / N * (0.7 + 0.3 * (kept % 2))

    calls = []
    masks, report = bisect_effective(lambda s: calls.append(s) or prune_at(s), jittery, 0.8, resolution=1e-9)
    assert report.evaluations == len(calls) < 40
    assert report.effective_sparsity == pytest.approx(1 - jittery(masks))


def test_tolerance_saves_calls() -> None:
    def effective_density(masks: Masks) -> float:
        return (masks["w"].float().mean().item()) ** 1.5

    _, fine = bisect_effective(prune_at, effective_density, 0.9)
    _, coarse = bisect_effective(prune_at, effective_density, 0.9, tolerance=0.01)
    assert coarse.evaluations < fine.evaluations and abs(coarse.error) <= 0.01


def test_sparsity_zero_of_a_network_that_is_whole() -> None:
    masks, report = bisect_effective(prune_at, lambda masks: masks["w"].float().mean().item(), 0.0)
    assert masks["w"].all() and report.error == 0 and report.evaluations == 1


def test_refusals() -> None:
    with pytest.raises(PruningError, match=r"in \[0, 1\), got 1"):
        bisect_effective(prune_at, lambda masks: 0.5, 1)
    with pytest.raises(PruningError, match="sparsity is 0.5 already, above the asked 0.3"):
        bisect_effective(prune_at, lambda masks: 0.5, 0.3)
    with pytest.raises(PruningError, match="effective density of 2 where 1000 of 1000"):
        bisect_effective(prune_at, lambda masks: 2.0, 0.3)
