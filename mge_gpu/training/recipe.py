"""How a network is trained: the numbers, and the optimizer and learning-rate schedule that they give."""

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mge_gpu.errors import TrainingError

SCHEDULES = ("cosine", "step", "constant")
AUGMENTATIONS = ("none", "crop-flip")


@dataclass(frozen=True)
class Recipe:
    """Stochastic gradient descent with momentum on the cross entropy.

    Args:
        epochs: passes over the training data.
        batch_size: samples a step; the last batch of an epoch may be smaller.
        learning_rate: at the start.
        momentum, weight_decay: of torch.optim.SGD; normalisation layers and biases have no weight decay.
        schedule: the learning rate follows half a cosine to 0, "step" multiplies it by 0.1 after half and
            three quarters of the epochs, "constant" leaves it.
        augment: "crop-flip" pads images by an eighth of their size, crops at random and mirrors half of them.
        amp: automatic mixed precision, float16 on CUDA and bfloat16 elsewhere.

    Raises:
        TrainingError: a number out of its range, or an unknown schedule or augmentation.

    >>> Recipe(epochs=4, schedule="step").rate(2)
    0.010000000000000002
    """

    epochs: int = 160
    batch_size: int = 128
    learning_rate: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    schedule: str = "cosine"
    augment: str = "none"
    amp: bool = False

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise TrainingError(f"{name} must be a positive integer, got {value!r}")
        for name, low in (("learning_rate", 0.0), ("momentum", 0.0), ("weight_decay", 0.0)):
            value = getattr(self, name)
            if not (isinstance(value, int | float) and math.isfinite(value) and value >= low):
                raise TrainingError(f"{name} must be a number of at least {low:g}, got {value!r}")
        for name, known in (("schedule", SCHEDULES), ("augment", AUGMENTATIONS)):
            if getattr(self, name) not in known:
                raise TrainingError(f"{name} must be one of {', '.join(known)}, got {getattr(self, name)!r}")

    def rate(self, epoch: float) -> float:
        """The learning rate after ``epoch`` epochs; it changes from step to step on the cosine."""
        if self.schedule == "cosine":
            return self.learning_rate * (1 + math.cos(math.pi * epoch / self.epochs)) / 2
        if self.schedule == "step":
            passed = sum(epoch >= part * self.epochs for part in (0.5, 0.75))
            return self.learning_rate * 0.1**passed
        return self.learning_rate

    def optimizer(self, model: nn.Module) -> torch.optim.SGD:
        """SGD over all parameters of the model that take gradients."""
        trained = [p for p in model.parameters() if p.requires_grad]
        groups = [
            {"params": [p for p in trained if p.ndim > 1], "weight_decay": self.weight_decay},
            {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
        ]
        return torch.optim.SGD(groups, lr=self.learning_rate, momentum=self.momentum)

    def augmented(self, inputs: Tensor, generator: torch.Generator) -> Tensor:  # (B, C, H, W) -> the same
        """The batch, cropped and mirrored at random where the recipe says so."""
        if self.augment == "none":
            return inputs
        if inputs.ndim != 4:
            raise TrainingError(
                f"augment 'crop-flip' needs images of shape (batch, C, H, W), got {tuple(inputs.shape)}"
            )
        count, _, height, width = inputs.shape
        pads = max(1, height // 8), max(1, width // 8)
        padded = nn.functional.pad(inputs, (pads[1], pads[1], pads[0], pads[0]))
        tops = torch.randint(2 * pads[0] + 1, (count, 1, 1, 1), generator=generator)
        lefts = torch.randint(2 * pads[1] + 1, (count, 1, 1, 1), generator=generator)
        mirrored = torch.rand((count, 1, 1, 1), generator=generator) < 0.5
        columns = torch.arange(width).reshape(1, 1, 1, width)
        columns = torch.where(mirrored, width - 1 - columns, columns) + lefts
        rows = torch.arange(height).reshape(1, 1, height, 1) + tops
        samples = torch.arange(count).reshape(count, 1, 1, 1)
        channels = torch.arange(inputs.shape[1]).reshape(1, -1, 1, 1)
        return padded[samples, channels, rows, columns]

    def to_dict(self) -> dict[str, Any]:
        """The numbers, as JSON can hold them."""
        return asdict(self)
