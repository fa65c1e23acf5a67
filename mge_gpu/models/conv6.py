"""CONV-6: six 3x3 convolutions in three pooled pairs and three linear layers."""

from torch import Tensor, nn

from mge_gpu.models._init import check_num_classes, he_initialise

_WIDTHS = (64, 128, 256)


class Conv6(nn.Module):
    """Three pairs of 3x3 convolutions, each pair followed by a 2x2 max pool, then 256-256-classes."""

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        check_num_classes(num_classes)
        layers: list[nn.Module] = []
        channels = 3
        for width in _WIDTHS:
            for _ in range(2):
                layers += [
                    nn.Conv2d(channels, width, 3, padding=1, bias=False),
                    nn.BatchNorm2d(width),
                    nn.ReLU(),
                ]
                channels = width
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(
            nn.Flatten(),
            nn.Linear(256 * 4 * 4, 256),
            nn.ReLU(),
            nn.Linear(256, 256),
            nn.ReLU(),
            nn.Linear(256, num_classes),
        )
        he_initialise(self)

    def forward(self, x: Tensor) -> Tensor:  # (B, 3, 32, 32) -> (B, num_classes)
        return self.classifier(self.features(x))


def conv6(num_classes: int = 10) -> nn.Module:
    """CONV-6 with 233,366 MGE nodes for ten classes.

    Paper: Frankle & Carbin, "The Lottery Ticket Hypothesis", ICLR 2019 (with batch normalisation
    after the convolutions, as in the MGE paper's layer tables).

    >>> sum(p.numel() for p in conv6().parameters() if p.ndim > 1)
    2261184
    """
    return Conv6(num_classes)
