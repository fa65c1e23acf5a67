"""Tables, Markdown and CSV of reports."""

import csv
import io

import pytest
from rich.console import Console

from mge_gpu.metrics.report import Report
from mge_gpu.report import (
    frame_markdown,
    frame_table,
    ranking_tables,
    report_markdown,
    report_table,
    reports_csv,
)

REPORT = Report(
    {"nodes": 191894, "edges": 712329, "motifs": 1.4e8, "effective_density": 0.0125},
    standard_errors={"motifs": 2.5e5},
    how={"motifs": "trace estimator"},
    info={"model": "mge:resnet20", "input_shape": (3, 32, 32), "edges": 712329},
)


def render(table) -> str:
    console = Console(file=io.StringIO(), width=120, color_system=None)
    console.print(table)
    return console.file.getvalue()


def test_table_shows_values_errors_and_engines():
    text = render(report_table(REPORT))
    line = next(line for line in text.splitlines() if line.strip().startswith("motifs"))
    for part in ("140,000,000 ± 2.5e+05", "196.5384", "trace estimator"):
        assert part in line
    assert "seconds" not in text  # no metric was timed: the column is left out


def test_markdown_has_a_line_a_metric_and_escapes_bars():
    report = Report({"nodes": 3, "edges": 2}, how={"nodes": "a|b"})
    lines = report_markdown(report).splitlines()
    assert len(lines) == 4
    assert lines[2] == "| nodes | 3 | nodes | 3 | a\\|b |"


def test_csv_has_a_row_a_report_and_the_union_of_columns():
    other = Report({"nodes": 5, "k_core": 1.5}, info={"model": "with, comma"})
    rows = list(csv.DictReader(io.StringIO(reports_csv([REPORT, other]))))
    assert [row["model"] for row in rows] == ["mge:resnet20", "with, comma"]
    assert rows[0]["input_shape"] == "3x32x32"
    assert rows[0]["edges"] == "712329" and rows[1]["edges"] == ""
    assert float(rows[0]["motifs_standard_error"]) == 2.5e5
    assert rows[1]["k_core"] == "1.5" and rows[1]["motifs_standard_error"] == ""


def test_csv_of_nothing():
    assert reports_csv([]).strip() == ""


@pytest.fixture
def ranking():
    pandas = pytest.importorskip("pandas")
    return pandas.DataFrame(
        {"method": ["synflow", "er"], "score": [0.123456, float("nan")], "edges": [1234567, 8]},
        index=pandas.Index([1, 2], name="rank"),
    )


def test_frame_table(ranking):
    lines = [line.split() for line in render(frame_table(ranking)).splitlines() if line.strip()]
    assert lines[0] == ["rank", "method", "score", "edges"]
    assert lines[2] == ["1", "synflow", "0.1235", "1,234,567"]
    assert lines[3] == ["2", "er", "8"]


def test_ranking_tables_are_the_order_the_reasons_and_the_raw_topometrics(ranking):
    frame = ranking.reset_index().assign(reasons=["more edges +0.12, fewer sinks +0.03", "core -0.20"])
    frame["late_density"] = [0.25, float("nan")]
    frame.attrs["reports"] = {
        "er": Report({"edges": 8, "motifs": 3}),
        "synflow": Report({"edges": 1234567, "motifs": 2e6}, standard_errors={"motifs": 1e3}),
    }
    first, reasons, second = (
        [line.split() for line in render(table).splitlines() if line.strip()]
        for table in ranking_tables(frame)
    )
    assert first[0] == ["rank", "method", "score"] and first[3] == ["2", "er"]
    assert [" ".join(line) for line in reasons[2:]] == [
        "synflow more edges +0.12, fewer sinks +0.03",
        "er core -0.20",
    ]
    assert second[0] == ["topometric", "synflow", "er"]
    assert second[2:4] == [["edges", "1,234,567", "8"], ["motifs", "2,000,000", "±", "1e+03", "3"]]
    assert second[4:] == [["late_density", "0.25"]]


def test_frame_markdown(ranking):
    lines = frame_markdown(ranking).splitlines()
    assert lines[1] == "| ---: | --- | ---: | ---: |"
    assert lines[3] == "| 2 | er |  | 8 |"


def test_a_frame_without_rows(ranking):
    assert frame_markdown(ranking.iloc[:0]).splitlines()[0] == "| rank | method | score | edges |"


def test_what_was_interrupted_has_a_line_and_a_column():
    report = Report({"nodes": 4, "edges": 2}, how={"nodes": "counted"}, interrupted=["k_core", "motifs"])
    lines = [line.split() for line in render(report_table(report)).splitlines()]
    assert ["k_core", "interrupted"] in lines and ["motifs", "interrupted"] in lines
    rows = list(csv.DictReader(io.StringIO(reports_csv([report, REPORT]))))
    assert [row["interrupted"] for row in rows] == ["k_core motifs", ""]
