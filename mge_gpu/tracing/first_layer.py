"""What the first layer says about the network's input: its zero padding, and where its channels are."""

from torch.fx import Node

from mge_gpu.tracing.capture import Capture
from mge_gpu.tracing.handlers import layers, products, sums
from mge_gpu.tracing.ops import HANDLERS, lookup

_CONVOLUTION = {layers.convolution}
_PER_TOKEN = {layers.linear, products.matmul, products.addmm}
_LAYERS = _PER_TOKEN | {f for f in HANDLERS.values() if f.__module__ == layers.__name__}


def _calls(captured: Capture) -> list[Node]:
    return [n for n in captured.graph.nodes if n.op == "call_function"]


def first_padding(captured: Capture, shape: tuple[int, ...]) -> tuple[int, ...] | None:
    """Zero padding (before, after, a dim of the input) of the first layer, if a convolution on the input.

    The convolution may read the input through elementwise ops (a normalisation written out).
    """
    direct = set(captured.inputs[:1])
    for node in _calls(captured):
        handler = lookup(str(node.target))
        source = node.args[0] if node.args else None
        if handler in _CONVOLUTION:
            sides = layers.zero_padding(node.args, node.kwargs, node.args[1].meta["val"].shape[2:])  # type: ignore[union-attr]
            fits = source in direct and len(sides) + 1 == len(shape)
            flat = (0, 0, *(n for side in sides for n in side))
            return flat if fits and any(flat) else None
        if handler in _LAYERS:
            return None
        same = getattr(node.meta.get("val"), "shape", None) == (1, *shape)
        if source in direct and same and handler in (sums.passes, sums.add, sums.multiply):
            direct.add(node)
    return None


def reads_channels_last(captured: Capture) -> bool:
    """Whether the first layer acts on the last dim, as linear layers on tokens do."""
    handlers = (lookup(str(n.target)) for n in _calls(captured))
    first = next((h for h in handlers if h in _LAYERS), None)
    return first in _PER_TOKEN
