"""`mge-gpu evaluate`: its JSON object, its text, its usage."""

import importlib
import json
from pathlib import Path

import pytest

from tests.test_cli import run

pytest.importorskip("lightgbm")
pytest.importorskip("pandas")

from mge_gpu.ranking.agreement import SCORES
from mge_gpu.ranking.training import Settings
from tests.ranking.conftest import synthetic


@pytest.fixture
def tables(tmp_path: Path) -> tuple[Path, Path]:
    """A table of the networks a and b, and one of c with a single seed."""
    raw = synthetic()
    raw[raw["model"] != "c"].to_csv(tmp_path / "train.csv", index=False)
    raw[(raw["model"] == "c") & (raw["seed"] == 0)].to_csv(tmp_path / "test.csv", index=False)
    return tmp_path / "train.csv", tmp_path / "test.csv"


def test_one_json_object_with_scores_and_intervals_and_the_same_for_the_baseline(tables):
    train, test = tables
    arguments = ["evaluate", "--train", train, "--test", test, "--methods", "erk,snip,rigl,uniform", "--json"]
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["groups"] == 4
    assert found["methods"] == ["erk", "rigl", "snip", "uniform"]
    for part in (found, found["baseline"]):
        for name in SCORES:
            low, high = part[f"{name}_interval"]
            assert low <= part[name] <= high
    assert found["kendall_tau"] > 0.8 > 0.5 > found["baseline"]["kendall_tau"]
    assert found["seed_ceiling"] is None  # a single seed
    assert json.loads(run(*arguments).stdout)["rbo"] == found["rbo"]


def test_without_a_test_table_parts_are_left_out_and_the_folds_printed(tables, monkeypatch):
    module = importlib.import_module("mge_gpu.ranking.evaluate")  # and not the function of that name
    settings = Settings(leaves=7, rounds=30, views=("differences",))
    monkeypatch.setattr(module, "grid_for", lambda table: (settings,))
    result = run("evaluate", "--train", tables[0])
    assert result.exit_code == 0, result.output
    for text in (
        "without a: 7 leaves of differences chosen",
        "without b: 7 leaves",
        "mean rank: tau",
        "seed ceiling: tau 1.000",
    ):
        assert text in result.stdout


def test_what_is_wrong_is_one_line(tables):
    train, test = tables
    result = run("evaluate", "--train", train, "--test", test, "--methods", "erk,lottery")
    assert result.exit_code == 1
    assert result.stderr.startswith("error: the table has no method 'lottery'")
    result = run("evaluate", "--train", train.with_name("none.csv"), "--test", test)
    assert result.exit_code == 1
    assert "no such file" in result.stderr
    assert run("evaluate").exit_code == 2
    assert run("evaluate", "--train", train, "--leave-out", "layer").exit_code == 2
