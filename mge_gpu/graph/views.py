"""A partition as a block sees it: which part of a node's number is its channel, which its position."""

from dataclasses import replace

from mge_gpu.backends.adjacency import CROSSED, FLAT
from mge_gpu.tracing.program import Partition


def seen(partition: Partition, view: int) -> Partition:
    """The same nodes by the channels and positions of a view.

    The partition must have its channels first or last.

    >>> tokens = Partition("tokens", (5, 3), 0, channel_dim=1)
    >>> crossed = seen(tokens, CROSSED)
    >>> crossed.channels, crossed.channel_stride, crossed.positions, crossed.position_stride
    (5, 3, 3, 1)
    >>> flat = seen(tokens, FLAT)
    >>> flat.channels, flat.positions, flat.position_stride
    (1, 15, 1)
    """
    p = partition
    if view == FLAT:
        return replace(p, shape=(1, p.size), channel_dim=0)
    if view == CROSSED:
        shape = (p.channels, p.positions) if p.channel_dim == 0 else (p.positions, p.channels)
        return replace(p, shape=shape, channel_dim=int(p.channel_dim == 0))
    return p
