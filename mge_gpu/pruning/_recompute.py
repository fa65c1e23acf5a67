"""Gradients of a deep network that hold the activations of one block at a time.

Chen et al., "Training Deep Nets with Sublinear Memory Cost", 2016. Each block keeps its input and is run a
second time when its gradient is due. The values stay what they are, also with batch normalisation by the
statistics of the batch, where a batch cannot be cut into smaller ones.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mge_gpu._weights import prunable_places

WORTHWHILE = 16 * 2**20
"""Bytes of a batch of inputs from which memory counts more than the second run, a third of the time."""


@contextmanager
def recomputing(network: nn.Module, inputs: Tensor) -> Iterator[None]:  # inputs (B, ...)
    """Within this, the blocks of a network of ours keep no activations, if the inputs are large.

    Layers that no stack of blocks holds are run as they are.
    """
    found = blocks(network) if inputs.numel() * inputs.element_size() >= WORTHWHILE else []
    before = [vars(block).get("forward") for block in found]
    try:
        for block in found:
            block.forward = partial(_twice, block.forward)
        yield
    finally:
        for block, forward in zip(found, before, strict=True):
            vars(block).pop("forward", None)
            if forward is not None:
                block.forward = forward


def blocks(network: nn.Module) -> list[nn.Module]:
    """The members of the innermost stacks.

    A stack is an ``nn.Sequential``, ``ModuleList`` or ``ModuleDict`` of which at least two members have two
    or more prunable weights each.

    >>> layer, pair = nn.Linear(2, 2), lambda: nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    >>> len(blocks(nn.Sequential(layer, pair(), nn.Sequential(pair(), pair()))))
    3
    """
    members: list[nn.Module] = []
    for module in network.modules():
        if isinstance(module, nn.Sequential | nn.ModuleList | nn.ModuleDict):
            large = [child for child in module.children() if len(prunable_places(child)) >= 2]
            members += large if len(large) >= 2 else []
    stacked = set(members)
    return [
        m
        for m in dict.fromkeys(members)
        if not isinstance(m, torch.jit.ScriptModule)  # whose forward is fixed
        and not any(inner in stacked for inner in m.modules() if inner is not m)
    ]


def _twice(forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    return checkpoint(forward, *args, use_reentrant=False, **kwargs)
