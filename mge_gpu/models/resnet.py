"""ResNet-20 and ResNet-32 for CIFAR, with 1x1 convolutions as down-sampling shortcuts."""

from torch import Tensor, nn

from mge_gpu.models._init import check_num_classes, he_initialise


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut: the identity, or a strided 1x1 convolution."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.shortcut = nn.Sequential()
        if stride != 1 or in_channels != channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_channels, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
            )
        self.relu2 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:  # (B, C_in, H, W) -> (B, C, H / stride, W / stride)
        out = self.relu1(self.bn1(self.conv1(x)))
        return self.relu2(self.bn2(self.conv2(out)) + self.shortcut(x))


class CifarResNet(nn.Module):
    """A 3x3 stem and three stages of 16, 32 and 64 channels with ``blocks`` blocks each."""

    def __init__(self, blocks: int, num_classes: int = 10, in_channels: int = 3) -> None:
        super().__init__()
        check_num_classes(num_classes)
        self.conv1 = nn.Conv2d(in_channels, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.relu = nn.ReLU()
        self.layer1 = _stage(16, 16, blocks, stride=1)
        self.layer2 = _stage(16, 32, blocks, stride=2)
        self.layer3 = _stage(32, 64, blocks, stride=2)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.linear = nn.Linear(64, num_classes)
        he_initialise(self)

    def forward(self, x: Tensor) -> Tensor:  # (B, in_channels, H, W) -> (B, num_classes)
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(self.flatten(self.pool(x)))


def _stage(in_channels: int, channels: int, blocks: int, stride: int) -> nn.Sequential:
    first = BasicBlock(in_channels, channels, stride)
    return nn.Sequential(first, *(BasicBlock(channels, channels, 1) for _ in range(blocks - 1)))


def resnet20(num_classes: int = 10) -> nn.Module:
    """ResNet-20 with 191,894 MGE nodes for ten classes.

    Paper: He et al., "Deep Residual Learning for Image Recognition", CVPR 2016 (section 4.2), with
    the projection shortcuts (1x1 convolutions) of the MGE paper's networks.

    >>> resnet20().layer2[0].shortcut[0].weight.shape
    torch.Size([32, 16, 1, 1])
    """
    return CifarResNet(3, num_classes)


def resnet32(num_classes: int = 10) -> nn.Module:
    """ResNet-32 with 306,582 MGE nodes for ten classes; see :func:`resnet20`.

    >>> len(resnet32().layer1)
    5
    """
    return CifarResNet(5, num_classes)
