"""MobileNetV2 for CIFAR, with 1x1 shortcut convolutions where only the channel count changes."""

from collections.abc import Sequence

from torch import Tensor, nn

from mge_gpu.models._init import check_num_classes, he_initialise

# (expansion, channels, blocks, stride of the first block). The strides of the stem and of the second
# stage are 1 instead of ImageNet's 2, so that a 32x32 input is still 4x4 at the end.
_STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 1),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


class InvertedResidual(nn.Module):
    """1x1 expansion, 3x3 depthwise, linear 1x1 projection; a shortcut wherever the stride is 1."""

    def __init__(self, in_channels: int, channels: int, expansion: int, stride: int) -> None:
        super().__init__()
        width = expansion * in_channels
        self.conv1 = nn.Conv2d(in_channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, groups=width, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu2 = nn.ReLU()
        self.conv3 = nn.Conv2d(width, channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(channels)
        self.has_shortcut = stride == 1
        self.shortcut = nn.Sequential()
        if stride == 1 and in_channels != channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_channels, channels, 1, bias=False), nn.BatchNorm2d(channels)
            )

    def forward(self, x: Tensor) -> Tensor:  # (B, C_in, H, W) -> (B, C, H / stride, W / stride)
        out = self.relu1(self.bn1(self.conv1(x)))
        out = self.bn3(self.conv3(self.relu2(self.bn2(self.conv2(out)))))
        return out + self.shortcut(x) if self.has_shortcut else out


class CifarMobileNetV2(nn.Module):
    """A 3x3 stem, stages of inverted residuals, a 1x1 convolution, a classifier.

    Args:
        num_classes: outputs of the classifier.
        in_channels: of the images.
        stem: channels before the first stage.
        stages: (expansion, channels, blocks, stride of the first block) of each.
        head: channels that the classifier sees.
    """

    def __init__(
        self,
        num_classes: int = 10,
        in_channels: int = 3,
        stem: int = 32,
        stages: Sequence[tuple[int, int, int, int]] = _STAGES,
        head: int = 1280,
    ) -> None:
        super().__init__()
        check_num_classes(num_classes)
        self.conv1 = nn.Conv2d(in_channels, stem, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(stem)
        self.relu1 = nn.ReLU()
        blocks: list[nn.Module] = []
        width = stem
        for expansion, channels, count, first_stride in stages:
            for index in range(count):
                stride = first_stride if index == 0 else 1
                blocks.append(InvertedResidual(width, channels, expansion, stride))
                width = channels
        self.layers = nn.Sequential(*blocks)
        self.conv2 = nn.Conv2d(width, head, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(head)
        self.relu2 = nn.ReLU()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.linear = nn.Linear(head, num_classes)
        he_initialise(self)

    def forward(self, x: Tensor) -> Tensor:  # (B, C, H, W) -> (B, num_classes)
        x = self.layers(self.relu1(self.bn1(self.conv1(x))))
        x = self.relu2(self.bn2(self.conv2(x)))
        return self.linear(self.flatten(self.pool(x)))


def mobilenet_v2(num_classes: int = 10) -> nn.Module:
    """MobileNetV2 (CIFAR variant) with 1,676,182 MGE nodes for ten classes.

    Paper: Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", CVPR 2018.

    >>> len(mobilenet_v2().layers)
    17
    """
    return CifarMobileNetV2(num_classes)


def digits_mobilenet(num_classes: int = 10) -> nn.Module:
    """Six inverted residuals for 1x8x8 handwritten digits: depthwise layers that train in seconds.

    >>> sum(p.numel() for p in digits_mobilenet().parameters())
    47754
    """
    stages = ((1, 8, 1, 1), (6, 16, 2, 2), (6, 32, 3, 2))
    return CifarMobileNetV2(num_classes, in_channels=1, stem=8, stages=stages, head=128)
