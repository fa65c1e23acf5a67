"""SNIP: scores against finite differences of the loss in the connection variables c."""

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from mge_gpu.errors import PruningError
from mge_gpu.pruning import prune
from mge_gpu.pruning.snip import snip_scores
from tests.pruning.tiny import setting


def loss_with(model: nn.Module, name: str, index: int, c: float, batches: object, bn_mode: str) -> float:
    """The summed loss with one weight multiplied by c, computed from scratch."""
    weight = dict(model.named_parameters())[name]
    saved = weight.detach().clone()
    stats = {key: value.clone() for key, value in model.named_buffers()}
    try:
        with torch.no_grad():
            weight.view(-1)[index] *= c
            model.eval()
            model.bn.train(bn_mode == "train")
            return sum(cross_entropy(model(x), y).item() for x, y in batches)  # type: ignore[attr-defined]
    finally:
        with torch.no_grad():
            weight.copy_(saved)
            for key, value in model.named_buffers():
                value.copy_(stats[key])


@pytest.mark.parametrize("bn_mode", ["train", "eval"])
@pytest.mark.parametrize("count", [1, 3])
def test_scores_are_the_derivative_of_the_loss_in_c(bn_mode: str, count: int) -> None:
    model, batches = setting()
    scores = snip_scores(model, data=batches, batches=count, bn_mode=bn_mode)
    step = 1e-5
    for name, score in scores.items():
        for index in range(score.numel()):
            up = loss_with(model, name, index, 1 + step, batches[:count], bn_mode)
            down = loss_with(model, name, index, 1 - step, batches[:count], bn_mode)
            expected = abs(up - down) / (2 * step)
            assert score.view(-1)[index].item() == pytest.approx(expected, rel=1e-4, abs=1e-8), (name, index)


def test_the_modes_differ_and_train_is_the_default() -> None:
    model, batches = setting()
    default = snip_scores(model, data=batches)
    train, evaluated = (snip_scores(model, data=batches, bn_mode=mode) for mode in ("train", "eval"))
    assert torch.equal(default["conv.weight"], train["conv.weight"])
    assert not torch.allclose(train["conv.weight"], evaluated["conv.weight"])


def test_the_most_sensitive_weights_are_kept() -> None:
    model, batches = setting()
    scores = snip_scores(model, data=batches)
    masks = prune(model, "snip", 0.5, data=batches)
    kept = torch.cat([scores[name][mask] for name, mask in masks.items()])
    dropped = torch.cat([scores[name][~mask] for name, mask in masks.items()])
    assert len(kept) == 33 and kept.min() >= dropped.max()


def test_a_loss_of_ones_own() -> None:
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    inputs, targets = torch.randn(5, 3), torch.randn(5, 2)
    scores = snip_scores(model, data=(inputs, targets), loss=nn.functional.mse_loss)
    residual = model(inputs).detach() - targets
    expected = (model.weight * (2 / residual.numel() * residual.T @ inputs)).abs()
    assert torch.allclose(scores["weight"], expected, atol=1e-6)


def test_only_the_batches_that_are_needed_are_drawn() -> None:
    model, batches = setting()
    drawn: list[int] = []

    def stream() -> object:
        for number, pair in enumerate(batches):
            drawn.append(number)
            yield pair

    snip_scores(model, data=stream(), batches=2)
    assert drawn == [0, 1]


def test_outputs_that_are_no_logits() -> None:
    with pytest.raises(PruningError, match="pass loss="):
        prune(nn.Conv2d(3, 4, 1), "snip", 0.5, data=(torch.ones(2, 3, 2, 2), torch.tensor([0, 1])))
    with pytest.raises(PruningError, match="does not depend on any prunable weight"):
        prune(
            nn.Linear(3, 2), "snip", 0.5, data=(torch.ones(2, 3), torch.ones(2)), loss=lambda out, y: y.sum()
        )


def test_a_batch_of_one_that_batch_norm_refuses() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    data = (torch.ones(1, 3), torch.tensor([0]))
    with pytest.raises(PruningError, match="more than 1 value per channel"):
        prune(model, "snip", 0.5, data=data)
    assert prune(model, "snip", 0.5, data=data, bn_mode="eval")
