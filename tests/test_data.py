"""Data for the pruners: shapes, reproducible batches, and refusals that name the file."""

import gzip
import pickle
import random
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mge_gpu.data import load_data, load_split
from mge_gpu.errors import DataError, MissingDependencyError


def write_npz(path: Path, count: int = 20, classes: int = 5, shape: tuple[int, ...] = (3, 4, 4)) -> None:
    rng = np.random.default_rng(0)
    np.savez(
        path,
        inputs=rng.normal(size=(count, *shape)).astype(np.float32),
        labels=rng.integers(classes, size=count),
    )


@settings(max_examples=15)
@given(
    channels=st.integers(1, 4),
    height=st.integers(4, 40),
    width=st.integers(4, 40),
    batch=st.integers(1, 300),
    spec=st.sampled_from(["digits", "random"]),
)
def test_batches_have_the_models_shape(channels: int, height: int, width: int, batch: int, spec: str) -> None:
    pytest.importorskip("sklearn")
    inputs, labels = next(iter(load_data(spec, (channels, height, width), 10, batch_size=batch)))
    assert inputs.shape == (batch, channels, height, width) and inputs.dtype == torch.float32
    assert labels.shape == (batch,) and labels.dtype == torch.int64
    assert torch.isfinite(inputs).all() and labels.min() >= 0 and labels.max() < 10


def test_digits_are_the_real_ones_each_once() -> None:
    sklearn = pytest.importorskip("sklearn.datasets")
    data = load_data("digits", (2, 8, 8), 10, batch_size=100)
    batches = list(data)
    assert len(batches) == len(data) == 18
    inputs, labels = torch.cat([b[0] for b in batches]), torch.cat([b[1] for b in batches])
    assert torch.equal(inputs[:, 0], inputs[:, 1])
    assert inputs.mean().abs() < 1e-4 and (inputs.std() - 1).abs() < 1e-3
    raw = torch.as_tensor(sklearn.load_digits().images, dtype=torch.float32)
    expected = ((raw - raw.mean()) / raw.std()).flatten(1).sort(0).values
    assert torch.allclose(inputs[:, 0].flatten(1).sort(0).values, expected, atol=1e-5)
    assert torch.equal(labels.bincount(), torch.as_tensor(sklearn.load_digits().target).bincount())


@pytest.mark.parametrize("spec", ["digits", "random", "file"])
def test_the_seed_alone_fixes_the_batches(tmp_path: Path, spec: str) -> None:
    if spec == "file":
        spec = str(tmp_path / "d.npz")
        write_npz(tmp_path / "d.npz")
    elif spec == "digits":
        pytest.importorskip("sklearn")

    def first(seed: int) -> torch.Tensor:
        return next(iter(load_data(spec, (3, 4, 4), 10, batch_size=8, seed=seed)))[0]

    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # type: ignore[index]
    reference = first(1)
    torch.manual_seed(99)
    again, other = first(1), first(2)
    torch.set_rng_state(states[0])
    assert torch.equal(reference, again) and not torch.equal(reference, other)
    first(3)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (np.random.get_state()[1] == states[1]).all() and random.getstate() == states[2]  # type: ignore[index]
    data = load_data(spec, (3, 4, 4), 10, batch_size=8)
    for (a, b), (c, d) in zip(data, data, strict=True):
        assert torch.equal(a, c) and torch.equal(b, d)


def test_random_batches_differ_and_say_that_they_are_random() -> None:
    data = load_data("random", (1, 4, 4), 3, batch_size=64)
    batches = [x for x, _ in data]
    assert "random" in data.description and "not real" in data.description
    assert len({x[0, 0, 0, 0].item() for x in batches}) == len(batches) > 1
    with pytest.raises(DataError, match="num_classes"):
        load_data("random", (1, 4, 4), None)


@pytest.mark.parametrize("form", ["npz", "dict", "tuple"])
def test_own_files(tmp_path: Path, form: str) -> None:
    inputs, labels = torch.randn(12, 3, 4, 4), torch.arange(12) % 5
    path = tmp_path / ("d.npz" if form == "npz" else "d.pt")
    if form == "npz":
        np.savez(path, x=inputs.numpy(), y=labels.numpy().astype(np.uint8))
    else:
        torch.save({"images": inputs, "targets": labels} if form == "dict" else (inputs, labels), path)
    data = load_data(path, (3, 4, 4), 5, batch_size=12)
    found_inputs, found_labels = next(iter(data))
    order = torch.randperm(12, generator=torch.Generator().manual_seed(0))
    assert torch.equal(found_inputs, inputs[order]) and torch.equal(found_labels, labels[order])
    assert "d." in data.description and "12 samples" in data.description


