"""Each rule's drop and growth against sorting by hand, on small tensors."""

import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mge_gpu.dynamic import drop_smallest, grow_largest, grow_random
from mge_gpu.dynamic.dsr import DSR, adapted
from mge_gpu.dynamic.itop import ITOP, GradientITOP
from mge_gpu.dynamic.rigl import RigL
from mge_gpu.dynamic.rule import Layer
from mge_gpu.dynamic.set_ import SET
from mge_gpu.dynamic.snfs import SNFS, parts
from mge_gpu.errors import PruningError

VALUES = st.sampled_from([-3.0, -1.5, -0.5, -0.05, -0.0, 0.01, 0.05, 0.5, 1.5, 4.0])


@st.composite
def layers(draw: st.DrawFn, least: int = 1) -> Layer:
    """Few values, so that ties are common; some layers are dense and some empty."""
    size = draw(st.integers(least, 24))
    mask = torch.tensor(draw(st.lists(st.booleans(), min_size=size, max_size=size)))
    weight = torch.tensor(draw(st.lists(VALUES, min_size=size, max_size=size))) * mask
    gradient = torch.tensor(draw(st.lists(VALUES, min_size=size, max_size=size)))
    return Layer(weight, mask, gradient)


def positions(mask: Tensor) -> set[int]:
    return {index for index, active in enumerate(mask.flatten().tolist()) if active}


def first(candidates: set[int], scores: list[float], count: int, largest: bool = False) -> set[int]:
    """The positions of the smallest (largest) scores; of equal ones the first."""
    order = sorted(candidates, key=lambda index: (-scores[index] if largest else scores[index], index))
    return set(order[:count])


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@given(layer=layers(), share=st.integers(0, 20))
@settings(max_examples=60)
def test_drop_and_growth(layer: Layer, share: int) -> None:
    active = positions(layer.mask)
    magnitudes = layer.weight.abs().tolist()
    count = len(active) * share // 20
    kept = drop_smallest(layer.weight, layer.mask, count)
    assert positions(kept) == active - first(active, magnitudes, count)
    free = set(range(layer.mask.numel())) - positions(kept)
    grown = grow_largest(layer.gradient, kept, count)
    assert positions(grown) == positions(kept) | first(free, layer.gradient.tolist(), count, largest=True)
    at_random = positions(grow_random(kept, count, generator()))
    assert at_random > positions(kept) or count == 0
    assert len(at_random) == len(active)


def test_every_free_position_is_grown_equally_often() -> None:
    mask, draws = torch.tensor([[True, False, False], [False, True, False]]), generator()
    times = sum(grow_random(mask, 2, draws).int() for _ in range(2000))
    assert (times[mask] == 2000).all()
    # Two of four: binomial with p = 1/2 and a standard deviation of 22.
    assert (times[~mask] - 1000).abs().max() < 110


@pytest.mark.parametrize("count", [-1, 3])
def test_counts_that_are_not_there(count: int) -> None:
    mask = torch.tensor([True, True, False, False])
    for call in (
        lambda: drop_smallest(torch.ones(4), mask, count),
        lambda: grow_largest(torch.ones(4), mask, count),
        lambda: grow_random(mask, count, generator()),
    ):
        with pytest.raises(PruningError, match=rf"cannot (drop|grow) {count} of 2 .* must be in \[0, 2\]"):
            call()


@given(layer=layers(), tenths=st.integers(1, 10))
def test_set(layer: Layer, tenths: int) -> None:
    rule = SET(1000, interval=1, drop_fraction=tenths / 10)
    change = rule.update({"w": layer}, 1, generator()).get("w")
    if layer.mask.all():
        assert change is None
        return
    values = layer.weight.tolist()
    kept = set()
    for sign in (1, -1):
        side = {index for index in positions(layer.mask) if sign * values[index] > 0}
        count = math.floor(Fraction(tenths, 10) * len(side))
        kept |= side - first(side, [abs(value) for value in values], count)
    assert positions(change.kept) == kept
    assert positions(change.mask) >= kept and int(change.mask.sum()) == layer.active


@given(layer=layers(), step=st.integers(1, 20), alpha=st.sampled_from([0.1, 0.3, 1.0]))
@settings(max_examples=60)
def test_rigl(layer: Layer, step: int, alpha: float) -> None:
    rule = RigL(20, drop_fraction=alpha, end=0.75)
    change = rule.update({"w": layer}, step, generator())["w"]
    fraction = alpha / 2 * (1 + math.cos(math.pi * min(step, 15) / 15))
    check_by_gradient(layer, change, math.floor(fraction * layer.active + 1e-9))


