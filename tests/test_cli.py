"""The command line: output, JSON, files, exit status; every way of bad usage that is ours to notice."""

import csv
import io
import json
import re
import subprocess
import sys
import warnings

import pytest
import torch
from typer.testing import CliRunner

import mge_gpu
from mge_gpu import cli, console, doctor
from mge_gpu.errors import MGEError, TracingWarning
from mge_gpu.metrics import METRIC_KEYS

NETWORK = """
from torch import nn

def net():
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 6 * 6, 3)
    )

def broken():
    raise ValueError("no such net")
"""
MODEL = ["net_for_cli:net", "--input", "1x6x6"]
WEIGHTS = 4 * 9 + 4 * 6 * 6 * 3


@pytest.fixture
def workdir(tmp_path, monkeypatch):
    """A working directory with a small network in a module."""
    (tmp_path / "net_for_cli.py").write_text(NETWORK)
    monkeypatch.chdir(tmp_path)
    # rich would fold what it prints to the width of the terminal that runs the tests
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("NO_COLOR", "1")
    yield tmp_path
    sys.modules.pop("net_for_cli", None)


def run(*arguments: str):
    """Run the command in this process."""
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments])


def succeeded(*arguments: str):
    """Run the command, which must succeed."""
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return result


def words(text: str) -> str:
    """Text without the box that usage errors come in."""
    return " ".join(text.replace("│", " ").split())


# --- bad usage: exit status 2, a reason, nothing on stdout

BAD_USAGE = {
    "no model": (["analyze"], "Missing"),
    "no input": (["analyze", "net_for_cli:net"], "--input"),
    "form of the model": (["analyze", "resnet20", "--input", "1x6x6"], "expected torchvision:NAME"),
    "unknown own model": (["analyze", "mge:resnet21", "--input", "3x32x32"], "has no model 'resnet21'"),
    "unknown module": (["analyze", "gone_missing:net", "--input", "1x6x6"], "no module 'gone_missing'"),
    "unknown factory": (["analyze", "net_for_cli:gone", "--input", "1x6x6"], "has no 'gone'"),
    "missing program": (["analyze", "gone.pt2", "--input", "1x6x6"], "no such file"),
    "shape": (["analyze", "net_for_cli:net", "--input", "3,32,32"], "expected sizes joined by x"),
    "sparsity of one": (["analyze", *MODEL, "--prune", "er", "--sparsity", "1"], "not in [0, 1)"),
    "negative sparsity": (
        ["prune", *MODEL[:1], "er", *MODEL[1:], "--sparsity=-0.1", "--out", "m.pt"],
        "not in [0, 1)",
    ),
    "prune without sparsity": (["analyze", *MODEL, "--prune", "er"], "--prune needs --sparsity"),
    "sparsity without prune": (["analyze", *MODEL, "--sparsity", "0.5"], "are for --prune"),
    "data without prune": (["analyze", *MODEL, "--data", "random"], "are for --prune"),
    "masks and prune": (
        ["analyze", *MODEL, "--masks", "net_for_cli.py", "--prune", "er", "--sparsity", "0.5"],
        "exclude each other",
    ),
    "missing masks": (["analyze", *MODEL, "--masks", "gone.pt"], "gone.pt"),
    "missing weights": (["analyze", *MODEL, "--weights", "gone.pt"], "gone.pt"),
    "unknown method": (
        ["analyze", *MODEL, "--prune", "snap", "--sparsity", "0.5"],
        "no pruning method 'snap'",
    ),
    "unknown metric": (
        ["analyze", *MODEL, "--metrics", "nodes,hops"],
        "no topometric 'hops'; there are all, cheap, nodes",
    ),
    "no metric": (["analyze", *MODEL, "--metrics", ","], "expected names joined by commas"),
    "metric twice": (["analyze", *MODEL, "--metrics", "nodes,nodes"], "more than once"),
    "unknown encoding": (["analyze", *MODEL, "--encoding", "unrolled"], "unrolled"),
    "json and csv on stdout": (["analyze", *MODEL, "--json", "--csv", "-"], "both want stdout"),
    "csv in no folder": (["analyze", *MODEL, "--csv", "gone/out.csv"], "no folder gone"),
    "csv is a folder": (["analyze", *MODEL, "--csv", "."], "is a folder"),
    "negative seed": (["analyze", *MODEL, "--seed=-1"], "--seed"),
    "rank without sparsity": (["rank", *MODEL, "--methods", "er"], "--sparsity"),
    "rank unknown method": (
        ["rank", *MODEL, "--sparsity", "0.5", "--methods", "er,snap"],
        "no pruning method 'snap'",
    ),
    "rank explained in a table": (
        ["rank", *MODEL, "--sparsity", "0.5", "--explain", "why.csv"],
        "ends in .png, .svg or .pdf",
    ),
    "rank out is a file": (["rank", *MODEL, "--sparsity", "0.5", "--out", "net_for_cli.py"], "is a file"),
    "prune without out": (["prune", *MODEL[:1], "er", *MODEL[1:], "--sparsity", "0.5"], "--out"),
    "prune to something else": (
        ["prune", *MODEL[:1], "er", *MODEL[1:], "--sparsity", "0.5", "--out", "masks.npz"],
        "ends in .safetensors or .pt",
    ),
    "unknown command": (["analyse"], "analyse"),
    "unknown option": (["doctor", "--fast"], "--fast"),
}


