"""What is seen of a candidate: differences without a level, and nothing that a NaN disturbs."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mge_gpu.errors import RankingError
from mge_gpu.metrics.profile import PROFILE_KEYS
from mge_gpu.metrics.report import Report
from mge_gpu.ranking.features import (
    FEATURES,
    LAYER_FEATURES,
    METRICS,
    WEIGHT_METRICS,
    group_codes,
    group_context,
    group_medians,
    report_rows,
    topology_features,
)

LAYERS = {name: 0.1 * number for number, name in enumerate(PROFILE_KEYS, start=1)}


def report(**changes: float) -> Report:
    values = {"nodes": 1000, "edges": 20_000, "sink_nodes": 50, "source_nodes": 30, "disconnected_nodes": 20}
    values |= {"removable_out": 400, "removable_in": 600, "two_hop": 421, "motifs": 8e6, "k_core": 10}
    values |= {"components": 21, "cut_edges": 20, "cut_nodes": 40}
    return Report(values | changes, info={"layers": LAYERS})


def features(**changes: float) -> pd.Series:
    return topology_features(report_rows({"erk": report(**changes)}, 0.9)).iloc[0]


def test_each_feature_by_its_definition() -> None:
    found = features()
    expected = {
        "degree": np.log(20),
        "two_hop": np.log(421),
        "branching": np.log(420 / 20),
        "motifs": np.log(400),
        "motif_excess": np.log(400 / 20**2),
        "core": np.log(10),
        "core_excess": np.log(10 / 20),
        "sinks": np.log(0.05 + 1e-3),
        "sources": np.log(0.03 + 1e-3),
        "disconnected": np.log(0.02 + 1e-3),
        "removable_out": np.log(0.02 + 1e-3),
        "removable_in": np.log(0.03 + 1e-3),
        "alive": 0.9,
        "useful_edges": np.log(20_000 * 0.95),
        "components": np.log(21 / 1000),
        "cut_edges": np.log(1e-3 + 1e-5),
        "cut_nodes": np.log(2e-3 + 1e-5),
        "dynamic": 0.0,
    }
    assert set(expected) == {*FEATURES, "dynamic"}
    expected |= {name: np.log(value) for name, value in LAYERS.items()}
    expected["bare_channels"] = LAYERS["bare_channels"]
    assert found.to_dict() == pytest.approx(expected)


def test_without_layers_their_features_alone_are_missing() -> None:
    known, unknown = report(), Report(dict(report()))
    for reports in ({"a": known, "b": unknown}, {"b": unknown}):
        found = topology_features(report_rows(reports, 0.9)).iloc[-1]
        assert found.index[found.isna()].tolist() == list(LAYER_FEATURES)


@given(st.floats(0.5, 1000))
def test_a_difference_is_a_ratio_whatever_the_size_of_the_network(scale: float) -> None:
    """Two networks of which one has ``scale`` times the nodes and edges: the same differences."""
    extensive = {name: value * scale for name, value in report().items() if name not in ("two_hop", "k_core")}
    twice = {"edges": 40_000, "cut_edges": 80, "motifs": 9e6}
    changed = extensive | {name: value * scale for name, value in twice.items()}
    small = features(**twice) - features()
    large = features(**changed) - features(**extensive)
    np.testing.assert_allclose(large, small, atol=1e-9)


@pytest.mark.parametrize("metric", [name for name in METRICS if name != "nodes"])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_is_missing_and_disturbs_no_other_feature(metric: str, bad: float) -> None:
    rows = report_rows({"erk": report(), "snip": report()}, 0.9)
    rows.loc[1, metric] = bad
    found = topology_features(rows)
    assert found.loc[0].notna().all()
    assert 0 < found.loc[1].isna().sum() < len(FEATURES)
    assert not np.isinf(found.to_numpy()).any()


def test_a_network_without_edges_has_finite_or_missing_features() -> None:
    empty = dict.fromkeys(METRICS, 0.0) | {"nodes": 9.0, "components": 9.0}
    found = topology_features(report_rows({"snip": Report(empty)}, 0.98))
    assert not np.isinf(found.to_numpy()).any()


def test_who_moves_the_mask_while_training() -> None:
    names = ["erk", "RigL", "itop", "snfs", "dsr", "set", "unheard"]
    rows = pd.concat([report_rows({name: report()}, 0.9) for name in names])
    assert topology_features(rows)["dynamic"].tolist() == [0, 1, 1, 1, 1, 1, 0]


def test_the_context_is_the_groups_own() -> None:
    rows = report_rows({"a": report(), "b": report(edges=40_000), "c": report(edges=10_000)}, 0.9)
    codes = np.array([0, 0, 1])
    context = group_context(rows, topology_features(rows), codes)
    np.testing.assert_allclose(context["log_keep"], np.log(0.1))
    np.testing.assert_allclose(context["group_degree"], [np.log(20 * 2**0.5)] * 2 + [np.log(10)])
    np.testing.assert_allclose(context["group_alive"], 0.9)


def test_medians_are_those_of_the_candidates_whose_masks_rest() -> None:
    names = {"erk": 10_000, "snip": 20_000, "grasp": 40_000, "rigl": 80_000, "itop": 80_000}
    rows = report_rows({name: report(edges=edges) for name, edges in names.items()}, 0.9)
    features, codes = topology_features(rows), np.zeros(5, int)
    np.testing.assert_allclose(group_medians(features, codes)["degree"], np.log(20))
    trained = features[features["dynamic"] == 1]
    np.testing.assert_allclose(group_medians(trained, codes[:2])["degree"], np.log(80))
    features.loc[0, "degree"] = np.nan
    np.testing.assert_allclose(group_medians(features, codes)["degree"], np.log(20 * 2**0.5))


def test_bad_requests() -> None:
    rows = report_rows({"a": report()}, 0.9)
    with pytest.raises(RankingError, match="column 'k_core'"):
        topology_features(rows.drop(columns="k_core"))
    with pytest.raises(RankingError, match="column 'model'"):
        group_codes(rows, ["model"])


def test_no_feature_depends_on_weights() -> None:
    assert not set(METRICS) & set(WEIGHT_METRICS)
    rows = report_rows({"erk": report()}, 0.9)
    pd.testing.assert_frame_equal(
        topology_features(rows), topology_features(rows.assign(strength=1, spectral_gap=2))
    )


def test_reports_become_rows_like_the_published_ones() -> None:
    reports = {
        "erk": Report({"nodes": 10, "edges": 4, "sink_nodes": 2, "k_core": 0.8}),
        "snip": Report({"nodes": 10, "edges": 0, "sink_nodes": 0}),
    }
    rows = report_rows(reports, 0.8)
    assert rows["method"].tolist() == ["erk", "snip"]
    assert rows["sink_nodes"].tolist() == [0.2, 0]
    assert rows["k_core"].iloc[0] == 0.2
    assert np.isnan(rows["k_core"].iloc[1])