def test_uint8_inputs_are_scaled(tmp_path: Path) -> None:
    torch.save((torch.full((2, 1, 2, 2), 255, dtype=torch.uint8), torch.tensor([0, 1])), tmp_path / "d.pt")
    inputs, _ = next(iter(load_data(tmp_path / "d.pt", (1, 2, 2), 2)))
    assert torch.equal(inputs, torch.ones(2, 1, 2, 2))


GOOD = {"inputs": torch.zeros(4, 3, 4, 4), "labels": torch.arange(4)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"inputs": torch.zeros(4, 1, 4, 4)}, r"\(N, 1, 4, 4\), expected \(N, 3, 4, 4\)"),
        ({"inputs": torch.tensor(1.0)}, "'inputs' and 'labels'"),
        ({"inputs": torch.full((4, 3, 4, 4), torch.nan)}, "NaN or Inf"),
        ({"labels": torch.arange(5)}, "one integer per input"),
        ({"labels": torch.zeros(4, 10, dtype=torch.long)}, "one integer per input"),
        ({"labels": torch.tensor([0, 1, 2, 10])}, "from 0 to 10, expected 0 to 9"),
        ({"labels": torch.tensor([0, 1, 2, -1])}, "from -1 to 2"),
        ({"labels": torch.zeros(4)}, "must be integers, got torch.float32"),
        ({"labels": "text"}, "'inputs' and 'labels'"),
        ({"labels": None}, r"found \['inputs', 'labels'\]"),
    ],
)
def test_files_that_do_not_fit(tmp_path: Path, change: dict[str, object], message: str) -> None:
    torch.save({**GOOD, **change}, tmp_path / "d.pt")
    with pytest.raises(DataError, match=rf"d\.pt: .*{message}"):
        load_data(tmp_path / "d.pt", (3, 4, 4), 10)


def test_missing_truncated_and_hostile_files(tmp_path: Path) -> None:
    for name in ("none.npz", "none.pt"):
        with pytest.raises(DataError, match=rf"{name}: no such file"):
            load_data(tmp_path / name, (3, 4, 4), 10)
    write_npz(tmp_path / "d.npz")
    torch.save(GOOD, tmp_path / "d.pt")
    for name in ("d.npz", "d.pt"):
        whole = (tmp_path / name).read_bytes()
        for share in (0, 0.2, 0.6, 0.95):
            (tmp_path / name).write_bytes(whole[: int(share * len(whole))])
            with pytest.raises(DataError, match=rf"{name}: cannot be read"):
                load_data(tmp_path / name, (3, 4, 4), 10)
    np.savez(tmp_path / "o.npz", inputs=np.array([{"code": 1}], dtype=object), labels=np.zeros(1, int))
    with pytest.raises(DataError, match=r"o\.npz: cannot be read"):
        load_data(tmp_path / "o.npz", (3, 4, 4), 10)
    (tmp_path / "p.pt").write_bytes(pickle.dumps((torch.zeros, "x"), protocol=2))
    with pytest.raises(DataError, match=r"p\.pt: refused"):
        load_data(tmp_path / "p.pt", (3, 4, 4), 10)


@pytest.mark.parametrize(
    ("spec", "shape", "classes", "message"),
    [
        ("digits", (64,), 10, r"digits: images fit .*\(C, H, W\), the model takes \(64,\)"),
        ("digits", (3, 8, 8), 4, "digits: labels run from 0 to 9, expected 0 to 3"),
        ("digit", (3, 8, 8), 10, "did you mean 'digits'"),
        ("CIFAR01", (3, 8, 8), 10, "did you mean 'CIFAR10"),
        ("cifar10", (3, 8, 8), 10, "CIFAR10: nothing is downloaded; pass root="),
        ("random", (3, 0, 8), 10, "positive integers"),
        ("random", (), 10, "positive integers"),
    ],
)
def test_bad_requests(spec: str, shape: tuple[int, ...], classes: int, message: str) -> None:
    pytest.importorskip("sklearn")
    pytest.importorskip("torchvision")
    with pytest.raises(DataError, match=message):
        load_data(spec, shape, classes)


def test_bad_batch_size() -> None:
    with pytest.raises(DataError, match="batch_size"):
        load_data("random", (3, 8, 8), 10, batch_size=0)


def test_missing_scikit_learn_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "sklearn.datasets", None)
    with pytest.raises(MissingDependencyError, match=r"mge_gpu\[rank\]"):
        load_data("digits", (3, 8, 8), 10)


# --- torchvision, from local files ----------------------------------------------------------------------


def write_mnist(root: Path, count: int, tested: int | None = None) -> None:
    folder = root / "MNIST" / "raw"
    folder.mkdir(parents=True)
    for stem in ("train", "t10k"):
        if stem == "t10k" and tested is not None:
            count = tested
        pixels = np.random.default_rng(0).integers(256, size=(count, 28, 28), dtype=np.uint8)
        images = struct.pack(">IIII", 2051, count, 28, 28) + pixels.tobytes()
        labels = struct.pack(">II", 2049, count) + (np.arange(count) % 10).astype(np.uint8).tobytes()
        (folder / f"{stem}-images-idx3-ubyte").write_bytes(images)
        (folder / f"{stem}-labels-idx1-ubyte").write_bytes(labels)
        (folder / f"{stem}-images-idx3-ubyte.gz").write_bytes(gzip.compress(images))


