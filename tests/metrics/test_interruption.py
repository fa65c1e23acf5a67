"""Ctrl-C: what was computed until then is kept, and what is missing is named."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

import mge_gpu
from mge_gpu.metrics import METRIC_KEYS, METRICS, Measured, Workspace
from mge_gpu.metrics.base import CHEAP

ROOT = Path(mge_gpu.__file__).parent.parent


@pytest.fixture
def ctrl_c(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The user loses patience with the motifs."""

    def motifs(w: Workspace) -> Measured:
        raise KeyboardInterrupt

    monkeypatch.setitem(METRICS, "motifs", motifs)
    yield


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Conv2d(2, 3, 3))


def test_the_report_holds_what_was_computed(model: nn.Module, ctrl_c: None) -> None:
    complete = mge_gpu.topometrics(model, (1, 8, 8), [k for k in METRICS if k != "motifs"])
    report = mge_gpu.topometrics(model, (1, 8, 8))
    assert report.interrupted == ["motifs"] and dict(report) == dict(complete)
    assert list(report) == [k for k in METRICS if k != "motifs"], "in the order of the table"
    assert not complete.interrupted


def test_nothing_to_keep_is_an_interruption_like_any_other(model: nn.Module, ctrl_c: None) -> None:
    with pytest.raises(KeyboardInterrupt):
        mge_gpu.topometrics(model, (1, 8, 8), "motifs")


def test_a_batch_keeps_what_was_computed(model: nn.Module, ctrl_c: None) -> None:
    masks = [{"0.weight": torch.ones(2, 1, 3, 3)}, {"2.weight": torch.ones(3, 2, 3, 3)}]
    reports = mge_gpu.topometrics(masks, (1, 8, 8), ["nodes", "motifs", "edges"], model=model)
    assert [list(r) for r in reports] == [["nodes", "edges"], []]
    assert [r.interrupted for r in reports] == [["motifs"], ["nodes", "motifs", "edges"]]


def test_ranking_stops(model: nn.Module, ctrl_c: None) -> None:
    from mge_gpu.ranking.candidates import measure

    with pytest.raises(KeyboardInterrupt):
        measure(
            model,
            (1, 8, 8),
            0.5,
            ["er"],
            data=None,
            seed=0,
            metrics=list(METRIC_KEYS),
            progress=None,
        )


WIDE_NET = """
from torch import nn, rand

def net():
    layers = [nn.Linear(2000, 2000) for _ in range(3)]
    for layer in layers:  # no two nodes have the same neighbours
        layer.weight.data[rand(2000, 2000) < 0.5] = 0
    return nn.Sequential(*layers)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs pseudo-terminals and signals between processes")
def test_ctrl_c_in_the_middle_of_a_long_kernel(tmp_path: Path) -> None:
    """Exact motifs of wide layers take long on one core; the command ends at once and prints the rest."""
    import pty

    (tmp_path / "wide_net.py").write_text(WIDE_NET)
    terminal, stderr = pty.openpty()
    command = [sys.executable, "-m", "mge_gpu", "analyze", "wide_net:net", "--input", "2000"]
    command += ["--metrics", "cheap,motifs", "--exact", "--json"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TERM": "xterm", "COLUMNS": "100"}
    environment["NUMBA_NUM_THREADS"] = "1"
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=stderr,
        env=environment,
        text=True,
        cwd=tmp_path,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a job in the background ignores it
    )
    os.close(stderr)
    try:
        shown = b""
        while b"motifs" not in shown:  # the progress bar names the metric in hand
            shown += os.read(terminal, 4096)
        time.sleep(3)  # into the kernel
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        begin = time.monotonic()
        while True:  # a terminal that nobody reads would block the process
            try:
                shown += os.read(terminal, 4096)
            except OSError:  # its other end is closed
                break
        stdout, _ = process.communicate(timeout=120)
        assert time.monotonic() - begin < 20  # about one second; a busy machine takes a few
    finally:
        process.kill()
        os.close(terminal)
    assert process.returncode == 130
    document = json.loads(stdout)
    assert set(document["metrics"]) == set(CHEAP) and document["interrupted"] == ["motifs"]
    assert b"interrupted: without motifs" in shown and b"Traceback" not in shown
