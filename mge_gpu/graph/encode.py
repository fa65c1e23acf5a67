"""`encode`: from a model (or a traced program) and masks to a graph."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from math import prod

import torch
from torch import nn

from mge_gpu.backends import device_of, get_backend
from mge_gpu.backends.cpu.threads import run
from mge_gpu.errors import GraphError
from mge_gpu.graph.blocks import Group, LazyBlocks, Placed, Weight, build_block, group_contributions
from mge_gpu.graph.flow import Flow, build_flow, read_again
from mge_gpu.graph.geometry import contributions
from mge_gpu.graph.multipartite import MultipartiteGraph
from mge_gpu.graph.rolled import rolled_program
from mge_gpu.masks import check_masks, check_weight, pieces
from mge_gpu.tracing import Program, trace

ENCODINGS = ("mge", "rolled", "rolled-channel")

SNAPSHOT = 1 << 26
"""Nonzero weights (of 16 bytes each) that a graph takes in at once; beyond, it reads them block by block."""


def encode(
    model: nn.Module | Program,
    input_shape: Sequence[int] | None = None,
    masks: Mapping[str, torch.Tensor] | None = None,
    encoding: str = "mge",
    pad_input: bool = True,
    identity_skips: bool = False,
    device: str | torch.device | None = None,
) -> MultipartiteGraph:
    """Encode a network as a graph: a node for each element, an edge for each structural nonzero.

    Args:
        model: a module, or the `Program` that `mge_gpu.trace` made of it, which has padding and identity
            skips as it was traced.
        input_shape: shape of one sample without the batch dim; needed for a module.
        masks: parameter name -> mask; True or 1 keeps a weight. Weights that are exactly zero are no
            edges either way. Names as in `mge_gpu.masks.prunable_parameters`.
        encoding: "mge" (unrolled, input-aware), or the bipartite baselines, one pair of partitions a
            layer: "rolled" (left C_in/groups * k_h * k_w, right C_out) and "rolled-channel" (left
            C_in, right C_out, weight = L2 norm of the kernel).
        pad_input: give nodes to the first convolution's zero padding, as the published counts do.
        identity_skips: add unit-weight edges for identity skips.
        device: where the graph's edges are written down and its metrics computed: "cpu" or "cuda" (torch's
            current GPU), which needs the extra cuda. None: where the weights are; the CPU, with a
            `DeviceWarning`, if that is a GPU which cannot be used. Blocks themselves are made on the CPU.

    Raises:
        MaskError: a mask or weight is NaN, of the wrong shape, of an unknown name or not binary.
        TracingError: the model cannot be traced.
        GraphError: ``device`` is unknown or cannot be used here; a program was traced otherwise than asked.

    Reference: Cunegatti et al., "Understanding Sparse Neural Networks from their Topology via
    Multipartite Graph Representations", TMLR 2024.

    Example:
        >>> graph = encode(nn.Conv2d(1, 2, 3, padding=1), (1, 4, 4))
        >>> graph.num_nodes, graph.num_edges  # 6 * 6 padded input + 2 * 4 * 4, each with 9 inputs
        (68, 288)
    """
    if encoding not in ENCODINGS:
        raise GraphError(f"got encoding {encoding!r}, expected one of {', '.join(ENCODINGS)}")
    if device is not None:
        get_backend(device)  # raises where it cannot be used
    if isinstance(model, Program):
        program = model
        if input_shape is not None and tuple(input_shape) != program.input_shape:
            raise GraphError(
                f"got input shape {tuple(input_shape)}, the program was traced at {program.input_shape}"
            )
        _check_traced_so(program, pad_input, identity_skips)
    else:
        if input_shape is None:
            raise GraphError(
                "got a model without input_shape; pass the shape of one sample, e.g. (3, 224, 224)"
            )
        program = trace(model, input_shape, pad_input=pad_input, identity_skips=identity_skips)
    weight = next((layer.weight({}) for layer in program.layers if layer.weight), None)
    if device is None:
        device = device_of(weight)
    if weight is not None and weight.device.type == "cuda":
        torch.cuda.current_stream(weight.device).synchronize()  # threads that read weights have other streams
    checked = check_masks(masks, program.weight_shapes()) if masks else {}
    read: Weight = partial(masked_weight, program, checked)
    if encoding != "mge":
        program, read = rolled_program(program, read, encoding)
    blocks = _blocks(program, read)
    return MultipartiteGraph(
        program.partitions,
        blocks,
        program.input_partitions,
        program.output_partitions,
        {
            "model": program.model_name,
            "input_shape": program.input_shape,
            "encoding": encoding,
            "pad_input": program.pad_input,
            "identity_skips": program.identity_skips,
        },
        device,
        _flow(program, blocks, read),
    )


def _check_traced_so(program: Program, pad_input: bool, identity_skips: bool) -> None:
    """Options that are not the defaults must be the program's: they cannot be changed any more."""
    for name, asked, default in ("pad_input", pad_input, True), ("identity_skips", identity_skips, False):
        traced = getattr(program, name)
        if asked != default and asked != traced:
            raise GraphError(
                f"got {name}={asked} and a program traced with {name}={traced}; pass it to trace() instead"
            )


