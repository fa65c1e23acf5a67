"""Reference graph of a `Case`: the encoding's blocks as Jacobians, by autograd, of the linearised network.

The linearised network has |W| for W, no bias, the identity for passes and sums for pools. Every
partition is a leaf; the Jacobian of a layer's output with respect to the leaves is the block of edges
that the layer makes. All numbers are non-negative, so nothing cancels: an entry is zero only where
there is no edge.
"""

import copy
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor, nn

from tests.oracles.networks import Case

Shape = tuple[int, ...]
Edges = dict[tuple[int, int], float]
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d)


@dataclass(frozen=True)
class Reference:
    """Shapes of the partitions in order, the edges by (source node, target node), the output partitions."""

    shapes: list[Shape]
    edges: Edges
    outputs: tuple[int, ...]
    input_nodes: tuple[int, ...] = ()  # those of the network's input, not of its padding
    output_nodes: tuple[int, ...] = ()  # those that the returned tensors are made of

    @property
    def num_nodes(self) -> int:
        """Nodes of all partitions."""
        return sum(prod(s) for s in self.shapes)


def reference_graph(
    case: Case, *, pad_input: bool = True, identity_skips: bool = False, power: float = 1
) -> Reference:
    """The multipartite graph of the case by the rules of the encoding, with |w|^power for w != 0."""
    return _Linearised(case, pad_input, identity_skips, power).run()


