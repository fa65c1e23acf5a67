"""The tracer: interprets an ATen graph on values and records partitions, layers and routes."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.fx import Node

from mge_gpu.errors import TracingError
from mge_gpu.masks import prunable_parameters
from mge_gpu.tracing.capture import Capture
from mge_gpu.tracing.constants import Constants
from mge_gpu.tracing.origins import Origins
from mge_gpu.tracing.program import MAX_NODES, Layer, Program, Use, place
from mge_gpu.tracing.relation import Relation, arange, outer_sum, reorder
from mge_gpu.tracing.value import Factor, Term, Value, output_value, permute, reshape
from mge_gpu.tracing.weights import weight_reader


@dataclass(frozen=True)
class Const:
    """A tensor that depends on parameters and buffers only; evaluated when somebody asks."""

    node: Node
    shape: tuple[int, ...]


@dataclass
class Call:
    """One call of an ATen op, as its handler sees it."""

    tracer: "Tracer"
    node: Node
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    @property
    def op(self) -> str:
        """Name of the op, for example ``aten.conv2d.default``."""
        return str(self.node.target)

    @property
    def layer(self) -> str:
        """Path of the module that the call comes from."""
        return module_path(self.node)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the (first) output, with the batch dim of 1."""
        value = self.node.meta["val"]
        sizes = (value[0] if isinstance(value, (list, tuple)) else value).shape
        if not all(isinstance(n, int) for n in sizes):
            raise self.error(
                f"the size of its result depends on values, {tuple(sizes)}",
                "compute what they depend on when the model is made, not in forward()",
            )
        return tuple(sizes)

    def arg(self, index: int, name: str, default: Any = None) -> Any:
        """A positional or keyword argument, or its default."""
        if index < len(self.args):
            return self.args[index]
        return self.kwargs.get(name, default)

    def value(self, index: int = 0) -> Value:
        """A tensor argument as a value; a constant is a value without terms."""
        x = self.args[index]
        return Value(x.shape) if isinstance(x, Const) else x

    def constant(self, index: int) -> torch.Tensor:
        """A tensor argument that must not depend on the input."""
        x = self.args[index]
        if not isinstance(x, Const):
            raise self.error(f"argument {index} depends on the network's input", "it must be a constant")
        return self.evaluate(x)

    def evaluate(self, x: Const) -> torch.Tensor:
        """The present value of a constant."""
        found: torch.Tensor = self.tracer.constants.evaluate(x.node)
        return found

    def error(self, got: str, remedy: str) -> TracingError:
        """An error that names the op and the layer."""
        return TracingError(f"{self.op} in layer {self.layer!r}: {got}; {remedy}")


