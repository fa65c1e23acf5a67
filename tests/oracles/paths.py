"""Path metrics by writing down every path of a small graph; effective weights by autograd, layer by layer."""

import copy
import math

import torch
from torch import Tensor, nn

from tests.oracles.jacobian import Edges, Reference, _Linearised, reference_graph
from tests.oracles.networks import Case

Path = tuple[int, ...]


def all_paths(
    edges: Edges, inputs: tuple[int, ...], outputs: tuple[int, ...], limit: int
) -> list[Path] | None:
    """Every path from an input to an output as its nodes, or None where there are more than ``limit``."""
    following: dict[int, list[int]] = {}
    for u, v in edges:
        following.setdefault(u, []).append(v)
    ends, found = set(outputs), []

    steps = 0
    for u in inputs:
        stack = [(u,)]
        while stack:
            path = stack.pop()
            steps += 1
            if steps > limit:
                return None
            if path[-1] in ends:
                found.append(path)
            stack += [(*path, v) for v in following.get(path[-1], ())]
    return found


def path_metrics(case: Case, pad_input: bool, graph: Reference, limit: int = 4000) -> dict[str, float] | None:
    """The path metrics that are sums over paths or nodes; None where there are too many paths.

    ``graph`` is the reference graph with identity skips.
    """
    paths = all_paths(graph.edges, graph.input_nodes, graph.output_nodes, limit)
    if paths is None:
        return None
    squares = reference_graph(case, pad_input=pad_input, identity_skips=True, power=2).edges
    weights = reference_graph(case, pad_input=pad_input, power=0).edges  # how many weights an edge holds
    l1 = l2 = trace = 0.0
    for path in paths:
        steps = list(zip(path, path[1:], strict=False))
        l1 += math.prod(graph.edges[e] for e in steps)
        l2 += math.prod(squares[e] for e in steps)
        for k, e in enumerate(steps):
            others = math.prod(squares[f] for f in steps[:k] + steps[k + 1 :])
            trace += others * weights.get(e, 0)
    return {
        "effective_nodes": len({v for path in paths for v in path}),
        "log_effective_paths": _log(len(paths)),
        "l1_path_norm": _log(l1),
        "l2_path_norm": _log(l2) / 2,
        "path_kernel_trace": _log(trace),
    }


def _log(x: float) -> float:
    return math.log(x) if x > 0 else -math.inf


class _Layers(_Linearised):
    """Notes of each layer how its operand and its output hang on the nodes."""

    def __init__(self, case: Case, pad_input: bool) -> None:
        super().__init__(case, pad_input, identity_skips=True)
        self.seen: list[tuple[int, nn.Module, Tensor, dict[int, Tensor], int]] = []

    def _layer(self, k: int, module: nn.Module, operand: Tensor) -> Tensor:
        if self.halo is not None and k == next(i for i, s in enumerate(self.case.steps) if s.kind == "layer"):
            operand = self.leaves[0]
            module = copy.copy(module)
            module.padding = (0,) * len(self.halo)  # type: ignore[assignment]
        self.seen.append((k, module, operand, self._jacobian(operand), self.partition_of[k]))
        return super()._layer(k, self.case.steps[k].module, self.values[self.case.steps[k].inputs[0]])


def effective_weights(case: Case, pad_input: bool) -> tuple[dict[int, Tensor], Reference]:
    """(id of a module -> bool tensor: its weights on paths; the reference graph with identity skips).

    Each layer is run on the marks of the nodes it reads, with weights 1 where they are not zero; a weight is
    effective if the sum of its outputs on nodes that reach the output has a derivative in it.
    """
    layers = _Layers(case, pad_input)
    graph = layers.run()
    before, behind = (torch.zeros(graph.num_nodes, dtype=torch.float64) for _ in range(2))
    before[list(_closure(graph.edges, graph.input_nodes, backward=False))] = 1
    behind[list(_closure(graph.edges, graph.output_nodes, backward=True))] = 1
    found: dict[int, Tensor] = {}
    for k, module, operand, jacobians, partition in layers.seen:
        marks = torch.zeros(operand.numel(), dtype=torch.float64)
        for p, jacobian in jacobians.items():
            marks += (jacobian > 0).double() @ before[layers._offset(p) :][: jacobian.shape[1]]
        twin = copy.deepcopy(module).double()
        twin.requires_grad_(True)
        with torch.no_grad():
            twin.weight.copy_((twin.weight != 0).double())
            if twin.bias is not None:
                twin.bias.zero_()
        produced = twin(marks.reshape(operand.shape))
        offset = layers._offset(partition)
        wanted = behind[offset:][: produced.numel()]
        (gradient,) = torch.autograd.grad((produced.flatten() * wanted).sum(), [twin.weight])
        original = case.steps[k].module
        mask = (gradient > 0) & (original.get_parameter("weight") != 0)
        found[id(original)] = found.get(id(original), torch.zeros_like(mask)) | mask
    return found, graph


def _closure(edges: Edges, start: tuple[int, ...], backward: bool) -> set[int]:
    following: dict[int, list[int]] = {}
    for u, v in edges:
        following.setdefault(v if backward else u, []).append(u if backward else v)
    reached, stack = set(start), list(start)
    while stack:
        for v in following.get(stack.pop(), ()):
            if v not in reached:
                reached.add(v)
                stack.append(v)
    return reached
