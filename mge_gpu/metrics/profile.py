"""How the weights that are left are spread over the layers of a network, in a few numbers."""

from collections.abc import Mapping, Sequence

import numpy as np
from torch import Tensor, nn

from mge_gpu.graph.bipartite import bipartite_layers
from mge_gpu.tracing import Program

PROFILE_KEYS = (
    "layer_density",
    "input_density",
    "output_density",
    "early_density",
    "middle_density",
    "late_density",
    "channel_degree",
    "bare_channels",
)
"""The keys of `layer_profile`."""

_LEAST_DENSITY = 1e-5  # an empty layer counts as this, or geometric means would be 0
_LEAST_EDGES = 0.5  # the same for its channels


def layer_profile(model: nn.Module | Program, masks: Mapping[str, Tensor] | None = None) -> dict[str, float]:
    """The densities of a network's layers, and the degrees of their channels.

    Nothing is traced: layers stand in the order of the model's modules (of a `Program`, of execution).

    Args:
        model: the network.
        masks: parameter name -> mask, as for `mge_gpu.encode`.

    Returns:
        `profile` of its layers: density is the share of weights that are not zero; channels are the nodes of
        the rolled-channel encoding, C_in + C_out of a layer, and kernels with a weight the edges.

    Raises:
        MaskError: a mask does not fit, or a weight is not finite.

    >>> import torch
    >>> model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    >>> found = layer_profile(model, {"0.weight": torch.tensor([[1, 0], [0, 0]])})
    >>> found["input_density"], found["output_density"], found["bare_channels"]
    (0.25, 1.0, 0.25)
    """
    layers = []
    for layer in bipartite_layers(model, masks, "rolled-channel"):
        linked = layer.matrix != 0
        bare = int((~linked.any(0)).sum()) + int((~linked.any(1)).sum())
        layers.append((layer.nonzero / max(layer.weights, 1), sum(linked.shape), int(linked.sum()), bare))
    return profile(*zip(*layers, strict=True)) if layers else dict.fromkeys(PROFILE_KEYS, float("nan"))


def profile(
    density: Sequence[float], nodes: Sequence[float], edges: Sequence[float], bare: Sequence[float]
) -> dict[str, float]:
    """A network's profile, from its layers.

    Args:
        density: (layers,) share of the weights that are there, from the first layer to the last.
        nodes, edges, bare: (layers,) channels on both sides, kernels with a weight, channels without any.

    Returns:
        ``layer_density`` the geometric mean of the densities; ``early_density``, ``middle_density`` and
        ``late_density`` the same over the three thirds of the layers (NaN where there are fewer layers);
        ``input_density``, ``output_density``; ``channel_degree`` the geometric mean of
        edges / nodes; ``bare_channels`` the mean share of channels without an edge.
        An empty layer counts as a density of 1e-5 and half an edge.

    >>> found = profile([0.5, 0.125, 0.25], [4, 4, 4], [4, 1, 2], [0, 2, 1])
    >>> found["layer_density"], found["late_density"], found["channel_degree"], found["bare_channels"]
    (0.25, 0.25, 0.5, 0.25)
    """
    share = np.maximum(np.asarray(density, "float64"), _LEAST_DENSITY)
    count = np.maximum(np.asarray(nodes, "float64"), 1)
    degree = np.maximum(np.asarray(edges, "float64"), _LEAST_EDGES) / count
    early, middle, late = np.array_split(share, 3)
    values = (
        _geometric_mean(share),
        share[0],
        share[-1],
        _geometric_mean(early),
        _geometric_mean(middle),
        _geometric_mean(late),
        _geometric_mean(degree),
        (np.asarray(bare, "float64") / count).mean(),
    )
    return dict(zip(PROFILE_KEYS, map(float, values), strict=True))


def _geometric_mean(values: np.ndarray) -> float:  # (n,) -> float, NaN of none
    return float(np.exp(np.log(values).mean())) if len(values) else float("nan")
