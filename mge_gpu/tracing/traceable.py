"""Modules that no trace can read as they are, and what to give in their place."""

import torch
from torch import nn

from mge_gpu._weights import sharded
from mge_gpu.errors import TracingError


def check_traceable(model: nn.Module) -> None:
    """Raise TracingError for compiled, distributed and quantized modules, which torch.export refuses.

    What torch says of them is about its own inner workings, not about what to do.

    >>> check_traceable(nn.Sequential(nn.DataParallel(nn.Linear(2, 2))))
    >>> check_traceable(torch.jit.trace(nn.Linear(2, 2), torch.zeros(1, 2)))
    Traceback (most recent call last):
    mge_gpu.errors.TracingError: the model is a TopLevelTracedModule of torch.jit, which cannot be traced; \
pass the module that it was made from
    """
    for path, module in model.named_modules():
        remedy = _remedy(module)
        if remedy is not None:
            where = f"layer {path!r}" if path else "the model"
            raise TracingError(f"{where} is a {type(module).__name__} of {remedy}")


def _remedy(module: nn.Module) -> str | None:
    """Where a module that cannot be traced comes from, and what to do; None for all others."""
    if isinstance(module, torch.jit.ScriptModule):
        return "torch.jit, which cannot be traced; pass the module that it was made from"
    if isinstance(module, nn.parallel.DistributedDataParallel):
        return "torch.nn.parallel, which cannot be traced; pass the module that it wraps, its .module"
    if sharded(type(module)):
        return "torch.distributed, whose weights lie in parts; load its full state dict into the plain module"
    if type(module).__module__.startswith(("torch.ao.nn.quantized", "torch.ao.nn.intrinsic.quantized")):
        return "torch.ao, whose weights are quantized; pass the model as it was before quantization"
    return None
