"""Pruning at initialization: from a model and a sparsity to masks with an exact number of kept weights.

(Two methods come only near that number, and warn; ``METHODS[name].exact_count`` says which.)

Every method works on a copy, leaves the model and all random generators as they were, gives the same
masks for the same seed, and prunes the weights of convolutions and linear layers: the first layer,
shortcuts and the classifier included, biases and normalisation layers never.
"""

from mge_gpu.pruning._prune import (
    METHODS,
    EffectiveSparsityWarning,
    InexactCountWarning,
    Method,
    RefillWarning,
    prune,
)
from mge_gpu.pruning._select import LayerCollapseWarning

__all__ = [
    "METHODS",
    "EffectiveSparsityWarning",
    "InexactCountWarning",
    "LayerCollapseWarning",
    "Method",
    "RefillWarning",
    "prune",
]
