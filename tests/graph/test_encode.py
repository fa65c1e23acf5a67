"""`encode`: masks, programs that are used again, rolled encodings, what it refuses, published sizes."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import mge_gpu
from mge_gpu.backends import DeviceWarning, device_of
from mge_gpu.errors import GraphError, MaskError, MGEError, TracingError
from mge_gpu.graph import MultipartiteGraph
from mge_gpu.graph.blocks import LazyBlocks
from mge_gpu.masks import apply_masks
from tests.graphs import DenseNet, encoded, random_masks
from tests.oracles.networks import Case
from tests.oracles.strategies import cases


def same_edges(one: MultipartiteGraph, other: MultipartiteGraph) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.coo(), other.coo(), strict=True))


@settings(max_examples=25)
@given(cases(), st.integers(0, 100))
def test_masks_are_zeroed_weights(case: Case, seed: int) -> None:
    """A mask as an argument, in the weights, and in a program that has served another mask before."""
    model = case.module()
    generator = torch.Generator().manual_seed(seed)
    masks = {
        name: torch.rand(weight.shape, generator=generator) < 0.6
        for name, weight in mge_gpu.masks.prunable_parameters(model).items()
    }
    program = mge_gpu.trace(model, case.input_shape)
    first = mge_gpu.encode(program)
    masked = mge_gpu.encode(program, masks={name: m.float() for name, m in masks.items()})
    assert same_edges(first, mge_gpu.encode(program)), "a mask outlived its graph"
    assert same_edges(masked, encoded(case, masks=masks))
    apply_masks(model, masks)
    assert same_edges(masked, mge_gpu.encode(program))
    assert same_edges(masked, mge_gpu.encode(model, case.input_shape))


def test_masks_may_name_some_layers_only() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    graph = mge_gpu.encode(model, (3,), {"1.weight": torch.zeros(2, 4)})
    assert graph.num_edges == 12
    assert mge_gpu.encode(model, (3,), {}).num_edges == 20


def test_partitions_and_info() -> None:
    model = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3))
    graph = mge_gpu.encode(model, (2, 4, 4))
    assert [(p.shape, p.offset, p.size) for p in graph.partitions] == [
        ((2, 6, 6), 0, 72), ((4, 4, 4), 72, 64), ((3,), 136, 3),
    ]  # fmt: skip
    assert [p.name for p in graph.partitions[1:]] == ["0", "3"]
    assert (graph.input_partitions, graph.output_partitions) == ((0,), (2,))
    assert graph.info["input_shape"] == (2, 4, 4) and graph.info["encoding"] == "mge"
    assert graph.in_partitions([2]).nonzero()[0].tolist() == [136, 137, 138]
    assert "139 nodes" in repr(graph) and "3 partitions" in repr(graph)
    assert mge_gpu.encode(model, (2, 4, 4), pad_input=False).partitions[0].shape == (2, 4, 4)


# rolled encodings


LAYERS = [
    nn.Linear(5, 3),
    nn.Conv2d(3, 4, (2, 3), padding=1),
    nn.Conv2d(4, 6, 3, groups=2),
    nn.Conv2d(4, 8, 3, groups=4),  # depthwise, two filters a channel
    nn.Conv1d(3, 2, 2, dilation=2),
    nn.ConvTranspose2d(4, 6, 2, groups=2),
    nn.ConvTranspose1d(3, 2, 3, stride=2),
]
SHAPES: list[tuple[int, ...]] = [(5,), (3, 6, 6), (4, 6, 6), (4, 6, 6), (3, 9), (4, 5, 5), (3, 5)]
CASES = list(zip(LAYERS, SHAPES, strict=True))


def filters(layer: nn.Module, weight: Tensor) -> np.ndarray:
    """The weight as (C_out, C_in a group, taps...), by the layout that torch documents."""
    w = weight.numpy()
    if not isinstance(layer, (nn.ConvTranspose1d, nn.ConvTranspose2d)):
        return w
    groups = np.split(w, layer.groups, axis=0)  # each (C_in a group, C_out a group, taps...)
    return np.concatenate([g.swapaxes(0, 1) for g in groups])


@pytest.mark.parametrize(("layer", "shape"), CASES, ids=str)
def test_rolled(layer: nn.Module, shape: tuple[int, ...]) -> None:
    """Left C_in / groups * taps, right C_out, weight |w|."""
    mask = torch.rand(layer.weight.shape, generator=torch.Generator().manual_seed(0)) < 0.5
    graph = mge_gpu.encode(layer, shape, {"weight": mask}, encoding="rolled")
    w = filters(layer, (layer.weight * mask).detach())
    expected = np.abs(w.reshape(len(w), -1))  # (right, left)
    right, left = expected.shape
    assert [p.shape for p in graph.partitions] == [(left,), (right,)]
    assert np.array_equal(graph.to_scipy().toarray()[:left, left:].T, expected)
    assert graph.num_edges == int(mask.sum())
    assert (graph.input_partitions, graph.output_partitions) == ((0,), (1,))


@pytest.mark.parametrize(("layer", "shape"), CASES, ids=str)
def test_rolled_channel(layer: nn.Module, shape: tuple[int, ...]) -> None:
    """Left C_in, right C_out, weight the kernel's L2 norm; channels of other groups are not linked."""
    mask = torch.rand(layer.weight.shape, generator=torch.Generator().manual_seed(1)) < 0.3
    graph = mge_gpu.encode(layer, shape, {"weight": mask}, encoding="rolled-channel")
    w = filters(layer, (layer.weight * mask).detach())
    out, per = w.shape[:2]
    groups = getattr(layer, "groups", 1)
    expected = np.zeros((out, per * groups))
    for o in range(out):
        for i in range(per):
            channel = o // (out // groups) * per + i
            expected[o, channel] = np.sqrt((w[o, i].astype(np.float64) ** 2).sum())
    matrix = graph.to_scipy().toarray()
    assert graph.num_nodes == per * groups + out
    np.testing.assert_allclose(matrix[: per * groups, per * groups :].T, expected, rtol=1e-6)
    assert graph.num_edges == np.count_nonzero(expected)


