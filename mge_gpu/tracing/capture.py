"""From a module to its ATen graph by torch.export, leaving the module as it was found."""

import copy
import gc
import operator
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.fx import Node

from mge_gpu._seeds import preserved
from mge_gpu.errors import TracingError

# Hooks that compute a weight from its parts; all others are the user's and do not run in the trace.
_WEIGHT_HOOKS = ("torch.nn.utils.",)


@dataclass
class Capture:
    """An ATen graph, and what its placeholders stand for in the model it came from."""

    graph: torch.fx.Graph
    inputs: list[Node]
    tensors: dict[Node, Callable[[], torch.Tensor]]  # parameters, buffers and constants, read live
    parameter_names: dict[Node, str]  # by the names that masks use
    stored_names: dict[Node, str]  # by the names in the module: "fc.weight_orig" under a hook


@contextmanager
def _collector_paused() -> Iterator[None]:
    """Keep Python's cycle collector from running: it takes a quarter of an export's time."""
    running = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if running:
            gc.enable()


def skeleton(model: nn.Module) -> nn.Module:
    """A copy in evaluation mode that shares every tensor with ``model`` and has none of the user's hooks."""
    memo: dict[int, Any] = {}
    for module in model.modules():
        tensors = [*module._parameters.values(), *module._buffers.values(), *vars(module).values()]
        memo.update({id(t): t for t in tensors if isinstance(t, torch.Tensor)})
    try:
        twin: nn.Module = copy.deepcopy(model, memo)
    except Exception as error:
        raise TracingError(
            f"{type(model).__name__} cannot be copied for tracing ({first_line(error)}); "
            "remove attributes that copy.deepcopy refuses (locks, generators, open files)"
        ) from error
    for module in twin.modules():
        module.training = False
        for hooks in (module._forward_hooks, module._backward_hooks, module._backward_pre_hooks):
            hooks.clear()
        for key, hook in list(module._forward_pre_hooks.items()):
            if not type(hook).__module__.startswith(_WEIGHT_HOOKS):
                del module._forward_pre_hooks[key]
    return twin


def first_line(error: BaseException) -> str:
    """Type and first line of an error, cut at 300 characters."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''}"[:300]


def _live(model: nn.Module, name: str) -> Callable[[], torch.Tensor]:
    """Read a parameter or buffer by name when it is asked for, not when the model was traced."""
    path, _, leaf = name.rpartition(".")
    return lambda: operator.attrgetter(leaf)(model.get_submodule(path))


def zero_inputs(model: nn.Module, shapes: Sequence[Sequence[int]]) -> tuple[torch.Tensor, ...]:
    """A batch of one sample of zeros for each shape, where the model lies and in its precision."""
    first = next((t for t in model.parameters() if t.is_floating_point()), torch.zeros(1))
    return tuple(torch.zeros((1, *s), dtype=first.dtype, device=first.device) for s in shapes)


def capture(model: nn.Module, shapes: Sequence[tuple[int, ...]]) -> Capture:
    """Trace ``model`` on fake tensors with a batch dim of 1, one a shape; runs no arithmetic.

    Raises TracingError if the model raises on that input, with the model's own message.
    """
    twin = skeleton(model)
    args = zero_inputs(model, shapes)
    with preserved(), _collector_paused(), warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        try:
            exported = torch.export.export(twin, args, strict=False)
        except Exception as error:
            got = ", ".join("x".join(map(str, s)) for s in shapes)
            raise TracingError(
                f"{type(model).__name__} raised on an input of shape {got} while it was traced "
                f"({first_line(error)}); check that the input shape is large enough for the network and "
                "that forward() has no branch on tensor values"
            ) from error
    _inline(exported.graph_module)
    signature, placeholders = exported.graph_signature, {}
    for node in exported.graph.nodes:
        if node.op == "placeholder":
            placeholders[node.name] = node
    tensors: dict[Node, Callable[[], torch.Tensor]] = {}
    names: dict[Node, str] = {}
    for name, target in signature.inputs_to_parameters.items():
        tensors[placeholders[name]] = _live(model, target)
        names[placeholders[name]] = target
    for name, target in signature.inputs_to_buffers.items():
        tensors[placeholders[name]] = _live(model, target)
    for name, target in signature.inputs_to_lifted_tensor_constants.items():
        tensors[placeholders[name]] = partial(exported.constants.__getitem__, target)
    inputs = [placeholders[n] for n in signature.user_inputs if n in placeholders]
    return Capture(exported.graph, inputs, tensors, names, dict(names))


def _inline(module: torch.fx.GraphModule) -> None:
    """Put what runs under torch.no_grad or autocast, which an export keeps apart, back in its place."""
    graph = module.graph
    for node in list(graph.nodes):
        if node.op != "call_function" or not str(node.target).startswith("wrap_with_"):
            continue
        at = next(k for k, x in enumerate(node.args) if isinstance(x, Node) and x.op == "get_attr")
        inner = operator.attrgetter(node.args[at].target)(module)
        _inline(inner)
        inputs = [n for n in inner.graph.nodes if n.op == "placeholder"]
        known = dict(zip(inputs, node.args[at + 1 :], strict=True))
        with graph.inserting_before(node):
            made = graph.graph_copy(inner.graph, known)
        if isinstance(made, Node):
            node.replace_all_uses_with(made)
        else:
            assert isinstance(made, (tuple, list))
            for user in list(node.users):  # each takes one of the results
                user.replace_all_uses_with(made[user.args[1]])  # type: ignore[arg-type, index]
                graph.erase_node(user)
        graph.erase_node(node)
