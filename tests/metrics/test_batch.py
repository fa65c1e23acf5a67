"""Many masks of one model in one call: the reports of one call each, and errors that say which."""

import pytest
import torch
from torch import nn

import mge_gpu
from mge_gpu.errors import GraphError, MaskError, MetricError
from mge_gpu.graph import MultipartiteGraph
from mge_gpu.metrics import METRIC_KEYS, PATH_KEYS, batch
from tests.graphs import random_masks

SHAPE = (2, 8, 8)
EVERY = (*METRIC_KEYS, *PATH_KEYS)
SPECTRA = ("spectral_gap", "spectral_radius")
Masks = dict[str, torch.Tensor]


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(4, 6, 3),
        nn.Flatten(),
        nn.Linear(24, 5),
    )


@pytest.fixture
def masks(model: nn.Module) -> list[Masks]:
    """Of different densities, one of which cuts a layer off, one of which names one layer only."""
    found = [random_masks(model, s, seed=k) for k, s in enumerate((0.2, 0.5, 0.8, 0.9))]
    found[2]["3.weight"] = torch.zeros_like(found[2]["3.weight"])
    return [*found, {"5.weight": found[0]["5.weight"]}]


@pytest.mark.parametrize("together", [batch.HELD, 400, 1], ids=["all", "some", "one by one"])
def test_the_same_as_one_by_one(
    together: int, model: nn.Module, masks: list[Masks], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch, "HELD", together)
    reports = mge_gpu.topometrics(masks, SHAPE, model=model, seed=3)
    assert len(reports) == len(masks)
    for given, report in zip(masks, reports, strict=True):
        alone = mge_gpu.topometrics(model, SHAPE, masks=given, seed=3)
        assert tuple(report) == EVERY and report.info == alone.info
        assert report.how().keys() == report.seconds.keys() == set(EVERY)
        for key in EVERY:
            if key in SPECTRA:
                scale = 1e-6 * max(1.0, alone["spectral_radius"])
                assert report[key] == pytest.approx(alone[key], rel=1e-4, abs=scale), key
            else:
                assert report[key] == alone[key], key


def test_one_trace_and_the_options_of_encode(
    model: nn.Module, masks: list[Masks], monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"pad_input": False, "encoding": "rolled"}
    expected = [mge_gpu.topometrics(model, SHAPE, "cheap", masks=m, **options) for m in masks]
    calls = []
    monkeypatch.setattr(batch, "trace", lambda *a, **k: calls.append(k) or mge_gpu.trace(*a, **k))
    found = mge_gpu.topometrics(masks, SHAPE, "cheap", model=model, **options)
    assert list(map(dict, found)) == list(map(dict, expected)) and calls == [{"pad_input": False}]
    program = mge_gpu.trace(model, SHAPE, pad_input=False)
    from_program = mge_gpu.topometrics(masks, None, "cheap", model=program, encoding="rolled")
    assert list(map(dict, from_program)) == list(map(dict, expected)) and len(calls) == 1


def test_one_compressed_adjacency_at_a_time(
    model: nn.Module, masks: list[Masks], monkeypatch: pytest.MonkeyPatch
) -> None:
    import gc
    import weakref

    alive: list[weakref.ref[MultipartiteGraph]] = []
    real = MultipartiteGraph.adjacency.func

    def adjacency(self: MultipartiteGraph) -> object:
        if not any(ref() is self for ref in alive):
            gc.collect()
            assert all(ref() is None for ref in alive), "an earlier graph is still held"
            alive.append(weakref.ref(self))
        if "built" not in self.__dict__:
            self.__dict__["built"] = real(self)
        return self.__dict__["built"]

    monkeypatch.setattr(MultipartiteGraph, "adjacency", property(adjacency))
    mge_gpu.topometrics(masks, SHAPE, model=model)
    assert len(alive) == len(masks)


def test_progress(model: nn.Module, masks: list[Masks]) -> None:
    texts: list[str] = []
    shares: list[float] = []
    keys = ["nodes", "spectral_gap"]
    mge_gpu.topometrics(
        masks[:2], SHAPE, keys, model=model, progress=lambda t, s: (texts.append(t), shares.append(s))
    )
    assert texts == ["spectral_gap of masks 0 to 1", "nodes of masks 0", "nodes of masks 1", "done"]
    assert shares == sorted(shares) and shares[-1] == 1


def test_no_masks_are_no_reports(model: nn.Module) -> None:
    assert mge_gpu.topometrics([], SHAPE, model=model) == []


def test_errors_say_which_masks(model: nn.Module, masks: list[Masks]) -> None:
    masks[3] = {"0.weight": torch.ones(4, 2, 3, 4)}
    with pytest.raises(MaskError, match=r"^masks\[3\]: .*0\.weight"):
        mge_gpu.topometrics(masks, SHAPE, model=model)
    masks[3] = torch.ones(3)
    with pytest.raises(MetricError, match=r"masks\[3\] is Tensor, expected a mapping"):
        mge_gpu.topometrics(masks, SHAPE, model=model)


def test_arguments_that_do_not_go_together(model: nn.Module, masks: list[Masks]) -> None:
    with pytest.raises(MetricError, match="without model="):
        mge_gpu.topometrics(masks, SHAPE)
    with pytest.raises(MetricError, match="masks= beside a list"):
        mge_gpu.topometrics(masks, SHAPE, model=model, masks=masks[0])
    with pytest.raises(MetricError, match="got one mapping of masks"):
        mge_gpu.topometrics(masks[0], SHAPE, model=model)
    with pytest.raises(MetricError, match="got a model twice"):
        mge_gpu.topometrics(model, SHAPE, model=model)
    with pytest.raises(MetricError, match="got int, expected a graph"):
        mge_gpu.topometrics(3, SHAPE, model=model)
    with pytest.raises(GraphError, match="without input_shape"):
        mge_gpu.topometrics(masks, model=model)
    with pytest.raises(GraphError, match="the program was traced at"):
        mge_gpu.topometrics(masks, (2, 9, 9), model=mge_gpu.trace(model, SHAPE))
