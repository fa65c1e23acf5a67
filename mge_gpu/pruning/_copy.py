"""A copy of a model that a pruning method may score and change, and the surroundings it is scored in."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from mge_gpu import _weights
from mge_gpu._seeds import seeded
from mge_gpu.errors import PruningError

_HOOK_TABLES = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def dense_weights(model: nn.Module) -> dict[str, Tensor]:
    """The weights that pruning starts from, detached: the stored dense ones, whatever mask lies on them.

    Under ``torch.nn.utils.prune`` that is ``weight_orig``; under a parametrization, which need not be a mask,
    the weight it yields.
    """
    return {
        name: (
            _weights.stored_weight(place, name).detach()
            if _weights.is_masked_by_hook(place)
            else _weights.effective_weight(place)
        )
        for name, place in _weights.prunable_places(model).items()
    }


def dense_copy(
    model: nn.Module, dtype: torch.dtype | None = None
) -> tuple[nn.Module, dict[str, nn.Parameter]]:
    """A deep copy in evaluation mode, and its prunable weights: dense plain parameters that take gradients.

    The copy has no forward or backward hooks (theirs would report passes that the user never asked for),
    and only the prunable weights take gradients. ``dtype`` converts floating-point tensors; half precision is
    always converted to float32, in which scores are computed.
    """
    dense = dense_weights(model)
    try:
        clone = copy.deepcopy(model, _memo_of_computed_tensors(model))
    except Exception as error:  # whatever a module's attributes raise
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise PruningError(
            f"the model cannot be copied for scoring ({reason[0]}); remove what copy.deepcopy cannot copy"
        ) from error
    for module in clone.modules():
        for table in _HOOK_TABLES:
            hooks = getattr(module, table, {})
            for key in [key for key, hook in hooks.items() if not isinstance(hook, _weights.HOOKS)]:
                del hooks[key]
    places = _weights.prunable_places(clone)
    shared = _sharing(clone, places)
    for name, weight in dense.items():
        parameter = nn.Parameter(weight.clone())
        for place in shared[name]:
            _make_plain(place, parameter)
    clone.eval()
    if dtype is None and any(p.dtype in (torch.float16, torch.bfloat16) for p in clone.parameters()):
        dtype = torch.float32
    if dtype is not None:
        clone.to(dtype)
    clone.requires_grad_(False)
    weights: dict[str, nn.Parameter] = {}
    for name in dense:
        weights[name] = getattr(*places[name])
        weights[name].requires_grad_(True)
        weights[name].grad = None
    return clone, weights


@contextmanager
def scoring(model: nn.Module, seed: int) -> Iterator[None]:
    """Gradients on, autocast off, deterministic convolutions, all generators seeded; everything restored."""
    devices = {p.device for p in model.parameters()}
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    with (
        torch.inference_mode(False),
        torch.enable_grad(),
        torch.autocast(device.type, enabled=False),
        torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False),
        seeded(seed, devices),
    ):
        yield


def _memo_of_computed_tensors(model: nn.Module) -> dict[int, Tensor]:
    """deepcopy refuses tensors with a gradient history, such as the ``weight`` of a pruned module."""
    return {
        id(value): value.detach().clone()
        for module in model.modules()
        for value in vars(module).values()
        if isinstance(value, Tensor) and not value.is_leaf
    }


def _sharing(model: nn.Module, places: dict[str, _weights.Place]) -> dict[str, list[_weights.Place]]:
    """For each weight's name every place where this very tensor is stored."""
    owners: dict[int, list[_weights.Place]] = {}
    for module in model.modules():
        for place in _weights.places_in(module):
            owners.setdefault(id(_weights.stored_weight(place, place.attribute)), []).append(place)
    return {name: owners[id(_weights.stored_weight(place, name))] for name, place in places.items()}


def _make_plain(place: _weights.Place, weight: nn.Parameter) -> None:
    """Give the module ``weight`` as an ordinary parameter, in place of whatever it computed it from."""
    module, attribute = place
    if parametrize.is_parametrized(module, attribute):
        parametrize.remove_parametrizations(module, attribute, leave_parametrized=True)
    for key in [key for key, hook in module._forward_pre_hooks.items() if _weights.acts_on(place, hook)]:
        del module._forward_pre_hooks[key]
    for suffix in ("", "_orig", "_mask", "_g", "_v", "_u"):
        name = attribute + suffix
        if name in module._parameters or name in module._buffers or name in vars(module):
            delattr(module, name)
    module.register_parameter(attribute, weight)