@pytest.mark.parametrize("arguments, reason", BAD_USAGE.values(), ids=BAD_USAGE.keys())
def test_bad_usage(workdir, arguments, reason):
    result = run(*arguments)
    assert result.exit_code == 2, result.output
    assert reason in words(result.stderr)
    assert result.stdout == ""


# --- failures: exit status 1 and one line


def failed(*arguments: str) -> str:
    """Run the command, which must fail with one line; returns that line."""
    result = run(*arguments)
    assert result.exit_code == 1, result.output
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    return line


def test_a_model_that_cannot_be_made(workdir):
    assert "ValueError: no such net" in failed("analyze", "net_for_cli:broken", "--input", "1x6x6")


def test_an_input_that_does_not_fit(workdir):
    assert failed("analyze", "net_for_cli:net", "--input", "1x5x5")
    assert "1x5x5" in failed(
        "prune", "net_for_cli:net", "snip", "--input", "1x5x5", "--sparsity", "0.5", "--out", "m.pt"
    )


def test_devices_that_are_not_there(workdir):
    assert "got device 'tpu', expected 'cpu' or 'cuda'" in failed("analyze", *MODEL, "--device", "tpu")
    refused = re.compile("got device 'cuda(:9)?', but ")  # CuPy is missing, or that GPU
    assert refused.search(failed("analyze", *MODEL, "--device", "cuda:9"))
    assert refused.search(failed("rank", *MODEL, "--sparsity", "0.5", "--device", "cuda:9"))


def test_masks_that_do_not_fit(workdir):
    torch.save({"0.weight": torch.ones(4, 1, 2, 2, dtype=torch.bool)}, workdir / "masks.pt")
    assert "0.weight" in failed("analyze", *MODEL, "--masks", "masks.pt")
    torch.save({"9.weight": torch.ones(1, dtype=torch.bool)}, workdir / "masks.pt")
    assert "9.weight" in failed("analyze", *MODEL, "--masks", "masks.pt")


def test_files_that_are_broken(workdir):
    (workdir / "broken.pt").write_bytes(b"PK\x03\x04")
    assert "broken.pt" in failed("analyze", *MODEL, "--masks", "broken.pt")
    assert "broken.pt" in failed("analyze", *MODEL, "--weights", "broken.pt")


def test_errors_are_one_line_and_warnings_go_to_stderr(workdir, monkeypatch):
    def encode(*_args, **_kwargs):
        warnings.warn("layer 'aux' is never\nreached", TracingWarning, stacklevel=2)
        raise MGEError("got this,\n  expected that")

    monkeypatch.setattr(mge_gpu, "encode", encode, raising=False)
    result = run("analyze", *MODEL)
    assert result.exit_code == 1
    assert result.stderr.splitlines() == [
        "warning: layer 'aux' is never reached",
        "error: got this, expected that",
    ]


def test_a_fault_of_ours_keeps_its_traceback(workdir, monkeypatch):
    def encode(*_args, **_kwargs):
        raise ZeroDivisionError

    monkeypatch.setattr(mge_gpu, "encode", encode, raising=False)
    assert isinstance(run("analyze", *MODEL).exception, ZeroDivisionError)


# --- analyze


def test_analyze_prints_every_metric(workdir):
    result = succeeded("analyze", *MODEL, "--prune", "erk", "--sparsity", "0.5")
    shown = {line.split()[0] for line in result.stdout.splitlines() if line.strip()}
    assert set(METRIC_KEYS) <= shown
    assert f"of {WEIGHTS} weights" in words(result.stdout)
    assert "peak memory" in result.stderr


