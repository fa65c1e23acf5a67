"""A copy of a model that a pruning method may score and change, and the surroundings it is scored in."""

import copy
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from mge_gpu import _weights
from mge_gpu.errors import PruningError

_HOOK_TABLES = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def dense_weights(model: nn.Module) -> dict[str, Tensor]:
    """The weights that pruning starts from, detached: the stored dense ones, whatever mask lies on them.

    Under ``torch.nn.utils.prune`` that is ``weight_orig``; under a parametrization, which need not be a mask,
    the weight it yields.
    """
    return {
        name: (
            module.weight_orig.detach()  # type: ignore[union-attr, operator]
            if _weights.is_masked_by_hook(module)
            else _weights.effective_weight(module)
        )
        for name, module in _weights.prunable_modules(model).items()
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
    modules = _weights.prunable_modules(clone)
    shared = _shared_modules(clone, modules)
    for name, weight in dense.items():
        parameter = nn.Parameter(weight.clone())
        for module in shared[name]:
            _make_plain(module, parameter)
    clone.eval()
    if dtype is None and any(p.dtype in (torch.float16, torch.bfloat16) for p in clone.parameters()):
        dtype = torch.float32
    if dtype is not None:
        clone.to(dtype)
    clone.requires_grad_(False)
    weights: dict[str, nn.Parameter] = {}
    for name in dense:
        weights[name] = modules[name].weight  # type: ignore[assignment]
        weights[name].requires_grad_(True)
        weights[name].grad = None
    return clone, weights


@contextmanager
def scoring(model: nn.Module, seed: int) -> Iterator[None]:
    """Gradients on, autocast off, deterministic convolutions, all generators seeded; everything restored."""
    python, numpy_state = random.getstate(), np.random.get_state()
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    devices = [device] if device.type == "cuda" else []
    try:
        with (
            torch.inference_mode(False),
            torch.enable_grad(),
            torch.autocast(device.type, enabled=False),
            torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False),
            torch.random.fork_rng(devices=devices),
        ):
            # torch.manual_seed would also seed every other accelerator.
            torch.default_generator.manual_seed(seed)
            if devices:
                torch.cuda.manual_seed(seed)
            random.seed(seed)
            np.random.seed(seed % 2**32)
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy_state)


def _memo_of_computed_tensors(model: nn.Module) -> dict[int, Tensor]:
    """deepcopy refuses tensors with a gradient history, such as the ``weight`` of a pruned module."""
    return {
        id(value): value.detach().clone()
        for module in model.modules()
        for value in vars(module).values()
        if isinstance(value, Tensor) and not value.is_leaf
    }


def _shared_modules(model: nn.Module, modules: dict[str, nn.Module]) -> dict[str, list[nn.Module]]:
    """For each weight's name every module that stores this very tensor."""
    owners: dict[int, list[nn.Module]] = {}
    for module in model.modules():
        if isinstance(module, _weights.PRUNABLE):
            owners.setdefault(id(_weights.stored_weight(module, "weight")), []).append(module)
    return {name: owners[id(_weights.stored_weight(module, name))] for name, module in modules.items()}


def _make_plain(module: nn.Module, weight: nn.Parameter) -> None:
    """Give the module ``weight`` as an ordinary parameter, in place of whatever it computed it from."""
    if parametrize.is_parametrized(module, "weight"):
        parametrize.remove_parametrizations(module, "weight", leave_parametrized=True)
    for key in [key for key, hook in module._forward_pre_hooks.items() if _weights.acts_on_weight(hook)]:
        del module._forward_pre_hooks[key]
    for name in ("weight", "weight_orig", "weight_mask", "weight_g", "weight_v", "weight_u"):
        if name in module._parameters or name in module._buffers or name in vars(module):
            delattr(module, name)
    module.register_parameter("weight", weight)
