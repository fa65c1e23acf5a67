"""The floor under each layer: the best choice there is, exact counts, never silent."""

import itertools
import warnings
from typing import Any

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import nn

from mge_gpu.pruning import METHODS, InexactCountWarning, LayerCollapseWarning, RefillWarning, prune
from mge_gpu.pruning._refill import refill
from mge_gpu.pruning._select import top_masks


@given(
    sizes=st.lists(st.integers(1, 4), min_size=1, max_size=3),
    count=st.integers(1, 8),
    floor=st.integers(1, 4),
    seed=st.integers(0, 10**6),
)
def test_scored_masks_get_the_highest_total_score_under_the_floor(
    sizes: list[int], count: int, floor: int, seed: int
) -> None:
    floors = [min(floor, size) for size in sizes]
    assume(sum(floors) <= count <= sum(sizes))
    generator = torch.Generator().manual_seed(seed)
    scores = {f"l{i}": torch.rand(size, generator=generator) + i / 2 for i, size in enumerate(sizes)}
    flat = torch.cat(list(scores.values())).double()
    owner = [i for i, size in enumerate(sizes) for _ in range(size)]
    best = max(
        (
            chosen
            for chosen in itertools.combinations(range(sum(sizes)), count)
            if all(sum(owner[k] == i for k in chosen) >= floors[i] for i in range(len(sizes)))
        ),
        key=lambda chosen: flat[list(chosen)].sum().item(),
    )
    plain = top_masks(scores, count)
    masks, added = refill(plain, floor, seed=0)
    assert torch.cat(list(masks.values())).nonzero().flatten().tolist() == sorted(best)
    short = {
        f"l{i}": floors[i] - int(plain[f"l{i}"].sum())
        for i in range(len(sizes))
        if int(plain[f"l{i}"].sum()) < floors[i]
    }
    assert added == short


def test_without_scores_all_choices_are_equally_likely_and_kept_weights_of_a_short_layer_stay() -> None:
    before = {"a": torch.ones(6, dtype=torch.bool), "b": torch.tensor([False, True, False, False])}
    gone, came = torch.zeros(6), torch.zeros(4)
    for seed in range(600):
        masks, added = refill(before, 2, seed)
        assert added == {"b": 1} and masks["b"][1]
        assert int(masks["a"].sum()) == 5 and int(masks["b"].sum()) == 2
        gone += ~masks["a"]
        came += masks["b"]
    assert gone.min() > 60 and gone.max() < 140
    assert came[[0, 2, 3]].min() > 140 and came[[0, 2, 3]].max() < 260


FEW: dict[str, dict[str, Any]] = {
    "synflow": {"iterations": 3},
    "ntk_sap": {"iterations": 2, "samples": 4},
    "grasp": {"samples_per_class": 1},
    "prospr": {"steps": 1, "lr": 0.1},
    "iterative_snip": {"steps": 2},
    "force": {"steps": 2},
}


class Net(nn.Module):
    """A layer that every method but the regular ones would empty, and a wide one."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3, padding=1)
        self.wide = nn.Linear(4, 60)
        self.fc = nn.Linear(60, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(torch.relu(self.wide(torch.relu(self.conv(x)).mean((2, 3)))))


def pruned(method: str, **options: Any) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    with warnings.catch_warnings():
        for kind in (InexactCountWarning, LayerCollapseWarning):
            warnings.simplefilter("ignore", kind)
        data = (torch.randn(6, 2, 5, 5), torch.arange(6) % 3)
        return prune(Net(), method, 0.9, input_shape=(2, 5, 5), data=data, **FEW.get(method, {}), **options)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_keeps_its_count_and_the_floor(method: str) -> None:
    plain = pruned(method)
    short = {name: 9 - int(mask.sum()) for name, mask in plain.items() if int(mask.sum()) < 9}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        masks = pruned(method, min_per_layer=9)
    said = [str(w.message) for w in caught if issubclass(w.category, RefillWarning)]
    assert sum(int(m.sum()) for m in masks.values()) == sum(int(m.sum()) for m in plain.values())
    assert min(int(mask.sum()) for mask in masks.values()) >= 9
    for name, mask in masks.items():  # a layer only grows or only shrinks
        assert name in short or not (mask & ~plain[name]).any()
        assert name not in short or not (plain[name] & ~mask).any()
    if short:
        (text,) = said
        assert f"min_per_layer=9 gave weights back that {method} at sparsity 0.9 had removed: " in text
        assert text.endswith(", ".join(f"{count} to {name}" for name, count in short.items()))
    else:
        assert not said and all(torch.equal(masks[name], plain[name]) for name in plain)


@pytest.mark.parametrize("method", ["magnitude", "snip", *FEW])
def test_score_based_methods_hand_on_scores_that_their_masks_follow(method: str) -> None:
    torch.manual_seed(0)
    given = {"input_shape": (2, 5, 5), "data": (torch.randn(6, 2, 5, 5), torch.arange(6) % 3)}
    entry = METHODS[method]
    taken = {key: value for key, value in given.items() if key in entry._parameters}
    masks = entry.function(Net(), 0.8, **taken, **FEW.get(method, {}))
    for name, mask in masks.items():
        assert (
            mask.all() or not mask.any() or masks.scores[name][mask].min() >= masks.scores[name][~mask].max()
        )


def test_a_collapsed_layer_gets_its_largest_weights_back_and_is_named() -> None:
    model = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 2, bias=False))
    model[1].weight.data.mul_(1e-6)
    for scope in ("global", "layer"):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            masks = prune(model, "magnitude", 0.75, min_per_layer=3, scope=scope)
        assert [w.category for w in caught] == [RefillWarning]
        assert str(caught[0].message).endswith(f"{3 if scope == 'global' else 1} to 1.weight")
        for layer, count in (("0.weight", 3), ("1.weight", 3)):
            size = dict(model.named_parameters())[layer].abs()
            assert int(masks[layer].sum()) == count
            assert size[masks[layer]].min() > size[~masks[layer]].max()
