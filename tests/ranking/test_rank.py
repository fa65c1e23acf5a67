"""From a model and method names to a ranking: the order of the steps, the frame, and what may go wrong."""

import copy
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

import mge_gpu
from mge_gpu.errors import MissingDependencyError, RankingError
from mge_gpu.metrics import PROFILE_KEYS, layer_profile, profile
from mge_gpu.metrics.report import Report
from mge_gpu.ranking import Ranker, candidates, load_table, rank, ranked, shipped_ranker
from mge_gpu.ranking._rank import describe
from mge_gpu.ranking.features import METRICS
from mge_gpu.ranking.table import PAI_METHODS
from tests.ranking.conftest import QUICK

SHAPE = (1, 6, 6)
RANDOM = ["uniform", "erk", "random"]


def network() -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(8, 8, 3),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(128, 4),
        )


class Calls(list[str]):
    """The steps that were taken, in order; ``wanted`` is the metrics that were asked for last."""

    wanted: list[str] = []


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """Tracing and measuring that take no time; metrics are made from the masks' layer counts."""
    calls = Calls()

    def trace(model: nn.Module, shape: tuple[int, ...]) -> SimpleNamespace:
        calls.append("trace")
        return SimpleNamespace(model=model, shape=shape)

    def topometrics(
        batch: Sequence[Mapping[str, Tensor]],
        metrics: list[str],
        model: SimpleNamespace,
        budget: int,
        seed: int,
        progress: Callable[[str, float | None], None] | None,
        device: torch.device,
    ) -> list[Report]:
        calls.append("measure")
        calls.wanted = metrics
        if progress is not None:
            progress("halfway", 0.5)
        reports = []
        for masks in batch:
            kept = [int(mask.sum()) for mask in masks.values()]
            values = {key: float(number + sum(kept) / kept[0]) for number, key in enumerate(metrics)}
            reports.append(Report(values | {"nodes": 300, "edges": sum(kept)}))
        return reports

    for function in (trace, topometrics):
        monkeypatch.setitem(vars(mge_gpu), function.__name__, function)
    monkeypatch.setattr(profile, "layer_profile", lambda program, masks: layer_profile(program.model, masks))
    return calls


def test_the_frame(steps: Calls) -> None:
    frame = rank(network(), SHAPE, sparsity=0.9, methods=RANDOM)
    names = ["rank", "method", "score", "baseline_rank", "best_chance", "tier", "reasons"]
    assert frame.columns.tolist() == [*names, *shipped_ranker().metrics]
    assert frame["rank"].tolist() == [1, 2, 3]
    assert sorted(frame["method"]) == sorted(RANDOM)
    assert frame["score"].is_monotonic_decreasing
    assert frame["best_chance"].sum() == pytest.approx(1)
    assert frame["tier"].iloc[0] == 1
    assert frame["tier"].is_monotonic_increasing
    chances = pd.DataFrame.from_dict(frame.attrs["chances"], orient="index")
    assert chances.index.tolist() == chances.columns.tolist() == frame["method"].tolist()
    np.testing.assert_allclose(chances + chances.T, 1)
    np.testing.assert_allclose(frame["score"], (chances.sum(axis=1) - 0.5) / 2)
    assert set(frame.attrs) == {"chances", "contributions", "masks", "reports", "provenance"}
    assert list(frame.attrs["contributions"]) == frame["method"].tolist()
    added = [sum(parts.values()) for parts in frame.attrs["contributions"].values()]
    np.testing.assert_allclose(frame["score"], 0.5 + np.array(added))
    for name in RANDOM:
        masks = frame.attrs["masks"][name]
        row = frame.set_index("method").loc[name]
        assert row[list(PROFILE_KEYS)].to_dict() == layer_profile(network(), masks)
        assert set(masks) == {"0.weight", "2.weight", "5.weight"}
        assert frame.attrs["reports"][name]["nodes"] == 300
    assert "1932 networks" in frame.attrs["provenance"]
    assert steps.count("trace") == 1
    assert steps.count("measure") == 3


@pytest.mark.filterwarnings("ignore::mge_gpu.pruning.LayerCollapseWarning")
@pytest.mark.filterwarnings("ignore::mge_gpu.pruning.InexactCountWarning")
def test_baseline_ranks_are_those_of_the_same_method_elsewhere(steps: Calls) -> None:
    frame = rank(
        network(),
        SHAPE,
        sparsity=0.9,
        methods=["uniform", "random", "er", "er_published", "erk", "magnitude"],
    )
    baseline = frame.set_index("method")["baseline_rank"]
    known = shipped_ranker().mean_ranks
    assert baseline["erk"] == known["erk"]["0.9"]
    assert baseline["uniform"] == baseline["random"] == known["uniform"]["0.9"]
    assert np.isnan(baseline["er"])  # the published er is another method
    assert baseline["er_published"] == known["er"]["0.9"]
    assert np.isnan(baseline["magnitude"])
    assert frame["score"].notna().all()


