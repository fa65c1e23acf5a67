"""`effective_masks`: which of the weights that masks keep lie on a path from the input to an output."""

import warnings
from collections.abc import Mapping
from functools import cache, partial

import torch

from mge_gpu.backends import Backend, get_backend
from mge_gpu.backends.cuda.shortage import GpuMemoryWarning
from mge_gpu.errors import DeviceMemoryError
from mge_gpu.graph.blocks import Placed, build_block
from mge_gpu.graph.encode import groups_of
from mge_gpu.graph.flow import build_flow, is_parameter, parameter_ids, weight_ids
from mge_gpu.masks import check_masks
from mge_gpu.metrics import sweeps
from mge_gpu.tracing import Layer, Program
from mge_gpu.tracing.weights import WeightReader


def effective_masks(
    program: Program, masks: Mapping[str, torch.Tensor], device: str | torch.device = "cpu"
) -> dict[str, torch.Tensor]:
    """The masks without the weights that no signal from the input passes on its way to an output.

    A kept weight is effective if one of its edges begins where the input reaches and ends where an output is
    reached; identity skips are followed, zero padding is no input. Zeroing the others changes no output of a
    network whose nodes that no input reaches are zero (without biases, say). The values of the weights are
    not read. A weight that several layers share is effective if it is in one of them. Where the forward pass
    computes a layer's weights otherwise than by moving parameters about (a standardised kernel), all kept
    entries of these parameters are effective if one of the layer's weights is.

    Args:
        program: the traced network (`mge_gpu.trace`); many masks share what is worked out from it.
        masks: parameter name -> mask; a weight without a mask is kept.
        device: where marks are passed on.

    Returns:
        Name -> bool CPU tensor of the weight's shape, for every prunable weight and every name in ``masks``.

    Raises:
        MaskError: as `mge_gpu.encode`.

    Reference: Vysogorets and Kempe, "Connectivity matters: neural network pruning through the lens of
    effective sparsity", JMLR 2023.

    >>> import mge_gpu
    >>> model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.ReLU(), torch.nn.Linear(2, 1))
    >>> program = mge_gpu.trace(model, (2,))
    >>> found = effective_masks(program, {"2.weight": torch.tensor([[True, False]])})
    >>> found["0.weight"].tolist()  # the second unit reaches no output
    [[True, True], [False, False]]
    """
    shapes = program.weight_shapes()
    checked = check_masks(masks, shapes)
    whole = {
        name: checked[name] if name in checked else torch.ones(shape, dtype=torch.bool, device="cpu")
        for name, shape in shapes.items()
    }
    none = torch.zeros(0, dtype=torch.bool, device="cpu")
    kept = torch.cat([none, *(mask.flatten() for mask in whole.values())])
    found = torch.zeros_like(kept)
    read = partial(_kept_weight, program, whole, kept)
    groups = groups_of(program)

    @cache
    def placed(number: int) -> Placed:
        group = groups[number]
        block = build_block(group, program.partitions, program.layers, read)
        return group.source, group.target, block, group.positions

    flow = build_flow(program, groups, placed, read, entries=True)

    def mark(backend: Backend) -> None:
        course = sweeps.Course(flow, backend)
        for link, flags in sweeps.effective(course, sweeps.reached(course)):
            assert link.entry is not None
            ids = link.entry[backend.host(flags)]
            found[torch.from_numpy(ids[ids >= 0])] = True

    backend = get_backend(device)
    try:
        backend.within_memory(partial(mark, backend), host_helps=True)
    except DeviceMemoryError:
        warnings.warn(
            "the GPU's memory is too short for effective masks: they are found on the CPU",
            GpuMemoryWarning,
            stacklevel=2,
        )
        mark(get_backend("cpu"))
    _spread_over_computed(program, found)
    parts = (found & kept).split([mask.numel() for mask in whole.values()])
    return {
        name: part.reshape(mask.shape).clone()
        for (name, mask), part in zip(whole.items(), parts, strict=True)
        if name in program.parameter_shapes or name in checked
    }


def _computed(layer: Layer) -> bool:
    """Whether a layer's weights are more than parameters moved about."""
    read = layer.weight
    return isinstance(read, WeightReader) and not is_parameter(layer) and read.places() is None


def _kept_weight(
    program: Program, masks: Mapping[str, torch.Tensor], kept: torch.Tensor, index: int
) -> torch.Tensor | None:
    """A layer's mask in place of its weight; ``kept`` is all masks, one after the other."""
    layer = program.layers[index]
    if not layer.weight_name:
        return None
    if is_parameter(layer):
        return masks[layer.weight_name]
    if _computed(layer):
        return torch.ones(layer.weight_shape, device="cpu")
    ids = weight_ids(program, layer)
    return kept[ids] & (ids >= 0)


def _spread_over_computed(program: Program, found: torch.Tensor) -> None:
    """Set all entries of the parameters that weights are computed from, if one of these weights is set."""
    for layer in program.layers:
        if layer.weight_name and _computed(layer):
            ids = parameter_ids(program, layer)
            found[ids] |= found[weight_ids(program, layer)].any()
