"""A small residual network and a perceptron for 1x8x8 handwritten digits: they train in seconds on a CPU."""

from torch import nn

from mge_gpu.models._init import check_num_classes, he_initialise
from mge_gpu.models.resnet import CifarResNet


def digits_resnet(num_classes: int = 10) -> nn.Module:
    """ResNet-8 (:func:`mge_gpu.models.resnet20` with one block a stage) for one-channel images.

    >>> sum(p.numel() for p in digits_resnet().parameters())
    77754
    """
    return CifarResNet(1, num_classes, in_channels=1)


def digits_mlp(num_classes: int = 10) -> nn.Module:
    """A perceptron of widths 64, 300, 100, ``num_classes`` (LeNet-300-100 for 8x8 inputs).

    >>> [layer.out_features for layer in digits_mlp() if isinstance(layer, nn.Linear)]
    [300, 100, 10]
    """
    check_num_classes(num_classes)
    model = nn.Sequential(
        nn.Flatten(),
        nn.Linear(64, 300),
        nn.ReLU(),
        nn.Linear(300, 100),
        nn.ReLU(),
        nn.Linear(100, num_classes),
    )
    he_initialise(model)
    return model
