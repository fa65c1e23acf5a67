"""Pruning in steps against a plain sort, with scores that change at random from step to step."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from mge_gpu.errors import PruningError
from mge_gpu.pruning import LayerCollapseWarning
from mge_gpu.pruning._steps import prune_in_steps


@given(st.integers(0, 10_000), st.integers(1, 4), st.floats(0, 0.97), st.booleans())
def test_each_step_keeps_the_best_of_those_that_may_be_kept(
    seed: int, steps: int, sparsity: float, returning: bool
) -> None:
    generator = torch.Generator().manual_seed(seed)
    weights = {
        name: nn.Parameter(torch.randn(size, generator=generator)) for name, size in (("a", 7), ("b", 9))
    }
    initial = {name: weight.detach().clone() for name, weight in weights.items()}
    scored: list[list[float]] = []
    held: list[list[bool]] = []

    def score() -> dict[str, torch.Tensor]:
        held.append([bool(value != 0) for weight in weights.values() for value in weight])
        # few different values: ties are common
        found = {k: torch.randint(1, 4, w.shape, generator=generator).float() for k, w in weights.items()}
        scored.append(torch.cat(list(found.values())).tolist())
        return found

    masks = prune_in_steps("test", weights, sparsity, steps, score, initial=initial if returning else None)
    kept = list(range(16))
    for step, scores in enumerate(scored, 1):
        assert [i for i in range(16) if held[step - 1][i]] == kept
        count = round((1 - sparsity) ** (step / steps) * 16)
        kept = sorted(sorted(range(16) if returning else kept, key=lambda i: (-scores[i], i))[:count])
    assert len(scored) == steps
    assert torch.cat(list(masks.values())).nonzero().flatten().tolist() == kept
    for name, weight in weights.items():
        assert torch.equal(weight.detach(), initial[name] * masks[name])


def test_scores_that_rank_nothing() -> None:
    def run(*scores: list[float]) -> dict[str, torch.Tensor]:
        left = iter(scores)
        weights = {"a": nn.Parameter(torch.ones(4))}
        return prune_in_steps("test", weights, 0.75, len(scores), lambda: {"a": torch.tensor(next(left))})

    with pytest.raises(PruningError, match="test: every weight scores zero"):
        run([0.0] * 4, [1.0] * 4)
    with pytest.warns(LayerCollapseWarning, match="no signal passes the network that step 1 of 2 left"):
        assert run([0.0, 1.0, 0.0, 1.0], [1.0, 0.0, 1.0, 0.0])["a"].tolist() == [False, True, False, False]
    with pytest.raises(PruningError, match="a: the pruning scores are not finite"):
        run([1.0, torch.nan, 0.0, 0.0])


def test_the_scores_of_a_fixed_score_have_its_order() -> None:
    """Over more orders of magnitude than a float32 holds, with zeros, and for one step or many."""
    generator = torch.Generator().manual_seed(0)
    exponents = 600 * torch.rand(50, generator=generator, dtype=torch.float64) - 300
    fixed = 10**exponents
    fixed[23:26] = 0
    for steps in (1, 2, 7):
        for returning in (False, True):
            weights = {"a": nn.Parameter(torch.ones(4, 5)), "b": nn.Parameter(torch.ones(30))}
            initial = {name: weight.detach().clone() for name, weight in weights.items()}
            scores = {"a": fixed[:20].reshape(4, 5), "b": fixed[20:]}
            masks = prune_in_steps(
                "test", weights, 0.8, steps, lambda s=scores: s, initial=initial if returning else None
            )
            assert masks.scores["a"].shape == (4, 5)
            survived = torch.cat([score.flatten() for score in masks.scores.values()])
            assert survived.argsort(stable=True).tolist() == fixed.argsort(stable=True).tolist()


def test_what_is_removed_later_scores_higher() -> None:
    weights = {"a": nn.Parameter(torch.ones(50))}
    held: list[torch.Tensor] = []

    def score() -> dict[str, torch.Tensor]:
        held.append(weights["a"].detach() != 0)
        return {"a": torch.rand(50, generator=torch.Generator().manual_seed(len(held)))}

    found = prune_in_steps("test", weights, 0.9, 4, score)
    assert [int(mask.sum()) for mask in [*held, found["a"]]] == [50, 28, 16, 9, 5]
    assert torch.equal(found.scores["a"].floor().int(), sum(mask.int() for mask in [*held, found["a"]]))
