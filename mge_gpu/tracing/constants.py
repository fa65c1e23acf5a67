"""Constants of the traced graph: what depends on parameters, buffers and shapes only, computed on demand."""

from collections.abc import Mapping
from typing import Any

import torch
from torch.fx import Node
from torch.fx.node import map_arg

from mge_gpu.errors import TracingError
from mge_gpu.tracing.capture import Capture

_CREATORS = """
new_zeros new_ones new_full new_empty zeros_like ones_like full_like empty_like
rand_like randn_like sym_size
""".split()


def packet(node: Node) -> str:
    """Name of a node's op without its overload: ``new_zeros`` of ``aten.new_zeros.default``."""
    parts = str(node.target).split(".")
    return parts[1] if len(parts) > 1 else parts[0]


def creates(node: Node) -> bool:
    """Whether an op takes no more than shape and type from the tensor that it reads."""
    return packet(node) in _CREATORS


def _aliases(node: Node, write: bool) -> bool:
    """Whether the op's result shares memory with its first argument, which it writes to or not."""
    schema = getattr(node.target, "_schema", None)
    if schema is None or not schema.arguments or not node.args or not isinstance(node.args[0], Node):
        return False
    info = schema.arguments[0].alias_info
    return info is not None and info.is_write == write


def writes(node: Node) -> bool:
    """Whether the op changes its first argument in place."""
    return node.op == "call_function" and _aliases(node, write=True)


def root(node: Node) -> Node:
    """The node that made the memory which a view, or a view of a view, or an in-place op shows."""
    while node.op == "call_function" and (_aliases(node, False) or _aliases(node, True)):
        node = node.args[0]  # type: ignore[assignment]
    return node


class Constants:
    """Evaluates nodes that do not depend on the input, in-place changes of their operands included."""

    def __init__(self, capture: Capture) -> None:
        self.capture = capture
        self.order = {node: k for k, node in enumerate(capture.graph.nodes)}
        self.written: dict[Node, list[Node]] = {}
        for node in self.order:
            if writes(node):
                self.written.setdefault(root(node), []).append(node)

    def needed(self, node: Node) -> list[Node]:
        """The nodes that ``node`` is computed from, itself included, in the order of execution."""
        found: set[Node] = set()
        stack = [node]
        while stack:
            n = stack.pop()
            if n in found:
                continue
            found.add(n)
            if not creates(n):
                stack.extend(n.all_input_nodes)
            stack.extend(w for w in self.written.get(root(n), ()) if self.order[w] < self.order[node])
        return sorted(found, key=self.order.__getitem__)

    def parameters(self, node: Node) -> list[Node]:
        """The parameters that ``node`` is computed from."""
        return [n for n in self.needed(node) if n in self.capture.parameter_names]

    def evaluate(
        self,
        node: Node,
        masks: Mapping[Node, torch.Tensor] | None = None,
        values: Mapping[Node, torch.Tensor] | None = None,
    ) -> Any:
        """The present value of a node, with masks on the parameters that it is computed from.

        ``values`` stand in for those of some parameters.

        Raises TracingError where it depends on the network's input.
        """
        found: dict[Node, Any] = {}
        with torch.no_grad():
            for n in self.needed(node):
                given = values.get(n) if values else None
                found[n] = self._run(n, found, masks or {}) if given is None else given
        return found[node]

    def _run(self, node: Node, values: dict[Node, Any], masks: Mapping[Node, torch.Tensor]) -> Any:
        if node in self.capture.tensors:
            tensor = self.capture.tensors[node]()
            if node in masks:
                return tensor * masks[node].to(tensor.device, tensor.dtype)
            return tensor.clone() if node in self.written else tensor  # the model's own stays as it is
        if node.op != "call_function":
            raise TracingError(f"{node.name} depends on the network's input; a constant was expected")
        make = creates(node)

        def real(x: Any) -> Any:
            return map_arg(x, lambda n: _blank(n) if make else values[n])

        assert callable(node.target)
        return node.target(*real(node.args), **real(node.kwargs))


def _blank(node: Node) -> torch.Tensor:
    """A tensor of the node's shape and type that takes no memory."""
    fake = node.meta["val"]
    return torch.zeros((), dtype=fake.dtype).expand(tuple(fake.shape))


__all__ = ["Constants", "creates", "packet", "root", "writes"]
