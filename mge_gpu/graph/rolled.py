"""Rolled encodings: one bipartite graph a layer, the baselines of the paper."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch

from mge_gpu.tracing.program import Layer, Program, Use, place
from mge_gpu.tracing.relation import arange


def biadjacency(weight: torch.Tensor, groups: int, encoding: str) -> torch.Tensor:
    """The weights of a layer's bipartite graph, (right, left), from (C_out, C_in / groups, taps).

    rolled: left C_in / groups * taps nodes, right C_out, edge weight |w| (the sign is still there).
    rolled-channel: left C_in, right C_out, edge weight the L2 norm of the kernel, in double precision: a
    kernel with a nonzero has one.

    >>> biadjacency(torch.tensor([[[3.0, 4.0]], [[0.0, 1.0]]]), 2, "rolled-channel").tolist()
    [[5.0, 0.0], [0.0, 1.0]]
    """
    if encoding == "rolled":
        return weight.flatten(1)
    norm = weight.double().norm(dim=2)
    out, per = norm.shape
    matrix = norm.new_zeros(out, per * groups)
    for g in range(groups):
        rows = slice(g * out // groups, (g + 1) * out // groups)
        matrix[rows, g * per : (g + 1) * per] = norm[rows]
    return matrix


def rolled_program(
    program: Program, read: Callable[[int], torch.Tensor | None], encoding: str
) -> tuple[Program, Callable[[int], torch.Tensor | None]]:
    """Replace each layer by a linear layer between two partitions of its own; see `biadjacency`."""
    named: list[tuple[str, tuple[int, ...], int]] = []
    layers: list[Layer] = []
    matrices: dict[int, torch.Tensor | None] = {}
    for index, layer in enumerate(program.layers):
        weight = read(index)
        if weight is None:
            continue
        matrix = biadjacency(layer.matrix(weight), layer.groups, encoding)
        right, left = matrix.shape
        name = layer.weight_name.removesuffix(".weight")
        named += [(f"{name}:in", (left,), 0), (f"{name}:out", (right,), 0)]
        k = len(layers)
        shape = (right, left, 1)
        layers.append(
            replace(
                layer,
                kind="linear",
                weight_shape=shape,
                groups=1,
                transposed=False,
                target=2 * k + 1,
                taps=np.zeros((1, 1), np.int32),
                uses=(Use(2 * k, arange(left), arange(1)),),
                weight=None,
                weight_name=f"{k}:{layer.weight_name}",
                parameters=((f"{k}:{layer.weight_name}", shape),),
            )
        )
        matrices[k] = matrix
    even, odd = tuple(range(0, 2 * len(layers), 2)), tuple(range(1, 2 * len(layers), 2))
    return replace(
        program,
        partitions=place(named),
        layers=tuple(layers),
        input_partitions=even,
        output_partitions=odd,
        parameter_shapes={},
        skips=(),
        halo=None,
        returned={},
        cache={},
    ), matrices.__getitem__
