"""Where a model keeps its prunable weights: plain parameters, pruning hooks or parametrizations."""

from collections.abc import Iterator
from contextlib import contextmanager

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


def prunable_modules(model: nn.Module) -> dict[str, nn.Module]:
    """The modules whose weight can be pruned, by the name of the weight, in module order.

    A weight that several modules share appears once, under the first module's name.
    """
    modules: dict[str, nn.Module] = {}
    seen: set[int] = set()
    for path, module in model.named_modules():
        if isinstance(module, PRUNABLE):
            name = f"{path}.weight" if path else "weight"
            stored = stored_weight(module, name)
            if id(stored) not in seen:
                seen.add(id(stored))
                modules[name] = module
    return modules


def stored_weight(module: nn.Module, name: str) -> Tensor:
    """The tensor whose zeros become zeros of the module's weight: the weight or what it is computed from.

    Raises MaskError, naming the weight, where there is none (an uninitialised lazy layer, say).
    """
    if parametrize.is_parametrized(module, "weight"):
        tensors = module.get_submodule("parametrizations.weight")
        originals = [*tensors.parameters(recurse=False), *tensors.buffers(recurse=False)]
        weight = effective_weight(module)
        # weight_norm stores norms and directions: only the directions have the weight's shape. Where no
        # original has it (a low-rank product), the computed weight stands in and apply_masks refuses it.
        return next((tensor for tensor in reversed(originals) if tensor.shape == weight.shape), weight)
    for key in ("weight_orig", "weight_v", "weight"):
        tensor = getattr(module, key, None)
        if isinstance(tensor, Tensor):
            if nn.parameter.is_lazy(tensor):
                raise MaskError(f"{name}: the layer is lazy and has no weight yet; run the model once first")
            return tensor
    raise MaskError(f"{name}: the layer has no weight tensor")


def is_masked_by_hook(module: nn.Module) -> bool:
    """Whether torch.nn.utils.prune holds the weight as ``weight_orig`` times ``weight_mask``."""
    return any(acts_on_weight(hook, prune.BasePruningMethod) for hook in module._forward_pre_hooks.values())


def is_plain(module: nn.Module) -> bool:
    """Whether the weight is a parameter and not computed from other tensors."""
    return "weight" in module._parameters


def effective_weight(module: nn.Module) -> Tensor:
    """The weight that the next forward pass will use, detached; computed without changing the module."""
    with torch.no_grad():
        if parametrize.is_parametrized(module, "weight"):
            with _evaluating(module.get_submodule("parametrizations.weight")):
                return module.weight.detach()  # type: ignore[union-attr, operator]
        for hook in module._forward_pre_hooks.values():
            # The attribute `weight` is as old as the last forward pass: compute it anew.
            if acts_on_weight(hook, prune.BasePruningMethod):
                return module.weight_orig.detach() * module.weight_mask.to(module.weight_orig.dtype)  # type: ignore
            if acts_on_weight(hook, WeightNorm):
                return hook.compute_weight(module).detach()  # type: ignore[attr-defined]
            if acts_on_weight(hook, SpectralNorm):
                return hook.compute_weight(module, do_power_iteration=False).detach()  # type: ignore[attr-defined]
        return module.weight.detach()  # type: ignore[union-attr, operator]


def refresh(module: nn.Module) -> None:
    """Recompute the attribute that a pruning or norm hook would only renew at the next forward pass."""
    if not is_plain(module) and not parametrize.is_parametrized(module, "weight"):
        module.weight = effective_weight(module)


def acts_on_weight(hook: object, kind: type | tuple[type, ...] = HOOKS) -> bool:
    """Whether a forward pre-hook computes the module's weight (a hook of torch's, of this kind)."""
    return isinstance(hook, kind) and getattr(hook, "_tensor_name", getattr(hook, "name", None)) == "weight"


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
