"""Report: mapping, published form, JSON and DataFrame."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mge_gpu.errors import MetricError
from mge_gpu.metrics.report import PUBLISHED, Report, json_ready

NUMBERS = st.one_of(st.integers(0, 2**40), st.floats(allow_nan=True, allow_infinity=True))
VALUES = st.dictionaries(st.sampled_from(sorted(PUBLISHED)), NUMBERS)

FULL = Report(
    {"nodes": 200, "edges": 1000, "sink_nodes": 5, "removable_out": 10, "motifs": 3.5e6, "components": 4},
    standard_errors={"motifs": 1e4},
    how={"motifs": "trace estimator, 64 probes", "nodes": "counted"},
    seconds={"motifs": 0.25},
    info={"model": "mge:resnet20", "input_shape": (3, 32, 32)},
)


def test_published_has_the_columns_of_the_table():
    columns = (
        "nodes edges sink_nodes source_nodes disc_nodes r-out r-in 1-hop_nei 2-hop_nei motif "
        "avg_node_strength k-core no_connected_components mean_connected_components cut-edges cut-nodes "
        "spectral_gap spectral_radius"
    )
    assert sorted(column for column, _ in PUBLISHED.values()) == sorted(columns.split())
    assert {divisor for _, divisor in PUBLISHED.values()} == {"1", "N", "E"}


def test_mapping():
    assert FULL["edges"] == 1000
    assert len(FULL) == 6
    assert "motifs" in FULL and "k_core" not in FULL
    assert FULL.get("k_core", -1) == -1
    assert dict(FULL)["components"] == 4


def test_missing_metric_names_what_there_is():
    with pytest.raises(KeyError) as caught:
        FULL["k_core"]
    assert isinstance(caught.value, MetricError)
    message = str(caught.value)
    assert message.startswith("this report holds no metric 'k_core'; it holds nodes, edges,")


def test_normalized_divides_by_nodes_edges_or_nothing():
    assert FULL.normalized() == {
        "nodes": 200,
        "edges": 1000,
        "sink_nodes": 5 / 200,
        "r-out": 10 / 1000,
        "motif": 3500.0,
        "no_connected_components": 4,
    }
    assert FULL.normalized(names="mge")["removable_out"] == 0.01


def test_normalized_takes_counts_from_info_when_not_asked_for():
    assert Report({"motifs": 10}, info={"edges": 5}).normalized() == {"motif": 2.0}
    with pytest.raises(MetricError, match="number of edges"):
        Report({"motifs": 10}).normalized()


def test_normalized_leaves_out_what_the_table_lacks():
    assert Report({"nodes": 2, "effective_density": 0.5}).normalized() == {"nodes": 2}


def test_normalized_wrong_names():
    with pytest.raises(MetricError, match="names='ours'"):
        FULL.normalized(names="ours")  # type: ignore[arg-type]


@given(VALUES)
def test_a_network_without_edges_or_nodes_never_divides_by_zero(values):
    report = Report({**values, "nodes": 0, "edges": 0})
    for column, value in report.normalized().items():
        divisor = next(divisor for name, divisor in PUBLISHED.values() if name == column)
        assert divisor == "1" or math.isnan(value)


@given(VALUES)
def test_json_round_trip(values):
    report = Report(values, how=dict.fromkeys(values, "counted"), info={"seed": 0})
    text = report.to_json()
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    back = Report.from_json(text)
    assert list(back) == list(report)
    assert back.how() == report.how() and back.info == report.info
    for key, value in values.items():
        assert back[key] == value or (not math.isfinite(value) and math.isnan(back[key]))
        assert type(back[key]) is type(value)


def test_json_keeps_everything():
    back = Report.from_json(FULL.to_json(indent=2))
    assert back.standard_errors == {"motifs": 1e4}
    assert back.seconds == {"motifs": 0.25}
    assert back.info == {"model": "mge:resnet20", "input_shape": [3, 32, 32]}


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"values": 3}', '{"values": {"nodes": 1}}', "{"])
def test_from_json_of_something_else(text):
    with pytest.raises(MetricError, match="not a report"):
        Report.from_json(text)


def test_json_ready_takes_numpy_and_torch_scalars():
    numpy = pytest.importorskip("numpy")
    torch = pytest.importorskip("torch")
    ready = json_ready(
        {"a": numpy.int64(3), "b": numpy.float32("inf"), "c": torch.tensor(2.5), "d": torch.float32}
    )
    assert ready == {"a": 3, "b": None, "c": 2.5, "d": "torch.float32"}


def test_to_frame():
    pytest.importorskip("pandas")
    frame = FULL.to_frame()
    assert list(frame.index) == list(FULL)
    assert frame.loc["removable_out", "normalized"] == 0.01
    assert frame.loc["removable_out", "published"] == "r-out"
    assert frame.loc["motifs", "standard_error"] == 1e4
    assert math.isnan(frame.loc["nodes", "standard_error"])
    assert len(Report({}).to_frame()) == 0


def test_repr_is_a_short_table():
    lines = repr(FULL).splitlines()
    assert lines[0] == "Report of 6 metrics"
    assert lines[1].split() == ["nodes", "200", "counted"]
    assert lines[5].split()[:4] == ["motifs", "3,500,000", "±", "1e+04"] and "trace estimator" in lines[5]


def test_an_interrupted_report_says_so_everywhere():
    report = Report(
        {"nodes": 4, "edges": 2}, how={"nodes": "counted"}, info={"a": 1}, interrupted=["k_core", "motifs"]
    )
    assert list(report) == ["nodes", "edges"] and report.interrupted == ["k_core", "motifs"]
    lines = repr(report).splitlines()
    assert lines[0] == "Report of 2 metrics, interrupted"
    assert [line.split() for line in lines[3:]] == [["k_core", "interrupted"], ["motifs", "interrupted"]]
    assert json.loads(report.to_json())["interrupted"] == ["k_core", "motifs"]
    assert Report.from_json(report.to_json()).interrupted == ["k_core", "motifs"]
    assert "k-core" not in report.normalized()
    with pytest.raises(MetricError, match="'motifs': it was interrupted; measure again"):
        report["motifs"]
    assert not FULL.interrupted and "interrupted" not in repr(FULL)


def test_an_interrupted_report_normalizes_what_it_can():
    report = Report({"nodes": 4, "sink_nodes": 1, "one_hop": 2.0}, interrupted=["edges"])
    assert report.normalized(names="mge")["sink_nodes"] == 0.25
    assert math.isnan(report.normalized(names="mge")["one_hop"])


def test_a_report_written_before_interruptions_were_noted_is_read():
    parts = json.loads(FULL.to_json())
    del parts["interrupted"]
    assert Report.from_json(json.dumps(parts)).interrupted == []


def test_an_engine_without_a_value_is_refused():
    with pytest.raises(MetricError, match="standard error for 'motifs'"):
        Report({"nodes": 1}, standard_errors={"motifs": 1.0})


def test_reports_are_snapshots():
    values = {"nodes": 1}
    report = Report(values)
    values["nodes"] = 2
    report.how()["nodes"] = "edited"
    report.to_dict()["values"]["nodes"] = 3
    assert report["nodes"] == 1 and report.how() == {}


def test_to_frame_has_a_row_for_what_was_interrupted():
    pytest.importorskip("pandas")
    frame = Report({"nodes": 4, "edges": 2}, interrupted=["motifs"]).to_frame()
    assert list(frame.index) == ["nodes", "edges", "motifs"]
    assert frame.loc["motifs", "how"] == "interrupted" and math.isnan(frame.loc["motifs", "value"])
