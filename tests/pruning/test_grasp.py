"""GraSP: scores against an explicit Hessian and against the gradient's norm; where its batches come from."""

import copy
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from mge_gpu.errors import DataError, PruningError
from mge_gpu.pruning import prune
from mge_gpu.pruning._classes import class_samples, mixed_order
from mge_gpu.pruning._copy import dense_copy
from mge_gpu.pruning._loss import set_bn_mode
from mge_gpu.pruning._select import top_masks
from mge_gpu.pruning.grasp import class_batches, grasp_scores
from tests.pruning.tiny import Batch, Tiny, setting

TEMPERATURE = 3.0  # at 200 the logits' differences, and with them the Hessian, almost vanish


def scores_of(model: nn.Module, batches: list[Batch], bn_mode: str = "train") -> dict[str, Tensor]:
    network, weights = dense_copy(model)
    set_bn_mode("grasp", network, bn_mode)
    return grasp_scores(network, weights, batches, temperature=TEMPERATURE)


def losses(model: Tiny, batches: list[Batch], bn_mode: str, conv: Tensor, fc: Tensor) -> Tensor:
    model = copy.deepcopy(model).eval()
    model.bn.train(bn_mode == "train")
    weights = {"conv.weight": conv, "fc.weight": fc}
    return sum(cross_entropy(functional_call(model, weights, (x,)) / TEMPERATURE, y) for x, y in batches)


@pytest.mark.parametrize("bn_mode", ["train", "eval"])
def test_scores_are_those_of_the_explicit_hessian(bn_mode: str) -> None:
    model, batches = setting(2)
    found = scores_of(model, batches, bn_mode)
    start = (model.conv.weight.detach(), model.fc.weight.detach())

    def loss(*weights: Tensor) -> Tensor:
        return losses(model, batches, bn_mode, *weights)

    gradient = torch.autograd.functional.jacobian(loss, start)
    blocks = torch.autograd.functional.hessian(loss, start)
    for row, weight, score in zip(blocks, start, found.values(), strict=True):
        product = sum(torch.tensordot(block, g, g.ndim) for block, g in zip(row, gradient, strict=True))
        assert torch.allclose(score, -weight * product, rtol=1e-8, atol=1e-14)
    flat = torch.cat([score.flatten() for score in found.values()])
    assert (flat > 0).any() and (flat < 0).any()


def test_scores_are_what_half_the_squared_gradient_norm_gains_as_a_weight_shrinks() -> None:
    model, batches = setting(2)
    found = scores_of(model, batches)

    def half_norm(name: str, index: int, c: float) -> float:
        weights = [w.detach().clone() for w in (model.conv.weight, model.fc.weight)]
        weights[name == "fc.weight"].view(-1)[index] *= c
        leaves = [w.requires_grad_() for w in weights]
        parts = torch.autograd.grad(losses(model, batches, "train", *leaves), leaves)
        return sum(float(part.pow(2).sum()) for part in parts) / 2

    for name, index in [("conv.weight", i) for i in range(0, 54, 9)] + [
        ("fc.weight", i) for i in range(0, 12, 3)
    ]:
        slope = (half_norm(name, index, 1 - 1e-5) - half_norm(name, index, 1 + 1e-5)) / 2e-5
        assert found[name].view(-1)[index].item() == pytest.approx(slope, rel=1e-4, abs=1e-10), (name, index)


def test_the_highest_signed_scores_are_removed() -> None:
    model, _ = setting()
    data = (torch.randn(8, 2, 4, 4, dtype=torch.float64), torch.arange(8) % 4)
    scores = scores_of(model, [data])
    for sparsity in (0.3, 0.7):
        masks = prune(model, "grasp", sparsity, data=data, samples_per_class=2, temperature=TEMPERATURE)
        expected = top_masks({name: -score for name, score in scores.items()}, round((1 - sparsity) * 66))
        assert all(torch.equal(masks[name], expected[name]) for name in masks)
        kept = torch.cat([scores[name][mask] for name, mask in masks.items()])
        dropped = torch.cat([scores[name][~mask] for name, mask in masks.items()])
        assert kept.max() <= dropped.min()


