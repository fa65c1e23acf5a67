"""Rolled encodings: one bipartite graph a layer, the baselines of the paper."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch

from mge_gpu.tracing.program import Layer, Program, Use, place
from mge_gpu.tracing.relation import arange


def rolled_program(
    program: Program, read: Callable[[int], torch.Tensor | None], encoding: str
) -> tuple[Program, Callable[[int], torch.Tensor | None]]:
    """Replace each layer by a linear layer between two partitions of its own.

    rolled: left C_in/groups * k_h * k_w nodes, right C_out, edge weight |w|.
    rolled-channel: left C_in, right C_out, edge weight the L2 norm of the kernel.
    """
    named: list[tuple[str, tuple[int, ...], int]] = []
    layers: list[Layer] = []
    matrices: dict[int, torch.Tensor | None] = {}
    for index, layer in enumerate(program.layers):
        weight = read(index)
        if weight is None:
            continue
        matrix = layer.matrix(weight)  # (C_out, C_in / groups, taps)
        if encoding == "rolled":
            matrix = matrix.flatten(1)
        else:
            norm = matrix.float().norm(dim=2)
            out, per = norm.shape
            matrix = norm.new_zeros(out, per * layer.groups)
            for g in range(layer.groups):
                rows = slice(g * out // layer.groups, (g + 1) * out // layer.groups)
                matrix[rows, g * per : (g + 1) * per] = norm[rows]
        right, left = matrix.shape
        named += [(f"{layer.name}:in", (left,), 0), (f"{layer.name}:out", (right,), 0)]
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
