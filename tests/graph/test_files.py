"""Save and load: nothing is lost, and a file that is not a graph is an error, never a wrong graph."""

import copy
import io
import json
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from torch import nn

import mge_gpu
from mge_gpu.errors import GraphError
from mge_gpu.graph import MultipartiteGraph
from tests.graphs import DenseNet, encoded, random_masks
from tests.oracles.networks import Case
from tests.oracles.strategies import cases


@pytest.fixture
def graph() -> MultipartiteGraph:
    torch.manual_seed(0)
    model = DenseNet()
    return mge_gpu.encode(model, (2, 4, 4), random_masks(model, 0.5))


@pytest.fixture
def file(graph: MultipartiteGraph, tmp_path: Path) -> Path:
    path = tmp_path / "graph.npz"
    graph.save(str(path))
    return path


def assert_same(one: MultipartiteGraph, other: MultipartiteGraph) -> None:
    assert one.partitions == other.partitions
    assert one.input_partitions == other.input_partitions and one.output_partitions == other.output_partitions
    assert one.adjacency._fields == other.adjacency._fields
    for a, b in zip(one.adjacency, other.adjacency, strict=True):
        assert a.dtype == b.dtype and np.array_equal(a, b)
    for a, b in zip(one.coo(), other.coo(), strict=True):
        assert torch.equal(a, b)


@settings(max_examples=15)
@given(cases())
def test_round_trip(tmp_path: Path, case: Case) -> None:
    graph = encoded(case, identity_skips=True)
    path = tmp_path / "any name"
    graph.save(path)  # type: ignore[arg-type]
    loaded = mge_gpu.load(path)
    assert_same(graph, loaded)
    values = dict(mge_gpu.topometrics(graph))
    assert dict(mge_gpu.topometrics(loaded)) == values
    for copied in (pickle.loads(pickle.dumps(graph)), copy.deepcopy(graph)):
        assert_same(graph, copied)
        assert copied.info == graph.info and dict(mge_gpu.topometrics(copied)) == values


class RunningSum(nn.Module):
    """An element of the input reaches the last layer on more routes than there are positions."""

    def __init__(self) -> None:
        super().__init__()
        self.pool, self.last = nn.MaxPool2d(3, 1, 1), nn.Linear(15, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.pool(self.pool(torch.cumsum(x, -1))).flatten(1))


def test_pairs_that_many_routes_link(tmp_path: Path) -> None:
    graph = mge_gpu.encode(RunningSum(), (1, 3, 5))
    assert max(block.runs[:, 2].max() for _, _, block in graph.blocks) > 15
    graph.save(str(tmp_path / "graph"))
    assert_same(graph, mge_gpu.load(str(tmp_path / "graph")))


def test_a_copy_keeps_nothing_of_the_model() -> None:
    layer = nn.Linear(3, 2)
    copied = copy.deepcopy(mge_gpu.encode(layer, (3,)))
    weights = layer.weight.detach().abs().clone()
    nn.init.zeros_(layer.weight)
    assert torch.equal(copied.coo()[2].sort()[0], weights.flatten().sort()[0])


def test_info_and_rolled_graphs(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Conv2d(2, 2, 3))
    graph = mge_gpu.encode(model, (1, 6, 6), encoding="rolled-channel")
    graph.save(str(tmp_path / "g"))
    loaded = mge_gpu.load(str(tmp_path / "g"))
    assert_same(graph, loaded)
    assert loaded.info["encoding"] == "rolled-channel" and list(loaded.info["input_shape"]) == [1, 6, 6]
    loaded.save(str(tmp_path / "h"))
    assert_same(graph, mge_gpu.load(str(tmp_path / "h")))


def test_file_holds_no_edges(tmp_path: Path) -> None:
    graph = mge_gpu.encode(nn.Conv2d(3, 8, 3, padding=1), (3, 96, 96))
    graph.save(str(tmp_path / "g"))
    assert (tmp_path / "g").stat().st_size < 0.02 * 20 * graph.num_edges


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(GraphError, match=r"no file '.*absent\.npz'; graph\.save"):
        mge_gpu.load(str(tmp_path / "absent.npz"))


def test_directory(tmp_path: Path) -> None:
    with pytest.raises(GraphError, match="not a graph file"):
        mge_gpu.load(str(tmp_path))


