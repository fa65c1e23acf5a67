"""The bisection on effective sparsity: functions whose answer is known, and networks."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from mge_gpu.errors import PruningError
from mge_gpu.pruning import METHODS, EffectiveSparsityWarning, prune
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


def chain(widths: list[int]) -> nn.Module:
    """Dense layers without biases, of random weights."""
    torch.manual_seed(0)
    parts = [nn.Linear(a, b, bias=False) for a, b in pairwise(widths)]
    return nn.Sequential(*(x for part in parts for x in (part, nn.ReLU())))


def effective_density(masks: Masks) -> float:
    """Of a chain of dense layers, by products of 0/1 matrices."""
    layers = [mask.double() for mask in masks.values()]
    ahead, back = [torch.ones(layers[0].shape[1]).double()], [torch.ones(layers[-1].shape[0]).double()]
    for layer in layers:
        ahead.append((layer @ ahead[-1] > 0).double())
    for layer in reversed(layers):
        back.append((layer.T @ back[-1] > 0).double())
    back.reverse()
    kept = sum(
        (layer * after[:, None] * before[None]).sum()
        for layer, before, after in zip(layers, ahead[:-1], back[1:], strict=True)
    )
    return float(kept) / sum(layer.numel() for layer in layers)


@pytest.mark.filterwarnings("ignore::mge_gpu.pruning.EffectiveSparsityWarning")
@pytest.mark.parametrize("method", ["magnitude", "synflow", "random", "uniform"])
@pytest.mark.parametrize("sparsity", [0.7, 0.9])
def test_pruning_to_an_effective_sparsity(method: str, sparsity: float) -> None:
    model = chain([12, 20, 20, 5])
    masks = prune(model, method, sparsity, input_shape=(12,), effective=True, seed=1)
    assert 1 - effective_density(masks) == pytest.approx(sparsity, abs=0.01)
    direct = prune(model, method, sparsity, input_shape=(12,), seed=1)
    assert sum(int(m.sum()) for m in masks.values()) >= sum(int(m.sum()) for m in direct.values())


@pytest.mark.filterwarnings("ignore::mge_gpu.pruning.EffectiveSparsityWarning")
@pytest.mark.filterwarnings("ignore::mge_gpu.pruning.LayerCollapseWarning")
def test_no_cut_of_a_fixed_order_is_nearer() -> None:
    model = chain([6, 9, 9, 4])
    total = 6 * 9 + 9 * 9 + 9 * 4
    every = [prune(model, "magnitude", 1 - kept / total) for kept in range(1, total + 1)]
    sparsities = torch.tensor([1 - effective_density(masks) for masks in every])
    for sparsity in (0.5, 0.8, 0.93):
        masks = prune(model, "magnitude", sparsity, input_shape=(6,), effective=True)
        error = abs(1 - effective_density(masks) - sparsity)
        assert error == pytest.approx(float((sparsities - sparsity).abs().min()), abs=1e-6)


def test_a_ranking_is_made_once_and_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    entry = METHODS["synflow"]

    def counted(
        model: nn.Module, sparsity: float, *, input_shape: tuple[int, ...], iterations: int = 3
    ) -> Masks:
        calls.append(sparsity)
        return entry.function(model, sparsity, input_shape=input_shape, iterations=iterations)

    monkeypatch.setitem(METHODS, "synflow", replace(entry, function=counted))
    prune(chain([12, 20, 20, 5]), "synflow", 0.9, input_shape=(12,), effective=True)
    assert calls == [0.9]


def test_an_effective_sparsity_that_does_not_exist_is_named() -> None:
    model = nn.Sequential(nn.Linear(8, 1, bias=False), nn.Linear(1, 8, bias=False))
    with torch.no_grad():
        model[0].weight.fill_(1.0)
        model[1].weight.fill_(2.0)  # the first layer goes first, and with its last weight everything
    with pytest.warns(EffectiveSparsityWarning, match=r"nearer to 0.6 than 0.4375 \(direct 0.4[45]"):
        prune(model, "magnitude", 0.6, input_shape=(8,), effective=True)


def test_it_needs_the_input_shape() -> None:
    with pytest.raises(
        PruningError, match="magnitude to an effective sparsity runs the model and needs input_shape"
    ):
        prune(chain([3, 2]), "magnitude", 0.5, effective=True)