def test_only_needed_metrics_are_computed_and_those_asked_for(steps: Calls) -> None:
    rank(network(), SHAPE, sparsity=0.9, methods=RANDOM)
    assert set(steps.wanted) == set(METRICS)
    frame = rank(network(), SHAPE, sparsity=0.9, methods=RANDOM, metrics=["strength"])
    assert "strength" in steps.wanted
    assert "strength" in frame.columns
    with pytest.raises(RankingError, match="unknown metric 'depth'"):
        rank(network(), SHAPE, sparsity=0.9, methods=RANDOM, metrics=["depth"])


@pytest.mark.filterwarnings("ignore:grasp. 4 of 4 classes have fewer")
def test_the_default_is_the_published_methods_and_two_controls(steps: Calls) -> None:
    free = {"uniform", "random", "er", "erk", "magnitude", "synflow"}
    assert set(rank(network(), SHAPE, sparsity=0.5)["method"]) == free
    batch = (torch.zeros(4, *SHAPE), torch.tensor([0, 1, 2, 3]))
    frame = rank(network(), SHAPE, sparsity=0.5, data=[batch])
    assert set(frame["method"]) == free | {"snip", "grasp", "prospr"}
    assert set(frame["method"]) >= set(PAI_METHODS)


@pytest.mark.filterwarnings("ignore:grasp. 4 of 4 classes have fewer")
@pytest.mark.filterwarnings("ignore::mge_gpu.pruning.LayerCollapseWarning")
def test_published_methods_have_a_baseline_and_new_ones_are_ranked_without(steps: Calls) -> None:
    batch = (torch.linspace(-1, 1, 8 * 36).reshape(8, *SHAPE), torch.arange(8) % 4)
    names = ["snip", "grasp", "prospr", "force", "iterative_snip"]
    frame = rank(network(), SHAPE, sparsity=0.9, methods=names, data=[batch]).set_index("method")
    known = shipped_ranker().mean_ranks
    for name in ("snip", "grasp", "prospr"):
        assert frame["baseline_rank"][name] == known[name]["0.9"]
    assert frame["baseline_rank"][["force", "iterative_snip"]].isna().all()
    assert frame["score"].notna().all()


def test_a_fitted_ranker_and_its_file_rank_alike(steps: Calls, table_path: Path, tmp_path: Path) -> None:
    fitted = Ranker.fit(load_table(table_path), settings=QUICK)
    fitted.save(tmp_path / "r.json")
    one = rank(network(), SHAPE, sparsity=0.9, methods=RANDOM, ranker=fitted)
    two = rank(network(), SHAPE, sparsity=0.9, methods=RANDOM, ranker=tmp_path / "r.json")
    pd.testing.assert_frame_equal(one, two)
    assert set(steps.wanted) == set(fitted.metrics)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sparsity": 1.0}, r"\[0, 1\)"),
        ({"sparsity": -0.1}, r"\[0, 1\)"),
        ({"sparsity": float("nan")}, r"\[0, 1\)"),
        ({"sparsity": "0.9"}, r"\[0, 1\)"),
        ({"sparsity": True}, r"\[0, 1\)"),
        ({"methods": ["erk", "lottery"]}, "unknown pruning method 'lottery'; known are uniform"),
        ({"methods": ["erk", "uniform", "erk"]}, "'erk' is given twice"),
        ({"methods": ["erk"]}, "at least 2 methods, got 1"),
        ({"methods": []}, "at least 2 methods, got 0"),
        ({"methods": "erk,uniform"}, "list of names"),
        ({"methods": ["erk", "snip"]}, "'snip' needs labelled data"),
        ({"ranker": "missing.json"}, "missing.json"),
    ],
)
def test_bad_requests_fail_before_any_work(steps: Calls, options: dict[str, Any], message: str) -> None:
    with pytest.raises(RankingError, match=message):
        rank(network(), SHAPE, **({"sparsity": 0.9, "methods": RANDOM} | options))
    assert steps == []


def test_a_method_that_fails_is_named(steps: Calls, monkeypatch: pytest.MonkeyPatch) -> None:
    def topometrics(*_: object, **__: object) -> None:
        raise ValueError("no such layer")

    monkeypatch.setitem(vars(mge_gpu), "topometrics", topometrics)
    with pytest.raises(RankingError, match="method 'uniform' at sparsity 0.9: no such layer") as caught:
        rank(network(), SHAPE, sparsity=0.9, methods=RANDOM)
    assert isinstance(caught.value.__cause__, ValueError)


def test_a_missing_package_is_not_blamed_on_the_method(steps: Calls, monkeypatch: pytest.MonkeyPatch) -> None:
    def topometrics(*_: object, **__: object) -> None:
        raise MissingDependencyError("install numba")

    monkeypatch.setitem(vars(mge_gpu), "topometrics", topometrics)
    with pytest.raises(MissingDependencyError, match="install numba"):
        rank(network(), SHAPE, sparsity=0.9, methods=RANDOM)