def test_torchvision_grey_images_are_repeated_resized_and_standardised(tmp_path: Path) -> None:
    pytest.importorskip("torchvision")
    write_mnist(tmp_path, 30)
    data = load_data("mnist", (3, 16, 20), 10, root=tmp_path, batch_size=30)
    inputs, labels = next(iter(data))
    assert inputs.shape == (30, 3, 16, 20) and torch.equal(inputs[:, 0], inputs[:, 2])
    assert torch.allclose(inputs.mean((0, 2, 3)), torch.zeros(3), atol=1e-4)
    assert torch.allclose(inputs.std((0, 2, 3)), torch.ones(3), atol=1e-3)
    assert sorted(labels.tolist()) == sorted(i % 10 for i in range(30))
    assert data.description.startswith("MNIST: 30 images")
    with pytest.raises(DataError, match="MNIST: labels run from"):
        next(iter(load_data("MNIST", (3, 16, 16), 5, root=tmp_path)))
    with pytest.raises(DataError, match="MNIST: images fit"):
        load_data("MNIST", (784,), 10, root=tmp_path)


def test_torchvision_colour_folder(tmp_path: Path) -> None:
    pytest.importorskip("torchvision")
    image = pytest.importorskip("PIL.Image")
    for label in ("cat", "dog"):
        (tmp_path / label).mkdir()
        for i in range(3):
            pixels = np.random.default_rng(i).integers(256, size=(9 + i, 12, 3), dtype=np.uint8)
            image.fromarray(pixels).save(tmp_path / label / f"{i}.png")
    inputs, labels = next(iter(load_data("ImageFolder", (3, 8, 8), 2, root=tmp_path)))
    assert inputs.shape == (6, 3, 8, 8) and sorted(labels.tolist()) == [0, 0, 0, 1, 1, 1]
    assert next(iter(load_data("ImageFolder", (1, 8, 8), 2, root=tmp_path)))[0].shape == (6, 1, 8, 8)
    with pytest.raises(DataError, match="3 channels, the model takes 4"):
        load_data("ImageFolder", (4, 8, 8), 2, root=tmp_path)


def test_torchvision_without_files(tmp_path: Path) -> None:
    pytest.importorskip("torchvision")
    for name in ("CIFAR10", "MNIST", "ImageFolder", "SVHN", "STL10"):
        with pytest.raises(DataError, match=f"{name}: cannot be read from"):
            load_data(name, (3, 8, 8), 10, root=tmp_path)
    with pytest.raises(DataError, match="is no folder"):
        load_data("CIFAR10", (3, 8, 8), 10, root=tmp_path / "none")


# --- training and test parts ----------------------------------------------------------------------------


def rows(data: object) -> list[tuple[float, ...]]:
    return [tuple(row) for inputs, _ in data for row in inputs.flatten(1).tolist()]  # type: ignore[attr-defined]


@pytest.mark.parametrize("spec", ["digits", "file"])
def test_parts_share_no_sample_and_lose_none(tmp_path: Path, spec: str) -> None:
    if spec == "digits":
        pytest.importorskip("sklearn")
        source, shape = "digits", (1, 8, 8)
    else:
        source, shape = str(tmp_path / "own.npz"), (3, 4, 4)
        write_npz(Path(source), 23)
    train, test = load_split(source, shape, 10, seed=3)
    whole = load_data(source, shape, 10)
    assert sorted(rows(train) + rows(test)) == sorted(rows(whole))
    assert test.samples == round(whole.samples / 5) and len(rows(test)) == test.samples
    again, same_test = load_split(source, shape, 10, seed=4)
    assert sorted(rows(again)) == sorted(rows(train)) and rows(again) != rows(train)
    assert sorted(rows(same_test)) == sorted(rows(test))
    assert "training part" in train.description and "test part" in test.description


def test_torchvision_parts_are_those_of_the_data_set(tmp_path: Path) -> None:
    pytest.importorskip("torchvision")
    write_mnist(tmp_path, 30, 12)
    train, test = load_split("MNIST", (1, 28, 28), 10, root=tmp_path, batch_size=30)
    assert (train.samples, test.samples) == (30, 12)
    # Both are standardised by the training part's mean, which the test part's own values do not have.
    assert abs(np.mean(rows(train))) < 1e-4 < abs(np.mean(rows(test)))


def test_a_part_needs_a_sample(tmp_path: Path) -> None:
    write_npz(tmp_path / "one.npz", 1)
    with pytest.raises(DataError, match="a training and a test part need one each"):
        load_split(tmp_path / "one.npz", (3, 4, 4), 5)
