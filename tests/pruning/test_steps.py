"""Pruning in steps against a plain sort; the scores that are handed on say when a weight went."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mge_gpu.errors import PruningError
from mge_gpu.pruning import LayerCollapseWarning
from mge_gpu.pruning._steps import hide, prune_in_steps

WEIGHTS = {"a": torch.ones(4, 5), "b": torch.ones(30)}


def flat(parts: dict[str, Tensor]) -> list[float]:
    return torch.cat([part.flatten() for part in parts.values()]).tolist()


@given(st.integers(0, 10_000), st.integers(1, 4), st.floats(0, 0.97), st.booleans())
def test_each_step_keeps_the_best_of_those_that_may_be_kept(
    seed: int, steps: int, sparsity: float, regrow: bool
) -> None:
    generator = torch.Generator().manual_seed(seed)
    scored: list[list[float]] = []
    held: list[list[float]] = []

    def score(masks: dict[str, Tensor]) -> dict[str, Tensor]:
        held.append(flat(masks))
        # few different values: ties are common
        found = {k: torch.randint(1, 4, w.shape, generator=generator).float() for k, w in WEIGHTS.items()}
        scored.append(flat(found))
        return found

    found = prune_in_steps("test", WEIGHTS, sparsity, steps, score, regrow=regrow)
    kept = list(range(50))
    for step, scores in enumerate(scored, 1):
        assert [i for i in range(50) if held[step - 1][i]] == kept
        count = round((1 - sparsity) ** (step / steps) * 50)
        kept = sorted(sorted(range(50) if regrow else kept, key=lambda i: (-scores[i], i))[:count])
    assert len(scored) == steps
    assert [i for i, mask in enumerate(flat(found)) if mask] == kept
    handed = flat(found.scores)
    out = [i for i in range(50) if i not in kept]
    assert not out or min(handed[i] for i in kept) > max(handed[i] for i in out)


def test_a_fixed_score_gives_its_top_in_any_number_of_steps_and_its_order() -> None:
    generator = torch.Generator().manual_seed(0)
    # Over more orders of magnitude than a float32 holds, and some zeros.
    fixed = {
        n: 10 ** (600 * torch.rand(w.shape, generator=generator, dtype=torch.float64) - 300)
        for n, w in WEIGHTS.items()
    }
    fixed["b"][3:6] = 0
    order = torch.tensor(flat(fixed), dtype=torch.float64)
    for steps in (1, 2, 7):
        masks = prune_in_steps("test", WEIGHTS, 0.8, steps, lambda masks: fixed)
        kept = torch.tensor(flat(masks), dtype=torch.bool)
        assert int(kept.sum()) == 10 and order[kept].min() > order[~kept].max()
        survived = torch.tensor(flat(masks.scores), dtype=torch.float64)
        assert survived.argsort(stable=True).tolist() == order.argsort(stable=True).tolist()
        assert masks.scores["a"].shape == (4, 5)


def test_what_is_pruned_stays_out_and_ranks_by_when_it_went() -> None:
    seen: list[dict[str, Tensor]] = []

    def score(masks: dict[str, Tensor]) -> dict[str, Tensor]:
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


def test_scores_that_rank_nothing() -> None:
    def run(*scores: list[float]) -> dict[str, Tensor]:
        left = iter(scores)
        weights = {"a": torch.ones(4)}
        return prune_in_steps("test", weights, 0.75, len(scores), lambda _: {"a": torch.tensor(next(left))})

    with pytest.raises(PruningError, match="test: every weight scores zero"):
        run([0.0] * 4, [1.0] * 4)
    with pytest.warns(LayerCollapseWarning, match="no signal passes the network that step 1 of 2 left"):
        assert run([0.0, 1.0, 0.0, 1.0], [1.0, 0.0, 1.0, 0.0])["a"].tolist() == [False, True, False, False]
    with pytest.raises(PruningError, match="a: the pruning scores are not finite"):
        run([1.0, torch.nan, 0.0, 0.0])


def test_hidden_weights_are_zero_and_come_back_with_their_first_values() -> None:
    first = {"a": torch.tensor([1.0, 2.0, 3.0])}
    weights = {"a": first["a"].clone()}
    hide(weights, {"a": torch.tensor([True, False, False])})
    assert weights["a"].tolist() == [1, 0, 0]
    hide(weights, {"a": torch.tensor([False, True, False])})
    assert weights["a"].tolist() == [0, 0, 0]
    hide(weights, {"a": torch.tensor([False, True, True])}, first)
    assert weights["a"].tolist() == [0, 2, 3]
