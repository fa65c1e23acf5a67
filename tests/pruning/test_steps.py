"""Pruning in steps: what is pruned stays out, and the scores that are handed on say when it went."""

import pytest
import torch

from mge_gpu.errors import PruningError
from mge_gpu.pruning._steps import prune_in_steps

WEIGHTS = {"a": torch.zeros(4, 5), "b": torch.zeros(30)}


def test_a_fixed_score_gives_its_top_in_any_number_of_steps_and_its_order() -> None:
    generator = torch.Generator().manual_seed(0)
    # Over more orders of magnitude than a float32 holds, and some zeros.
    fixed = {
        n: 10 ** (600 * torch.rand(w.shape, generator=generator, dtype=torch.float64) - 300)
        for n, w in WEIGHTS.items()
    }
    fixed["b"][3:6] = 0
    order = torch.cat([s.flatten() for s in fixed.values()])
    for steps in (1, 2, 7):
        masks = prune_in_steps("test", WEIGHTS, 0.8, steps, lambda masks: fixed)
        kept = torch.cat([m.flatten() for m in masks.values()])
        assert int(kept.sum()) == 10 and order[kept].min() > order[~kept].max()
        survived = torch.cat([s.flatten() for s in masks.scores.values()])
        assert survived.argsort(stable=True).tolist() == order.argsort(stable=True).tolist()
        assert masks.scores["a"].shape == (4, 5)


def test_what_is_pruned_stays_out_and_ranks_by_when_it_went() -> None:
    seen: list[dict[str, torch.Tensor]] = []

    def score(masks: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        seen.append(masks)
        generator = torch.Generator().manual_seed(len(seen))
        return {n: torch.rand(w.shape, generator=generator) for n, w in WEIGHTS.items()}

    found = prune_in_steps("test", WEIGHTS, 0.9, 4, score)
    history = [*seen, found]
    assert [sum(int(m.sum()) for m in masks.values()) for masks in history] == [50, 28, 16, 9, 5]
    for before, after in zip(history, history[1:], strict=False):
        assert all(not (after[name] & ~before[name]).any() for name in before)
    for name in WEIGHTS:
        survived = sum(masks[name].int() for masks in history)
        assert torch.equal(found.scores[name].floor().int(), survived)


def test_scores_that_are_all_zero_are_an_error() -> None:
    with pytest.raises(PruningError, match="test: every weight scores zero"):
        prune_in_steps("test", WEIGHTS, 0.5, 3, lambda masks: WEIGHTS)
