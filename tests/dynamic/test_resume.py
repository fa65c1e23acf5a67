"""A run that was stopped and goes on is, bit for bit, the run that was not."""

import io
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.optim.lr_scheduler import CosineAnnealingLR

from mge_gpu.dynamic import METHODS, SparseTrainer
from mge_gpu.errors import MaskError, PruningError
from tests.dynamic.runs import OPTIMIZERS, build, everything, net, run


def on_file(state: Any) -> Any:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def same_run(left: SparseTrainer, right: SparseTrainer) -> bool:
    return (
        all(torch.equal(a, b) for a, b in zip(everything(left), everything(right), strict=True))
        and left.history == right.history
        and left.steps == right.steps
        and left.exploration_rate == right.exploration_rate
    )


@pytest.mark.filterwarnings("ignore:dsr. the last update")
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("method", METHODS)
def test_resumed_runs_are_bit_equal(method: str, optimizer: str, tmp_path: Path) -> None:
    whole = build(method, optimizer, total_steps=40)
    run(whole, 40)
    stopped = build(method, optimizer, total_steps=40)
    run(stopped, 17)
    parts = {"model": stopped.model, "optimizer": stopped.optimizer, "trainer": stopped}
    torch.save({key: part.state_dict() for key, part in parts.items()}, tmp_path / "run.pt")
    del stopped, parts
    state = torch.load(tmp_path / "run.pt", weights_only=True)
    again = build(method, optimizer, total_steps=40)
    again.model.load_state_dict(state["model"])
    again.optimizer.load_state_dict(state["optimizer"])
    again.load_state_dict(state["trainer"])
    assert again.steps == 17 and (again.updates > 0 or method == "static")
    run(again, 23)
    assert same_run(whole, again)


@pytest.mark.parametrize("order", ["model first", "model before the trainer", "trainer first"])
def test_in_whatever_order_the_parts_are_loaded(order: str) -> None:
    whole = build("snfs")
    run(whole, 23)
    states = [on_file(part.state_dict()) for part in (whole.model, whole.optimizer, whole)]
    model = net(seed=8)
    if order == "model before the trainer":
        model.load_state_dict(states[0])  # the trainer's initial masks then cover trained weights
    optimizer = OPTIMIZERS["sgd"](model)
    if order == "model before the trainer":
        optimizer.load_state_dict(states[1])
    again = SparseTrainer(model, optimizer, "snfs", sparsity=0.7, total_steps=100, interval=5)
    if order == "model first":
        model.load_state_dict(states[0])
        optimizer.load_state_dict(states[1])
    again.load_state_dict(states[2])
    if order == "trainer first":
        model.load_state_dict(states[0])
        optimizer.load_state_dict(states[1])
    run(whole, 20)
    run(again, 20)
    assert same_run(whole, again)


def test_going_back_within_a_run() -> None:
    trainer = build("set", "adam")
    run(trainer, 23)
    states = [on_file(part.state_dict()) for part in (trainer, trainer.model, trainer.optimizer)]
    run(trainer, 20)
    first = [tensor.clone() for tensor in everything(trainer)]
    trainer.load_state_dict(states[0])
    trainer.model.load_state_dict(states[1])
    trainer.optimizer.load_state_dict(states[2])
    run(trainer, 20)
    assert all(map(torch.equal, first, everything(trainer)))


def test_a_learning_rate_scheduler_steps_beside_it() -> None:
    def start() -> tuple[SparseTrainer, CosineAnnealingLR]:
        trainer = build("rigl")
        return trainer, CosineAnnealingLR(trainer.optimizer, T_max=40)

    def go(trainer: SparseTrainer, scheduler: CosineAnnealingLR, steps: int) -> None:
        for _ in range(steps):
            run(trainer, 1)
            scheduler.step()

    whole, again = start(), start()
    go(*whole, 40)
    assert whole[0].optimizer.param_groups[0]["lr"] == pytest.approx(0, abs=1e-12)
    stopped = start()
    go(*stopped, 17)
    states = [on_file(part.state_dict()) for part in (*stopped, stopped[0].model, stopped[0].optimizer)]
    again[0].model.load_state_dict(states[2])
    again[0].optimizer.load_state_dict(states[3])
    again[1].load_state_dict(states[1])
    again[0].load_state_dict(states[0])
    go(*again, 23)
    assert same_run(whole[0], again[0])


