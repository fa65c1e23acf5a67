"""FORCE: scores of masked weights too, so that a pruned weight returns when the network would miss it."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from mge_gpu.masks import apply_masks
from mge_gpu.pruning import prune
from mge_gpu.pruning._select import top_masks
from tests.pruning.tiny import setting

pytestmark = pytest.mark.filterwarnings("ignore::mge_gpu.pruning.LayerCollapseWarning")


def test_the_second_step_scores_all_initial_weights_by_the_masked_network() -> None:
    model, data = setting(2)
    first = prune(model, "snip", 0.5, data=data)
    masked = copy.deepcopy(model).eval()
    apply_masks(masked, first)
    masked.bn.train()
    cross_entropy(masked(data[1][0]), data[1][1]).backward()
    names = list(first)
    scores = {n: (model.get_parameter(n) * masked.get_parameter(n).grad).abs().detach() for n in names}
    expected = top_masks(scores, round(0.25 * 66))
    masks = prune(model, "force", 0.75, data=data, steps=2)
    assert all(torch.equal(masks[name], expected[name]) for name in names)
    assert any((masks[name] & ~first[name]).any() for name in names)  # some weight came back


def test_a_weight_returns_with_the_inputs_that_need_it() -> None:
    """The first batch uses input 0 only, the second input 1 only: what one step keeps the next gives back."""
    torch.manual_seed(0)
    model = nn.Linear(2, 4)
    data = [(torch.eye(2)[[column] * 4], torch.arange(4)) for column in (0, 1)]
    forced = prune(model, "force", 0.75, data=data, steps=2)["weight"]
    assert forced.sum() == 2 and forced[:, 1].sum() == 2
    iterated = prune(model, "iterative_snip", 0.75, data=data, steps=2)["weight"]
    assert iterated.sum() == 2 and not iterated[:, 1].any()