def test_analyze_json_is_one_object_with_the_report(workdir):
    document = json.loads(
        succeeded(
            "analyze", *MODEL, "--prune", "magnitude", "--sparsity", "0.5", "--seed", "3", "--json"
        ).stdout
    )
    model = mge_gpu_model(seed=3)
    masks = mge_gpu.prune(model, "magnitude", sparsity=0.5, input_shape=(1, 6, 6), seed=3)
    report = mge_gpu.topometrics(mge_gpu.encode(model, (1, 6, 6), masks=masks))
    assert document["metrics"] == pytest.approx(dict(report))
    assert document["normalized"] == pytest.approx(report.normalized())
    assert document["method"] == "magnitude" and document["sparsity"] == 0.5
    assert document["input_shape"] == [1, 6, 6]
    assert document["weights"] == WEIGHTS and document["kept_weights"] == WEIGHTS // 2
    assert document["seconds"] > 0 and document["peak_rss_bytes"] > 2**20


def mge_gpu_model(seed):
    """The model that the command line makes."""
    from mge_gpu.model_spec import load_model

    return load_model("net_for_cli:net", seed=seed)


def test_analyze_some_metrics_in_the_order_asked_for(workdir):
    document = json.loads(succeeded("analyze", *MODEL, "--metrics", "nodes,edges,k_core", "--json").stdout)
    assert sorted(document["metrics"]) == ["edges", "k_core", "nodes"]
    assert document["metrics"]["nodes"] == 64 + 4 * 36 + 3
    assert document["kept_weights"] == document["weights"] == WEIGHTS


def test_analyze_cheap(workdir):
    document = json.loads(succeeded("analyze", *MODEL, "--metrics", "cheap,k_core", "--json").stdout)
    assert {"nodes", "strength", "k_core"} <= set(document["metrics"]) and document["interrupted"] == []
    assert "motifs" not in document["metrics"] and "components" not in document["metrics"]


def test_analyze_without_the_counts_that_normalizing_needs(workdir):
    document = json.loads(succeeded("analyze", *MODEL, "--metrics", "k_core", "--json").stdout)
    assert set(document["metrics"]) == {"k_core"}


def test_analyze_reads_weights_and_masks(workdir):
    model = mge_gpu_model(seed=0)
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state["0.weight"].zero_()
    torch.save(state, workdir / "weights.pt")
    torch.save({"3.weight": torch.zeros(3, 144, dtype=torch.bool)}, workdir / "masks.pt")
    only_weights = json.loads(succeeded("analyze", *MODEL, "--weights", "weights.pt", "--json").stdout)
    assert only_weights["metrics"]["edges"] == 3 * 144
    both = succeeded("analyze", *MODEL, "--weights", "weights.pt", "--masks", "masks.pt", "--json")
    assert json.loads(both.stdout)["metrics"]["edges"] == 0
    assert json.loads(both.stdout)["normalized"]["k-core"] is None


def test_analyze_no_pad_input(workdir):
    document = json.loads(
        succeeded("analyze", *MODEL, "--metrics", "nodes", "--no-pad-input", "--json").stdout
    )
    assert document["metrics"]["nodes"] == 36 + 4 * 36 + 3


@pytest.mark.parametrize(
    "encoding, nodes", [("rolled", 9 + 4 + 144 + 3), ("rolled-channel", 1 + 4 + 144 + 3)]
)
def test_analyze_rolled_encodings(workdir, encoding, nodes):
    result = succeeded("analyze", *MODEL, "--encoding", encoding, "--metrics", "nodes,edges", "--json")
    assert json.loads(result.stdout)["metrics"]["nodes"] == nodes


def test_analyze_csv_on_stdout_and_in_a_file(workdir):
    result = succeeded("analyze", *MODEL, "--metrics", "nodes,edges", "--csv", "-")
    (row,) = csv.DictReader(io.StringIO(result.stdout))
    assert row["model"] == "net_for_cli:net" and row["input_shape"] == "1x6x6" and row["nodes"] == "211"
    beside = succeeded("analyze", *MODEL, "--metrics", "nodes,edges", "--csv", "out.csv", "--json")
    assert json.loads(beside.stdout)["metrics"]["nodes"] == 211
    assert (workdir / "out.csv").read_text() == result.stdout


def test_analyze_uses_digits_unless_told_otherwise(workdir):
    pytest.importorskip("sklearn")
    options = ["--prune", "snip", "--sparsity", "0.5", "--metrics", "nodes", "--json"]
    (workdir / "net_for_cli.py").write_text(NETWORK.replace("6 * 6, 3", "6 * 6, 10"))
    digits = json.loads(succeeded("analyze", *MODEL, *options).stdout)
    assert "digits" in digits["data"]
    random = json.loads(succeeded("analyze", *MODEL, *options, "--data", "random").stdout)
    assert "random" in random["data"].lower()


