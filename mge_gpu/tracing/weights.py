"""How a layer's weight is named and read: a parameter, what a hook makes of it, or what forward computes."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

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

    def places(self) -> torch.Tensor | None:
        """Which entry of ``parameters``, flattened one after the other, each weight is; int64, of its shape.

        -1 for a zero that is no parameter. None where weights are computed in another way than by moving
        entries (a standardised kernel): found out by numbering the entries twice.
        """
        sizes = [prod(shape) for _, shape in self.parameters]
        total = sum(sizes)
        if not self.masked:
            return torch.arange(total).reshape(self.parameters[0][1])

        def moved(numbers: torch.Tensor) -> torch.Tensor:
            parts = zip(self.masked, numbers.split(sizes), self.parameters, strict=True)
            return self.constants.evaluate(self.node, values={n: x.reshape(s) for n, x, (_, s) in parts})

        numbers = torch.arange(1, total + 1, dtype=torch.float64)
        try:
            once, again = moved(numbers), moved(numbers.flip(0))
        except RuntimeError:  # an op that takes no float64, or mixes it with another type
            return None
        found = once.to(torch.int64)
        within = (found == once) & (found >= 0) & (found <= total)
        if not bool((within & (again == torch.where(found > 0, total + 1 - found, 0))).all()):
            return None
        return found - 1


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
