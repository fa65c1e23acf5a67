r"""The network in the README's picture, docs/mge.png.

mge-gpu plot docs.small_residual:net --input 1x6x6 --prune random --sparsity 0.85 --seed 22 \
    --nodes 72 --out docs/mge.png
"""

from torch import Tensor, nn


class SmallResidual(nn.Module):
    """Two stages and a classifier; the second stage has a residual branch and a 1×1 convolution beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 2, 3, padding=1)
        self.conv2 = nn.Conv2d(2, 4, 3, stride=2, padding=1)
        self.conv3 = nn.Conv2d(4, 4, 3, padding=1)
        self.shortcut = nn.Conv2d(2, 4, 1, stride=2)
        self.fc = nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:  # (B, 1, 6, 6) -> (B, 5)
        """Class scores."""
        x = self.conv1(x).relu()
        x = (self.conv3(self.conv2(x).relu()) + self.shortcut(x)).relu()
        return self.fc(x.mean((2, 3)))


def net() -> nn.Module:
    """The network with fresh weights."""
    return SmallResidual()