def module_path(node: Node) -> str:
    """Dotted path of the module in whose forward the node was recorded."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    return str(stack[-1][0]) if stack else ""


class Tracer:
    """State of one trace. Handlers call `add_layer`; everything else they return as values."""

    def __init__(
        self,
        capture: Capture,
        shapes: Sequence[tuple[int, ...]],
        pad: tuple[int, ...] | None,
        identity_skips: bool,
        channels_last: bool = False,
        prunable: frozenset[str] = frozenset(),
    ) -> None:
        self.capture = capture
        self.constants = Constants(capture)
        self.prunable = prunable
        self.origins = Origins()
        self.identity_skips, self.halo = identity_skips, pad
        self.partitions: list[tuple[str, tuple[int, ...], int]] = []
        self.layers: list[Layer] = []
        self.skips: list[Layer] = []  # identity skips that make no edges
        self.merged: dict[int, int] = {}
        self.unread: dict[Node, int] = {}  # partition of a node's tensor if nothing else reads the tensor
        self.env: dict[Node, Any] = {n: Const(n, tuple(n.meta["val"].shape)) for n in capture.tensors}
        for k, (node, shape) in enumerate(zip(capture.inputs, shapes, strict=True)):
            channel_dim = len(shape) - 1 if channels_last else 0
            self.env[node] = self._input(
                f"input_{k}" if k else "input", shape, pad if k == 0 else None, channel_dim
            )

    def _input(
        self, name: str, shape: tuple[int, ...], pad: tuple[int, ...] | None, channel_dim: int
    ) -> Value:
        halo = tuple(pad) if pad else (0,) * (2 * len(shape))
        padded = tuple(n + halo[2 * d] + halo[2 * d + 1] for d, n in enumerate(shape))
        self.partitions.append((name, padded, channel_dim))
        whole = output_value(len(self.partitions) - 1, (1, *padded), fresh=False)
        factors = []
        for d, f in enumerate(whole.terms[0].factors):
            if d:
                before = halo[2 * (d - 1)]
                f = Factor(f.dims, f.relation.take(np.arange(before, before + shape[d - 1])))
            factors.append(f)
        term = Term(len(self.partitions) - 1, tuple(factors), (0, 0, *halo) if pad else None)
        return Value((1, *shape), (term,))

    def resolve(self, partition: int) -> int:
        """The partition that a merged one has become part of."""
        while partition in self.merged:
            partition = self.merged[partition]
        return partition

    def readers(self, node: Node) -> int:
        """How many ops read a node's tensor; an in-place op whose result nobody takes is not one."""
        return sum(1 for u in node.users if u.users or u.op == "output" or not _in_place(u))

    def add_layer(
        self,
        call: Call,
        value: Value,
        weight: Any,
        *,
        kind: str,
        channel_dim: int,
        groups: int,
        transposed: bool,
        taps: np.ndarray,
        weight_shape: tuple[int, ...] | None = None,
    ) -> Value:
        """Record a parametric layer that reads ``value`` and return its fresh output.

        ``channel_dim`` counts from the batch dim (1 for convolutions, the last for linear layers);
        ``taps`` is (taps, output positions), positions in C order over the remaining dims.
        """
        if not isinstance(weight, Const):
            raise call.error("the weight depends on the network's input", "register a handler for this layer")
        name = call.layer or weight.node.name
        read = weight_reader(self.constants, weight.node, name, self.prunable)
        layer = Layer(
            name=name,
            weight_name=read.name,
            kind=kind,
            weight_shape=weight_shape or weight.shape,
            groups=groups,
            transposed=transposed,
            target=len(self.partitions),
            taps=taps,
            uses=tuple(use(t, value.shape, channel_dim) for t in value.terms),
            weight=read,
            parameters=read.parameters,
        )
        shape = call.shape
        batch, order = _arrangement(shape, channel_dim)
        self.partitions.append((name, tuple(shape[d] for d in order), order.index(channel_dim)))
        if (total := sum(prod(p[1]) for p in self.partitions)) > MAX_NODES:
            raise call.error(
                f"{total:,} nodes so far, at most {MAX_NODES:,} fit 32-bit node ids",
                "trace at a smaller input",
            )
        self.layers.append(layer)
        order = order if batch is None else [batch, *order]
        produced = output_value(layer.target, [shape[d] for d in order])
        return permute(produced, [order.index(d) for d in range(len(shape))])

    def merge(self, into: int, other: int) -> None:
        """Make two fresh outputs of equal shape one partition: their layers' edges end in it."""
        a, b = sorted((self.resolve(into), self.resolve(other)))
        if a != b:
            self.merged[b] = a

    def finish(
        self, result: Sequence[Value], shape: tuple[int, ...], model: nn.Module, pad_input: bool
    ) -> Program:
        """Drop merged partitions, number the rest in order of execution."""
        keep = [p for p in range(len(self.partitions)) if p not in self.merged]
        number = {p: k for k, p in enumerate(keep)}
        names = {p: [self.partitions[p][0]] for p in keep}
        for p in sorted(self.merged):
            names[self.resolve(p)].append(self.partitions[p][0])
        placed = place([("+".join(names[p]), *self.partitions[p][1:]) for p in keep])

        def placed_layer(layer: Layer) -> Layer:
            uses = tuple(replace(u, source=number[self.resolve(u.source)]) for u in layer.uses)
            return replace(layer, target=number[self.resolve(layer.target)], uses=uses)

        found: dict[int, list[np.ndarray]] = {}
        for term in (t for v in result for t in v.terms):
            found.setdefault(number[self.resolve(term.source)], []).append(reached_offsets(term))
        returned = {p: np.unique(np.concatenate(offsets)) for p, offsets in sorted(found.items())}
        inputs = tuple(range(len(self.capture.inputs)))
        shapes = {name: tuple(p.shape) for name, p in prunable_parameters(model).items()}
        return Program(
            placed,
            tuple(map(placed_layer, self.layers)),
            inputs,
            tuple(returned),
            shape,
            type(model).__name__,
            pad_input,
            self.identity_skips,
            shapes,
            tuple(map(placed_layer, self.skips)),
            self.halo,
            {p: offsets for p, offsets in returned.items() if len(offsets) < placed[p].size},
        )


def _in_place(node: Node) -> bool:
    parts = str(node.target).split(".")
    return len(parts) > 1 and parts[1].endswith("_")


