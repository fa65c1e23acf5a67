"""A ranking that was stopped goes on from the methods that are done, and from nothing that is not its own."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import mge_gpu as mge
from mge_gpu import pruning
from mge_gpu.errors import RankingError
from mge_gpu.ranking.kept import Kept, fingerprint

pandas = pytest.importorskip("pandas")
pytest.importorskip("lightgbm")

METHODS = ["uniform", "erk", "random"]


def network(seed: int = 0) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(64, 4))


def ranked(out: Path | None, seed: int = 0, **changes: Any) -> Any:
    asked = {"sparsity": 0.5, "methods": METHODS, "out": out, **changes}
    return mge.rank(network(seed), (1, 4, 4), **asked)


@pytest.fixture
def pruned(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The methods that pruned, in order."""
    calls: list[str] = []
    prune = pruning.prune

    def counted(model: nn.Module, method: str, *args: Any, **kwargs: Any) -> Any:
        calls.append(method)
        return prune(model, method, *args, **kwargs)

    monkeypatch.setattr(pruning, "prune", counted)
    return calls


def test_a_ranking_that_was_stopped_goes_on(tmp_path: Path, pruned: list[str]) -> None:
    def stop(text: str, share: float | None) -> None:
        if text.startswith("random"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ranked(tmp_path, progress=stop)
    assert pruned == ["uniform", "erk"]
    frame = ranked(tmp_path)
    assert pruned == ["uniform", "erk", "random"]
    pandas.testing.assert_frame_equal(frame, ranked(None))
    assert {path.name for path in tmp_path.iterdir()} == {
        f"{name}.{suffix}" for name in METHODS for suffix in ("json", "safetensors")
    }
    again = ranked(tmp_path, methods=METHODS[::-1])
    assert again.attrs["masks"].keys() == set(METHODS) and len(pruned) == 6  # three of them without a folder
    for name, masks in frame.attrs["masks"].items():
        assert all(torch.equal(mask, again.attrs["masks"][name][key]) for key, mask in masks.items())


@pytest.mark.parametrize(
    "change", [{"seed": 1}, {"sparsity": 0.6}, {"data": "digits"}], ids=["weights", "sparsity", "data"]
)
def test_what_is_of_another_ranking_is_made_anew(
    tmp_path: Path, pruned: list[str], change: dict[str, Any]
) -> None:
    if "data" in change:
        pytest.importorskip("sklearn")
    ranked(tmp_path)
    pruned.clear()
    frame = ranked(tmp_path, **change)
    assert pruned == METHODS
    pandas.testing.assert_frame_equal(frame, ranked(None, **change))


@pytest.mark.parametrize("damage", ["json", "safetensors", "no masks", "metric"])
def test_what_is_damaged_is_made_anew(tmp_path: Path, pruned: list[str], damage: str) -> None:
    expected = ranked(tmp_path)
    pruned.clear()
    report, masks = tmp_path / "erk.json", tmp_path / "erk.safetensors"
    if damage == "no masks":
        masks.unlink()
    elif damage == "metric":
        report.write_text(report.read_text().replace('"k_core"', '"k_cor"'))
    else:
        file = report if damage == "json" else masks
        file.write_bytes(file.read_bytes()[:40])
    pandas.testing.assert_frame_equal(ranked(tmp_path), expected)
    assert pruned == ["erk"]


def test_a_report_without_its_masks_is_never_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ranked(tmp_path)
    kept = Kept(tmp_path, {"another": 1})
    monkeypatch.setattr("mge_gpu.masks.save_masks", lambda masks, path: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        kept.put("erk", {}, mge.Report({"nodes": 1}))
    assert not (tmp_path / "erk.json").exists()


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RankingError, match="file: cannot be made"):
        ranked(tmp_path / "file")


def test_fingerprints_differ_with_values_names_and_buffers() -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    first = fingerprint(model)
    assert fingerprint(model) == first == fingerprint(nn.Sequential(*model))
    model[1].running_mean[0] += 1
    moved = fingerprint(model)
    with torch.no_grad():
        model[0].weight.neg_()
    assert len({first, moved, fingerprint(model), fingerprint(nn.Sequential(nn.ReLU(), *model))}) == 4