@pytest.mark.parametrize("encoding", ["rolled", "rolled-channel"])
def test_rolled_network_is_a_pair_of_partitions_a_layer(encoding: str) -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Conv2d(2, 3, 3), nn.Flatten(), nn.Linear(12, 2))
    graph = mge_gpu.encode(model, (1, 6, 6), encoding=encoding, identity_skips=True)
    names = [p.name for p in graph.partitions]
    assert names == ["0:in", "0:out", "2:in", "2:out", "4:in", "4:out"]
    assert (graph.input_partitions, graph.output_partitions) == ((0, 2, 4), (1, 3, 5))
    owner = np.repeat(np.arange(6), [p.size for p in graph.partitions])
    source, target, _ = graph.coo()
    assert set(zip(owner[source].tolist(), owner[target].tolist(), strict=True)) == {(0, 1), (2, 3), (4, 5)}
    report = mge_gpu.topometrics(graph)
    assert (report["sink_nodes"], report["source_nodes"]) == (0, 0)


# what it refuses


def test_unknown_encoding() -> None:
    with pytest.raises(GraphError, match=r"'unrolled', expected one of mge, rolled, rolled-channel"):
        mge_gpu.encode(nn.Linear(2, 2), (2,), encoding="unrolled")


@pytest.mark.parametrize("where", ["cuda", "cuda:9", torch.device("cuda"), "meta"])
def test_device_without_a_backend(where: str | torch.device) -> None:
    if torch.cuda.is_available() and str(where) == "cuda":
        pytest.skip("this machine has a CUDA device")
    with pytest.raises(GraphError, match=r"got device '(cuda|meta).*'cpu'"):
        mge_gpu.encode(nn.Linear(2, 2), (2,), device=where)