def _arrangement(shape: Sequence[int], channel_dim: int) -> tuple[int | None, list[int]]:
    """Which dim of a layer's output is the batch, if any, and the order of the others in its partition.

    A batch of 1 is dropped wherever the model has moved it; what is folded into the batch (windows) counts
    as positions. Channels come last for linear layers and first for convolutions.
    """
    lead = [d for d in range(len(shape)) if d != channel_dim]
    batch = next((d for d in lead if shape[d] == 1), None) if shape[0] != 1 else 0
    lead = [d for d in lead if d != batch]
    return batch, [*lead, channel_dim] if channel_dim == len(shape) - 1 else [channel_dim, *lead]


def use(term: Term, shape: Sequence[int], channel_dim: int) -> Use:
    """Split a term of a layer's input into what its channels, its positions and all elements stand for."""
    channel_dim %= len(shape)
    span = outer_sum([f.relation for f in term.factors if not f.dims])
    alone = [f for f in term.factors if f.dims == (channel_dim,)]
    others = [f for f in term.factors if f.dims and f.dims != (channel_dim,)]
    rows = [d for d in range(len(shape)) if d != channel_dim]
    if not alone:  # channel and positions are tied in one table
        rows = [channel_dim, *rows]
        others.append(Factor((), span))
    flat = [d for f in others for d in f.dims]
    joint = outer_sum([f.relation for f in others])
    joint = reorder(joint, [shape[d] for d in flat], [flat.index(d) for d in rows])
    if alone:
        return Use(term.source, alone[0].relation, joint, span)
    return Use(term.source, arange(0), arange(0), table=joint)


def identity_taps(positions: int) -> np.ndarray:
    """One tap that reads the output's own position, shape (1, positions), int32."""
    return np.arange(positions, dtype=np.int32)[None]


def identity_layer(tracer: Tracer, call: Call, fresh: Value, skip: Value) -> None:
    """Record the unit-weight links of an identity skip: each element of ``skip`` to its sum's node."""
    assert fresh.fresh is not None
    target = tracer.resolve(fresh.fresh)
    name, shape, channel_dim = tracer.partitions[target]
    channels, size = shape[channel_dim], prod(shape)
    label = f"{call.layer}.skip" if call.layer else f"{name}.skip"
    if (order := _plain_order(fresh, shape)) is not None:  # one tap, as of a depthwise 1x1 convolution
        moved = reshape(permute(skip, order), (1, *shape))
        uses = tuple(use(t, moved.shape, channel_dim + 1) for t in moved.terms)
        weight_shape, groups, taps = (channels, 1, 1), channels, identity_taps(size // channels)
    else:
        element = np.argsort(element_offsets(fresh))  # node of the partition -> element of the sum
        table = element.reshape(channels, -1) if channel_dim == 0 else element.reshape(-1, channels).T
        uses = tuple(use(t, (1, size), 0) for t in reshape(skip, (1, size)).terms)
        weight_shape, groups = (channels, 1, channels), 1
        taps = np.ascontiguousarray(table, dtype=np.int32)
    layer = Layer(label, "", "identity", weight_shape, groups, False, target, taps, uses)
    (tracer.layers if tracer.identity_skips else tracer.skips).append(layer)


def _plain_order(value: Value, shape: Sequence[int]) -> list[int] | None:
    """The dims of a fresh value in the order of its partition's, those of size 1 first, if it is so plain."""
    (term,) = value.terms
    order = []
    for k, n in enumerate(shape):
        if n == 1:
            continue
        expected = arange(n, prod(shape[k + 1 :])).idx
        same = [f.dims[0] for f in term.factors if len(f.dims) == 1 and _lists(f.relation, expected)]
        if len(same) != 1:
            return None
        order += same
    rest = [d for d in range(len(value.shape)) if d not in order]
    return [*rest, *order] if all(value.shape[d] == 1 for d in rest) else None


def _lists(relation: Relation, values: np.ndarray) -> bool:
    return relation.is_function and np.array_equal(relation.idx, values)


def reached_offsets(term: Term) -> np.ndarray:
    """Offsets of the nodes that the elements of a term stand for, ascending, each once."""
    reached = np.zeros(1, np.int64)
    for f in sorted(term.factors, key=lambda f: len(f.relation.idx)):
        reached = np.unique(reached[:, None] + np.unique(f.relation.idx))
    return reached


def element_offsets(value: Value) -> np.ndarray:
    """Node offset of each element (C order) of a value that is one partition, bijectively."""
    (term,) = value.terms
    flat = [d for f in term.factors for d in f.dims]
    joint = outer_sum([f.relation for f in term.factors])
    order = [flat.index(d) for d in range(len(value.shape))]
    return reorder(joint, [value.shape[d] for d in flat], order).idx


__all__ = ["Call", "Const", "Tracer", "element_offsets", "identity_layer", "identity_taps", "use"]
