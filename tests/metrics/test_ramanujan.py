"""`ramanujan` against the dense singular value decomposition of each layer's biadjacency, written down."""

import math
import sys
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import mge_gpu
from mge_gpu.errors import GraphError, MaskError, MetricError
from mge_gpu.metrics.ramanujan import COLUMNS, ramanujan
from tests.graphs import random_masks

VALUES = ("delta_r", "delta_r_ub", "delta_r_imdb", "delta_r_imdb_ub", "lambda", "lambda_imsg")


def biadjacency(layer: nn.Module, mask: Tensor | None, encoding: str) -> np.ndarray:
    """(left, right), entry by entry, from the weight's layout as torch documents it."""
    w = layer.weight.detach().double().abs().numpy()
    w = w if mask is None else w * mask.numpy()
    groups = getattr(layer, "groups", 1)
    if getattr(layer, "transposed", False):
        parts = np.split(w, groups, axis=0)  # each (C_in a group, C_out a group, taps...)
        w = np.concatenate([part.swapaxes(0, 1) for part in parts])
    out, per = w.shape[:2]
    kernels = w.reshape(out, per, -1)
    taps = kernels.shape[2]
    matrix = np.zeros((per * taps if encoding == "rolled" else per * groups, out))
    for o in range(out):
        for i in range(per):
            if encoding == "rolled":
                for t in range(taps):
                    matrix[i * taps + t, o] = kernels[o, i, t]
            else:
                matrix[o // (out // groups) * per + i, o] = math.sqrt((kernels[o, i] ** 2).sum())
    return matrix


def linked(matrix: np.ndarray) -> np.ndarray:
    there = matrix != 0
    return matrix[there.any(1)][:, there.any(0)]


def sigma(matrix: np.ndarray) -> tuple[float, float]:
    found = [*np.linalg.svd(matrix, compute_uv=False), 0.0, 0.0]
    return found[0], found[1]


def delta_r(matrix: np.ndarray) -> tuple[float, float]:
    """(Δr, UB) of a graph without isolated nodes."""
    there = (matrix != 0) * 1.0
    ub = math.sqrt(there.sum(1).mean() - 1) + math.sqrt(there.sum(0).mean() - 1)
    return ub - sigma(there)[1], ub


def reference(matrix: np.ndarray) -> dict[str, float]:
    """The family by definition."""
    out = dict.fromkeys(VALUES, math.nan) | {"subgraphs": 0}
    graph = linked(matrix)
    if not graph.size:
        return out
    delta, ub = delta_r(graph)
    out |= {"delta_r": delta, "delta_r_ub": delta / ub if ub else math.nan}
    out["lambda"] = sigma(graph)[0] - sigma(graph)[1]
    degree = (graph != 0).sum(1)
    parts = [linked(graph[degree == d]) for d in np.unique(degree) if d >= 3]
    parts = [part for part in parts if (part != 0).sum(0).mean() >= 3]
    if parts:
        pairs = [delta_r(part) for part in parts]
        out["delta_r_imdb"] = float(np.mean([d for d, _ in pairs]))
        out["delta_r_imdb_ub"] = float(np.mean([d / ub for d, ub in pairs]))
        out["lambda_imsg"] = float(np.mean([np.subtract(*sigma(part)) for part in parts]))
        out["subgraphs"] = len(parts)
    return out


def agrees(row: pd.Series, matrix: np.ndarray) -> None:
    expected = reference(matrix)
    found = {key: row[key] for key in expected}
    scale = max(1.0, float(np.linalg.norm(matrix, 2)) if matrix.size else 1.0)
    for key, value in expected.items():
        assert found[key] == pytest.approx(value, rel=1e-8, abs=1e-7 * scale, nan_ok=True), key
    named = {key for reason in row["missing"].split("; ") for key in reason.partition(":")[0].split(", ")}
    assert named - {""} == ({"all"} if not matrix.any() else {k for k in VALUES if math.isnan(expected[k])})
    there = matrix != 0
    assert (row["left"], row["right"]) == matrix.shape and row["edges"] == there.sum()
    assert (row["left_linked"], row["right_linked"]) == (there.any(1).sum(), there.any(0).sum())
    if there.any():
        assert row["degree_left"] == pytest.approx(there.sum() / there.any(1).sum())
        assert row["degree_right"] == pytest.approx(there.sum() / there.any(0).sum())


@st.composite
def layers(draw: st.DrawFn) -> nn.Module:
    """Convolutions of every kind, small enough for dense algebra, wide enough for subgraphs."""
    groups = draw(st.sampled_from([1, 1, 2, 4]))
    c_in, c_out = (groups * draw(st.integers(1, 12 // groups + 2)) for _ in range(2))
    kernel = draw(st.sampled_from([1, 2, 3]))
    kinds: list[Callable[[], nn.Module]] = [
        lambda: nn.Linear(c_in * 3, c_out * 3),
        lambda: nn.Conv1d(c_in, c_out, kernel, groups=groups),
        lambda: nn.Conv2d(c_in, c_out, (kernel, 2), groups=groups),
        lambda: nn.Conv2d(c_in, c_in, kernel, groups=c_in),  # depthwise
        lambda: nn.ConvTranspose2d(c_in, c_out, kernel, groups=groups),
        lambda: nn.Conv3d(c_in, c_out, (1, kernel, 2), groups=groups),
    ]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(draw(st.integers(0, 999)))
        return draw(st.sampled_from(kinds))()


@settings(max_examples=60)
@given(
    layer=layers(),
    density=st.sampled_from([0.0, 0.05, 0.2, 0.5, 0.9, 1.0]),
    encoding=st.sampled_from(["rolled", "rolled-channel"]),
    seed=st.integers(0, 999),
)
def test_random_layers(layer: nn.Module, density: float, encoding: str, seed: int) -> None:
    mask = random_masks(layer, 1 - density, seed)["weight"]
    frame = ramanujan(layer, {"weight": mask}, encoding)
    assert list(frame.index) == ["weight"] and list(frame.columns) == list(COLUMNS[1:])
    agrees(frame.iloc[0], biadjacency(layer, mask, encoding))
    row = frame.iloc[0]
    assert row["weights"] == mask.numel() and row["nonzero"] == mask.sum()
    assert row["density"] == pytest.approx(mask.float().mean().item(), abs=1e-6)


@pytest.mark.parametrize("sparsity", [0.6, 0.8, 0.9, 0.95, 0.98])
@pytest.mark.parametrize("encoding", ["rolled", "rolled-channel"])
def test_every_layer_of_resnet20(sparsity: float, encoding: str) -> None:
    model = mge_gpu.models.resnet20()
    masks = mge_gpu.prune(model, "erk", sparsity, seed=1)
    frame = mge_gpu.ramanujan(model, masks, encoding)
    assert len(frame) == 22 and frame["subgraphs"].sum() > (20 if sparsity < 0.9 else 1)
    for name, row in frame.iterrows():
        agrees(row, biadjacency(model.get_submodule(name), masks[f"{name}.weight"], encoding))


@pytest.mark.parametrize("encoding", ["rolled", "rolled-channel"])
def test_spectrum_of_the_encoded_graph(encoding: str) -> None:
    """By the paper's own recipe: first and third largest |λ| of the symmetric adjacency."""
    model = nn.Conv2d(8, 12, 3)
    masks = random_masks(model, 0.6)
    row = ramanujan(model, masks, encoding).iloc[0]
    adjacency = mge_gpu.encode(model, (8, 5, 5), masks, encoding=encoding).to_scipy().toarray().astype(float)
    symmetric = adjacency + adjacency.T
    weighted, pattern = (
        sorted(np.abs(np.linalg.eigvalsh(a)), reverse=True) for a in (symmetric, (symmetric != 0) * 1.0)
    )
    assert row["lambda"] == pytest.approx(weighted[0] - weighted[2], rel=1e-6)
    ub = math.sqrt(row["degree_left"] - 1) + math.sqrt(row["degree_right"] - 1)
    assert row["delta_r"] == pytest.approx(ub - pattern[2])


def of(matrix: list[list[float]] | Tensor) -> pd.Series:
    """The row of a Linear with this weight, (right, left)."""
    weight = torch.as_tensor(matrix, dtype=torch.float32)
    layer = nn.Linear(weight.shape[1], weight.shape[0])
    layer.weight.data.copy_(weight)
    return ramanujan(layer).iloc[0]


def test_dense_layer_is_one() -> None:
    for encoding in ("rolled", "rolled-channel"):
        row = ramanujan(nn.Conv2d(6, 10, 3), encoding=encoding).iloc[0]
        assert row["delta_r_ub"] == row["delta_r_imdb_ub"] == 1.0 and row["missing"] == ""


def test_random_biregular_is_near_zero() -> None:
    generator = torch.Generator().manual_seed(0)
    eye = torch.eye(300)
    halves = [sum(eye[torch.randperm(300, generator=generator)] for _ in range(10)) for _ in range(2)]
    row = of(torch.cat(halves))
    assert abs(row["delta_r_ub"]) < 0.05


def test_no_edges() -> None:
    row = of(torch.zeros(3, 4))
    assert row["missing"] == "all: the layer has no edges" and row["density"] == row["edges"] == 0
    assert all(math.isnan(row[key]) for key in (*VALUES, "degree_left", "degree_right"))


@pytest.mark.parametrize("weight", [[[0.0, 2.0], [0.0, 0.0]], torch.eye(4).tolist()], ids=["one", "matching"])
def test_degree_one_has_no_ratio(weight: list[list[float]]) -> None:
    """The research code divides by UB = 0 here and reports -inf."""
    row = of(weight)
    edges = sum(x != 0 for line in weight for x in line)
    assert row["delta_r"] == (0 if edges == 1 else pytest.approx(-1))
    assert row["lambda"] == pytest.approx(2 if edges == 1 else 0)
    assert math.isnan(row["delta_r_ub"]) and math.isnan(row["delta_r_imdb"])
    assert (
        row["missing"].startswith("delta_r_ub: UB is 0") and "lambda_imsg: no left degree" in row["missing"]
    )


def test_a_star_has_a_bound() -> None:
    row = of([[1.0, 1.0, 0.0, 1.0]])  # degrees 1 and 3
    assert row["delta_r"] == math.sqrt(2) and row["delta_r_ub"] == 1.0
    assert "delta_r_ub" not in row["missing"]


def test_subgraph_needs_three_on_the_right() -> None:
    assert of(torch.ones(3, 2))["subgraphs"] == 0  # left degree 3, right degree 2
    assert of(torch.ones(3, 3))["subgraphs"] == 1


def test_small_kernels_are_edges() -> None:
    """Squares of 1e-30 vanish in single precision."""
    layer = nn.Conv2d(3, 3, 2)
    nn.init.constant_(layer.weight, 1e-30)
    row = ramanujan(layer, encoding="rolled-channel").iloc[0]
    assert row["edges"] == 9 and row["lambda"] == pytest.approx(6e-30)
    assert mge_gpu.encode(layer, (3, 2, 2), encoding="rolled-channel").num_edges == 9


def network() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=4), nn.Flatten(),
        nn.Linear(8 * 4, 5),
    )  # fmt: skip


def test_layers_held_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    model = network()
    masks = random_masks(model, 0.5)
    together = ramanujan(model, masks)
    monkeypatch.setattr(sys.modules["mge_gpu.metrics.ramanujan"], "TOGETHER", 0)
    pd.testing.assert_frame_equal(together, ramanujan(model, masks))


def test_on_device(device: str) -> None:
    model = network()
    masks = random_masks(model, 0.5)
    pd.testing.assert_frame_equal(ramanujan(model, masks), ramanujan(model, masks, device=device), rtol=1e-9)


@pytest.mark.parametrize("encoding", ["rolled", "rolled-channel"])
def test_program_and_module_agree(encoding: str) -> None:
    model = network()
    masks = random_masks(model, 0.5)
    program = mge_gpu.trace(model, (3, 6, 6))
    expected = ramanujan(model, masks, encoding)
    assert list(expected.index) == ["0", "3", "5"] and expected.attrs == {"encoding": encoding}
    pd.testing.assert_frame_equal(ramanujan(program, masks, encoding), expected)


def test_zeros_hooks_and_masks_mean_the_same() -> None:
    model = network()
    masks = random_masks(model, 0.7)
    expected = ramanujan(model, masks)
    hooked, zeroed = network(), network()
    for other in (hooked, zeroed):
        other.load_state_dict(model.state_dict())
    for name in ("0", "3", "5"):
        torch.nn.utils.prune.custom_from_mask(hooked.get_submodule(name), "weight", masks[f"{name}.weight"])
    mge_gpu.apply_masks(zeroed, masks)
    for other in (hooked, zeroed):
        pd.testing.assert_frame_equal(ramanujan(other), expected)


def test_model_is_left_as_it_was() -> None:
    model = network().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    random = torch.get_rng_state()
    ramanujan(model, random_masks(model, 0.5))
    with pytest.raises(MaskError):
        ramanujan(model, {"0.weight": torch.ones(2)})
    assert model.training and torch.equal(random, torch.get_rng_state())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_half_precision_and_no_layers() -> None:
    layer = nn.Linear(6, 5).bfloat16()
    agrees(ramanujan(layer).iloc[0], biadjacency(layer, None, "rolled"))
    empty = ramanujan(nn.ReLU())
    assert len(empty) == 0 and list(empty.columns) == list(COLUMNS[1:])


def test_refusals() -> None:
    layer = nn.Linear(2, 2)
    with pytest.raises(
        GraphError, match="got encoding 'mge', expected a bipartite one: rolled or rolled-channel"
    ):
        ramanujan(layer, encoding="mge")
    with pytest.raises(GraphError, match="got a str, expected a torch.nn.Module or a Program"):
        ramanujan("resnet18")  # type: ignore[arg-type]
    for device in ("tpu", "meta"):
        with pytest.raises(MetricError, match=f"got device '{device}', expected 'cpu' or a 'cuda'"):
            ramanujan(layer, device=device)
    layer.weight.data[0, 0] = math.nan
    with pytest.raises(MaskError, match="weight: 1 of 4 values are NaN or Inf"):
        ramanujan(layer)


def test_progress_is_told() -> None:
    told: list[str] = []
    ramanujan(network(), progress=lambda text, share: told.append(text))
    assert told == ["singular values of 0 to 5"]
