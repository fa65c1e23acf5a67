"""The bipartite graph of each layer, alone: as a matrix of a model, or as a part of an encoded graph."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from mge_gpu import _weights
from mge_gpu.errors import GraphError
from mge_gpu.graph.encode import ENCODINGS, masked_weight
from mge_gpu.graph.multipartite import MultipartiteGraph
from mge_gpu.graph.rolled import biadjacency
from mge_gpu.masks import check_masks, check_weight
from mge_gpu.tracing.program import Program, place, weight_matrix


@dataclass(frozen=True)
class Bipartite:
    """One layer's bipartite graph: an edge for each nonzero of ``matrix``, of the weight |value|.

    ``weights`` and ``nonzero`` count the layer's weights, which the rolled-channel encoding joins to kernels.
    """

    name: str
    matrix: Tensor  # (right, left), of any sign and floating dtype
    weights: int
    nonzero: int


def bipartite_layers(
    model: nn.Module | Program, masks: Mapping[str, Tensor] | None = None, encoding: str = "rolled"
) -> Iterator[Bipartite]:
    """The bipartite graph of each layer, one at a time.

    Of a module every weight of `mge_gpu.masks.prunable_parameters` is a layer, in module order, whether or
    not a forward pass reaches it; of a `Program` every layer, in order of execution. Layers go by the names
    of their weights, without ".weight". Masks and parametrizations act as in `mge_gpu.encode`.

    Raises:
        GraphError: another encoding than "rolled" and "rolled-channel", or no model.
        MaskError: a mask does not fit, or a weight is not finite.

    Example:
        >>> [(layer.name, tuple(layer.matrix.shape)) for layer in bipartite_layers(nn.Conv2d(3, 8, 3))]
        [('weight', (8, 27))]
    """
    if encoding not in ENCODINGS[1:]:
        raise GraphError(f"got encoding {encoding!r}, expected a bipartite one: {' or '.join(ENCODINGS[1:])}")
    if isinstance(model, Program):
        return _of_program(model, masks, encoding)
    if isinstance(model, nn.Module):
        return _of_module(model, masks, encoding)
    raise GraphError(f"got a {type(model).__name__}, expected a torch.nn.Module or a Program")


def _of_program(program: Program, masks: Mapping[str, Tensor] | None, encoding: str) -> Iterator[Bipartite]:
    checked = check_masks(masks, program.weight_shapes()) if masks else {}
    for index, layer in enumerate(program.layers):
        weight = masked_weight(program, checked, index)
        if weight is not None:  # an identity skip has none
            yield _bipartite(layer.weight_name, weight, layer.matrix(weight), layer.groups, encoding)


def _of_module(model: nn.Module, masks: Mapping[str, Tensor] | None, encoding: str) -> Iterator[Bipartite]:
    places = _weights.prunable_places(model)
    shapes = {name: _weights.stored_weight(kept, name).shape for name, kept in places.items()}
    checked = check_masks(masks, shapes) if masks else {}
    for name, kept in places.items():
        weight = _weights.effective_weight(kept)
        if name in checked:
            weight = weight * checked[name].to(weight.device, weight.dtype)
        check_weight(name, weight)
        groups = getattr(kept.module, "groups", 1)
        matrix = weight_matrix(weight, groups, getattr(kept.module, "transposed", False))
        yield _bipartite(name, weight, matrix, groups, encoding)


def _bipartite(name: str, weight: Tensor, matrix: Tensor, groups: int, encoding: str) -> Bipartite:
    nonzero = int(weight.count_nonzero())
    return Bipartite(
        name.removesuffix(".weight"), biadjacency(matrix, groups, encoding), weight.numel(), nonzero
    )


def bipartite_graphs(graph: MultipartiteGraph) -> Iterator[tuple[str, MultipartiteGraph]]:
    """The layers of a rolled encoding as (name, graph of two partitions), one at a time.

    Raises:
        GraphError: the graph is of another encoding.

    Example:
        >>> import mge_gpu
        >>> graph = mge_gpu.encode(nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 4)), (3,), encoding="rolled")
        >>> [(name, part.num_nodes, part.num_edges) for name, part in bipartite_graphs(graph)]
        [('0', 5, 6), ('1', 6, 8)]
    """
    encoding = graph.info.get("encoding")
    if encoding not in ENCODINGS[1:]:
        raise GraphError(
            f"got a graph with encoding {encoding!r}, expected a bipartite one: {' or '.join(ENCODINGS[1:])}"
        )
    pairs = zip(graph.partitions[::2], graph.partitions[1::2], strict=True)
    for (left, right), (_, _, block, positions) in zip(pairs, graph.iterate_blocks(), strict=True):
        name = left.name.removesuffix(":in")
        partitions = place([(p.name, p.shape, p.channel_dim) for p in (left, right)])
        alone = block._replace(source_offset=0, target_offset=left.size)
        info = graph.info | {"layer": name}
        yield name, MultipartiteGraph(partitions, [(0, 1, alone, positions)], (0,), (1,), info, graph.device)