def test_a_state_of_a_wrapped_model_fits_the_bare_one() -> None:
    trainer = build("snfs")
    run(trainer, 7)
    state = trainer.state_dict()
    for tensors in (state["masks"], state["explored"], state["rule"]["momenta"]):
        for name in list(tensors):
            tensors[f"module.{name}"] = tensors.pop(name)
    again = build("snfs")
    again.load_state_dict(on_file(state))
    assert all(torch.equal(mask, again.masks[name]) for name, mask in trainer.masks.items())


def changed(key: str, value: Any) -> Any:
    def change(state: dict[str, Any]) -> Any:
        return {**state, key: value}

    return change


@pytest.mark.parametrize("method", ["snfs", "dsr"])
@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda state: None, PruningError, "this is no state of a SparseTrainer"),
        (lambda state: {"model": state}, PruningError, "this is no state of a SparseTrainer"),
        (lambda state: state["masks"], PruningError, "this is no state of a SparseTrainer"),
        (changed("format", 2), PruningError, "this is no state of a SparseTrainer"),
        (
            lambda state: {key: value for key, value in state.items() if key != "generator"},
            PruningError,
            "lacks 'generator'",
        ),
        (changed("method", "rigl"), PruningError, "saved with method 'rigl', this trainer has"),
        (lambda s: changed("settings", {**s["settings"], "interval": 9})(s), PruningError, "'interval': 9"),
        (changed("steps", -1), PruningError, "its 'steps' is -1"),
        (changed("steps", "7"), PruningError, "its 'steps' is '7'"),
        (changed("history", None), PruningError, "its 'history' is None"),
        (changed("history", [(1, 2)]), PruningError, r"its 'history' is \[\(1, 2\)\]"),
        (changed("generator", torch.zeros(3)), PruningError, r"its 'generator' is tensor\(\[0"),
        (changed("generator", torch.zeros(16, dtype=torch.uint8)), PruningError, "its 'generator'"),
        (changed("generator", None), PruningError, "its 'generator' is None"),
        (changed("rule", []), PruningError, r"its 'rule' is \[\]"),
        (
            changed("rule", {}),
            PruningError,
            "(snfs: the state must hold momenta|dsr: threshold must be a po)",
        ),
        (changed("masks", 3), PruningError, "its 'masks' is 3"),
        (changed("masks", {}), PruningError, "conv.weight: the state has no mask for it"),
        (
            lambda s: changed("masks", {**s["masks"], "conv.weight": torch.ones(2)})(s),
            MaskError,
            r"conv.weight: the mask has shape \(2,\), the weight \(8, 1, 3, 3\)",
        ),
        (
            lambda s: changed("explored", {**s["explored"], "other": torch.ones(2)})(s),
            MaskError,
            "other: no prunable weight has this name",
        ),
    ],
)
def test_wrong_states_are_refused_and_change_nothing(
    method: str, change: Any, error: type, message: str
) -> None:
    trainer, source = build(method), build(method)
    run(source, 12)
    run(trainer, 7)
    before = [tensor.clone() for tensor in everything(trainer)]
    rest = trainer.state_dict()
    with pytest.raises(error, match=message) as caught:
        trainer.load_state_dict(change(source.state_dict()))
    assert "\n" not in str(caught.value)
    assert all(map(torch.equal, before, everything(trainer)))
    now = trainer.state_dict()
    assert rest["steps"] == now["steps"] and rest["history"] == now["history"]
    assert torch.equal(rest["generator"], now["generator"])
    if method == "snfs":
        assert all(torch.equal(m, now["rule"]["momenta"][n]) for n, m in rest["rule"]["momenta"].items())
    else:
        assert rest["rule"] == now["rule"]


@pytest.mark.parametrize(
    ("momentum", "message"),
    [
        ({"conv.weight": torch.ones(3)}, r"conv.weight: the state's momentum is \(3,\), the weight \(8, 1"),
        ({"conv.weight": 1.0}, "conv.weight: the state's momentum is float"),
        ({"other": torch.ones(3)}, "momentum for 'other', which has no mask here"),
    ],
)
def test_wrong_momenta_are_refused(momentum: dict[str, Any], message: str) -> None:
    trainer = build("snfs")
    with pytest.raises(PruningError, match=message):
        trainer.load_state_dict({**trainer.state_dict(), "rule": {"momenta": momentum}})