class _Linearised:
    def __init__(self, case: Case, pad_input: bool, identity_skips: bool, power: float = 1) -> None:
        self.case, self.identity_skips, self.power = case, identity_skips, power
        self.halo = _halo(case) if pad_input else None
        self.partition_of = _partitions(case)  # step that is a layer -> number of its partition
        self.leaves: list[Tensor] = []
        self.edges: Edges = {}
        self.values: list[Tensor] = []

    def run(self) -> Reference:
        """Evaluate step by step; each layer adds its block and is replaced by its partition's leaf."""
        padded = list(self.case.input_shape)
        for d, (before, after) in enumerate(self.halo or ()):
            padded[d + 1] += before + after
        self._new_leaf(tuple(padded))
        inside = self.leaves[0]
        for d, (before, _) in enumerate(self.halo or ()):
            inside = inside.narrow(d + 2, before, self.case.input_shape[d + 1])
        self.values.append(inside)
        for k, step in enumerate(self.case.steps):
            operands = [self.values[i] for i in step.inputs]
            if step.kind == "layer":
                self.values.append(self._layer(k, step.module, operands[0]))
            elif step.kind == "pass":
                self.values.append(operands[0])
            elif step.kind == "pool":
                self.values.append(_window_sums(step.module, operands[0]))
            elif step.kind == "add":
                self.values.append(self._add(k, operands))
            elif step.kind == "mul":
                self.values.append(operands[0] + operands[1])
            elif step.kind == "set":
                self.values.append(self._set(step.module, operands))
            else:  # views, routes and concatenation only move elements
                self.values.append(step.module(*operands))
        reached = [self._jacobian(self.values[i]) for i in self.case.outputs]
        outputs = tuple(sorted({p for found in reached for p in found}))
        returned = {
            self._offset(p) + int(k)
            for found in reached
            for p, j in found.items()
            for k in j.any(0).nonzero()
        }
        first = torch.arange(self.leaves[0].numel()).reshape(self.leaves[0].shape)
        for d, (before, _) in enumerate(self.halo or ()):
            first = first.narrow(d + 2, before, self.case.input_shape[d + 1])
        return Reference(
            [tuple(leaf.shape[1:]) for leaf in self.leaves],
            self.edges,
            outputs,
            tuple(first.flatten().tolist()),
            tuple(sorted(returned)),
        )

    def _new_leaf(self, shape: Shape) -> None:
        self.leaves.append(torch.zeros(1, *shape, dtype=torch.float64, requires_grad=True))

    def _layer(self, k: int, module: nn.Module, operand: Tensor) -> Tensor:
        twin = copy.deepcopy(module).double()
        with torch.no_grad():
            for name, parameter in twin.named_parameters():
                there = parameter != 0
                parameter.abs_().pow_(self.power).mul_(there) if name == "weight" else parameter.zero_()
        twin.requires_grad_(False)
        if self.halo is not None and k == _first_layer(self.case):
            assert isinstance(twin, CONVOLUTIONS)
            twin.padding, operand = (0,) * len(self.halo), self.leaves[0]
        produced = twin(operand)
        partition = self.partition_of[k]
        if partition == len(self.leaves):
            self._new_leaf(tuple(produced.shape[1:]))
        nodes = torch.arange(produced.numel()) + self._offset(partition)
        self._link(self._jacobian(produced), nodes)
        return self.leaves[partition]

    def _add(self, k: int, operands: list[Tensor]) -> Tensor:
        fresh = fresh_operands(self.case, k)
        if len(fresh) == 2:
            return operands[0]  # both are the leaf of their common partition
        if len(fresh) == 0:
            return operands[0] + operands[1]
        own, other = operands[fresh[0]], operands[1 - fresh[0]]
        if self.identity_skips:
            ((partition, places),) = self._jacobian(own).items()  # a permutation of the partition's nodes
            nodes = places.argmax(dim=1) + self._offset(partition)
            self._link(self._jacobian(other.expand_as(own)), nodes)
        return own

    def _set(self, module: nn.Module, operands: list[Tensor]) -> Tensor:
        """Each element as the sum of the nodes, each once, that it depends on through the real module."""
        function = getattr(module, "surrogate", module)
        shape = function(*[torch.rand(x.shape, dtype=torch.float64) for x in operands]).shape
        linked = [torch.zeros(shape.numel(), leaf.numel(), dtype=torch.bool) for leaf in self.leaves]
        generator = torch.Generator().manual_seed(0)
        reaches = [self._jacobian(x) for x in operands]
        never = [self._always_zero(x, reached) for x, reached in zip(operands, reaches, strict=True)]
        for k, operand in enumerate(operands):
            pattern = torch.zeros(shape.numel(), operand.numel(), dtype=torch.float64)
            for _ in range(3):  # a maximum has one argument at a time
                inputs = [
                    (torch.rand(x.shape, generator=generator, dtype=torch.float64) + 0.1) * ~zero
                    for x, zero in zip(operands, never, strict=True)
                ]

                def alone(x: Tensor, k: int = k, inputs: list[Tensor] = inputs) -> Tensor:
                    return function(*inputs[:k], x, *inputs[k + 1 :])

                jacobian = torch.autograd.functional.jacobian(alone, inputs[k])
                pattern += jacobian.abs().reshape(pattern.shape)
            for partition, reached in reaches[k].items():
                linked[partition] |= (pattern > 1e-12).double() @ (reached > 0).double() > 0
        total = sum(m.double() @ leaf.reshape(-1) for m, leaf in zip(linked, self.leaves, strict=True))
        return torch.as_tensor(total).reshape(shape)

    def _always_zero(self, operand: Tensor, reached: dict[int, Tensor]) -> Tensor:
        """Where a constant mask has left a zero, which makes one of what is multiplied with it."""
        depends = torch.zeros(operand.numel(), dtype=torch.bool)
        for links in reached.values():
            depends |= (links != 0).any(1)
        return (operand == 0) & ~depends.reshape(operand.shape)

    def _offset(self, partition: int) -> int:
        return sum(leaf.numel() for leaf in self.leaves[:partition])

    def _jacobian(self, value: Tensor) -> dict[int, Tensor]:
        """(elements of value, nodes of the partition) for each partition that the value comes from."""
        flat = value.reshape(-1)
        if not flat.requires_grad:
            return {}
        rows = torch.autograd.grad(
            flat, self.leaves, torch.eye(len(flat), dtype=flat.dtype), retain_graph=True, allow_unused=True,
            is_grads_batched=True,
        )  # fmt: skip
        return {p: row.reshape(len(flat), -1) for p, row in enumerate(rows) if row is not None and row.any()}

    def _link(self, jacobians: dict[int, Tensor], nodes: Tensor) -> None:
        for partition, jacobian in jacobians.items():
            element, source = jacobian.nonzero(as_tuple=True)
            weights = jacobian[element, source].tolist()
            sources, targets = (source + self._offset(partition)).tolist(), nodes[element].tolist()
            for edge, weight in zip(zip(sources, targets, strict=True), weights, strict=True):
                self.edges[edge] = self.edges.get(edge, 0.0) + weight