@given(layer=layers(), step=st.integers(1, 20))
@settings(max_examples=60)
def test_itop_by_gradient(layer: Layer, step: int) -> None:
    change = GradientITOP(20).update({"w": layer}, step, generator())["w"]
    check_by_gradient(layer, change, itop_count(layer, step))


@given(layer=layers(), step=st.integers(1, 20))
@settings(max_examples=60)
def test_itop_at_random(layer: Layer, step: int) -> None:
    change = ITOP(20).update({"w": layer._replace(gradient=None)}, step, generator())["w"]
    active = positions(layer.mask)
    kept = active - first(active, layer.weight.abs().tolist(), itop_count(layer, step))
    assert positions(change.mask) >= kept and int(change.mask.sum()) == len(active)
    assert positions(change.kept) == positions(change.mask) & active


def itop_count(layer: Layer, step: int) -> int:
    fraction = 0.005 + 0.495 / 2 * (1 + math.cos(math.pi * step / 20))
    return math.ceil(fraction * layer.active - 1e-9)


def check_by_gradient(layer: Layer, change: object, count: int) -> None:
    active = positions(layer.mask)
    kept = active - first(active, layer.weight.abs().tolist(), count)
    free = set(range(layer.mask.numel())) - kept
    grown = first(free, layer.gradient.abs().tolist(), count, largest=True)
    assert positions(change.mask) == kept | grown
    # A weight that was dropped and grown in one update was never gone: its value stays.
    assert positions(change.kept) == (kept | grown) & active


@given(drawn=st.lists(layers(), min_size=1, max_size=4), threshold=st.sampled_from([0.02, 0.4, 2.0, 9.0]))
@settings(max_examples=60)
def test_dsr(drawn: list[Layer], threshold: float) -> None:
    network = {str(index): layer for index, layer in enumerate(drawn)}
    active = sum(layer.active for layer in drawn)
    rule = DSR(10**6, interval=1, threshold=threshold)
    rule.prepare({name: layer.mask for name, layer in network.items()})
    changes = rule.update(network, 1, generator())
    assert sum(int(change.mask.sum()) for change in changes.values()) == active
    below = {
        name: {i for i in positions(layer.mask) if abs(layer.weight[i].item()) < threshold}
        for name, layer in network.items()
    }
    count = sum(map(len, below.values()))
    free = sum(layer.mask.numel() - layer.active for layer in drawn)
    survivors, grown = {}, {}
    for name, change in changes.items():
        old = positions(network[name].mask)
        survivors[name], grown[name] = positions(change.kept), positions(change.mask) - positions(change.kept)
        assert not grown[name] & old  # never where a weight was dropped just now
        if count <= free:
            assert survivors[name] == old - below[name]
    assert sum(map(len, grown.values())) == min(count, free)
    left = sum(map(len, survivors.values()))
    if count <= free and left:
        quotas = {name: count * len(kept) / left for name, kept in survivors.items()}
        if all(quotas[name] <= len(network[name].mask) - network[name].active for name in network):
            assert all(abs(len(grown[name]) - quotas[name]) < 1 for name in network)
    if count > free:  # the smallest go, so that all places are filled
        gone = [abs(network[n].weight[i].item()) for n in network for i in below[n] - survivors[n]]
        stay = [abs(network[n].weight[i].item()) for n in network for i in below[n] & survivors[n]]
        assert len(gone) == free and (not gone or max(gone) <= min(stay))
    target = rule.prune_count
    assert rule.threshold == (
        threshold / 2 if 10 * count > 11 * target else threshold * 2 if 10 * count < 9 * target else threshold
    )


@given(count=st.integers(0, 3000), target=st.integers(1, 2500))
def test_dsr_threshold_doubles_or_halves_ten_percent_off(count: int, target: int) -> None:
    factor = Fraction(1, 2) if 10 * count > 11 * target else 2 if 10 * count < 9 * target else 1
    assert adapted(1.0, count, target) == factor


def test_dsr_aims_at_one_percent_of_all_weights_and_a_fifth_of_the_active_at_most() -> None:
    def settled(active: int, size: int, **options: int) -> int:
        rule = DSR(100, **options)
        rule.prepare({"w": torch.arange(size) < active})
        return rule.prune_count

    assert settled(500, 1000) == 10
    assert settled(20, 1000) == 4
    assert settled(20, 1000, prune_count=7) == 7
    with pytest.raises(PruningError, match="prune_count is 20, the network has 20 active weights"):
        settled(20, 1000, prune_count=20)


