"""The trainer around the rules: growth by dense gradients, R_s, scalers, refusals and warnings."""

import copy
import random
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import prune as torch_prune

import mge_gpu as mge
from mge_gpu.dynamic import METHODS, SparseTrainer, SparseTrainingWarning
from mge_gpu.errors import MaskError, PruningError
from mge_gpu.pruning import LayerCollapseWarning, prune
from tests.dynamic.runs import DYNAMIC, OPTIMIZERS, backward, batch, build, everything, net, run

SGD = OPTIMIZERS["sgd"]


@pytest.mark.parametrize("method", ["rigl", "itop-rigl"])
def test_growth_reads_gradients_of_dropped_weights(method: str) -> None:
    """L = c·(W x) has dL/dW = c xᵀ, whatever W and its mask are."""
    c, x = torch.tensor([1.0, -5.0, 0.3]), torch.tensor([0.2, -1.0, 3.0, 0.1, 2.0, -0.7])
    model = nn.Linear(6, 3, bias=False)
    mask = torch.zeros(3, 6, dtype=torch.bool)
    mask[:, :2] = True
    with torch.no_grad():
        model.weight.copy_(torch.arange(1.0, 19.0).view(3, 6))  # (0, 0) and (0, 1) are the smallest
    trainer = SparseTrainer(
        model,
        torch.optim.SGD(model.parameters(), lr=1e-6),
        method,
        masks={"weight": mask},
        total_steps=40,
        interval=2,
        drop_fraction=0.4,  # of six, after a little annealing: two by floor (rigl), three by ceiling
    )
    for _ in range(2):
        trainer.optimizer.zero_grad()
        (c @ model(x)).backward()
        trainer.step()
    dropped = 2 if method == "rigl" else 3
    kept = mask.clone()
    kept.view(-1)[torch.tensor([0, 1, 6])[:dropped]] = False
    scores = torch.outer(c, x).abs().masked_fill(kept, -1)
    expected = kept.clone()
    expected.view(-1)[scores.flatten().topk(dropped).indices] = True
    assert torch.equal(trainer.masks["weight"], expected)
    assert not expected[:, :2].all() and trainer.history[0].moved > 0


@pytest.mark.parametrize("method", METHODS)
def test_exploration_rate_is_the_union_of_all_masks(method: str) -> None:
    trainer = build(method)
    union = {name: mask.clone() for name, mask in trainer.masks.items()}
    size = sum(mask.numel() for mask in union.values())
    rates, kept = [], []

    def log(trainer: SparseTrainer) -> None:
        kept.append(trainer.masks)
        rates.append(trainer.exploration_rate)
        for name, mask in trainer.masks.items():
            union[name] |= mask
        assert rates[-1] == sum(int(mask.sum()) for mask in union.values()) / size

    assert trainer.exploration_rate == pytest.approx(0.3, abs=1 / size)
    trainer.callbacks.append(log)
    run(trainer, 50)
    assert [update.exploration_rate for update in trainer.history] == rates == sorted(rates)
    assert [update.step for update in trainer.history] == [s for s in range(101) if trainer.rule.due(s)][
        : len(rates)
    ]
    if method == "static":
        assert rates == [] and trainer.updates == 0
        return
    assert trainer.exploration_rate > 0.35
    # Masks that a callback keeps are not changed by later updates.
    before = [build(method).masks, *kept]
    for old, new, update in zip(before[:-1], before[1:], trainer.history, strict=True):
        assert update.moved == sum(int((new[name] & ~old[name]).sum()) for name in new)


@pytest.mark.parametrize("method", ["rigl", "itop-rigl", "snfs"])
def test_a_gradient_scaler_changes_nothing(method: str) -> None:
    """Scales are powers of two, and these gradients far from the ends of float32: bit for bit the same."""
    plain, scaled = build(method), build(method)
    run(plain, 30)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**8, growth_interval=7)
    clipped = 0
    for step in range(30):
        scaled.optimizer.zero_grad()
        inputs, labels = batch(step)
        scaler.scale(nn.functional.cross_entropy(scaled.model(inputs), labels)).backward()
        if step % 3 == 0:  # as one who clips does
            scaler.unscale_(scaled.optimizer)
            clipped += 1
        scaled.step(scaler)
        scaler.update()
    assert scaler.get_scale() > 2.0**8 and clipped
    assert all(map(torch.equal, everything(plain), everything(scaled)))
    assert plain.history == scaled.history


