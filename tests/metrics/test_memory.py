"""What does not fit memory is refused before anything is computed, or fits once other things are gone."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import mge_gpu
from mge_gpu import topometrics
from mge_gpu.errors import NotEnoughMemoryError
from mge_gpu.linalg import basis
from mge_gpu.metrics import memory
from mge_gpu.metrics.base import METRICS, Workspace
from mge_gpu.metrics.colours import by_colour


def graph(shortcut: bool) -> mge_gpu.MultipartiteGraph:
    """A small network, with two colours or, where a layer is passed by, without."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Linear(40, 30), nn.Linear(30, 30), nn.Linear(30, 5)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.a(x)
            return self.c(self.b(x) * x if shortcut else self.b(x))

    torch.manual_seed(0)
    return mge_gpu.encode(Net(), (40,))


@pytest.fixture
def available(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Sets the bytes that are available; any graph is large."""
    monkeypatch.setattr(memory, "LARGE", 0)

    def set_to(size: int | None) -> None:
        monkeypatch.setattr("mge_gpu.backends.cpu.backend.available_memory", lambda: size)

    return set_to


def test_what_does_not_fit_is_named_before_any_metric(available: Any) -> None:
    g = graph(False)
    available(20 * g.num_nodes)
    seen: list[str] = []
    with pytest.raises(NotEnoughMemoryError) as error:
        topometrics(g, progress=lambda text, share: seen.append(text))
    assert not seen
    text = str(error.value)
    assert text.startswith("of 105 nodes ") and "\n" not in text
    assert "motifs takes 2.52 kB" in text and "2.1 kB of memory is available" in text
    assert "spectral_gap" in text and "spectral_radius" not in text and "metrics=[...]" in text
    report = topometrics(g, metrics=["spectral_radius", "cheap", "cut_edges"])
    assert not report.interrupted and report["nodes"] == 105


def test_other_metrics_make_room(available: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory that runs short on the way is given back, and all values are the same."""
    g = graph(True)
    expected = topometrics(g)
    left, forgotten = [10**6] * (1 + len(METRICS)), []  # as often as it is asked
    for k in (5, 12, 20):
        left[k] = 1
    monkeypatch.setattr("mge_gpu.backends.cpu.backend.available_memory", lambda: left.pop(0))
    monkeypatch.setattr(memory, "LARGE", 0)
    forget = Workspace.forget
    monkeypatch.setattr(Workspace, "forget", lambda self, but: (forgotten.append(1), forget(self, but))[1])
    assert dict(topometrics(g)) == dict(expected)
    assert len(forgotten) >= 2 and not left


def test_nothing_is_asked_of_small_graphs_or_where_nobody_knows(
    available: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    g = graph(False)
    available(None)
    assert not topometrics(g, metrics="cheap").interrupted
    available(0)
    monkeypatch.setattr(memory, "LARGE", g.num_nodes + 1)
    assert not topometrics(g, metrics="cheap").interrupted


def test_every_metric_named_there_is_one() -> None:
    assert memory.NODE.keys() < METRICS.keys()


@pytest.mark.parametrize("shortcut", [False, True])
def test_the_gap_takes_the_basis_that_is_made(
    shortcut: bool, available: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No less than the basis, however many vectors it has."""
    made: list[int] = []
    init = basis.Basis.__init__

    def watched(self: Any, length: int, capacity: int, dtype: Any = np.float64, like: Any = None) -> None:
        init(self, length, capacity, dtype, like)
        made.append(self.vectors.nbytes)

    g = graph(shortcut)
    monkeypatch.setattr("mge_gpu.metrics.expansion.FINE_NODES", 0)  # large graphs are in single precision
    monkeypatch.setattr(basis.Basis, "__init__", watched)
    topometrics(g, metrics="spectral_gap")
    assert made[0] < memory.needed(Workspace(g), "spectral_gap") < made[0] + 24 * g.num_nodes


def test_a_search_is_given_back_once_its_counts_are_known(
    available: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gap asks how many components have edges; arrays of that search would be in its way."""
    g = graph(False)
    keeps, gives = Workspace(g), Workspace(g)
    monkeypatch.setattr("mge_gpu.metrics.expansion.LARGE", 0)
    monkeypatch.setattr("mge_gpu.metrics.memory.SEARCH", 10**6)
    available(None)
    expected = METRICS["spectral_gap"](keeps)
    available(1)
    before = memory.needed(gives, "spectral_gap")
    assert before == 10**6 * g.num_nodes
    assert METRICS["spectral_gap"](gives) == expected
    held = {"forest", "degrees"}
    assert held < vars(keeps).keys() and not held & vars(gives).keys()
    assert memory.needed(gives, "spectral_gap") < before
    assert METRICS["components"](gives) == METRICS["components"](keeps)
    assert "forest" not in vars(gives), "components are counted again"


@pytest.mark.parametrize("key", ["cut_edges", "motifs", "k_core"])
def test_a_metric_does_not_give_back_what_it_works_on(key: str, available: Any) -> None:
    w = Workspace(graph(False))
    forest, degrees, _ = w.forest, w.degrees, by_colour(w)
    available(0)
    memory.make_room(w, key)
    assert (vars(w).get("forest") is forest) == (key == "cut_edges")
    assert (vars(w).get("degrees") is degrees) == (key == "motifs")
    assert not w.operators


def test_a_metric_works_on_what_is_kept_for_it() -> None:
    for name, keys in memory.WORKS_ON.items():
        assert set(keys) <= METRICS.keys()
        for key in keys:
            w = Workspace(graph(False))
            METRICS[key](w)
            assert name in vars(w), (key, name)