def test_data_are_drawn_once_for_gradient_and_hessian() -> None:
    """A loader that shuffles would give the Hessian other batches than the gradient."""

    class Counting(list[Batch]):
        rounds = 0

        def __iter__(self) -> Iterator[Batch]:
            self.rounds += 1
            return super().__iter__()

    model, _ = setting()
    data = Counting([(torch.randn(8, 2, 4, 4, dtype=torch.float64), torch.arange(8) % 4)] * 3)
    prune(model, "grasp", 0.5, data=data, samples_per_class=3, batch_size=6)
    assert data.rounds == 1
    batches = class_batches(dense_copy(model)[0], data, torch.float64, torch.device("cpu"), 3, 6)
    assert [len(labels) for _, labels in batches] == [6, 6]
    assert torch.equal(torch.cat([labels for _, labels in batches]).bincount(), torch.full((4,), 3))


def test_sorted_data_give_batches_in_which_every_class_has_its_share() -> None:
    labels = torch.arange(10).repeat_interleave(20)
    inputs = torch.arange(200.0)[:, None]
    samples = class_samples("grasp", [(inputs, labels)], 10, 10)
    order = mixed_order(samples[1])
    assert sorted(order.tolist()) == list(range(100))
    assert sorted(samples[0].flatten().tolist()) == [20.0 * c + i for c in range(10) for i in range(10)]
    assert torch.equal(samples[0].flatten() // 20, samples[1].float())
    for parts in (2, 3, 5):
        for part in order.tensor_split(parts):
            counts = samples[1][part].bincount(minlength=10)
            assert counts.min() >= len(part) // 10 - 1 and counts.max() <= len(part) / 10 + 2


def test_reading_stops_when_all_classes_are_complete() -> None:
    model = nn.Linear(3, 2)
    drawn: list[int] = []

    def stream(classes: int) -> Iterator[Batch]:
        for number in range(6):
            drawn.append(number)
            yield torch.randn(2, 3), torch.arange(2) % classes

    prune(model, "grasp", 0.5, data=stream(2), samples_per_class=2)
    assert drawn == [0, 1]
    drawn.clear()
    prune(model, "grasp", 0.5, data=stream(1), samples_per_class=2)  # the other class may still come
    assert drawn == list(range(6))


def test_classes_with_few_samples_are_named() -> None:
    data = (torch.randn(6, 3), torch.tensor([0, 0, 0, 0, 1, 1]))
    with pytest.warns(UserWarning, match=r"1 of 2 classes have fewer than samples_per_class=3 .* 1: 2$"):
        prune(nn.Linear(3, 2), "grasp", 0.5, data=data, samples_per_class=3)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"samples_per_class": 0}, PruningError, "samples_per_class must be a positive integer, got 0"),
        ({"batch_size": 2.5}, PruningError, "batch_size must be a positive integer, got 2.5"),
        ({"temperature": 0}, PruningError, "temperature must be a positive number, got 0"),
        ({"temperature": float("nan")}, PruningError, "temperature must be a positive number, got nan"),
        ({"bn_mode": "both"}, PruningError, "grasp: bn_mode"),
        ({"data": []}, DataError, "holds no batch"),
        ({"data": (torch.ones(2, 3), torch.ones(2))}, DataError, "one integer per input"),
        ({"data": (torch.ones(2, 3), torch.tensor([0, 5]))}, DataError, "the model has 2 classes"),
        (
            {"data": [(torch.ones(1, 3), torch.tensor([0])), (torch.ones(1, 4), torch.tensor([1]))]},
            DataError,
            r"different shapes: \[\(3,\), \(4,\)\]",
        ),
    ],
)
def test_refusals(options: dict[str, object], error: type, message: str) -> None:
    data = (torch.randn(4, 3), torch.tensor([0, 1, 0, 1]))
    with pytest.raises(error, match=message):
        prune(nn.Linear(3, 2), "grasp", 0.5, **{"data": data, "samples_per_class": 1, **options})


def test_a_loss_of_ones_own_is_taken_as_it_is() -> None:
    model = nn.Linear(3, 2)
    data = (torch.randn(8, 3), torch.arange(8) % 2)
    options = {"data": data, "samples_per_class": 4, "batch_size": 8}
    mine = prune(model, "grasp", 0.5, loss=lambda out, y: cross_entropy(out / 7, y), **options)
    same = prune(model, "grasp", 0.5, temperature=7, **options)
    assert torch.equal(mine["weight"], same["weight"])
