"""A network with batch norm and dropout, small enough for finite differences in every weight."""

import torch
from torch import Tensor, nn

Batch = tuple[Tensor, Tensor]


class Tiny(nn.Module):
    """Smooth, for 2x4x4 inputs and 4 classes: 54 + 12 prunable weights."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 3, 3, padding=1)
        self.bn = nn.BatchNorm2d(3)
        self.drop = nn.Dropout(0.9)
        self.fc = nn.Linear(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.drop(torch.tanh(self.bn(self.conv(x))).mean((2, 3))))


def setting(count: int = 3) -> tuple[Tiny, list[Batch]]:
    """The network in float64 with statistics of its own, and batches of six samples."""
    torch.manual_seed(1)
    model = Tiny().double()
    model.bn.running_mean.uniform_(-1, 1)
    model.bn.running_var.uniform_(0.5, 2)
    return model, [(torch.randn(6, 2, 4, 4, dtype=torch.float64), torch.arange(6) % 4) for _ in range(count)]
