"""The traced form of a network: partitions, layers and the routes between them, without weights."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np
import torch

from mge_gpu.tracing.relation import Relation, outer_sum

MAX_NODES = 2**31 - 1
"""Node ids are 32-bit."""


@dataclass(frozen=True)
class Partition:
    """A node set: the elements of the input or of the output of one or more parametric layers.

    Node ids run in C order over ``shape`` from ``offset``. ``channel_dim`` is the dim that the
    layer's weights act on; the remaining dims are positions.
    """

    name: str
    shape: tuple[int, ...]
    offset: int
    channel_dim: int = 0

    @property
    def size(self) -> int:
        """Number of nodes."""
        return prod(self.shape)

    @property
    def channels(self) -> int:
        """Number of channels."""
        return self.shape[self.channel_dim]

    @property
    def positions(self) -> int:
        """Number of positions a channel."""
        return self.size // max(self.channels, 1)

    @property
    def channel_stride(self) -> int:
        """Distance of the ids of two neighbouring channels at one position."""
        return self.positions if self.channel_dim == 0 else 1

    @property
    def position_stride(self) -> int:
        """Distance of the ids of two neighbouring positions of one channel."""
        return 1 if self.channel_dim == 0 else self.channels


@dataclass(frozen=True)
class Use:
    """One term of a layer's input: how the layer's weights meet the nodes of one partition.

    ``channels`` maps the input channels of the weight to offsets in the source partition, ``local`` the
    positions of the input, and ``span`` lists offsets that all elements of the input have in common (the
    tokens that all tokens attend to, the window of a global pool); one of each add up to a node. Where
    channels and positions are tied, ``table`` lists the offsets of each (channel, position), channels
    first, in place of all three.
    """

    source: int
    channels: Relation
    local: Relation
    span: Relation = field(default_factory=lambda: Relation(np.array([0, 1]), np.zeros(1, np.int64)))
    table: Relation | None = None

    @property
    def positions(self) -> Relation:
        """Offsets of each position of the input, the span included; made anew at each call."""
        return self.local if self.span.is_zero else outer_sum([self.local, self.span])


@dataclass(frozen=True)
class Layer:
    """A parametric layer (or, with ``weight_name`` empty, the unit weights of an identity skip).

    The weight is read as (out channels, in channels a group, taps). ``taps[t, y]`` is the input
    position that tap t of output position y reads, -1 where it falls on zero padding.

    ``weight`` reads the weight when it is called, with the masks (parameter name -> bool tensor) that are
    to act on it. ``parameters`` are the names and shapes of the parameters it is made of: one, unless the
    forward pass computes the weight (a slice of ``in_proj_weight``, a standardised kernel); masks act on
    these, before anything is computed.
    """

    name: str
    weight_name: str
    kind: str
    weight_shape: tuple[int, ...]
    groups: int
    transposed: bool
    target: int
    taps: np.ndarray  # (taps, output positions) int32
    uses: tuple[Use, ...]
    weight: Callable[[Mapping[str, torch.Tensor]], torch.Tensor] | None = field(
        default=None, repr=False, compare=False
    )
    parameters: tuple[tuple[str, tuple[int, ...]], ...] = ()

    @property
    def out_channels(self) -> int:
        """Output channels of the weight."""
        return self.weight_shape[1] * self.groups if self.transposed else self.weight_shape[0]

    def matrix(self, weight: torch.Tensor) -> torch.Tensor:
        """The weight as (C_out, C_in / groups, taps), whichever way the layer stores it."""
        return weight_matrix(weight.reshape(self.weight_shape), self.groups, self.transposed)


def weight_matrix(weight: torch.Tensor, groups: int = 1, transposed: bool = False) -> torch.Tensor:
    """A layer's weight as (C_out, C_in / groups, taps), detached.

    ``transposed``: it is that of a transposed convolution, (C_in, C_out / groups, taps...).

    >>> weight_matrix(torch.zeros(4, 3, 2, 2), groups=2, transposed=True).shape
    torch.Size([6, 2, 4])
    """
    w = weight.detach().flatten(2) if weight.dim() > 2 else weight.detach()[..., None]  # (d0, d1, taps)
    if not transposed:
        return w
    d0, d1, taps = w.shape
    w = w.reshape(groups, d0 // groups, d1, taps).transpose(1, 2)
    return w.reshape(groups * d1, d0 // groups, taps)


@dataclass(frozen=True)
class Program:
    """A traced network. Weights are read when a graph is built, so one program serves many masks.

    What path metrics need beside the layers: ``skips`` are the identity skips, where ``identity_skips`` has
    not put them among the layers; ``halo`` is the zero padding of partition 0 that has nodes, (before, after)
    a dim; ``returned`` are the offsets (ascending) of the nodes that the model returns, for the output
    partitions of which it does not return all.
    """

    partitions: tuple[Partition, ...]
    layers: tuple[Layer, ...]
    input_partitions: tuple[int, ...]
    output_partitions: tuple[int, ...]
    input_shape: tuple[int, ...]
    model_name: str
    pad_input: bool
    identity_skips: bool
    parameter_shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    skips: tuple[Layer, ...] = ()
    halo: tuple[int, ...] | None = None
    returned: dict[int, np.ndarray] = field(default_factory=dict, compare=False)
    cache: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @property
    def num_nodes(self) -> int:
        """Number of nodes of the graph."""
        return sum(p.size for p in self.partitions)

    def weight_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of every weight that a mask may name, layers that the forward pass never reaches included."""
        return self.parameter_shapes | {name: shape for x in self.layers for name, shape in x.parameters}


def place(partitions: Sequence[tuple[str, tuple[int, ...], int]]) -> tuple[Partition, ...]:
    """Partitions one after the other from node 0; each given as (name, shape, channel dim)."""
    out, offset = [], 0
    for name, shape, channel_dim in partitions:
        out.append(Partition(name, tuple(shape), offset, channel_dim))
        offset += out[-1].size
    return tuple(out)