@pytest.mark.parametrize("where", ["gpu", "cudda:0"])
def test_device_of_no_kind(where: str) -> None:
    with pytest.raises(MGEError, match=f"got device '{where}'"):
        mge_gpu.encode(nn.Linear(2, 2), (2,), device=where)


def test_cpu_may_be_named() -> None:
    assert mge_gpu.encode(nn.Linear(2, 2), (2,), device="cpu").device == torch.device("cpu")


def test_a_graph_is_computed_where_its_weights_are() -> None:
    assert mge_gpu.encode(nn.Linear(2, 2), (2,)).device == torch.device("cpu")
    on_gpu = SimpleNamespace(device=torch.device("cuda", 9))  # no machine has ten GPUs
    with pytest.warns(DeviceWarning, match="on the CPU, though the model is on a GPU: got device 'cuda"):
        assert device_of(on_gpu) == torch.device("cpu")  # type: ignore[arg-type]


def test_input_shape_missing_or_other() -> None:
    layer = nn.Conv2d(1, 1, 3)
    with pytest.raises(GraphError, match=r"without input_shape; pass the shape"):
        mge_gpu.encode(layer)
    program = mge_gpu.trace(layer, (1, 5, 5))
    assert mge_gpu.encode(program, [1, 5, 5]).num_nodes == 25 + 9  # type: ignore[arg-type]
    with pytest.raises(GraphError, match=r"\(1, 6, 6\), the program was traced at \(1, 5, 5\)"):
        mge_gpu.encode(program, (1, 6, 6))


@pytest.mark.parametrize("name, value", [("pad_input", False), ("identity_skips", True)])
def test_a_program_traced_otherwise(name: str, value: bool) -> None:
    layer, option = nn.Conv2d(1, 1, 3), {name: value}
    with pytest.raises(GraphError, match=f"got {name}={value} and a program traced with {name}={not value}"):
        mge_gpu.encode(mge_gpu.trace(layer, (1, 5, 5)), **option)  # type: ignore[arg-type]
    program = mge_gpu.trace(layer, (1, 5, 5), **option)
    assert mge_gpu.encode(program, **option).info == mge_gpu.encode(program).info  # type: ignore[arg-type]


def test_too_many_nodes_for_32_bits() -> None:
    with pytest.raises(TracingError, match=r"at most 2,147,483,647 fit"):
        mge_gpu.encode(nn.Conv2d(1, 40_000, 1), (1, 256, 256))


def test_mask_that_does_not_fit() -> None:
    with pytest.raises(MaskError, match=r"weight.*\(3, 2\).*\(2, 2\)"):
        mge_gpu.encode(nn.Linear(2, 2), (2,), {"weight": torch.ones(3, 2)})


# published sizes