def test_a_step_that_the_scaler_skips_does_not_count() -> None:
    trainer = build("rigl")
    run(trainer, 4)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    before = [tensor.clone() for tensor in everything(trainer)]
    trainer.optimizer.zero_grad()
    inputs, labels = batch(4)
    scaler.scale(nn.functional.cross_entropy(trainer.model.eval()(inputs), labels)).backward()
    trainer.model.train().mix.weight.grad[0, 0, 0, 0] = torch.inf
    assert not trainer.step(scaler)
    scaler.update()
    assert scaler.get_scale() == 4.0 and trainer.steps == 4
    assert all(map(torch.equal, before, everything(trainer)))
    backward(trainer, 4)
    assert trainer.step(torch.amp.GradScaler("cpu", enabled=False)) and trainer.updates == 1


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("method", ["static", "rigl", "snfs"])
def test_gradients_that_are_not_finite_are_named_and_change_nothing(method: str, value: float) -> None:
    trainer = build(method)
    run(trainer, 4)
    backward(trainer, 4)
    trainer.model.bn.bias.grad[2] = value
    before = [tensor.clone() for tensor in everything(trainer)]
    state = trainer.state_dict()
    with pytest.raises(PruningError, match=r"^bn\.bias: 1 of 8 gradient values are NaN or Inf at step 5; "):
        trainer.step()
    assert all(map(torch.equal, before, everything(trainer)))
    assert trainer.steps == 4 and torch.equal(state["generator"], trainer.state_dict()["generator"])
    if method == "snfs":
        momenta = trainer.state_dict()["rule"]["momenta"]
        assert all(torch.equal(m, momenta[name]) for name, m in state["rule"]["momenta"].items())


def test_large_gradients_are_not_infinite() -> None:
    trainer = build("static", "adam")
    backward(trainer, 0)
    for parameter in trainer.model.parameters():
        parameter.grad.fill_(1e30)  # the sum of squares overflows
    trainer.step()
    assert trainer.steps == 1


@pytest.mark.parametrize("method", DYNAMIC)
def test_weights_that_are_not_finite_are_named_at_an_update(method: str) -> None:
    trainer = build(method)
    run(trainer, 4)
    backward(trainer, 4)
    masks = trainer.masks
    place = tuple(masks["mix.weight"].nonzero()[0])
    trainer.model.mix.weight.data[place] = torch.nan
    with pytest.raises(PruningError, match=r"^mix\.weight: 1 of 288 weights are NaN or Inf at step 5"):
        trainer.step()
    assert all(torch.equal(mask, masks[name]) for name, mask in trainer.masks.items())


def test_no_backward() -> None:
    with pytest.raises(PruningError, match=r"call loss\.backward\(\) before trainer\.step\(\)"):
        build("rigl").step()


def wrong_mask(name: str, mask: Any) -> dict[str, Any]:
    return {**prune(net(), "erk", 0.7), name: mask}