# --- the other commands


def test_prune_writes_masks_that_analyze_reads(workdir):
    arguments = ["prune", "net_for_cli:net", "er", "--input", "1x6x6", "--sparsity", "0.75"]
    result = succeeded(*arguments, "--out", "masks.safetensors")
    assert f"{WEIGHTS // 4} of {WEIGHTS} weights kept" in result.stdout
    from_file = json.loads(succeeded("analyze", *MODEL, "--masks", "masks.safetensors", "--json").stdout)
    at_once = json.loads(succeeded("analyze", *MODEL, "--prune", "er", "--sparsity", "0.75", "--json").stdout)
    assert from_file["metrics"] == at_once["metrics"]
    document = json.loads(succeeded(*arguments, "--out", "masks.pt", "--json").stdout)
    assert [layer["layer"] for layer in document["layers"]] == ["0.weight", "3.weight"]
    assert sum(layer["kept"] for layer in document["layers"]) == document["kept_weights"] == WEIGHTS // 4


def test_prune_keeps_a_floor_in_every_layer(workdir):
    arguments = ["prune", "net_for_cli:net", "magnitude", "--input", "1x6x6", "--sparsity", "0.9"]
    result = succeeded(*arguments, "--min-per-layer", "20", "--out", "masks.pt")
    assert "3.weight: 20 of 432 kept" in result.stdout
    assert f"{round(WEIGHTS / 10)} of {WEIGHTS} weights kept" in result.stdout
    assert "min_per_layer=20 gave weights back that magnitude at sparsity 0.9 had removed" in result.stderr


def test_plot_writes_a_picture(workdir):
    pytest.importorskip("matplotlib")
    result = succeeded("plot", *MODEL, "--prune", "erk", "--sparsity", "0.9", "--out", "graph.png")
    assert result.stdout == "graph.png\n"
    assert (workdir / "graph.png").read_bytes().startswith(b"\x89PNG")


@pytest.fixture
def rankable():
    """Skips where ranking is not installed."""
    pytest.importorskip("lightgbm")
    pytest.importorskip("pandas")


def test_rank_prints_the_methods_and_where_the_ranker_is_from(workdir, rankable):
    result = succeeded("rank", *MODEL, "--sparsity", "0.8", "--methods", "uniform,erk,magnitude")
    for method in ("uniform", "erk", "magnitude"):
        assert f" {method} " in result.stdout
    assert "ranker: " in result.stdout
    assert "data: none needed" in words(result.stdout)
    assert "what moved its score most" in words(result.stdout)


