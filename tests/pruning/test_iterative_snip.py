"""Iterative SNIP: one step is SNIP, each step is SNIP of the masked network, and nothing returns."""

import copy

import pytest
import torch

from mge_gpu.errors import PruningError
from mge_gpu.masks import apply_masks
from mge_gpu.pruning import prune
from mge_gpu.pruning._select import top
from mge_gpu.pruning.snip import snip_scores
from tests.pruning.tiny import setting

pytestmark = pytest.mark.filterwarnings("ignore::mge_gpu.pruning.LayerCollapseWarning")


@pytest.mark.parametrize("method", ["iterative_snip", "force"])
@pytest.mark.parametrize("bn_mode", ["train", "eval"])
def test_one_step_is_snip(method: str, bn_mode: str) -> None:
    model, data = setting()
    for sparsity in (0.3, 0.9, 0.98):
        for batches in (1, 3):
            expected = prune(model, "snip", sparsity, data=data, batches=batches, bn_mode=bn_mode)
            masks = prune(model, method, sparsity, data=data, steps=1, batches=batches, bn_mode=bn_mode)
            assert all(torch.equal(masks[name], expected[name]) for name in expected)
            assert sum(int(mask.sum()) for mask in masks.values()) == round((1 - sparsity) * 66)


def test_the_second_step_is_snip_of_what_the_first_left_on_fresh_batches() -> None:
    model, data = setting(4)
    first = prune(model, "snip", 0.6, data=data[:2], batches=2)
    masked = copy.deepcopy(model)
    apply_masks(masked, first)
    scores = torch.cat([s.flatten() for s in snip_scores(masked, data=data[2:], batches=2).values()])
    alive = torch.cat([mask.flatten() for mask in first.values()]).nonzero().flatten()
    expected = torch.zeros(66, dtype=torch.bool)
    expected[alive[top(scores[alive], round(0.16 * 66))]] = True
    masks = prune(model, "iterative_snip", 1 - 0.4**2, data=data, steps=2, batches=2)
    assert torch.equal(torch.cat([mask.flatten() for mask in masks.values()]), expected)
    assert not any((mask & ~first[name]).any() for name, mask in masks.items())


@pytest.mark.parametrize("method", ["iterative_snip", "force"])
def test_data_with_fewer_batches_than_steps_are_used_again_in_order(method: str) -> None:
    model, data = setting(2)
    again = prune(model, method, 0.9, data=data, steps=5)
    spelt_out = prune(model, method, 0.9, data=[*data, *data, data[0]], steps=5)
    other = prune(model, method, 0.9, data=data[:1], steps=5)
    assert all(torch.equal(again[name], spelt_out[name]) for name in again)
    assert not all(torch.equal(again[name], other[name]) for name in again)


@pytest.mark.parametrize("method", ["iterative_snip", "force"])
@pytest.mark.parametrize("option", ["steps", "batches", "bn_mode"])
def test_refusals(method: str, option: str) -> None:
    model, data = setting()
    with pytest.raises(PruningError, match=f"{method}: {option} must be"):
        prune(model, method, 0.5, data=data, **{option: 0})