@pytest.mark.parametrize("keep", [0, 1, 10, 0.3, 0.7, 0.99])
def test_truncated(file: Path, keep: float) -> None:
    whole = file.read_bytes()
    file.write_bytes(whole[: keep if isinstance(keep, int) else int(len(whole) * keep)])
    with pytest.raises(GraphError, match=r"graph\.npz' is not a graph file or is damaged"):
        mge_gpu.load(str(file))


def test_flipped_bytes(file: Path, graph: MultipartiteGraph) -> None:
    """A damaged byte is noticed, or (in zip headers that nobody reads) changes nothing."""
    whole = file.read_bytes()
    noticed = 0
    for at in np.random.default_rng(0).integers(0, len(whole), 150).tolist():
        damaged = bytearray(whole)
        damaged[at] ^= 0x55
        file.write_bytes(bytes(damaged))
        try:
            assert_same(graph, mge_gpu.load(str(file)))
        except GraphError:
            noticed += 1
    assert noticed > 50


class Hostile:
    """Unpickling it would create a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, (str(self.path), "w"))


def test_hostile_pickles_do_not_run(tmp_path: Path, file: Path) -> None:
    trace = tmp_path / "it ran"
    plain = tmp_path / "plain.pkl"
    plain.write_bytes(pickle.dumps(Hostile(trace)))
    torch.save(Hostile(trace), tmp_path / "model.pt")
    inside = np.empty(1, object)
    inside[0] = Hostile(trace)
    np.savez(tmp_path / "array.npz", head=inside, allow_pickle=True)
    single = tmp_path / "single.npy"
    np.save(single, inside, allow_pickle=True)
    for path in (plain, tmp_path / "model.pt", tmp_path / "array.npz", single):
        trace.unlink(missing_ok=True)  # np.save may not call it, but nothing may be left of the writing
        with pytest.raises(GraphError, match="not a graph file"):
            mge_gpu.load(str(path))
        assert not trace.exists()


def rewrite(file: Path, **changes: np.ndarray | None) -> None:
    """Replace arrays of the file (None removes one); names with dots are given with two underscores."""
    with np.load(file) as f:
        arrays = {k: f[k] for k in f.files}
    for name, value in changes.items():
        key = name.replace("__", ".")
        assert key in arrays, key
        if value is None:
            del arrays[key]
        else:
            arrays[key] = value
    np.savez(file, **arrays)


def head_of(file: Path) -> dict[str, Any]:
    with np.load(file) as f:
        head: dict[str, Any] = json.loads(f["head"].tobytes())
    return head


def encode_head(head: Any) -> np.ndarray:
    return np.frombuffer(json.dumps(head).encode(), np.uint8)


def test_other_format(file: Path) -> None:
    rewrite(file, head=encode_head(head_of(file) | {"format": 99}))
    with pytest.raises(GraphError, match=r"has format 99, this version reads 2 to 4; encode again"):
        mge_gpu.load(str(file))


def test_format_2_is_read_without_its_flow(file: Path, graph: MultipartiteGraph, tmp_path: Path) -> None:
    old = head_of(file) | {"format": 2}
    del old["flow"]
    rewrite(file, head=encode_head(old))
    loaded = mge_gpu.load(str(file))
    assert_same(graph, loaded)
    assert (
        mge_gpu.topometrics(loaded, metrics="k_core")["k_core"]
        == mge_gpu.topometrics(graph, metrics="k_core")["k_core"]
    )
    with pytest.raises(GraphError, match="does not know its network's identity skips.*encode again"):
        mge_gpu.topometrics(loaded, metrics="effective_density")
    loaded.save(str(tmp_path / "again"))
    assert_same(graph, mge_gpu.load(str(tmp_path / "again")))


@pytest.mark.parametrize(
    "change",
    [
        {"weights": "many"}, {"inputs": [99]}, {"inner": [{"name": "x"}]}, {"links": [{"source": 0}]},
        {"links": [{"source": 0, "target": 1, "number": 77, "weighted": True, "entry": False}]},
        {"links": [{"source": 0, "target": 1, "number": 0, "weighted": True, "entry": True}]},
        {"edges": [{"source": 0, "target": 1, "number": None, "weighted": True, "entry": False}]},
    ],
)  # fmt: skip
def test_flow_that_does_not_fit(file: Path, change: dict[str, Any]) -> None:
    head = head_of(file)
    head["flow"] |= change
    rewrite(file, head=encode_head(head))
    with pytest.raises(GraphError, match=r"graph\.npz"):
        mge_gpu.load(str(file))


@pytest.mark.parametrize("head", [[], {}, {"format": 2}, "text", 3, None])
def test_head_of_another_kind(file: Path, head: object) -> None:
    rewrite(file, head=encode_head(head))
    with pytest.raises(GraphError, match=r"graph\.npz"):
        mge_gpu.load(str(file))


def test_other_archives(tmp_path: Path) -> None:
    np.savez(tmp_path / "weights.npz", a=np.ones(3))
    np.save(tmp_path / "array.npy", np.ones(3))
    with zipfile.ZipFile(tmp_path / "text.zip", "w") as z:
        z.writestr("head", "hello")
    (tmp_path / "text.txt").write_text("hello")
    for name in ("weights.npz", "array.npy", "text.zip", "text.txt"):
        with pytest.raises(GraphError, match="not a graph file"):
            mge_gpu.load(str(tmp_path / name))


def _changed(array: np.ndarray, at: int, value: int) -> np.ndarray:
    array = array.copy()
    array[at] = value
    return array


@pytest.mark.parametrize(
    ("name", "at", "value"),
    [
        ("block.0.target_channel", 0, 10**6),
        ("block.0.source_channel", 0, -(10**6)),
        ("block.0.tap", 0, 10**6),
        ("block.0.run_ptr", -1, 10**6),
        ("block.0.runs", 0, 10**6),
        ("block.0.runs", 0, -(10**6)),
        ("block.1.target_channel", -1, -1),
        ("block.1.run_ptr", 0, 1),
        ("block.1.pair_count", 0, 10**6),
    ],
)
def test_indices_out_of_bounds(file: Path, name: str, at: int, value: int) -> None:
    """Kernels do not check indices: a file whose indices lie outside is refused when it is read."""
    with np.load(file) as f:
        changed = _changed(f[name], at, value)
    rewrite(file, **{name.replace(".", "__"): changed})
    with pytest.raises(GraphError, match=r"graph\.npz|contradict"):
        mge_gpu.load(str(file))


@pytest.mark.parametrize("name", ["block.0.tap", "block.1.pair_count", "block.0.weight", "block.0.runs"])
def test_array_missing_or_of_another_kind(file: Path, name: str) -> None:
    key = name.replace(".", "__")
    for value in (None, np.array(["text"]), np.zeros((2, 2, 2))):
        original = file.read_bytes()
        rewrite(file, **{key: value})
        with pytest.raises(GraphError):
            mge_gpu.load(str(file))
        file.write_bytes(original)


def test_folder_that_does_not_exist(graph: MultipartiteGraph, tmp_path: Path) -> None:
    with pytest.raises(GraphError, match=r"cannot write the graph to '.*': No such file or directory"):
        graph.save(str(tmp_path / "absent" / "graph.npz"))


def test_old_file_is_kept_when_writing_fails(
    file: Path, graph: MultipartiteGraph, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = file.read_bytes()

    def full(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez_compressed", full)
    with pytest.raises(GraphError, match="No space left"):
        graph.save(str(file))
    monkeypatch.undo()
    assert file.read_bytes() == before and os.listdir(file.parent) == [file.name]
    assert_same(graph, mge_gpu.load(str(file)))


def test_interrupted_writing_leaves_nothing(
    file: Path, graph: MultipartiteGraph, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(handle: io.BufferedWriter, **arrays: object) -> None:
        handle.write(b"half")
        raise KeyboardInterrupt

    before = file.read_bytes()
    monkeypatch.setattr(np, "savez_compressed", interrupt)
    with pytest.raises(KeyboardInterrupt):
        graph.save(str(file))
    assert file.read_bytes() == before and os.listdir(file.parent) == [file.name]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write to any folder")
def test_read_only_folder(graph: MultipartiteGraph, tmp_path: Path) -> None:
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o500)
    with pytest.raises(GraphError, match="Permission denied"):
        graph.save(str(folder / "graph.npz"))


def test_path_that_is_a_folder(graph: MultipartiteGraph, tmp_path: Path) -> None:
    with pytest.raises(GraphError, match="cannot write"):
        graph.save(str(tmp_path))
    assert os.listdir(tmp_path) == []