PUBLISHED = {
    "resnet20": 191_894,
    "resnet32": 306_582,
    "wide_resnet28_2": 478_614,
    "conv6": 233_366,
    "mobilenet_v2": 1_676_182,
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_node_counts(name: str) -> None:
    make = getattr(mge_gpu.models, name)
    assert mge_gpu.trace(make(), (3, 32, 32)).num_nodes == PUBLISHED[name]
    assert mge_gpu.trace(make(num_classes=100), (3, 32, 32)).num_nodes == PUBLISHED[name] + 90


def test_resnet50_at_its_real_input_size() -> None:
    torchvision = pytest.importorskip("torchvision", reason="needs torchvision's ResNet-50")
    program = mge_gpu.trace(torchvision.models.resnet50(weights=None), (3, 224, 224))
    assert program.num_nodes == 9_768_404
    assert program.partitions[0].size == 3 * 230 * 230


def test_edges_of_a_published_network_by_hand() -> None:
    """CONV-6 without pruning: each layer's edges are its nonzero weights times what they are applied to."""
    model = mge_gpu.models.conv6()
    graph = mge_gpu.encode(model, (3, 32, 32), random_masks(model, 0.999))
    assert graph.num_nodes == 233_366
    source, target, weight = graph.coo()
    assert graph.num_edges == len(source) and float(weight.min()) > 0
    assert int(source.min()) >= 0 and bool((source < target).all())


def test_memory_follows_nodes_and_nonzeros() -> None:
    """Eight times the pixels: eight times the edges, and a compressed adjacency of about the same rows."""
    model = DenseNet(growth=4, depth=3, channels=3)
    small, large = (mge_gpu.encode(model, (3, n, n)) for n in (16, 64))
    assert large.num_edges > 15 * small.num_edges
    assert large.adjacency.shifts.nbytes < 1.5 * small.adjacency.shifts.nbytes
    assert large.adjacency.nbytes < 0.02 * 20 * large.num_edges


def test_large_graphs_read_their_weights_block_by_block(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same graph, made from the weights when it is asked for; weights that have changed are an error."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.MaxPool2d(3, 2, 1), nn.Conv2d(4, 3, 3))
    masks = {"0.weight": torch.rand(4, 2, 3, 3) > 0.5}
    eager = mge_gpu.encode(model, (2, 9, 9), masks)
    monkeypatch.setattr(sys.modules["mge_gpu.graph.encode"], "SNAPSHOT", 0)
    lazy = mge_gpu.encode(model, (2, 9, 9), masks)
    late = mge_gpu.encode(model, (2, 9, 9), masks)
    assert lazy.num_edges == eager.num_edges
    for a, b in zip(lazy.coo(), eager.coo(), strict=True):
        assert torch.equal(a, b)
    with torch.no_grad():
        model[2].weight[0, 0, 0, 0] += 1
    for a, b in zip(lazy.coo(), eager.coo(), strict=True):  # read before the change
        assert torch.equal(a, b)
    with pytest.raises(GraphError, match=r"the weight of layer '2' has changed since .*; encode again"):
        late.coo()


@pytest.mark.parametrize("encoding", ["mge", "rolled", "rolled-channel"])
def test_what_is_taken_in_at_once_is_limited(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    layer = nn.Conv2d(2, 4, 3)
    at_once = mge_gpu.encode(layer, (2, 5, 5), encoding=encoding)
    monkeypatch.setattr(sys.modules["mge_gpu.graph.encode"], "SNAPSHOT", 7)
    later = mge_gpu.encode(layer, (2, 5, 5), encoding=encoding)
    assert isinstance(at_once.iterate_blocks(), list) and isinstance(later.iterate_blocks(), LazyBlocks)
    assert later.num_edges == at_once.num_edges


@settings(max_examples=60)
@given(cases(), st.booleans())
def test_edges_are_counted_without_blocks(case: Case, pad_input: bool) -> None:
    """Where blocks are made one at a time, the number of edges comes from the weights alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys.modules["mge_gpu.graph.encode"], "SNAPSHOT", -1)
        graph = mge_gpu.encode(case.module(), case.input_shape, pad_input=pad_input)
    counted = graph.num_edges
    assert "_placed" not in graph.__dict__
    assert counted == len(graph.coo()[0])


def test_equal_lists_are_kept_once_and_shared() -> None:
    """The channels of a dense layer have one neighbour list; the pixels of a pool's cell share theirs."""
    model = nn.Sequential(nn.Conv2d(2, 8, 1), nn.MaxPool2d(2), nn.Conv2d(8, 8, 1))
    graph = mge_gpu.encode(model, (2, 6, 6))
    adjacency = graph.adjacency
    assert adjacency.num_hubs == 36 + 36 + 9 + 9  # a list a position, in both directions of both layers
    assert len(adjacency.shifts) == 8 + 2 + 8 + 8 and adjacency.span.tolist().count(7) == 1
    assert graph.num_edges == 36 * 16 + 9 * 64 * 4
