"""`mge-gpu ramanujan`: the table, JSON, CSV, what it refuses."""

import io
import json
import sys

import pandas as pd
import pytest

import mge_gpu
from tests.test_cli import MODEL, WEIGHTS, run, succeeded, words, workdir

__all__ = ["workdir"]

PRUNED = [*MODEL, "--prune", "er", "--sparsity", "0.5", "--seed", "3"]


def expected(encoding: str = "rolled") -> pd.DataFrame:
    torch = pytest.importorskip("torch")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model = sys.modules["net_for_cli"].net()
    return mge_gpu.ramanujan(model, mge_gpu.prune(model, "er", 0.5, seed=3), encoding)


@pytest.mark.parametrize("encoding", ["rolled", "rolled-channel"])
def test_json(workdir, encoding):
    document = json.loads(succeeded("ramanujan", *PRUNED, "--encoding", encoding, "--json").stdout)
    assert document["encoding"] == encoding and document["weights"] == WEIGHTS and "seconds" in document
    found = pd.DataFrame(document["layers"]).set_index("layer")
    pd.testing.assert_frame_equal(found, expected(encoding), check_dtype=False)
    assert list(found.index) == ["0", "3"]


def test_table_and_reasons(workdir):
    result = succeeded("ramanujan", *MODEL)
    text = words(result.stdout)
    assert f"net_for_cli:net, input 1x6x6: {WEIGHTS} of {WEIGHTS} weights" in text
    assert "delta_r_imdb_ub" in text and "right_linked" not in text
    assert "missing in" not in text
    sparse = succeeded("ramanujan", *MODEL, "--prune", "er", "--sparsity", "0.98")
    assert "missing in 2 of 2 layers: delta_r_imdb, delta_r_imdb_ub, lambda_imsg" in words(sparse.stdout)


def test_csv(workdir):
    text = succeeded("ramanujan", *PRUNED, "--csv", "-").stdout
    found = pd.read_csv(
        io.StringIO(text), dtype={"layer": str}, keep_default_na=False, na_values={"delta_r_ub": [""]}
    )
    assert list(found["layer"]) == ["0", "3"] and "missing" in found
    succeeded("ramanujan", *PRUNED, "--csv", "out.csv")
    assert (workdir / "out.csv").read_text() == text


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ([*MODEL, "--encoding", "mge"], "mge"),
        ([*MODEL, "--json", "--csv", "-"], "both want stdout"),
        (MODEL[:1], "--input"),
    ],
)
def test_bad_usage(workdir, arguments, reason):
    result = run("ramanujan", *arguments)
    assert result.exit_code == 2 and reason in words(result.output)


def test_a_device_that_is_not_there(workdir):
    result = run("ramanujan", *MODEL, "--device", "tpu")
    assert result.exit_code == 1 and "got device 'tpu'" in words(result.output)