REFUSED: list[tuple[Callable[[nn.Module], Any], type, str]] = [
    (lambda m: SparseTrainer("net", SGD(m), sparsity=0.7), PruningError, r"torch\.nn\.Module, got str"),
    (lambda m: SparseTrainer(m, 0.1, sparsity=0.7), PruningError, r"torch\.optim\.Optimizer, got float"),
    (lambda m: make(m, "rigle"), PruningError, "did you mean 'rigl'"),
    (
        lambda m: make(m, "rigl", growth="random"),
        PruningError,
        "rigl has no option 'growth'; its options are",
    ),
    (
        lambda m: make(m, "itop", growth="both"),
        PruningError,
        "growth must be 'random' or 'gradient', got 'both'",
    ),
    (lambda m: make(m, seed=-1), PruningError, "seed must be an integer of 0 or more, got -1"),
    (lambda m: make(m, sparsity=1.0), PruningError, r"sparsity must be in \[0, 1\)"),
    (lambda m: make(m, sparsity=None), PruningError, "pass either sparsity=.* or masks=; got neither"),
    (lambda m: make(m, masks=prune(m, "erk", 0.5)), PruningError, "or masks=; got both"),
    (lambda m: make(m, sparsity=None, masks={}), PruningError, "masks= holds no mask"),
    (lambda m: make(m, total_steps=None), PruningError, "rigl needs total_steps="),
    (lambda m: make(m, total_steps=0), PruningError, "total_steps must be an integer of 1 or more, got 0"),
    (lambda m: make(m, interval=0), PruningError, "interval must be an integer of 1 or more, got 0"),
    (lambda m: make(m, interval=1), PruningError, "interval must be 2 or more, got 1"),
    (
        lambda m: make(m, drop_fraction=1.5),
        PruningError,
        r"drop_fraction must be a number in \[0, 1\], got 1.5",
    ),
    (lambda m: make(m, "set", interval=None), PruningError, "pass steps_per_epoch="),
    (
        lambda m: make(m, "set", interval=None, steps_per_epoch=0),
        PruningError,
        "steps_per_epoch must be an in",
    ),
    (lambda m: make(m, "dsr", threshold=0), PruningError, "threshold must be a positive number, got 0"),
    (lambda m: make(m, "dsr", threshold="a"), PruningError, "threshold must be a positive number, got 'a'"),
    (lambda m: make(m, "dsr", prune_count=10**6), PruningError, "prune_count is 1000000, the network has"),
    (lambda m: make(m, "snfs", momentum=1), PruningError, "momentum must be below 1"),
    (
        lambda m: make(m, sparsity=None, masks=wrong_mask("conv.weight", torch.ones(8, 1, 3, 2))),
        MaskError,
        r"conv\.weight: the mask has shape \(8, 1, 3, 2\), the weight \(8, 1, 3, 3\)",
    ),
    (
        lambda m: make(m, sparsity=None, masks=wrong_mask("out.weight", torch.full((4, 12), 0.5))),
        MaskError,
        r"out\.weight: 48 of 48 mask values are neither 0 nor 1",
    ),
    (
        lambda m: make(m, sparsity=None, masks=wrong_mask("outs.weight", torch.ones(4, 12))),
        MaskError,
        r"outs\.weight: no prunable weight has this name; did you mean 'out\.weight'",
    ),
    (
        lambda m: SparseTrainer(m, SGD(net()), sparsity=0.7, total_steps=100),
        PruningError,
        r"the optimizer holds none of the model's 4 masked weights \(the first is 'conv\.weight'\)",
    ),
    (
        lambda m: SparseTrainer(m, torch.optim.LBFGS(m.parameters()), sparsity=0.7, total_steps=100),
        PruningError,
        "LBFGS needs a closure",
    ),
    (
        lambda m: SparseTrainer(nn.BatchNorm2d(3), SGD(m), sparsity=0.7, total_steps=100),
        PruningError,
        "no convolution or linear layer",
    ),
    (
        lambda m: SparseTrainer(nn.BatchNorm2d(3), SGD(m), masks={}, total_steps=100),
        PruningError,
        "no convolution or linear layer",
    ),
]


def make(model: nn.Module, method: str = "rigl", **options: Any) -> SparseTrainer:
    chosen = {"sparsity": 0.7, "total_steps": 100, "interval": 10, **options}
    if chosen["interval"] is None:
        del chosen["interval"]
    return SparseTrainer(model, SGD(model), method, **chosen)


@pytest.mark.parametrize(("call", "error", "message"), REFUSED)
def test_refusals_say_what_to_do_and_leave_the_model(
    call: Callable[[nn.Module], Any], error: type, message: str
) -> None:
    model = net()
    with pytest.raises(error, match=message) as caught:
        call(model)
    assert "\n" not in str(caught.value)
    assert all(map(torch.equal, model.state_dict().values(), net().state_dict().values()))