def test_rank_json_and_files(workdir, rankable):
    pytest.importorskip("matplotlib")
    result = succeeded(
        "rank",
        *MODEL,
        "--sparsity",
        "0.8",
        "--methods",
        "uniform,snip",
        "--data",
        "random",
        "--out",
        "out",
        "--explain",
        "why.svg",
        "--json",
    )
    document = json.loads(result.stdout)
    assert {row["method"] for row in document["ranking"]} == {"uniform", "snip"}
    assert document["provenance"] and "random" in document["data"].lower()
    with open(workdir / "out" / "topometrics.csv", newline="") as file:
        reports = list(csv.DictReader(file))
    assert {row["method"] for row in reports} == {"uniform", "snip"}
    masks = mge_gpu.masks.load_masks(workdir / "out" / "snip.safetensors")
    assert sum(int(mask.sum()) for mask in masks.values()) == round(0.2 * WEIGHTS)
    with open(workdir / "out" / "ranking.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["reasons"] for row in rows] == [row["reasons"] for row in document["ranking"]]
    for row in document["ranking"]:
        added = document["contributions"][row["method"]]
        assert 0.5 + sum(added.values()) == pytest.approx(row["score"])
        assert document["chances"][row["method"]][row["method"]] == 0.5
        first = row["reasons"].split(", ")[0].rsplit(" ", 1)
        largest = max(added, key=lambda name: abs(added[name]))
        assert largest.split()[0] in first[0] and float(first[1]) == round(added[largest], 2)
    saved = json.loads((workdir / "out" / "ranking.json").read_text())
    assert saved == {key: document[key] for key in saved}
    assert set(document) - set(saved) == {"seconds", "peak_rss_bytes"}
    for name in ("ranking.png", "explanation.png"):
        assert (workdir / "out" / name).read_bytes().startswith(b"\x89PNG")
    assert (workdir / "why.svg").read_bytes().startswith(b"<?xml")


def test_a_picture_that_cannot_be_written_does_not_cost_the_table(workdir, rankable, monkeypatch):
    pytest.importorskip("matplotlib")

    def no_disk(*_: object) -> None:
        raise mge_gpu.errors.GraphError("why.png cannot be written: no space left on device")

    monkeypatch.setattr("mge_gpu.plots.plot_explanation", no_disk)
    asked = ["--sparsity", "0.8", "--methods", "uniform,erk", "--explain", "why.png"]
    result = run("rank", *MODEL, *asked)
    assert result.exit_code == 1 and "best_chance" in result.stdout
    assert result.stderr.splitlines()[-1] == "error: why.png cannot be written: no space left on device"


def test_rank_without_matplotlib_says_what_is_not_drawn(workdir, rankable, monkeypatch):
    asked = ["rank", *MODEL, "--sparsity", "0.8", "--methods", "uniform,erk", "--out", "out"]
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    result = succeeded(*asked)
    assert "no pictures in out" in result.stderr and "mge_gpu[plots]" in result.stderr
    there = {path.name for path in (workdir / "out").iterdir()}
    assert {"ranking.csv", "ranking.json", "topometrics.csv"} < there
    assert not [name for name in there if name.endswith(".png")]
    monkeypatch.setitem(vars(mge_gpu), "rank", lambda *_, **__: pytest.fail("ranked for nothing"))
    assert "mge_gpu[plots]" in failed(*asked, "--explain", "why.png")


def test_doctor(workdir):
    result = succeeded("doctor")
    assert "18 topometrics as expected" in result.stdout
    document = json.loads(succeeded("doctor", "--json").stdout)
    assert document["healthy"] is True
    names = [check["name"] for check in document["checks"]]
    assert names[:2] == ["python", "torch"] and "cupy" in names and "lightgbm" in names


def test_doctor_tells_what_is_wrong(monkeypatch):
    monkeypatch.setitem(doctor.TINY_ANSWERS, "motifs", 4)
    result = run("doctor")
    assert result.exit_code == 1
    (line,) = [line for line in result.stdout.splitlines() if "tiny graph" in line]
    assert line.startswith("failed") and "motifs is 3; expected 4" in line
    assert json.loads(run("doctor", "--json").stdout)["healthy"] is False


def test_doctor_names_the_extra_of_what_is_missing(monkeypatch):
    real = doctor.importlib.util.find_spec
    monkeypatch.setattr(
        doctor.importlib.util, "find_spec", lambda name: None if name == "lightgbm" else real(name)
    )
    (check,) = [check for check in doctor.run_checks() if check.name == "lightgbm"]
    assert check.status == "missing" and check.hint == "pip install 'mge_gpu[rank]'"
    assert doctor.healthy([check])


def test_doctor_survives_a_broken_core(monkeypatch):
    def topometrics(*_args, **_kwargs):
        raise RuntimeError("kernel cache is corrupt")

    monkeypatch.setattr(mge_gpu, "topometrics", topometrics, raising=False)
    (check,) = [check for check in doctor.run_checks() if check.name == "tiny graph"]
    assert check.status == "failed" and "kernel cache is corrupt" in check.detail


# --- as a program


def program(*arguments, cwd):
    """Run ``python -m mge_gpu`` with pipes, as a script would."""
    command = [sys.executable, "-m", "mge_gpu", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True)


@pytest.mark.skipif(sys.platform == "win32", reason="peak memory is not told on Windows")
def test_module_runs_quietly_in_a_pipe(workdir, monkeypatch):
    from pathlib import Path

    monkeypatch.setenv("PYTHONPATH", str(Path(cli.__file__).parent.parent))
    result = program("analyze", *MODEL, "--metrics", "nodes", "--json", cwd=workdir)
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    assert json.loads(result.stdout)["metrics"] == {"nodes": 211}
    assert "\x1b" not in result.stdout
    assert program("analyze", *MODEL, "--metrics", "knots", cwd=workdir).returncode == 2
    assert program("analyze", "net_for_cli:broken", "--input", "1x6x6", cwd=workdir).returncode == 1


def test_version():
    assert succeeded("--version").stdout == f"mge-gpu {mge_gpu.__version__}\n"


def test_progress_is_for_terminals_only(monkeypatch):
    with console.progress() as show:
        assert show is None
    monkeypatch.setattr("sys.stderr", Terminal())
    with console.progress() as show:
        assert show is not None
        show("pruning", None)
        show("k-core", 0.5)
    assert "k-core" in sys.stderr.getvalue()


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True
