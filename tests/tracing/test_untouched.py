"""Tracing leaves the model and the random states as they were, also when it fails."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

import mge_gpu
from mge_gpu.errors import TracingError


class Fragile(nn.Module):
    """Draws random numbers and counts its calls, then fails or not."""

    def __init__(self, fails: bool) -> None:
        super().__init__()
        self.fails, self.calls = fails, 0
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.drop = nn.Dropout(0.5)
        self.shared = self.conv
        self.linear = parametrizations.weight_norm(nn.Linear(4, 2))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        random.random(), np.random.rand(), torch.manual_seed(self.calls)
        x = self.drop(self.norm(self.conv(x)))
        if self.fails:
            raise RuntimeError("not today")
        return self.linear(x.mean((2, 3)))


def _hooks(module: nn.Module) -> list[Any]:
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return [list(getattr(module, kind).items()) for kind in kinds]


def _state(model: nn.Module) -> dict[str, Any]:
    modules = list(model.named_modules())
    tensors = [*model.named_parameters(), *model.named_buffers()]
    return {
        "modules": [(name, id(m), type(m), m.training) for name, m in modules],
        "hooks": [_hooks(m) for _, m in modules],
        "attributes": [sorted(vars(m)) for _, m in modules],
        "tensors": [(name, id(t), t.requires_grad, t.grad is None, t._version) for name, t in tensors],
        "values": [t.detach().clone() for _, t in tensors],
        "calls": getattr(model, "calls", None),
        "random": (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()),
    }


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    before = _state(model)
    yield
    after = _state(model)
    assert before.keys() == after.keys()
    for key in ("modules", "hooks", "attributes", "tensors", "calls"):
        assert before[key] == after[key], key
    assert all(torch.equal(a, b) for a, b in zip(before["values"], after["values"], strict=True))
    assert before["random"][:2] == after["random"][:2]
    assert torch.equal(before["random"][2], after["random"][2])


def _with_flags(model: nn.Module) -> nn.Module:
    """Modules in different modes, some frozen."""
    model.train()
    model.norm.eval()
    model.conv.weight.requires_grad_(False)
    return model


@pytest.mark.parametrize("training", [True, False])
def test_after_success(training: bool) -> None:
    model = _with_flags(Fragile(fails=False)) if training else Fragile(fails=False).eval()
    with untouched(model):
        graph = mge_gpu.encode(model, (1, 4, 4))
        mge_gpu.topometrics(graph, metrics=["edges", "two_hop"])
    assert graph.num_nodes == 36 + 64 + 2


def test_after_the_model_raised() -> None:
    model = _with_flags(Fragile(fails=True))
    with untouched(model), pytest.raises(TracingError, match=r"Fragile raised.*RuntimeError: not today"):
        mge_gpu.trace(model, (1, 4, 4))


def test_after_an_unknown_op() -> None:
    class Sorts(Fragile):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x).sort().values

    model = _with_flags(Sorts(fails=False))
    with untouched(model), pytest.raises(TracingError, match=r"aten\.sort"):
        mge_gpu.trace(model, (1, 4, 4))


def test_gradients_and_graph_of_the_user_stay() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    loss = model(torch.ones(1, 3)).sum()
    mge_gpu.encode(model, (3,))
    loss.backward()
    gradient = model[0].weight.grad
    assert gradient is not None
    mge_gpu.encode(model, (3,))
    assert model[0].weight.grad is gradient


def test_training_mode_gives_the_graph_of_evaluation_mode() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Dropout(), nn.ReLU(), nn.Conv2d(2, 2, 3))
    model.train()
    training = mge_gpu.encode(model, (1, 7, 7)).coo()
    assert all(m.training for m in model.modules())
    assert int(model[1].num_batches_tracked) == 0
    evaluation = mge_gpu.encode(model.eval(), (1, 7, 7)).coo()
    assert all(torch.equal(a, b) for a, b in zip(training, evaluation, strict=True))


def test_batch_norm_of_one_value_in_training_mode() -> None:
    """A batch of one at a single position is what batch norm refuses in training mode."""
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)).train()
    assert mge_gpu.trace(model, (1, 3, 3)).num_nodes == 11


def test_hooks_do_not_run_and_stay() -> None:
    calls: list[str] = []
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    handles = [
        model[0].register_forward_hook(lambda *a: calls.append("forward")),
        model[1].register_forward_pre_hook(lambda *a: calls.append("pre")),
        model[2].register_full_backward_hook(lambda *a: calls.append("backward")),
        model[2].register_forward_hook(lambda *a, **k: calls.append("always"), always_call=True),
        model.register_forward_pre_hook(lambda *a: calls.append("with kwargs"), with_kwargs=True),
    ]
    with untouched(model):
        mge_gpu.encode(model, (3,))
    assert calls == []
    model(torch.ones(1, 3)).sum().backward()
    assert sorted(calls) == ["always", "backward", "forward", "pre", "with kwargs"]
    for handle in handles:
        handle.remove()
    assert not any(any(_hooks(m)) for m in model.modules())


def test_hook_that_changes_the_output_has_no_part_in_the_graph() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    model[0].register_forward_hook(lambda module, args, output: output[:, :0])
    assert mge_gpu.encode(model, (3,)).num_edges == 12 + 8
