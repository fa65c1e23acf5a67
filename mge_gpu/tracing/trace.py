"""`trace`: the one entry point of this folder."""

import operator
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from torch import nn
from torch.fx import Node
from torch.fx.node import map_arg

from mge_gpu.errors import MGEError, TracingError, TracingWarning, UnsupportedOpError
from mge_gpu.masks import prunable_parameters
from mge_gpu.tracing.capture import Capture, capture, first_line
from mge_gpu.tracing.constants import creates, root, writes
from mge_gpu.tracing.first_layer import first_padding, reads_channels_last
from mge_gpu.tracing.ops import ARITHMETIC, MOVING, PASSING, REDUCING, lookup
from mge_gpu.tracing.program import Program
from mge_gpu.tracing.traceable import check_traceable
from mge_gpu.tracing.tracer import Call, Const, Tracer, module_path
from mge_gpu.tracing.value import Value

_PARAMETRIC = (nn.modules.conv._ConvNd, nn.Linear, nn.Bilinear, nn.RNNBase, nn.Embedding)


def trace(
    model: nn.Module, input_shape: Sequence[int], *, pad_input: bool = True, identity_skips: bool = False
) -> Program:
    """Trace a model into partitions, layers and routes, without running it and without its weights.

    Args:
        model: any module that ``torch.export`` accepts; it is left exactly as it was found.
        input_shape: shape of one sample, (C, H, W) for images, without the batch dim.
        pad_input: give nodes to the zero padding of the first convolution, if that reads the input (the
            published node counts do). Later layers' padding has no nodes, also where they read the input.
        identity_skips: give unit-weight edges to identity skips.

    Raises:
        UnsupportedOpError: an op has no handler; the message names it and its layer.
        TracingError: the model raises on this input, its layout has no closed form, or a size depends on
            values.
        MaskError: a prunable weight is no dense tensor, or not there yet (a lazy layer).

    Warns:
        TracingWarning: a layer with weights is never reached by the forward pass.

    Example:
        >>> program = trace(nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU()), (3, 32, 32))
        >>> program.num_nodes  # 3 * 34 * 34 of the padded input, 8 * 32 * 32 of the output
        11660
    """
    if not isinstance(model, nn.Module):
        raise TracingError(f"got {type(model).__name__}, expected a torch.nn.Module; pass the model itself")
    try:
        shape = tuple(operator.index(n) for n in input_shape)
    except TypeError:  # not a sequence, or not of whole numbers
        shape = ()
    if not shape or any(n < 1 for n in shape):
        raise TracingError(f"got input shape {input_shape!r}, expected positive sizes such as (3, 224, 224)")
    check_traceable(model)
    prunable = frozenset(prunable_parameters(model))
    captured = capture(model, [shape])
    _name_shared_weights(model, captured)
    pad = first_padding(captured, shape) if pad_input else None
    tracer = Tracer(captured, [shape], pad, identity_skips, reads_channels_last(captured), prunable)
    result = _run(captured, tracer)
    _warn_unreached(model, captured)
    return tracer.finish(result, shape, model, pad_input)


def _run(captured: Capture, tracer: Tracer) -> list[Value]:
    """Interpret the graph node by node; returns the values that the model returns."""
    env = tracer.env
    for node in captured.graph.nodes:
        if node.op == "output":
            return [env[n] for n in node.all_input_nodes if isinstance(env[n], Value)]
        if node.op != "call_function":
            continue
        if creates(node) or not any(_depends(env.get(n)) for n in node.all_input_nodes):
            value = node.meta.get("val")
            env[node] = Const(node, tuple(getattr(value, "shape", ())))
            continue
        env[node] = _call(node, tracer)
        if writes(node):
            _written(node, tracer)
    raise TracingError("the traced graph has no output; the model must return at least one tensor")


def _depends(x: Any) -> bool:
    return isinstance(x, (Value, list))


