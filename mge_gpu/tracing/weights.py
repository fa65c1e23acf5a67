"""How a layer's weight is named and read: a parameter, what a hook makes of it, or what forward computes."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch.fx import Node

from mge_gpu.tracing.constants import Constants

Shape = tuple[int, ...]


@dataclass(frozen=True)
class WeightReader:
    """Reads a layer's weight when called, with masks by name.

    ``masked`` are the parameters that masks act on before the weight is computed from them; without any
    the mask called ``name`` acts on the weight itself.
    """

    constants: Constants
    node: Node
    name: str
    parameters: tuple[tuple[str, Shape], ...]
    masked: tuple[Node, ...]

    def __call__(self, masks: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """The weight as the next forward pass would use it if the masks were applied."""
        names = self.constants.capture.parameter_names
        inside = {n: masks[names[n]] for n in self.masked if names[n] in masks}
        weight: torch.Tensor = self.constants.evaluate(self.node, inside).detach()
        if not self.masked and self.name in masks:
            weight = weight * masks[self.name].to(weight.device, weight.dtype)
        return weight


def weight_reader(constants: Constants, node: Node, layer: str, prunable: frozenset[str]) -> WeightReader:
    """The reader of a layer's weight.

    What a hook or a parametrization of torch computes keeps the name of the weight that the user knows, and
    masks act on the result. What the forward pass computes (a slice of ``in_proj_weight``, a standardised
    kernel) goes by the name of the parameter it comes from, and masks act on that.
    """
    names = constants.capture.parameter_names
    shape = tuple(node.meta["val"].shape)
    if node in names:
        return WeightReader(constants, node, names[node], ((names[node], shape),), ())
    parameters = constants.parameters(node)
    for full in sorted(constants.capture.stored_names[n] for n in parameters):
        if ".parametrizations." in f".{full}":
            path, _, rest = f".{full}".partition(".parametrizations.")
            name = f"{path}.{rest.split('.')[0]}".strip(".")
        elif full.endswith(("_orig", "_v", "_g")):
            name = full.rsplit("_", 1)[0]
        else:
            continue
        return WeightReader(constants, node, name, ((name, shape),), ())
    parameters.sort(key=lambda n: (names[n] not in prunable, -n.meta["val"].numel()))
    if not parameters:
        name = f"{layer}.weight" if layer else "weight"
        return WeightReader(constants, node, name, ((name, shape),), ())
    shapes = tuple((names[n], tuple(n.meta["val"].shape)) for n in parameters)
    return WeightReader(constants, node, shapes[0][0], shapes, tuple(parameters))