def _flow(program: Program, blocks: list[Placed] | LazyBlocks, read: Weight) -> Callable[[], Flow]:
    """What makes the graph's flow, from the weights as they are now."""
    groups = groups_of(program)
    if isinstance(blocks, LazyBlocks):
        return partial(build_flow, program, groups, blocks.placed, blocks.weight)
    kept = {k: weight.clone() for k in read_again(program, groups) if (weight := read(k)) is not None}
    return partial(build_flow, program, groups, blocks.__getitem__, kept.get)


def groups_of(program: Program) -> list[Group]:
    """The program's contributions by block, made once for all masks."""
    if "groups" not in program.cache:
        program.cache["groups"] = group_contributions(contributions(program))
    known: list[Group] = program.cache["groups"]
    return known


def _blocks(program: Program, read: Weight) -> list[Placed] | LazyBlocks:
    """All blocks; or, where they would take gigabytes, what makes one at a time from the weights.

    That works on the weights as they were: it raises GraphError where they have changed.
    """
    groups = groups_of(program)

    def make(group: Group) -> Placed:
        block = build_block(group, program.partitions, program.layers, read)
        return group.source, group.target, block, group.positions

    if sum(prod(layer.weight_shape) for layer in program.layers) <= SNAPSHOT:
        for k in set(range(len(program.layers))) - {part.layer for g in groups for part in g.members}:
            read(k)  # no block has it, but it must be sound all the same
        return run(lambda k: make(groups[k]), len(groups))
    sums = run(lambda k: _checked_sum(read(k)), len(program.layers))
    if sum(count for count, _ in sums) <= SNAPSHOT:
        return run(lambda k: make(groups[k]), len(groups))

    def unchanged(index: int) -> torch.Tensor | None:
        weight = read(index)
        if _checked_sum(weight) != sums[index]:
            raise GraphError(
                f"the weight of layer {program.layers[index].name!r} has changed since the graph was "
                "encoded; encode again"
            )
        return weight

    return LazyBlocks(groups, program.partitions, program.layers, unchanged)


def _checked_sum(weight: torch.Tensor | None) -> tuple[int, int]:
    """(nonzeros, sum of bit patterns) of a weight: it changes when the weight does."""
    if weight is None:
        return 0, 0
    nonzeros = total = 0
    for part in pieces(weight):
        nonzeros += int(torch.count_nonzero(part))
        total += int(part.to(torch.float32).contiguous().view(torch.int32).sum(dtype=torch.int64))
    return nonzeros, total


def masked_weight(program: Program, masks: Mapping[str, torch.Tensor], index: int) -> torch.Tensor | None:
    """The weight of layer ``index`` with its mask applied; None for an identity skip.

    Raises MaskError for NaN, Inf, complex and whole numbers.
    """
    layer = program.layers[index]
    if layer.weight is None:
        return None
    weight = layer.weight(masks)
    check_weight(layer.weight_name, weight)
    return weight
