"""Layers that mix positions channel by channel: a nonzero a weight, and the edges of the Jacobian."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import mge_gpu
from mge_gpu.backends.adjacency import CROSSED, FLAT, OWN
from mge_gpu.errors import GraphError
from tests.graphs import Mixer, edges_of, random_masks
from tests.metrics.test_topometrics import assert_matches, reference_of


class TokenMixing(nn.Module):
    """Two layers: tokens or a map of c channels, then a layer on the positions of each channel."""

    def __init__(self, channels_first: bool, c: int, positions: int, out: int) -> None:
        super().__init__()
        self.first = nn.Conv1d(2, c, 1, bias=False) if channels_first else nn.Linear(2, c, bias=False)
        self.mix = nn.Linear(positions, out, bias=False)
        self.channels_first = channels_first

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return self.mix(x if self.channels_first else x.transpose(1, 2))


@given(st.booleans(), st.integers(1, 5), st.integers(1, 5), st.integers(1, 4), st.sampled_from([0.0, 0.5]))
def test_a_nonzero_is_a_weight(first: bool, c: int, positions: int, out: int, sparsity: float) -> None:
    model = TokenMixing(first, c, positions, out)
    masks = random_masks(model, sparsity)
    graph = mge_gpu.encode(model, (2, positions) if first else (positions, 2), masks)
    (_, a, _), (_, b, block) = graph.blocks
    source, target = graph.partitions[a].offset, graph.partitions[b].offset
    weight = (model.mix.weight * masks["mix.weight"]).detach().numpy()
    expected = {
        (
            source + (k * positions + x if first else x * c + k),
            target + k * out + j,
            abs(float(weight[j, x])),
        )
        for j, x in zip(*np.nonzero(weight), strict=True)
        for k in range(c)
    }
    assert {e for e in zip(*(v.tolist() for v in edges_of(graph)), strict=True) if e[0] >= source} == expected
    if c > 1 and positions > 1:
        assert (block.view, len(block.tap)) == (CROSSED, np.count_nonzero(weight))


@pytest.mark.parametrize("sparsity", [0.0, 0.4])
def test_metrics_of_a_mixer(sparsity: float) -> None:
    torch.manual_seed(0)
    model = Mixer(4, 6, 3, 8)
    graph = mge_gpu.encode(model, (2, 4, 6), random_masks(model, sparsity))
    assert [b.view for _, _, b in graph.blocks].count(CROSSED) >= 3
    assert not any(b.overlaps for _, _, b in graph.blocks if b.view == CROSSED)
    assert_matches(mge_gpu.topometrics(graph), reference_of(graph))


@pytest.mark.parametrize("channels_first", [False, True])
def test_as_many_channels_as_positions(channels_first: bool) -> None:
    """What leads to one channel each, all at the first position, does not lead to one position each."""

    class Pooled(TokenMixing):
        def __init__(self) -> None:
            super().__init__(channels_first, 3, 3, 2)
            self.beside, self.head = nn.Linear(3, 2), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            x = self.first(x)
            x, y = (x, x.transpose(1, 2)) if channels_first else (x.transpose(1, 2), x)
            return self.head(torch.cat([self.mix(x).mean(1), self.beside(y).mean(1)], 1))

    first = torch.tensor([[True, False, False]]).expand(2, 3)
    masks = {"mix.weight": first, "beside.weight": first}  # the first position, the first channel
    graph = mge_gpu.encode(Pooled(), (2, 3) if channels_first else (3, 2), masks)
    assert sorted(b.view for _, _, b in graph.blocks) == [OWN, OWN, OWN, OWN, CROSSED]
    assert_matches(mge_gpu.topometrics(graph), reference_of(graph))


def test_two_views_of_one_partition_become_one() -> None:
    """An edge that is reached both ways, by a layer of what is turned and what is not, is there once."""

    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(2, 3, bias=False), nn.Linear(3, 2, bias=False)

        def forward(self, x: Tensor) -> Tensor:
            x = self.first(x)
            return self.last(x.sin() * x.transpose(1, 2))

    model = Both()
    with torch.no_grad():
        model.last.weight.copy_(torch.tensor([[1.0, 2.0, 0.0], [0.0, 4.0, 8.0]]))
    graph = mge_gpu.encode(model, (3, 2))
    assert len({b.view for _, t, b in graph.blocks if t == 2}) == 1
    expected = torch.zeros(9, 6)
    for j, row in enumerate(model.last.weight.tolist()):
        for x in range(3):
            for k in range(3):  # of position x and channel k, and of the reverse
                expected[x * 3 + k, x * 2 + j] += row[k]
                expected[k * 3 + x, x * 2 + j] += row[k]
    source, target, weight = (v[graph.partitions[1].size * 2 :] for v in edges_of(graph))
    found = torch.zeros(9, 6)
    found[source - 6, target - 15] = torch.from_numpy(weight)
    assert graph.num_edges == 18 + int((expected > 0).sum())
    torch.testing.assert_close(found, expected)


def _rewritten(path: Path, change: Any) -> None:
    with np.load(path) as f:
        arrays = {k: f[k] for k in f.files}
    head = json.loads(arrays["head"].tobytes())
    change(head)
    arrays["head"] = np.frombuffer(json.dumps(head).encode(), np.uint8)
    np.savez_compressed(path, **arrays)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "mixer.npz"
    mge_gpu.encode(Mixer(4, 6, 3, 8), (2, 4, 6)).save(path)
    return path


def test_a_file_keeps_the_view(saved: Path) -> None:
    graph = mge_gpu.load(saved)
    again = mge_gpu.load(saved)
    assert CROSSED in [b.view for _, _, b in graph.blocks]
    torch.manual_seed(0)
    assert mge_gpu.topometrics(graph) == mge_gpu.topometrics(again)


@pytest.mark.parametrize("view", [OWN, FLAT, 3, -1, True, "2", None, 2.0])
def test_a_view_that_does_not_fit(saved: Path, view: object) -> None:
    def change(head: dict[str, Any]) -> None:
        next(b for b in head["blocks"] if b["view"] == CROSSED)["view"] = view

    _rewritten(saved, change)
    with pytest.raises(GraphError, match=r"mixer\.npz.*save it again"):
        mge_gpu.load(saved)


def test_format_3_knows_flat_and_own(tmp_path: Path) -> None:
    class Turned(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(2, 6, 3), nn.Linear(12, 5)

        def forward(self, x: Tensor) -> Tensor:
            return self.b(self.a(x).flatten(1).t().reshape(-1, 12))

    path = tmp_path / "turned.npz"
    graph = mge_gpu.encode(Turned(), (2, 6, 6))
    assert {b.view for _, _, b in graph.blocks} == {OWN, FLAT}
    graph.save(path)

    def to_format_3(head: dict[str, Any]) -> None:
        head["format"] = 3
        links = [x for side in ("links", "edges") for x in head["flow"][side]]
        for block in (x for x in (*head["blocks"], *links) if "view" in x):
            block["flat"] = block.pop("view") == FLAT

    _rewritten(path, to_format_3)
    for a, b in zip(edges_of(mge_gpu.load(path)), edges_of(graph), strict=True):
        np.testing.assert_array_equal(a, b)
