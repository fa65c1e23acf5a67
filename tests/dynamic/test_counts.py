"""What holds at every step of every method: exact counts, and zeros outside the masks."""

import copy

import pytest
import torch
from torch import nn

from mge_gpu.dynamic import METHODS, SparseTrainer
from mge_gpu.pruning import prune
from tests.dynamic.runs import (
    DYNAMIC,
    FIXED,
    OPTIMIZERS,
    backward,
    build,
    counts,
    everything,
    net,
    run,
    state_tensors,
    weights,
)


def assert_masked(trainer: SparseTrainer) -> None:
    for name, weight in weights(trainer).items():
        dropped = ~trainer.masks[name]
        assert not weight.detach()[dropped].any(), name
        assert weight.grad is None or not weight.grad[dropped].any(), name
        for tensor in state_tensors(trainer, weight):
            assert not tensor[dropped].any(), name


@pytest.mark.parametrize("method", DYNAMIC)
def test_counts_hold_through_200_updates(method: str) -> None:
    long = {
        "dsr": {"end": 1.0, "total_steps": 440},
        # With an update at every step it would never train.
        "rigl": {"end": 1.0, "interval": 2, "total_steps": 404},
    }
    model = nn.Sequential(
        nn.Flatten(), nn.Linear(36, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4)
    )
    trainer = build(method, model=model, **{"interval": 1, "total_steps": 204, **long.get(method, {})})
    start = counts(trainer.masks)
    seen = []

    def check(trainer: SparseTrainer) -> None:
        now = counts(trainer.masks)
        assert now == start if method in FIXED else sum(now.values()) == sum(start.values())
        assert_masked(trainer)
        seen.append(now)

    trainer.callbacks.append(check)
    run(trainer, trainer.rule.total_steps)
    assert trainer.updates == len(seen) >= 200
    assert sum(update.moved for update in trainer.history) > 200
    if method not in FIXED:
        assert seen[-1] != start  # these move weights between layers
    assert trainer.sparsity == pytest.approx(0.7, abs=1 / 384)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("method", METHODS)
def test_dropped_weights_gradients_and_states_are_zero_after_every_step(method: str, optimizer: str) -> None:
    trainer = build(method, optimizer)
    assert_masked(trainer)
    for _ in range(12):
        run(trainer, 1)
        assert_masked(trainer)
    assert trainer.updates == (0 if method == "static" else 2)
    active = [weight.detach()[trainer.masks[name]] for name, weight in weights(trainer).items()]
    assert all(bool(values.any()) for values in active)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("method", DYNAMIC)
def test_what_is_grown_starts_at_zero_without_momentum(method: str, optimizer: str) -> None:
    trainer = build(method, optimizer)
    run(trainer, 4)
    before = trainer.masks
    run(trainer, 1)
    grown = again = 0
    for name, weight in weights(trainer).items():
        new = trainer.masks[name] & ~before[name]
        grown += int(new.sum())
        if method == "set":  # what was dropped and grown at once is new too
            new |= trainer.masks[name] & (weight.detach() == 0)
            again += int(new.sum())
        assert not weight.detach()[new].any()
        for tensor in state_tensors(trainer, weight):
            assert not tensor[new].any()
            assert tensor[trainer.masks[name] & before[name]].any()
    assert grown == trainer.history[0].moved > 0
    assert again > grown or method != "set"


@pytest.mark.parametrize("method", DYNAMIC)
def test_an_update_replaces_the_optimizers_step_for_rigl_only(method: str) -> None:
    """The oracle takes the same step by hand, on copies; survivors must have its values, or the old ones."""
    trainer = build(method)
    run(trainer, 4)
    backward(trainer, 4)
    model = copy.deepcopy(trainer.model)
    optimizer = OPTIMIZERS["sgd"](model)
    optimizer.load_state_dict(copy.deepcopy(trainer.optimizer.state_dict()))
    own = dict(model.named_parameters())
    for parameter, original in zip(model.parameters(), trainer.model.parameters(), strict=True):
        parameter.grad = original.grad.clone()
    for name, mask in trainer.masks.items():
        own[name].grad *= mask
    if method != "rigl":
        optimizer.step()
    before = trainer.masks
    assert trainer.step()
    for name, parameter in trainer.model.named_parameters():
        expected = own[name].detach()
        if name in before:
            mask = trainer.masks[name] & before[name]
            if method == "set":  # a dropped weight that is grown again starts at zero
                mask &= parameter.detach() != 0
            assert mask.any()
            assert torch.equal(parameter[mask], expected[mask])
            (momentum,) = state_tensors(trainer, parameter)
            assert torch.equal(momentum[mask], optimizer.state[own[name]]["momentum_buffer"][mask])
        else:
            assert torch.equal(parameter, expected)


def test_static_is_plain_training_under_a_mask() -> None:
    """Oracle: masked gradients and weights written out, without the trainer."""
    trainer = build("static", "adamw")
    model = net()
    optimizer = OPTIMIZERS["adamw"](model)
    masks = prune(model, "erk", 0.7, seed=0)
    own = dict(model.named_parameters())
    run(trainer, 10)
    for name, mask in masks.items():
        own[name].data *= mask
    other = copy.copy(trainer)
    other.model, other.optimizer = model, optimizer
    for step in range(10):
        backward(other, step)
        for name, mask in masks.items():
            own[name].grad *= mask
        optimizer.step()
    assert counts(masks) == counts(trainer.masks)
    for left, right in zip(model.state_dict().values(), trainer.model.state_dict().values(), strict=True):
        assert torch.equal(left, right)


@pytest.mark.parametrize("method", METHODS)
def test_initial_masks_are_those_of_prune(method: str) -> None:
    expected = prune(net(), METHODS[method].initial, 0.7, seed=3)
    trainer = build(method, seed=3)
    assert all(torch.equal(expected[name], mask) for name, mask in trainer.masks.items())
    assert list(expected) == list(trainer.masks)


@pytest.mark.parametrize("method", ["set", "dsr", "itop-set"])
def test_the_seed_decides_what_is_grown(method: str) -> None:
    masks = prune(net(), "erk", 0.7)
    runs = [build(method, sparsity=None, masks=masks, seed=seed) for seed in (1, 1, 2)]
    for trainer in runs:
        run(trainer, 6)
    first, again, other = (list(everything(trainer)) for trainer in runs)
    assert all(map(torch.equal, first, again))
    assert not all(map(torch.equal, first, other))


def test_a_layer_without_a_mask_stays_dense() -> None:
    masks = prune(net(), "erk", 0.7)
    del masks["out.weight"]
    trainer = build("rigl", sparsity=None, masks=masks)
    run(trainer, 20)
    assert "out.weight" not in trainer.masks
    assert bool(trainer.model.out.weight.all())


@pytest.mark.gradients
def test_on_the_device(device: str) -> None:
    """Model and optimizer may move after the trainer was built; random growth is the same on every device."""
    here, there = build("set"), build("set")
    there.model.to(device)
    for trainer in (here, there):
        run(trainer, 1)
        backward(trainer, 1)
        trainer.steps = 4  # so that the next step is an update
        trainer.step()
    assert all(mask.device.type == device for mask in there.masks.values())
    assert counts(here.masks) == counts(there.masks)
    assert_masked(there)
