"""Keep what a mask drops at exactly zero: gradients, weights and the optimizer's state."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from mge_gpu import _weights
from mge_gpu._state_dict import WRAPPER_PREFIXES
from mge_gpu.errors import PruningError


def plain_weights(model: nn.Module) -> dict[str, nn.Parameter]:
    """The prunable weights by name, the model's own parameters.

    Raises PruningError, with the name, for one that is computed from other tensors.
    """
    weights = {}
    for name, place in _weights.prunable_places(model).items():
        if not _weights.is_plain(place):
            raise PruningError(
                f"{name}: the weight is computed from other tensors (torch.nn.utils.prune, weight_norm or a "
                "parametrization), a plain parameter was expected; take masks_of(model) first, make it plain "
                "with torch.nn.utils.prune.remove or torch.nn.utils.parametrize.remove_parametrizations, and "
                "pass masks="
            )
        weights[name] = place.module._parameters[place.attribute]
    return weights  # type: ignore[return-value]


def renamed(tensors: Mapping[str, Tensor], names: Iterable[str]) -> dict[str, Tensor]:
    """The same tensors under the model's names, where only prefixes of wrappers ("module.") differ.

    >>> list(renamed({"fc.weight": torch.ones(1)}, ["module.fc.weight"]))
    ['module.fc.weight']
    """
    known = {_bare(name): name for name in names}
    own = set(known.values())
    return {
        name if name in own else known.get(_bare(str(name)), name): tensor for name, tensor in tensors.items()
    }


def first_not_finite(tensors: Sequence[Tensor]) -> tuple[int, int] | None:
    """The index of the first tensor that holds NaN or Inf, and how many; None where all are finite.

    >>> first_not_finite([torch.ones(2), torch.tensor([1.0, float("nan")])])
    (1, 1)
    """
    dense = [tensor for tensor in tensors if tensor.layout == torch.strided]
    # A finite norm vouches for all of them and costs one transfer; only an infinite one (it may be no more
    # than an overflow of the sum) is looked into.
    if not dense or bool(torch.isfinite(torch.nn.utils.get_total_norm(dense))):
        return None
    for index, tensor in enumerate(tensors):
        if tensor.layout == torch.strided and (bad := int((~torch.isfinite(tensor)).sum())):
            return index, bad
    return None


@torch.no_grad()
def mask_gradients(weights: Mapping[str, nn.Parameter], masks: Mapping[str, Tensor]) -> None:
    """Set the gradients of dropped weights to zero, in place."""
    for name, mask in masks.items():
        gradient = weights[name].grad
        if gradient is not None:
            gradient.masked_fill_(~mask, 0)


@torch.no_grad()
def mask_values(
    weights: Mapping[str, nn.Parameter], masks: Mapping[str, Tensor], optimizer: Optimizer
) -> None:
    """Set dropped weights, and the optimizer's state that belongs to them, to zero, in place."""
    for name, mask in masks.items():
        dropped = ~mask
        weights[name].masked_fill_(dropped, 0)
        for tensor in _state_tensors(optimizer, weights[name]):
            tensor.masked_fill_(dropped, 0)


def optimized(optimizer: Optimizer) -> dict[int, nn.Parameter]:
    """The parameters that an optimizer moves, by id."""
    return {id(parameter): parameter for group in optimizer.param_groups for parameter in group["params"]}


def _state_tensors(optimizer: Optimizer, weight: nn.Parameter) -> Iterator[Tensor]:
    """Momentum, exp_avg and the like: every state tensor of the weight's shape."""
    for value in optimizer.state.get(weight, {}).values():
        if isinstance(value, Tensor) and value.shape == weight.shape:
            yield value


def _bare(name: str) -> str:
    stripped = name
    for prefix in WRAPPER_PREFIXES * 2:
        stripped = stripped.removeprefix(prefix)
    return stripped