@given(st.lists(layers(least=4), min_size=1, max_size=4), st.integers(1, 199))
@settings(max_examples=60)
def test_snfs(drawn: list[Layer], step: int) -> None:
    """Momentum of three batches, then the update; parts are tested below."""
    network = {str(index): layer for index, layer in enumerate(drawn)}
    rule = SNFS(200, interval=1, momentum=0.5)
    for scale in (1.0, -3.0, 2.0):
        rule.observe({name: scale * layer.gradient for name, layer in network.items()})
    momenta = {name: (0.125 - 0.75 + 1.0) * layer.gradient for name, layer in network.items()}
    changes = rule.update(network, step, generator())
    assert sum(int(change.mask.sum()) for change in changes.values()) == sum(layer.active for layer in drawn)
    means = [
        float(momenta[name][layer.mask].abs().mean()) if layer.active else 0.0
        for name, layer in network.items()
    ]
    fraction = 0.005 + 0.495 / 2 * (1 + math.cos(math.pi * step / 200))
    less, more = parts(
        means, [layer.active for layer in drawn], [layer.mask.numel() for layer in drawn], fraction
    )
    for (name, layer), down, up in zip(network.items(), less, more, strict=True):
        active = positions(layer.mask)
        kept = active - first(active, layer.weight.abs().tolist(), down)
        free = set(range(layer.mask.numel())) - kept
        grown = first(free, momenta[name].abs().tolist(), up, largest=True)
        assert positions(changes[name].mask) == kept | grown
        assert positions(changes[name].kept) == (kept | grown) & active


@st.composite
def snfs_networks(draw: st.DrawFn) -> tuple[list[float], list[int], list[int]]:
    sizes = draw(st.lists(st.integers(1, 400), min_size=1, max_size=5))
    active = [draw(st.integers(0, size)) for size in sizes]
    means = [draw(st.sampled_from([0.0, 0.1, 1.0, 7.0])) if count else 0.0 for count in active]
    return means, active, sizes


@given(snfs_networks(), st.sampled_from([0.005, 0.2, 0.5, 1.0]))
def test_snfs_parts(network: tuple[list[float], list[int], list[int]], fraction: float) -> None:
    means, active, sizes = network
    dropped, grown = parts(means, active, sizes, fraction)
    assert sum(dropped) == sum(grown)
    free = [size - count + less for size, count, less in zip(sizes, active, dropped, strict=True)]
    assert all(0 <= more <= place for more, place in zip(grown, free, strict=True))
    total = sum(means)
    for mean, count, size, less in zip(means, active, sizes, dropped, strict=True):
        rate = Fraction(fraction).limit_denominator(1000)
        if 5 * (size - count) < size and total > 0 and mean * len(means) > total * (1 + 1e-9):
            rate = min(rate, Fraction(size - count, size))
        assert less == math.ceil(rate * count)
    if total == 0:
        assert grown == dropped
        return
    capped = [int(0.99 * place) for place in free]
    if sum(capped) >= sum(dropped):
        assert all(more <= place for more, place in zip(grown, capped, strict=True))
        quotas = [mean / total * sum(dropped) for mean in means]
        if all(quota <= place for quota, place in zip(quotas, capped, strict=True)):
            assert all(abs(more - quota) < 1 for more, quota in zip(grown, quotas, strict=True))


@pytest.mark.parametrize(
    ("means", "active", "sizes", "dropped", "grown"),
    [
        ([3.0, 1.0], [100, 100], [1000, 1000], [50, 50], [75, 25]),
        ([0.0, 0.1], [80, 80], [80, 100], [40, 40], [21, 59]),
        # The first is 1/6 sparse and grows: it drops ⌈50/6⌉; 99 % of its 19 free places are 18, and the
        # 12.6 of its 30.6 that find no place go to the other.
        ([9.0, 1.0], [50, 50], [60, 1000], [9, 25], [18, 16]),
        # 24, 6 and 0: the 5 that find no place are halved, whatever the shares of the others are.
        ([8.0, 2.0, 0.0], [20, 20, 20], [30, 500, 500], [10, 10, 10], [19, 9, 2]),
    ],
)
def test_snfs_parts_by_hand(
    means: list[float], active: list[int], sizes: list[int], dropped: list[int], grown: list[int]
) -> None:
    assert parts(means, active, sizes, 0.5) == (dropped, grown)
