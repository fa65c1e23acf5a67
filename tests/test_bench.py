"""`mge-gpu bench`: figures that belong together, one JSON object, units."""

import json
import re
import time

import pytest
import torch

import mge_gpu
from mge_gpu import bench
from mge_gpu.cli_bench import figure
from mge_gpu.metrics.base import wanted
from tests.test_cli import run, words

MODEL = ["mge:digits_resnet", "--input", "1x8x8", "--sparsity", "0.9", "--repeats", "1"]


@pytest.fixture(scope="module")
def graph() -> mge_gpu.MultipartiteGraph:
    model = mge_gpu.models.digits_mlp()
    return mge_gpu.encode(model, (1, 8, 8), masks=mge_gpu.prune(model, "erk", 0.9))


def test_the_clock_takes_the_median_and_leaves_the_first_call_out() -> None:
    waits = iter([0.5, 0.0, 0.02, 0.2])
    seconds = bench.Clock(torch.device("cpu"), 3).seconds(lambda: time.sleep(next(waits)))
    assert 0.02 <= seconds < 0.2


def test_a_copy_reads_and_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = bench.Clock(torch.device("cpu"))
    monkeypatch.setattr(bench.Clock, "seconds", lambda self, call: (call(), 0.5)[1])
    assert clock.copy_bandwidth(8000 - 8) == 2 * 8000 / 0.5


def test_rates_of_edges_belong_together(graph: mge_gpu.MultipartiteGraph) -> None:
    found = bench.encode(graph, 1)
    assert found["edges"] == graph.num_edges
    assert found["edges_per_second"] * found["seconds"] == pytest.approx(graph.num_edges)
    assert found["bytes_per_second"] == pytest.approx(20 * found["edges_per_second"])
    narrow = bench.encode(graph, 1, torch.int32, torch.float16)
    assert narrow["bytes_per_second"] == pytest.approx(10 * narrow["edges_per_second"])
    assert found["copy_share"] == pytest.approx(found["bytes_per_second"] / found["copy_bytes_per_second"])
    assert found["peak_rss"] > 2**20


def test_every_metric_and_all_together(graph: mge_gpu.MultipartiteGraph) -> None:
    rows = list(bench.topometrics(graph, 1))
    assert [row["metric"] for row in rows] == [*wanted("all"), "together"]
    assert all(row["seconds"] > 0 for row in rows)
    assert [row["metric"] for row in bench.topometrics(graph, 1, ["k_core"])] == ["k_core", "together"]


def test_products_count_each_edge_in_both_directions(graph: mge_gpu.MultipartiteGraph) -> None:
    rows = list(bench.spectral(graph, 1))
    assert [row["what"] for row in rows] == [
        "product, float32", "product, float64", "spectral_gap", "spectral_radius",
    ]  # fmt: skip
    for row in rows[:2]:
        assert row["edges_per_second"] * row["seconds"] == pytest.approx(2 * graph.num_edges)
    assert "products" in rows[2]["how"]


@pytest.mark.parametrize("what", ["encode", "topometrics", "spectral"])
def test_the_command(what: str, device: str, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    cheap = ["--metrics", "cheap"] if what == "topometrics" else []
    cheap += ["--device", device]
    result = run("bench", what, *MODEL, *cheap, "--json", "--out", tmp_path / "found.json")
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert document == json.loads((tmp_path / "found.json").read_text())
    assert document["benchmark"] == what and document["kept_weights"] == 7707 and document["rows"]
    gpu = {"gpu", "cuda", "driver"} if device == "cuda" else set()
    assert {"date", "processor", "torch", "threads"} | gpu <= set(document["machine"])
    assert all(("peak_gpu" in row) == (device == "cuda") for row in document["rows"])
    shown = run("bench", what, *MODEL, *cheap)
    assert f"4,718 nodes, 97,955 edges, on {device}" in shown.stdout and " s " in shown.stdout


def test_bad_usage() -> None:
    result = run("bench", "everything", *MODEL)
    assert result.exit_code == 2 and "encode" in words(result.output)
    result = run("bench", "encode", *MODEL, "--device", "cuda:9")
    assert result.exit_code == 1 and re.search("'cuda(:9)?', but ", result.stderr)


def test_figures_have_units() -> None:
    assert figure("edges", 1234567) == "1,234,567" and figure("peak_gpu", 2.5e9) == "2.50 GB"
