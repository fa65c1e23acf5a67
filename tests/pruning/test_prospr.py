"""ProsPr: scores against finite differences, in c, of a training that torch's own optimizer runs."""

import copy
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from mge_gpu.errors import DataError, PruningError
from mge_gpu.pruning import prune
from mge_gpu.pruning.prospr import prospr_scores
from tests.pruning.tiny import Batch, Tiny, setting


def trained(model: Tiny, batches: list[Batch], bn_mode: str, lr: float, momentum: float) -> Tiny:
    """A copy after a step of SGD on each batch, ready for one more loss."""
    model = copy.deepcopy(model).eval()
    model.bn.train(bn_mode == "train")
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=momentum)
    for inputs, labels in batches:
        optimizer.zero_grad()
        cross_entropy(model(inputs), labels).backward()
        optimizer.step()
    return model


@pytest.mark.parametrize(
    ("bn_mode", "momentum", "steps"), [("train", 0.9, 3), ("eval", 0.0, 2), ("eval", 0.5, 3)]
)
def test_scores_are_the_derivative_through_the_training_in_c(
    bn_mode: str, momentum: float, steps: int
) -> None:
    model, batches = setting(steps + 1)
    options = {"steps": steps, "momentum": momentum, "bn_mode": bn_mode}
    scores = prospr_scores(model, data=batches, lr=0.5, **options)
    first = prospr_scores(model, data=batches, lr=0.5, first_order=True, **options)

    def loss(name: str, index: int, c: float) -> float:
        scaled = copy.deepcopy(model)
        scaled.get_parameter(name).data.view(-1)[index] *= c
        inputs, labels = batches[-1]
        return cross_entropy(trained(scaled, batches[:-1], bn_mode, 0.5, momentum)(inputs), labels).item()

    for name, index in [("conv.weight", i) for i in range(0, 54, 7)] + [
        ("fc.weight", i) for i in range(0, 12, 3)
    ]:
        expected = abs(loss(name, index, 1 + 1e-5) - loss(name, index, 1 - 1e-5)) / 2e-5
        assert scores[name].view(-1)[index].item() == pytest.approx(expected, rel=1e-4, abs=1e-8), (
            name,
            index,
        )
        assert first[name].view(-1)[index].item() != pytest.approx(expected, rel=1e-2, abs=1e-8)


def test_the_first_order_is_the_gradient_after_training_times_the_initial_weight() -> None:
    model, batches = setting(3)
    scores = prospr_scores(model, data=batches, steps=2, lr=0.3, first_order=True)
    after = trained(model, batches[:2], "train", 0.3, 0.9)
    after.zero_grad()
    inputs, labels = batches[2]
    cross_entropy(after(inputs), labels).backward()
    for name, score in scores.items():
        expected = (model.get_parameter(name).detach() * after.get_parameter(name).grad).abs()
        assert torch.allclose(score, expected, rtol=1e-10)


def test_a_step_of_length_zero_leaves_snip() -> None:
    model, batches = setting(2)
    scores = prospr_scores(model, data=batches, steps=1, lr=1e-12)
    inputs, labels = batches[1]
    found = trained(model, [], "train", 1.0, 0.0)
    cross_entropy(found(inputs), labels).backward()
    for name, score in scores.items():
        weight = found.get_parameter(name)
        assert torch.allclose(score, (weight * weight.grad).abs().detach(), rtol=1e-8)


def test_layers_that_share_a_weight_train_it_together() -> None:
    class Twice(nn.Module):
        def __init__(self, tied: bool) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.a = nn.Linear(4, 4, dtype=torch.float64)
            self.b = nn.Linear(4, 4, dtype=torch.float64) if tied else self.a
            self.b.weight, self.b.bias = self.a.weight, self.a.bias

        def forward(self, x: Tensor) -> Tensor:
            return self.b(torch.tanh(self.a(x)))

    data = [(torch.randn(6, 4, dtype=torch.float64), torch.arange(6) % 4) for _ in range(4)]
    tied, one = (prospr_scores(Twice(tied), data=data) for tied in (True, False))
    assert list(tied) == list(one) == ["a.weight"]
    assert torch.allclose(tied["a.weight"], one["a.weight"], rtol=1e-10)


def test_every_step_takes_a_fresh_batch_and_no_more_are_drawn() -> None:
    model, batches = setting(6)
    drawn: list[int] = []

    def stream() -> Iterator[Batch]:
        for number, pair in enumerate(batches):
            drawn.append(number)
            yield pair

    prospr_scores(model, data=stream(), steps=3, lr=0.1)
    assert drawn == [0, 1, 2, 3]
    again = prospr_scores(model, data=batches[:2], steps=3, lr=0.1)
    spelt_out = prospr_scores(model, data=[*batches[:2], *batches[:2]], steps=3, lr=0.1)
    assert all(torch.equal(again[name], spelt_out[name]) for name in again)
    with pytest.raises(DataError, match="ended after 2 batches"):
        prospr_scores(model, data=iter(batches[:2]), steps=3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "prospr: steps must be a positive integer"),
        ({"lr": 0}, "prospr: lr must be a positive number, got 0"),
        ({"lr": "fast"}, "prospr: lr must be a positive number, got 'fast'"),
        ({"momentum": 1}, r"prospr: momentum must be in \[0, 1\), got 1"),
        ({"bn_mode": "none"}, "prospr: bn_mode"),
    ],
)
def test_refusals(options: dict[str, object], message: str) -> None:
    model, batches = setting(2)
    with pytest.raises(PruningError, match=message):
        prune(model, "prospr", 0.5, data=batches, **options)


def test_training_that_diverges_is_an_error() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    data = (torch.randn(4, 3), torch.tensor([0, 1, 0, 1]))
    with pytest.raises(
        PruningError, match=r"the loss is (nan|inf) after \d training steps at lr 1e\+20; lower lr"
    ):
        prune(model, "prospr", 0.5, data=data, lr=1e20)


def test_progress_ends_at_one() -> None:
    model, batches = setting(2)
    for first_order, count in ((True, 3), (False, 5)):
        told: list[float | None] = []
        prune(
            model,
            "prospr",
            0.5,
            data=batches,
            steps=2,
            lr=0.1,
            first_order=first_order,
            progress=lambda text, share: told.append(share),  # noqa: B023
        )
        assert len(told) == count and told[-1] == 1
