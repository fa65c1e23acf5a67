"""A small network, its batches, and what a run under a trainer looks like, for the tests of this folder."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from mge_gpu.dynamic import METHODS, SparseTrainer

DYNAMIC = [name for name in METHODS if name != "static"]
FIXED = ["static", "set", "rigl", "itop-set", "itop-rigl"]
"""Methods that keep each layer's count; the others keep the network's."""

OPTIMIZERS: dict[str, Callable[[nn.Module], Optimizer]] = {
    "sgd": lambda model: torch.optim.SGD(
        model.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-3, nesterov=True
    ),
    "adam": lambda model: torch.optim.Adam(model.parameters(), lr=2e-3, weight_decay=1e-3, amsgrad=True),
    "adamw": lambda model: torch.optim.AdamW(model.parameters(), lr=2e-3),
}


class Net(nn.Module):
    """Convolution, batch norm, a grouped convolution and two linear layers, for 1x6x6 inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 8, 3, padding=1)
        self.bn = nn.BatchNorm2d(8)
        self.mix = nn.Conv2d(8, 8, 3, groups=2)
        self.hidden = nn.Linear(8, 12, bias=False)
        self.out = nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.mix(torch.relu(self.bn(self.conv(x))))).mean((2, 3))
        return self.out(torch.relu(self.hidden(x)))


def net(seed: int = 0) -> Net:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Net()


def build(
    method: str, optimizer: str = "sgd", model: nn.Module | None = None, **options: Any
) -> SparseTrainer:
    """A trainer of a fresh network, with updates every five steps of a hundred."""
    model = net() if model is None else model
    chosen: dict[str, Any] = {"sparsity": 0.7, "total_steps": 100}
    if method != "static":
        chosen["interval"] = 5
    if method == "dsr":
        chosen |= {"threshold": 0.05, "prune_count": 20}
    return SparseTrainer(model, OPTIMIZERS[optimizer](model), method, **{**chosen, **options})


def batch(step: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1000 + step)
    inputs = torch.randn(8, 1, 6, 6, generator=generator)
    return inputs, (inputs.mean((1, 2, 3)) * 12).round().long().clamp(-2, 1) + 2


def backward(trainer: SparseTrainer, step: int) -> None:
    """The gradients of the batch of a step."""
    trainer.optimizer.zero_grad()
    inputs, labels = batch(step)
    device = next(trainer.model.parameters()).device
    nn.functional.cross_entropy(trainer.model(inputs.to(device)), labels.to(device)).backward()


def run(trainer: SparseTrainer, steps: int) -> None:
    """So many steps more."""
    for step in range(trainer.steps, trainer.steps + steps):
        backward(trainer, step)
        trainer.step()


def weights(trainer: SparseTrainer) -> dict[str, nn.Parameter]:
    parameters = dict(trainer.model.named_parameters())
    return {name: parameters[name] for name in trainer.masks}


def state_tensors(trainer: SparseTrainer, weight: nn.Parameter) -> list[Tensor]:
    """The optimizer's tensors of the weight's shape: momentum_buffer, exp_avg, ..."""
    state = trainer.optimizer.state.get(weight, {})
    return [value for value in state.values() if isinstance(value, Tensor) and value.shape == weight.shape]


def everything(trainer: SparseTrainer) -> Iterator[Tensor]:
    """All tensors that a run depends on: parameters, statistics, optimizer's state, masks."""
    yield from trainer.model.state_dict().values()
    for parameter in trainer.model.parameters():
        state = trainer.optimizer.state.get(parameter, {})
        yield from (value for _, value in sorted(state.items()) if isinstance(value, Tensor))
    yield from trainer.masks.values()


def counts(masks: dict[str, Tensor]) -> dict[str, int]:
    return {name: int(mask.sum()) for name, mask in masks.items()}