def _window_sums(module: nn.Module, x: Tensor) -> Tensor:
    """Sum over each window; the windows are what torch's own pool answers on one-hot inputs."""
    n = x[0].numel()
    hot = torch.eye(n).reshape(n, *x.shape[1:])
    with torch.no_grad():
        answer = module(hot)  # (n, *pooled)
    windows = (answer.reshape(n, -1) != 0).to(x.dtype)
    return (x.reshape(1, n) @ windows).reshape(1, *answer.shape[1:])


def _first_layer(case: Case) -> int:
    return next(k for k, s in enumerate(case.steps) if s.kind == "layer")


def _halo(case: Case) -> list[tuple[int, int]] | None:
    """(before, after) of each dim's zero padding of the first layer, if it is a convolution of the input."""
    step = case.steps[_first_layer(case)]
    source = step.inputs[0]
    while source and case.steps[source - 1].kind == "pass":
        source = case.steps[source - 1].inputs[0]
    layer = step.module
    if source or not isinstance(layer, CONVOLUTIONS):
        return None
    if layer.padding == "same":
        totals = [d * (k - 1) for d, k in zip(layer.dilation, layer.kernel_size, strict=True)]
        return [(t // 2, t - t // 2) for t in totals]
    return [(int(p), int(p)) for p in layer.padding]


def fresh_operands(case: Case, k: int) -> list[int]:
    """Which operands of sum ``k`` are fresh: a layer's output that feeds nothing but this sum.

    A fresh sum is the output of its layers, so it is fresh itself.
    """
    consumers = [0] * (len(case.steps) + 1)
    for value in [i for s in case.steps for i in s.inputs] + list(case.outputs):
        consumers[value] += 1

    def fresh(value: int) -> bool:
        if value == 0 or consumers[value] != 1:
            return False
        step = case.steps[value - 1]
        if step.kind == "pass" or (step.kind in ("view", "route", "pool") and _moves(case, value - 1)):
            return fresh(step.inputs[0])
        if step.kind == "add":
            return len(fresh_operands(case, value - 1)) == 2
        return step.kind == "layer"

    step = case.steps[k]
    return [i for i, v in enumerate(step.inputs) if case.shape(v) == case.shape(k + 1) and fresh(v)]


def _moves(case: Case, k: int) -> bool:
    """Whether step ``k`` only moves elements, each to one place: a roll, a pool of one pixel a window."""
    (source,) = case.steps[k].inputs
    numbers = torch.arange(1.0, case.values[source].numel() + 1)
    with torch.no_grad():
        moved = case.steps[k].module(numbers.reshape(case.values[source].shape))
    return moved.numel() == numbers.numel() and torch.equal(moved.flatten().sort().values, numbers)


def _partitions(case: Case) -> dict[int, int]:
    """Partition of each layer: joined over fresh sums, numbered from 1 by the first layer that writes it."""
    joined = {k: k for k, s in enumerate(case.steps) if s.kind == "layer"}

    def writer(value: int) -> int:
        step = case.steps[value - 1]
        return joined[value - 1] if step.kind == "layer" else writer(step.inputs[0])

    for k, step in enumerate(case.steps):
        if step.kind == "add" and len(fresh_operands(case, k)) == 2:
            first, second = sorted(writer(v) for v in step.inputs)
            joined = {layer: first if root == second else root for layer, root in joined.items()}
    numbers: dict[int, int] = {}
    return {k: numbers.setdefault(root, len(numbers) + 1) for k, root in joined.items()}
