"""Where a model keeps its prunable weights: plain parameters, pruning hooks or parametrizations."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize, prune
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from mge_gpu.errors import MaskError

PRUNABLE = (
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
    nn.Linear,
)

HOOKS = (prune.BasePruningMethod, WeightNorm, SpectralNorm)


PROJECTIONS = ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")
"""Weights of `torch.nn.MultiheadAttention` beside its output projection, which is a Linear."""

NAMES = ("weight", *PROJECTIONS)


class Place(NamedTuple):
    """Where a prunable weight is kept: a module and the name that the weight has in it."""

    module: nn.Module
    attribute: str


def places_in(module: nn.Module) -> list[Place]:
    """The prunable weights of a module itself, not of those inside it."""
    if isinstance(module, PRUNABLE):
        return [Place(module, "weight")]
    if isinstance(module, nn.MultiheadAttention):
        return [Place(module, name) for name in PROJECTIONS if getattr(module, name, None) is not None]
    return []


def prunable_places(model: nn.Module) -> dict[str, Place]:
    """Where the weights are that can be pruned, by their names, in module order.

    A weight that several modules share appears once, under the first module's name.
    """
    places: dict[str, Place] = {}
    seen: set[int] = set()
    for path, module in model.named_modules():
        for place in places_in(module):
            name = f"{path}.{place.attribute}" if path else place.attribute
            stored = stored_weight(place, name)
            if id(stored) not in seen:
                seen.add(id(stored))
                places[name] = place
    return places


def stored_weight(place: Place, name: str) -> Tensor:
    """The tensor whose zeros become zeros of the module's weight: the weight or what it is computed from.

    Raises MaskError, naming the weight, where there is none (an uninitialised lazy layer, say), and where
    it is sparse or in parts: masks are for dense tensors.
    """
    module, attribute = place
    if parametrize.is_parametrized(module, attribute):
        tensors = module.get_submodule(f"parametrizations.{attribute}")
        originals = [*tensors.parameters(recurse=False), *tensors.buffers(recurse=False)]
        weight = effective_weight(place)
        # weight_norm stores norms and directions: only the directions have the weight's shape. Where no
        # original has it (a low-rank product), the computed weight stands in and apply_masks refuses it.
        return next((tensor for tensor in reversed(originals) if tensor.shape == weight.shape), weight)
    for key in (f"{attribute}_orig", f"{attribute}_v", attribute):
        tensor = getattr(module, key, None)
        if isinstance(tensor, Tensor):
            if nn.parameter.is_lazy(tensor):
                raise MaskError(f"{name}: the layer is lazy and has no weight yet; run the model once first")
            _check_layout(name, tensor)
            return tensor
    raise MaskError(f"{name}: the layer has no weight tensor")


def _check_layout(name: str, tensor: Tensor) -> None:
    if tensor.layout is not torch.strided:
        raise MaskError(
            f"{name}: got a weight of layout {tensor.layout}, expected a dense one; store its .to_dense()"
        )
    if sharded(type(tensor)):
        raise MaskError(
            f"{name}: got a {type(tensor).__name__}, a part of a weight, expected all of it; load the full "
            "state dict into the model before it is distributed"
        )


def sharded(kind: type) -> bool:
    """Whether tensors or modules of a type are spread over processes by torch.distributed.

    Told by the names of its bases: to import that package takes long, and some builds of torch lack it.
    """
    return any(base.__module__.startswith("torch.distributed") for base in kind.__mro__)


def check_values(name: str, tensor: Tensor) -> None:
    """Raise MaskError for a tensor that has a shape and no values.

    >>> check_values("fc.weight", torch.empty(1, device="meta"))
    Traceback (most recent call last):
    mge_gpu.errors.MaskError: fc.weight: got a tensor on the device 'meta', which holds no values; make \
it on another device (a model: model.to_empty(device='cpu'), then load its weights)
    """
    if tensor.is_meta:
        raise MaskError(
            f"{name}: got a tensor on the device 'meta', which holds no values; make it on another device "
            "(a model: model.to_empty(device='cpu'), then load its weights)"
        )


def is_masked_by_hook(place: Place) -> bool:
    """Whether torch.nn.utils.prune holds the weight as ``weight_orig`` times ``weight_mask``."""
    hooks = place.module._forward_pre_hooks.values()
    return any(acts_on(place, hook, prune.BasePruningMethod) for hook in hooks)


def is_plain(place: Place) -> bool:
    """Whether the weight is a parameter and not computed from other tensors."""
    return place.attribute in place.module._parameters


def effective_weight(place: Place) -> Tensor:
    """The weight that the next forward pass will use, detached; computed without changing the module."""
    module, attribute = place
    with torch.no_grad():
        if parametrize.is_parametrized(module, attribute):
            with _evaluating(module.get_submodule(f"parametrizations.{attribute}")):
                return getattr(module, attribute).detach()
        for hook in module._forward_pre_hooks.values():
            # The attribute is as old as the last forward pass: compute it anew.
            if acts_on(place, hook, prune.BasePruningMethod):
                original = getattr(module, f"{attribute}_orig").detach()
                return original * getattr(module, f"{attribute}_mask").to(original.dtype)
            if acts_on(place, hook, WeightNorm):
                return hook.compute_weight(module).detach()  # type: ignore[attr-defined]
            if acts_on(place, hook, SpectralNorm):
                return hook.compute_weight(module, do_power_iteration=False).detach()  # type: ignore[attr-defined]
        return getattr(module, attribute).detach()


def refresh(place: Place) -> None:
    """Recompute the attribute that a pruning or norm hook would only renew at the next forward pass."""
    if not is_plain(place) and not parametrize.is_parametrized(*place):
        setattr(place.module, place.attribute, effective_weight(place))


def acts_on(place: Place, hook: object, kind: type | tuple[type, ...] = HOOKS) -> bool:
    """Whether a forward pre-hook computes the weight (a hook of torch's, of this kind)."""
    named = getattr(hook, "_tensor_name", getattr(hook, "name", None))
    return isinstance(hook, kind) and named == place.attribute


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """Put a module in evaluation mode (a spectral norm takes a power step otherwise) and back."""
    modes = [(child, child.training) for child in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for child, training in modes:
            child.training = training
