"""Wide-ResNet-28-2 for CIFAR: pre-activation blocks, twice the channels of a thin ResNet."""

from torch import Tensor, nn

from mge_gpu.models._init import check_num_classes, he_initialise


class PreActivationBlock(nn.Module):
    """BN-ReLU-conv twice; where the width changes, the shortcut is a 1x1 convolution of BN-ReLU(x)."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.relu1 = nn.ReLU()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.relu2 = nn.ReLU()
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.shortcut: nn.Module | None = None
        if in_channels != channels or stride != 1:
            self.shortcut = nn.Conv2d(in_channels, channels, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:  # (B, C_in, H, W) -> (B, C, H / stride, W / stride)
        active = self.relu1(self.bn1(x))
        skip = x if self.shortcut is None else self.shortcut(active)
        return self.conv2(self.relu2(self.bn2(self.conv1(active)))) + skip


class WideResNet(nn.Module):
    """Depth 28, widening factor 2: stages of four blocks with 32, 64 and 128 channels."""

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        check_num_classes(num_classes)
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.block1 = _stage(16, 32, stride=1)
        self.block2 = _stage(32, 64, stride=2)
        self.block3 = _stage(64, 128, stride=2)
        self.bn = nn.BatchNorm2d(128)
        self.relu = nn.ReLU()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.linear = nn.Linear(128, num_classes)
        he_initialise(self)

    def forward(self, x: Tensor) -> Tensor:  # (B, 3, 32, 32) -> (B, num_classes)
        x = self.block3(self.block2(self.block1(self.conv1(x))))
        return self.linear(self.flatten(self.pool(self.relu(self.bn(x)))))


def _stage(in_channels: int, channels: int, stride: int) -> nn.Sequential:
    first = PreActivationBlock(in_channels, channels, stride)
    return nn.Sequential(first, *(PreActivationBlock(channels, channels, 1) for _ in range(3)))


def wide_resnet28_2(num_classes: int = 10) -> nn.Module:
    """Wide-ResNet-28-2 with 478,614 MGE nodes for ten classes.

    Paper: Zagoruyko & Komodakis, "Wide Residual Networks", BMVC 2016.

    >>> wide_resnet28_2().block1[0].shortcut.weight.shape
    torch.Size([32, 16, 1, 1])
    """
    return WideResNet(num_classes)
