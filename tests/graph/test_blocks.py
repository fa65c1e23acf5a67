"""The nonzeros of a contribution: what each weight stands for, written out one by one."""

from collections import Counter

import numpy as np
import torch
from hypothesis import Phase, given, settings
from torch import Tensor, nn

import mge_gpu
from mge_gpu.graph.blocks import nonzeros, weight_matrix
from mge_gpu.graph.geometry import Contribution, contributions
from mge_gpu.tracing.program import Layer
from tests.oracles.networks import Case
from tests.oracles.strategies import cases


def written_out(part: Contribution, matrix: np.ndarray, groups: int) -> dict[tuple[int, int, int], float]:
    """(target channel, source channel, tap) -> sum of |w|."""
    found: Counter[tuple[int, int, int]] = Counter()
    channels, step = part.channels, matrix.shape[0] // groups
    for o, i, t in np.argwhere(matrix).tolist():
        row = o // step * matrix.shape[1] + i
        for s in range(channels.ptr[row], channels.ptr[row + 1]):
            for d, shift in enumerate(part.channel_shift.tolist()):
                if part.key[t, d] >= 0:
                    tap = int(channels.position_set[s]) * part.keys + int(part.key[t, d])
                    found[o, int(channels.channel[s]) + shift, tap] += abs(float(matrix[o, i, t]))
    return found


def check(part: Contribution, layer: Layer, weight: Tensor | None) -> None:
    columns = nonzeros(part, layer, weight)
    assert [c.dtype for c in columns] == [np.int32, np.int32, np.int32, np.float32]
    target, source, tap, value = (c.tolist() for c in columns)
    assert target == sorted(target)
    found = dict(zip(zip(target, source, tap, strict=True), value, strict=True))
    expected = written_out(part, weight_matrix(part, layer, weight), layer.groups)
    assert len(found) == len(value) and found.keys() == expected.keys()
    np.testing.assert_allclose([found[k] for k in expected], list(expected.values()), rtol=1e-6)


def check_network(model: nn.Module, shape: tuple[int, ...]) -> list[Contribution]:
    program = mge_gpu.trace(model, shape)
    parts = contributions(program)
    for part in parts:
        layer = program.layers[part.layer]
        check(part, layer, layer.weight({}) if layer.weight_name and layer.weight is not None else None)
    return parts


def test_drawn_networks() -> None:
    @settings(max_examples=60, phases=[Phase.generate])
    @given(cases())
    def compare(case: Case) -> None:
        check_network(case.module(), case.input_shape)

    compare()


def test_heads_that_are_positions() -> None:
    """MViT pools queries, keys and values head by head: the layer behind attention reads all of its head."""

    class Pooled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.qkv, self.out = nn.Linear(3, 18), nn.Linear(6, 4)
            self.pools = nn.ModuleList(nn.Conv2d(3, 3, 3, padding=1, groups=3) for _ in range(3))

        def forward(self, x: Tensor) -> Tensor:
            q, k, v = self.qkv(x).reshape(1, 6, 3, 2, 3).permute(2, 0, 3, 4, 1)
            q, k, v = (
                pool(y.reshape(2, 3, 2, 3)).flatten(2).transpose(1, 2)
                for pool, y in zip(self.pools, (q, k, v), strict=True)
            )
            x = torch.softmax(q @ k.transpose(-2, -1), -1) @ v
            return self.out(x.transpose(0, 1).reshape(1, 6, 6))

    torch.manual_seed(0)
    parts = check_network(Pooled(), (6, 3))
    assert any(len(p.channels.sets) > 1 and not p.channels.injective for p in parts)
