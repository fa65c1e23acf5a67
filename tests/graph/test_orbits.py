"""Which positions of a network can be exchanged, and the quotient by these exchanges."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import mge_gpu
from mge_gpu.graph import orbits
from mge_gpu.graph.orbits import Orbits
from tests.graphs import Mixer, Tokens


class VisionTransformer(nn.Module):
    """Patches of an image, a token for the class, a layer of attention, a head on that token."""

    def __init__(self, class_token: bool) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 4, 4, 4)
        self.token = nn.Parameter(torch.zeros(1, 1, 4)) if class_token else None
        layer = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True)
        self.encoder, self.head = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        if self.token is None:
            return self.head(self.encoder(x).mean(1))
        return self.head(self.encoder(torch.cat([self.token.expand(len(x), -1, -1), x], 1))[:, 0])


def found(model: nn.Module, shape: tuple[int, ...]) -> Orbits | None:
    graph = mge_gpu.encode(model.eval(), shape)
    assert graph.orbits is graph.orbits
    return graph.orbits


@pytest.mark.parametrize("class_token", [True, False])
def test_tokens_with_their_patches(class_token: bool) -> None:
    """A pixel is exchanged with those at the same place of other patches; the class token with none."""
    quotient = found(VisionTransformer(class_token), (3, 8, 12))
    assert quotient is not None
    image, patch, *tokens, head = quotient.sizes
    assert image.tolist() == [6] * 16 and patch.tolist() == [6] and head.tolist() == [1]
    assert len(tokens) >= 4 and all(n.tolist() == ([1, 6] if class_token else [6]) for n in tokens)
    assert [p.shape for p in quotient.partitions[:2]] == [(3, 16), (4, 1)]
    attention = [
        m.targets for (*_, m), whole in zip(quotient.blocks, quotient.whole, strict=True) if whole.all()
    ]
    assert len(attention) == 3  # keys, values, and the head


@pytest.mark.parametrize(
    ("model", "shape"),
    [
        (nn.Conv2d(2, 3, 3, padding=1), (2, 8, 8)),
        (nn.Conv1d(2, 3, 2), (2, 9)),
        (nn.Sequential(nn.Conv2d(2, 3, 2, 2), nn.MaxPool2d(3, 1), nn.Conv2d(3, 2, 1)), (2, 12, 12)),
        (nn.Sequential(nn.Flatten(), nn.Linear(24, 5)), (4, 6)),
        (nn.Linear(4, 4), (3, 4)),  # three alike are too few
        (nn.Linear(4, 4), (4,)),
        (nn.Sequential(nn.Conv2d(2, 30, 6), nn.Flatten(), nn.Linear(120, 30)), (2, 7, 7)),
        (Mixer(4, 16, 5, 6), (2, 8, 8)),
    ],
)
def test_positions_that_differ(model: nn.Module, shape: tuple[int, ...]) -> None:
    assert found(model, shape) is None


def test_few_positions_that_can_be_exchanged_are_not_worth_it() -> None:
    """Four tokens beside a layer that has most of the nodes."""

    class Beside(nn.Module):
        def __init__(self, wide: int) -> None:
            super().__init__()
            self.shared, self.wide, self.last = nn.Linear(3, 3), nn.Linear(3, wide), nn.Linear(wide, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.wide(self.shared(x).mean(-2)))

    assert found(Beside(1), (4, 3)) is not None
    assert found(Beside(40), (4, 3)) is None


def test_tokens_that_a_hash_takes_for_alike_are_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Tokens(("first",), "all")  # all read the first one
    quotient = found(model, (8, 3))
    assert quotient is not None and quotient.sizes[0].tolist() == [1, 7]
    monkeypatch.setattr(orbits, "_mixed", lambda *numbers: np.zeros(1, np.uint64))
    assert found(model, (8, 3)) is None
    quotient = found(nn.Linear(3, 3), (8, 3))
    assert quotient is not None and quotient.sizes[0].tolist() == [8]


def test_a_graph_from_a_file_has_the_same(tmp_path: Path) -> None:
    graph = mge_gpu.encode(VisionTransformer(True).eval(), (3, 8, 12))
    graph.save(f"{tmp_path}/graph.npz")
    loaded = mge_gpu.load(f"{tmp_path}/graph.npz")
    assert graph.orbits is not None and loaded.orbits is not None
    assert [n.tolist() for n in loaded.orbits.sizes] == [n.tolist() for n in graph.orbits.sizes]
