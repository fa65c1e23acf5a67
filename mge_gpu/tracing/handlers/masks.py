"""Constant masks: pairs of tokens that do not attend to each other, elements that a constant replaces."""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch.fx import Node

from mge_gpu.tracing.constants import packet
from mge_gpu.tracing.sets import hide
from mge_gpu.tracing.tracer import Call, Const
from mge_gpu.tracing.value import Value, broadcast, structural_sum

CLOSED = -80.0
"""An additive constant up to this makes a softmax zero. Swin's masks are -100, before a bias is added."""

_TO_SOFTMAX = """
add sub mul div view reshape _unsafe_view expand permute transpose unsqueeze squeeze flatten unflatten
contiguous clone to _to_copy float type_as dropout masked_fill where slice
""".split()


def feeds_softmax(node: Node) -> bool:
    """Whether a tensor goes into a softmax by additions and views alone: attention scores."""
    stack, seen = [node], set()
    while stack:
        for user in stack.pop().users:
            name = packet(user).rstrip("_") if packet(user) not in ("_softmax", "_to_copy") else packet(user)
            if name in ("softmax", "_softmax"):
                return True
            if name in _TO_SOFTMAX and user not in seen:
                seen.add(user)
                stack.append(user)
    return False


def closed(mask: torch.Tensor) -> np.ndarray:
    """Where an attention mask excludes a pair: False, or a number so low that softmax makes it zero."""
    table = mask.detach().cpu()
    found: np.ndarray = (~table if table.dtype == torch.bool else table.float() <= CLOSED).numpy()
    return found


def exclude(value: Value, excluded: np.ndarray) -> Value:
    """No nodes at the excluded elements, which are remembered until the next product."""
    if not excluded.any():
        return value
    full = np.broadcast_to(excluded, value.shape)
    before = value.excluded
    value = hide(value, excluded.reshape((1,) * (len(value.shape) - excluded.ndim) + excluded.shape))
    return replace(value, excluded=full if before is None else before | full)


def masked_fill(call: Call) -> Value:
    """aten.masked_fill by a constant mask: the elements that it replaces have no nodes."""
    value, mask, fill = call.args[:3]
    if isinstance(mask, Value):  # the mask has no derivative; any element may be kept
        return broadcast(call.value(), call.shape)
    return _replaced(broadcast(call.value(), call.shape), call.evaluate(mask), fill, call)


def where(call: Call) -> Value:
    """aten.where: by a constant condition each element is that of one side, else it may be either."""
    condition, one, other = call.args[:3]
    if isinstance(condition, Const):
        table = call.evaluate(condition)
        sides = [(one, ~table, other), (other, table, one)]
        kept = [
            _replaced(broadcast(x, call.shape), gone, fill, call)
            for x, gone, fill in sides
            if isinstance(x, Value) and x.terms
        ]
        return kept[0] if len(kept) == 1 else structural_sum(kept, call.shape)
    return structural_sum([x for x in (one, other) if isinstance(x, Value)], call.shape)


def _replaced(value: Value, gone: torch.Tensor, fill: Any, call: Call) -> Value:
    """``value`` with the elements in ``gone`` replaced by ``fill``."""
    mask = gone.detach().cpu().numpy().astype(bool)
    if isinstance(fill, Const) and not fill.shape:
        fill = call.evaluate(fill).item()
    if isinstance(fill, (int, float)) and (fill <= CLOSED or fill == 0):
        return exclude(value, mask)
    return replace(
        hide(value, mask.reshape((1,) * (len(value.shape) - mask.ndim) + mask.shape)), excluded=None
    )


def triangle(call: Call) -> Value:
    """aten.tril and triu: the elements on the other side of the diagonal are zero."""
    value, diagonal = call.value(), call.arg(1, "diagonal", 0)
    ones = np.ones(value.shape[-2:], bool)
    kept = np.tril(ones, diagonal) if ".tril" in call.op else np.triu(ones, diagonal)
    return exclude(value, ~kept)


def comparison(call: Call) -> Value:
    """eq, gt, isnan and the like: a truth value has no derivative, hence no nodes."""
    return Value(call.shape)
