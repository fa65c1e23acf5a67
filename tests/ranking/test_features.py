"""Features relative to the group of candidates."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.stats import rankdata

from mge_gpu.errors import RankingError
from mge_gpu.metrics.report import Report
from mge_gpu.ranking.features import TOPOLOGY_METRICS, WEIGHT_METRICS, group_features, report_rows

numbers = st.one_of(st.floats(-1e9, 1e9).map(lambda x: round(x, 3)), st.integers(-3, 3).map(float))


def frame(values: list[float], groups: list[int] | None = None) -> pd.DataFrame:
    groups = groups or [0] * len(values)
    return pd.DataFrame({"x": values, "model": groups, "sparsity": 0.9})


@given(st.lists(numbers, min_size=2, max_size=12))
def test_standardised_and_ranked_by_definition(values: list[float]) -> None:
    found = group_features(frame(values), ["x"], group=())
    if len(set(values)) == 1:
        expected = np.zeros(len(values))
    else:
        expected = (np.array(values) - np.mean(values)) / np.std(values)
    np.testing.assert_allclose(found["z_x"], expected, atol=1e-5)
    np.testing.assert_allclose(found["rank_x"], (rankdata(values) - 1) / (len(values) - 1))


@given(
    st.lists(st.tuples(numbers, st.integers(0, 2)), min_size=1, max_size=15),
    st.floats(0.01, 1e6),
    st.floats(-1e3, 1e3),
)
def test_scale_and_level_of_a_network_leave_no_trace(
    rows: list[tuple[float, int]], scale: float, level: float
) -> None:
    values, groups = [value for value, _ in rows], [group for _, group in rows]
    spread = min(np.ptp([v for v, g in rows if g == group]) or 1.0 for group in set(groups))
    assume(spread * scale > 1e-4 * (abs(level) + 1))  # else the shift rounds the differences away
    one = group_features(frame(values, groups), ["x"], group=["model"])
    two = group_features(
        frame([scale * value + level for value in values], groups), ["x"], group=["model"], kinds=["z"]
    )
    np.testing.assert_allclose(one["z_x"], two["z_x"], atol=1e-4)


@given(st.lists(st.tuples(numbers, st.integers(0, 2)), min_size=1, max_size=12), st.randoms())
def test_neither_order_nor_other_groups_matter(rows: list[tuple[float, int]], random: object) -> None:
    table = frame([value for value, _ in rows], [group for _, group in rows])
    whole = group_features(table, ["x"], group=["model"])
    shuffled = table.iloc[random.sample(range(len(table)), len(table))]  # type: ignore[attr-defined]
    again = group_features(shuffled, ["x"], group=["model"])
    pd.testing.assert_frame_equal(again.loc[whole.index], whole, atol=1e-9)
    alone = group_features(table[table["model"] == rows[0][1]], ["x"], group=["model"])
    pd.testing.assert_frame_equal(alone, whole.loc[alone.index], atol=1e-9)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_neutral_and_disturbs_nobody(bad: float) -> None:
    found = group_features(frame([1.0, bad, 3.0]), ["x"], group=())
    assert found["z_x"].tolist() == [-1, 0, 1]
    assert found["rank_x"].tolist() == [0, 0.5, 1]
    everything = group_features(frame([bad, bad]), ["x"], group=())
    assert everything["z_x"].tolist() == [0, 0]
    assert everything["rank_x"].tolist() == [0.5, 0.5]


def test_one_candidate_and_constant_columns_are_neutral() -> None:
    one = group_features(frame([7.0]), ["x"], group=())
    assert one.iloc[0].to_dict() == {"sparsity": 0.9, "z_x": 0, "rank_x": 0.5}
    third = 1 / 3 * np.array([1.0, 1.0, 1.0 + 1e-15])  # equal but for rounding
    assert group_features(frame(list(third)), ["x"], group=())["z_x"].tolist() == [0, 0, 0]


def test_an_empty_frame_has_the_columns() -> None:
    assert group_features(frame([]), ["x"], group=["model"]).columns.tolist() == ["sparsity", "z_x", "rank_x"]


def test_the_rows_that_are_given_stay_as_they_are() -> None:
    rows = frame([1.0, np.inf, 2.0])
    before = rows.copy()
    group_features(rows, ["x"], group=())
    pd.testing.assert_frame_equal(rows, before)


def test_bad_requests() -> None:
    with pytest.raises(RankingError, match="column 'y'"):
        group_features(frame([1.0]), ["y"], group=())
    with pytest.raises(RankingError, match="'log'"):
        group_features(frame([1.0]), ["x"], group=(), kinds=["log"])


def test_shipped_metrics_do_not_depend_on_weights() -> None:
    assert not set(TOPOLOGY_METRICS) & {*WEIGHT_METRICS, "nodes"}
    assert "k_core" in TOPOLOGY_METRICS


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