@pytest.mark.parametrize("masks", [True, False])
def test_nan_weights_are_named(masks: bool) -> None:
    model = net()
    model.mix.weight.data[0, 0, 0, 0] = torch.nan
    given = {"masks": prune(net(), "erk", 0.7), "sparsity": None} if masks else {}
    with pytest.raises(MaskError, match=r"mix\.weight: 1 of 288 values are NaN or Inf"):
        make(model, **given)
    assert bool(model.conv.weight.all())


def test_computed_weights_are_refused() -> None:
    model = net()
    torch_prune.random_unstructured(model.mix, "weight", 0.5)
    with pytest.raises(PruningError, match=r"mix\.weight: the weight is computed .*prune\.remove"):
        make(model)


@pytest.mark.parametrize("method", METHODS)
def test_global_generators_modes_and_hooks_are_left_alone(method: str) -> None:
    model = net().eval()
    model.bn.train()
    before = torch.get_rng_state(), list(np.random.get_state()[1]), random.getstate()
    trainer = SparseTrainer(
        model,
        SGD(model),
        method,
        sparsity=0.7,
        total_steps=20,
        **({} if method == "static" else {"interval": 2}),
    )
    run(trainer, 5)
    after = torch.get_rng_state(), list(np.random.get_state()[1]), random.getstate()
    assert torch.equal(before[0], after[0]) and before[1:] == after[1:]
    assert [module.training for module in model.modules()] == [False, False, True, False, False, False]
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize("method", DYNAMIC)
def test_an_interval_longer_than_the_run_is_no_secret(method: str) -> None:
    with pytest.warns(
        SparseTrainingWarning, match=rf"{method} will never change the topology: its interval is 100 steps"
    ) as caught:
        trainer = build(method, interval=100)
    assert caught[0].filename == sys.modules[build.__module__].__file__
    assert not any(trainer.rule.due(step) for step in range(200))


@pytest.mark.parametrize(
    ("method", "options", "reason"),
    [
        ("rigl", {"drop_fraction": 1e-4}, "drop_fraction= is too small"),
        ("set", {"drop_fraction": 0.0}, "drop_fraction= is too small"),
        ("itop-set", {"sparsity": 0.0}, "the layers are dense"),
        ("dsr", {"threshold": 1e-9}, "threshold= is too small"),
    ],
)
def test_a_first_update_that_moves_nothing_is_no_secret(
    method: str, options: dict[str, Any], reason: str
) -> None:
    trainer = build(method, **options)
    run(trainer, 4)
    backward(trainer, 4)
    with pytest.warns(SparseTrainingWarning, match=f"{method}: the first update, at step 5, moved.*{reason}"):
        trainer.step()
    assert trainer.history[0].moved == 0


def test_a_threshold_that_never_settles_is_no_secret() -> None:
    trainer = build("dsr", threshold=1e-9, prune_count=20, total_steps=30)  # updates at 5 and 10
    with pytest.warns(SparseTrainingWarning, match="dsr: the first update"):
        run(trainer, 9)
    backward(trainer, 9)
    with pytest.warns(
        SparseTrainingWarning, match="last update, at step 10, dropped 0 .* threshold="
    ) as seen:
        trainer.step()
    assert seen[0].filename == __file__
    assert trainer.rule.threshold == 4e-9 and trainer.updates == 2


def test_frozen_weights_are_no_secret() -> None:
    model = net()
    model.conv.weight.requires_grad_(False)
    optimizer = torch.optim.SGD([p for n, p in model.named_parameters() if n != "out.weight"], lr=0.1)
    with pytest.warns(
        SparseTrainingWarning, match=r"2 of 4 masks never change.*: conv\.weight, out\.weight$"
    ):
        trainer = SparseTrainer(model, optimizer, "set", sparsity=0.5, total_steps=20, interval=2)
    start = trainer.masks
    run(trainer, 10)
    same = {name: torch.equal(mask, start[name]) for name, mask in trainer.masks.items()}
    assert same == {"conv.weight": True, "mix.weight": False, "hidden.weight": False, "out.weight": True}
    assert not model.conv.weight[~start["conv.weight"]].any()


