"""The CIFAR networks of the MGE paper, for 3x32x32 inputs, and three for 1x8x8 digits; He-initialised.

Paper: Cunegatti, Farina, Bucur, Iacca, "Understanding Sparse Neural Networks from their Topology via
Multipartite Graph Representations", TMLR 2024. The sizes are those of its tables: the docstrings of these
give the number of nodes of the network's Multipartite Graph Encoding for ten classes.

>>> import torch
>>> from mge_gpu import models
>>> models.resnet20(num_classes=10)(torch.zeros(2, 3, 32, 32)).shape
torch.Size([2, 10])
"""

from mge_gpu.models.conv6 import conv6
from mge_gpu.models.digits import digits_mlp, digits_resnet
from mge_gpu.models.mobilenet_v2 import digits_mobilenet, mobilenet_v2
from mge_gpu.models.resnet import resnet20, resnet32
from mge_gpu.models.wide_resnet import wide_resnet28_2

__all__ = [
    "conv6",
    "digits_mlp",
    "digits_mobilenet",
    "digits_resnet",
    "mobilenet_v2",
    "resnet20",
    "resnet32",
    "wide_resnet28_2",
]