def test_progress_goes_forward_from_0_to_1(steps: Calls) -> None:
    told: list[tuple[str, float | None]] = []
    rank(
        network(),
        SHAPE,
        sparsity=0.9,
        methods=RANDOM,
        progress=lambda text, share: told.append((text, share)),
    )
    shares = [share for _, share in told if share is not None]
    assert shares == sorted(shares)
    assert shares[0] == 0
    assert shares[-1] == 1
    for name in RANDOM:
        assert any(text.startswith(f"{name}: pruning") for text, _ in told)
        assert any(text.startswith(f"{name}: measuring") for text, _ in told)


def test_a_gpu_measures_all_methods_in_one_batch(
    steps: Calls, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    one_by_one = rank(network(), SHAPE, sparsity=0.9, methods=RANDOM)
    assert steps == ["trace", *["measure"] * 3]
    steps.clear()
    monkeypatch.setattr(candidates, "device_of", lambda weight: torch.device("cuda"))
    options = {"sparsity": 0.9, "out": tmp_path}
    rank(network(), SHAPE, methods=RANDOM[1:], **options)
    together = rank(network(), SHAPE, methods=RANDOM, **options)
    assert steps == ["trace", "measure"] * 2  # the second time for the method that was not there
    pd.testing.assert_frame_equal(one_by_one, together)
    rank(network(), SHAPE, methods=RANDOM, **options)
    assert steps == ["trace", "measure"] * 2

    def short(*_: object, **__: object) -> None:
        raise ValueError("no memory")

    monkeypatch.setitem(vars(mge_gpu), "topometrics", short)
    with pytest.raises(RankingError, match="methods uniform, erk, random at sparsity 0.9: no memory"):
        rank(network(), SHAPE, sparsity=0.9, methods=RANDOM)


def test_the_masks_are_not_copied_with_the_frame(steps: Calls) -> None:
    frame = rank(network(), SHAPE, sparsity=0.9, methods=RANDOM)
    assert frame.head(2).attrs["masks"] is frame.attrs["masks"]


def test_a_model_without_any_edge_left_is_still_ranked() -> None:
    """Quotients by no edges are NaN, which is neutral, and never a crash."""
    some, none = dict.fromkeys(PROFILE_KEYS, 0.5), dict.fromkeys(PROFILE_KEYS, np.nan)
    values = [
        dict.fromkeys(METRICS, 1.0) | {"nodes": 9, "edges": 5},
        dict.fromkeys(METRICS, 0.0) | {"nodes": 9, "edges": 0},
    ]
    reports = {
        "erk": Report(values[0], info={"layers": some}),
        "snip": Report(values[1], info={"layers": none}),
    }
    frame = ranked(reports, 0.98, shipped_ranker())
    assert frame["score"].notna().all()
    with pytest.raises(RankingError, match="needs 'sink_nodes'"):
        ranked({"erk": Report({"nodes": 9, "edges": 5})}, 0.98, shipped_ranker())
    with pytest.raises(RankingError, match=r"needs 'layer_density'.*info\['layers'\]"):
        ranked({name: Report(values[0]) for name in reports}, 0.98, shipped_ranker())


def test_the_provenance_warns_of_a_sparsity_that_was_never_seen() -> None:
    assert "CAUTION" not in describe(shipped_ranker(), 0.9)
    assert "0.6 to 0.98" in describe(shipped_ranker(), 0.3)
    assert "Resnet-20" in describe(shipped_ranker())
    assert "\n" not in describe(shipped_ranker())
    assert "sparser than any" not in describe(shipped_ranker(), 0.9)
    assert "mean ranks count for 25%" in describe(shipped_ranker(), 0.9, depth=1.0)


@pytest.mark.filterwarnings("ignore:grasp. 4 of 4 classes have fewer")
def test_a_real_network_from_end_to_end() -> None:
    model = network().train()
    model[1].eval()
    before = copy.deepcopy(model.state_dict())
    modes = [module.training for module in model.modules()]
    random_state = torch.random.get_rng_state()
    data = [(torch.linspace(-1, 1, 8 * 36).reshape(8, *SHAPE), torch.arange(8) % 4)]
    names = [*RANDOM, "er", "magnitude", "synflow", "snip", "grasp", "prospr", "force"]
    frame = rank(model, SHAPE, sparsity=0.8, methods=names, data=data)

    assert sorted(frame["method"]) == sorted(names)
    assert frame["score"].nunique() > 1
    assert (frame["nodes"] == 8 * 8 + 8 * 36 + 8 * 16 + 4).all()
    program = mge_gpu.trace(model, SHAPE)
    for row in frame.itertuples():
        graph = mge_gpu.encode(program, masks=frame.attrs["masks"][row.method])
        assert row.edges == graph.num_edges
        report = frame.attrs["reports"][row.method]
        assert row.k_core == pytest.approx(report["k_core"] / report["edges"])
    again = rank(model, SHAPE, sparsity=0.8, methods=names, data=data)
    pd.testing.assert_frame_equal(frame, again)
    assert modes == [module.training for module in model.modules()]
    assert torch.equal(random_state, torch.random.get_rng_state())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
