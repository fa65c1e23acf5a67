"""Networks of tokens: eigenvalues from one token of each kind, against those of the written-out graph."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import mge_gpu
from mge_gpu.metrics import METRICS, Workspace, colours, expansion, memory
from mge_gpu.metrics.quotient import Quotient, quotient
from tests.graphs import TOKEN_STEPS, Tokens, random_masks


def encoded(
    steps: tuple[str, ...], head: str, tokens: int, sparsity: float = 0.3, seed: int = 0
) -> mge_gpu.MultipartiteGraph:
    torch.manual_seed(seed)
    model = Tokens(steps, head)
    return mge_gpu.encode(model, (tokens, 3), random_masks(model, sparsity, seed))


def matrix(graph: mge_gpu.MultipartiteGraph) -> np.ndarray:
    """The symmetric weighted adjacency, from the list of edges."""
    half = graph.to_scipy().toarray().astype(np.float64)
    return half + half.T


def whole_spectrum(q: Quotient) -> np.ndarray:
    """Eigenvalues of the graph, each as often as it has it, from those of the quotient and of one thread."""
    operator = expansion._symmetric(q)
    every, within = (
        np.array([apply(x) for x in np.eye(q.num_nodes)]) for apply in (operator, operator.within)
    )
    found = [np.linalg.eigvalsh(every)]
    for n in np.unique(q.sizes[q.sizes > 1]):
        same = q.sizes == n
        found.append(np.repeat(np.linalg.eigvalsh(within[np.ix_(same, same)]), n - 1))
    return np.sort(np.concatenate(found))


@settings(max_examples=80)
@given(
    st.lists(st.sampled_from(TOKEN_STEPS), max_size=4).map(tuple),
    st.sampled_from(["first", "mean", "all"]),
    st.integers(6, 11),
    st.sampled_from([0.0, 0.3, 0.7, 0.95]),
    st.integers(0, 1000),
)
def test_orbits_have_all_eigenvalues_of_the_graph(
    steps: tuple[str, ...], head: str, tokens: int, sparsity: float, seed: int
) -> None:
    graph = encoded(steps, head, tokens, sparsity, seed)
    w, full = Workspace(graph), matrix(graph)
    q = quotient(w)
    assert q is not None or tokens < 8 or {"split", "join"} & set(steps)
    values = np.linalg.eigvalsh(full)
    largest = max(values[-1], 1e-30)
    if q is not None:
        np.testing.assert_allclose(whole_spectrum(q), values, atol=1e-6 * largest)
    magnitude = np.sort(np.abs(values))[::-1]
    gap = METRICS["spectral_gap"](w)
    assert gap.value == pytest.approx(magnitude[0] - magnitude[2], abs=3e-7 * largest)
    assert ("orbits" in gap.how) == (q is not None)
    radius = np.linalg.eigvalsh(np.diag(full.sum(1)) - full)[-1]
    assert METRICS["spectral_radius"](w).value == pytest.approx(radius, rel=5e-5, abs=1e-30)


@pytest.mark.parametrize("limit", [0, 1 << 19])
@pytest.mark.parametrize("steps", [("attention", "linear"), ("shortcut", "attention"), ("mean", "gate")])
def test_large_ones(steps: tuple[str, ...], limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """In single precision, and looking for what is connected, they have the values of all nodes."""
    monkeypatch.setattr(expansion, "LARGE", limit)
    monkeypatch.setattr(expansion, "FINE_NODES", 0)
    graph = encoded(steps, "mean", 30)
    w, every = Workspace(graph), Workspace(graph)
    every.operators["quotient"] = None
    assert (colours.two_colours(w) is None) == ("shortcut" in steps)
    for key in ("spectral_gap", "spectral_radius"):
        found, expected = METRICS[key](w), METRICS[key](every)
        assert found.value == pytest.approx(expected.value, rel=1e-3)
        size = sum(p.size for p in w.graph.orbits.partitions)  # type: ignore[union-attr]
        assert (
            f"of {graph.num_nodes:,} nodes as {size} orbits, " in found.how and "orbits" not in expected.how
        )


def test_tokens_that_nothing_mixes_have_each_eigenvalue_as_often_as_there_are_tokens() -> None:
    found = METRICS["spectral_gap"](Workspace(encoded(("linear", "linear"), "all", 8)))
    assert found.value == pytest.approx(0, abs=1e-7)


def test_memory_is_that_of_the_orbits(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = encoded(("attention",), "mean", 600)
    w = Workspace(graph)
    q = quotient(w)
    assert q is not None and q is quotient(w)
    for key in memory.SPECTRAL:
        assert memory.needed(w, key) < 2 * 10**4 < 8 * graph.num_nodes
    monkeypatch.setattr(memory, "LARGE", 0)
    monkeypatch.setattr("mge_gpu.backends.cpu.backend.available_memory", lambda: 2 * 10**4)
    assert mge_gpu.topometrics(graph, metrics=memory.SPECTRAL)["spectral_radius"] > 0
    w.forget()
    assert quotient(w) is not q
