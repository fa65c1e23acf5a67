"""`encode`: from a model (or a traced program) and masks to a graph."""

from collections.abc import Mapping, Sequence

import torch
from torch import nn

from mge_gpu.errors import GraphError
from mge_gpu.graph.blocks import build_adjacency, build_blocks
from mge_gpu.graph.geometry import Contribution, contributions
from mge_gpu.graph.multipartite import MultipartiteGraph
from mge_gpu.graph.rolled import rolled_program
from mge_gpu.masks import check_masks, check_weight
from mge_gpu.tracing import Program, trace

ENCODINGS = ("mge", "rolled", "rolled-channel")


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
        model: a module, or the `Program` that `mge_gpu.trace` made of it (then ``pad_input`` and
            ``identity_skips`` are the program's).
        input_shape: shape of one sample without the batch dim; needed for a module.
        masks: parameter name -> mask; True or 1 keeps a weight. Weights that are exactly zero are no
            edges either way. Names as in `mge_gpu.masks.prunable_parameters`.
        encoding: "mge" (unrolled, input-aware), or the bipartite baselines, one pair of partitions a
            layer: "rolled" (left C_in/groups * k_h * k_w, right C_out) and "rolled-channel" (left
            C_in, right C_out, weight = L2 norm of the kernel).
        pad_input: give nodes to the first convolution's zero padding, as the published counts do.
        identity_skips: add unit-weight edges for identity skips.
        device: "cpu" (the default).

    Raises:
        MaskError: a mask or weight is NaN, of the wrong shape, of an unknown name or not binary.
        TracingError: the model cannot be traced.

    Reference: Cunegatti et al., "Understanding Sparse Neural Networks from their Topology via
    Multipartite Graph Representations", TMLR 2024.

    Example:
        >>> graph = encode(nn.Conv2d(1, 2, 3, padding=1), (1, 4, 4))
        >>> graph.num_nodes, graph.num_edges  # 6 * 6 padded input + 2 * 4 * 4, each with 9 inputs
        (68, 288)
    """
    if encoding not in ENCODINGS:
        raise GraphError(f"got encoding {encoding!r}, expected one of {', '.join(ENCODINGS)}")
    if str(device or "cpu").split(":")[0] != "cpu":
        raise GraphError(f"got device {str(device)!r}, but graphs live on 'cpu'; leave device out")
    if isinstance(model, Program):
        program = model
        if input_shape is not None and tuple(input_shape) != program.input_shape:
            raise GraphError(
                f"got input shape {tuple(input_shape)}, the program was traced at {program.input_shape}"
            )
    else:
        if input_shape is None:
            raise GraphError(
                "got a model without input_shape; pass the shape of one sample, e.g. (3, 224, 224)"
            )
        program = trace(model, input_shape, pad_input=pad_input, identity_skips=identity_skips)
    weights = read_weights(program, masks)
    if encoding != "mge":
        program, weights = rolled_program(program, weights, encoding)
    blocks = build_blocks(program.partitions, program.layers, _geometry(program), weights)
    return MultipartiteGraph(
        program.partitions,
        [b[:3] for b in blocks],
        lambda: build_adjacency(program.partitions, blocks),
        program.input_partitions,
        program.output_partitions,
        {
            "model": program.model_name,
            "input_shape": program.input_shape,
            "encoding": encoding,
            "pad_input": program.pad_input,
            "identity_skips": program.identity_skips,
        },
    )


def _geometry(program: Program) -> list[Contribution]:
    """The program's contributions, made once for all masks."""
    if "geometry" not in program.cache:
        program.cache["geometry"] = contributions(program)
    known: list[Contribution] = program.cache["geometry"]
    return known


def read_weights(
    program: Program, masks: Mapping[str, torch.Tensor] | None
) -> dict[int, torch.Tensor | None]:
    """The masked weight of each layer by its index; None for identity skips."""
    checked = check_masks(masks, program.weight_shapes()) if masks else {}
    out: dict[int, torch.Tensor | None] = {}
    for index, layer in enumerate(program.layers):
        if layer.weight is None:
            out[index] = None
            continue
        weight = layer.weight(checked)
        check_weight(layer.weight_name, weight)
        out[index] = weight
    return out