def test_a_layer_that_the_forward_pass_does_not_reach() -> None:
    class Unused(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net, self.spare = net(), nn.Linear(5, 5)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.net(x)

    model = Unused()
    trainer = make(model, "rigl", interval=2)
    start = trainer.masks
    backward(trainer, 0)
    trainer.step()
    with pytest.warns(SparseTrainingWarning, match=r"spare\.weight: has no gradient at step 2") as caught:
        backward(trainer, 1)
        trainer.step()
    assert len(caught) == 1 and caught[0].filename == __file__
    run(trainer, 4)
    assert torch.equal(start["spare.weight"], trainer.masks["spare.weight"])


def test_a_layer_that_loses_its_last_weight_is_named() -> None:
    trainer = build("dsr", interval=2)
    run(trainer, 1)
    backward(trainer, 1)
    trainer.optimizer.param_groups[0]["lr"] = 0.0
    with torch.no_grad():
        trainer.model.conv.weight.mul_(1e-6)
        trainer.model.conv.weight.grad.zero_()
    with pytest.warns(LayerCollapseWarning, match=r"dsr left no weight of 1 layers at step 2: conv\.weight"):
        trainer.step()
    assert not trainer.masks["conv.weight"].any()


def test_steps_beyond_the_end_keep_the_masks() -> None:
    trainer = build("itop-rigl", total_steps=12)
    run(trainer, 12)
    masks = trainer.masks
    run(trainer, 10)
    assert trainer.steps == 22 and trainer.updates == 2
    assert all(torch.equal(mask, masks[name]) for name, mask in trainer.masks.items())


def test_adam_takes_about_three_learning_rates_with_a_regrown_weight() -> None:
    """As docs/dynamic.md says: (1 - β₁) g / sqrt((1 - β₂) g²), since the step count is the whole layer's."""
    model = nn.Linear(4, 1, bias=False)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    mask = torch.tensor([[True, True, False, False]])
    trainer = SparseTrainer(model, optimizer, "static", masks={"weight": mask})

    def step() -> None:
        optimizer.zero_grad()
        (model(torch.tensor([1.0, 2.0, 3.0, 4.0])) * 2).sum().backward()
        trainer.step()

    step()
    optimizer.state[model.weight]["step"].fill_(100_000)
    state = trainer.state_dict()
    state["masks"]["weight"] = torch.ones(1, 4, dtype=torch.bool)
    trainer.load_state_dict(state)
    step()
    assert model.weight[0, 3].item() == pytest.approx(-0.1 / 0.001**0.5 * 1e-3, rel=1e-3)


def test_itop_is_a_name_for_two() -> None:
    assert build("itop", growth="gradient").method == "itop-rigl"
    assert build("itop").method == build("itop", growth="random").method == "itop-set"


def test_the_table_of_methods() -> None:
    assert list(METHODS) == ["static", "set", "dsr", "snfs", "rigl", "itop-set", "itop-rigl"]
    assert {name for name, method in METHODS.items() if method.needs_epochs} == {"set", "snfs"}
    assert {name for name, method in METHODS.items() if method.needs_gradients} == {"rigl", "itop-rigl"}
    assert METHODS["rigl"].options == ("interval", "drop_fraction", "end")
    assert all(method.summary and method.paper for method in METHODS.values())


def test_the_trainer_is_at_the_top_and_loads_on_use() -> None:
    assert mge.SparseTrainer is SparseTrainer and "SparseTrainer" in dir(mge)
    code = "import sys, mge_gpu; print('mge_gpu.dynamic' in sys.modules, 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_masks_that_are_passed_stay_the_callers() -> None:
    masks = prune(net(), "erk", 0.7)
    before = copy.deepcopy(masks)
    run(build("set", sparsity=None, masks=masks), 12)
    assert all(torch.equal(mask, before[name]) for name, mask in masks.items())