def _written(node: Node, tracer: Tracer) -> None:
    """Let later readers of what an in-place op has changed see the change.

    Raises TracingError where other views of the same memory are read later: these are not followed.
    """
    base, result = node.args[0], tracer.env[node]
    assert isinstance(base, Node)
    before = tracer.env[base]
    if not isinstance(result, Value) or (isinstance(before, Value) and before.terms is result.terms):
        return  # an activation: all views show the same nodes as before
    order, memory = tracer.constants.order, root(base)
    late = [n for n in order if n is not base and root(n) is memory and order[n] < order[node]]
    if any(order[u] > order[node] for n in late for u in n.users):
        raise TracingError(
            f"{node.target} in layer {module_path(node)!r} writes into a part of a tensor that is read "
            "as a whole afterwards; make a new tensor (torch.cat, torch.where) instead"
        )
    tracer.env[base] = result.stale()


def _call(node: Node, tracer: Tracer) -> Any:
    op = str(node.target) if "getitem" not in str(node.target) else "_operator.getitem"
    handler = lookup(op)
    if handler is None:
        raise UnsupportedOpError(
            f"op {op} in layer {module_path(node) or '(top level)'!r} has no handler; teach the tracer with "
            f"mge_gpu.tracing.register_handler({'.'.join(op.split('.')[:2])!r}, handler)"
        )
    args = map_arg(node.args, lambda n: tracer.env[n])
    kwargs = map_arg(dict(node.kwargs), lambda n: tracer.env[n])
    call = Call(tracer, node, tuple(args), kwargs)
    try:
        result = handler(call)
    except MGEError as error:
        if call.layer and call.layer not in str(error):
            raise type(error)(f"layer {call.layer!r}: {error}") from error
        raise
    except (
        ArithmeticError,
        AssertionError,
        AttributeError,
        LookupError,
        RuntimeError,
        TypeError,
        ValueError,
    ) as error:
        raise TracingError(
            f"{op} in layer {call.layer!r} is used in a way that its handler does not know "
            f"({first_line(error)}); register a handler for it"
        ) from error
    _record_origin(tracer, node, handler)
    if isinstance(result, Value):
        if result.shape != call.shape:
            raise TracingError(
                f"{op} in layer {call.layer!r}: handler gave shape {result.shape}, not {call.shape}"
            )
        if result.fresh is not None:
            tracer.unread[node] = result.fresh
        if tracer.readers(node) != 1:
            result = result.stale()
    return result


def _record_origin(tracer: Tracer, node: Node, handler: Callable[[Call], Any]) -> None:
    """Note whose elementwise function or statistic a tensor is (arithmetic notes it by itself)."""
    sources = [n for n in node.all_input_nodes if _depends(tracer.env[n])]
    if handler in MOVING or handler in PASSING:  # expand_as takes but the shape of its other argument
        sources = sources[:1]
    if len(sources) != 1:
        return
    if handler in PASSING or handler in ARITHMETIC:
        tracer.origins.passed(node, sources[0])
    elif handler in REDUCING:
        tracer.origins.reduced(node, sources[0])
    elif handler in MOVING:
        tracer.origins.moved(node, sources[0])


def _name_shared_weights(model: nn.Module, captured: Capture) -> None:
    """Call a tensor that several modules share by the one name that masks use for it."""
    names = {id(tensor): name for name, tensor in prunable_parameters(model).items()}
    for node in captured.parameter_names:
        tensor = captured.tensors[node]()
        captured.parameter_names[node] = names.get(id(tensor), captured.parameter_names[node])


def _warn_unreached(model: nn.Module, captured: Capture) -> None:
    reached = {id(captured.tensors[node]()) for node in captured.parameter_names if node.users}
    for path, module in model.named_modules():
        own = {id(p) for p in module.parameters() if p.dim() > 1}
        if isinstance(module, _PARAMETRIC) and own and not reached & own:
            warnings.warn(
                f"layer {path!r} ({type(module).__name__}) has weights but the forward pass never reaches "
                "it; it is not part of the graph",
                TracingWarning,
                stacklevel=3,
            )
