"""`mge-gpu study`: table, JSON, exit status, usage; its defaults are the recipe's."""

import inspect
import json
from dataclasses import fields

import pytest

from mge_gpu import cli_study
from mge_gpu.ranking import table as published
from mge_gpu.training import Recipe
from mge_gpu.training.cell import known_methods
from tests.test_cli import run, words

pytest.importorskip("sklearn")
pytest.importorskip("pandas")

STUDY = [
    "study",
    "mge:digits_mlp",
    "--input",
    "1x8x8",
    "--sparsities",
    "0.9",
    "--seeds",
    "1",
    "--epochs",
    "1",
]


def test_a_study_prints_its_summary_and_writes_its_table(tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    out = tmp_path / "out"
    arguments = [*STUDY, "--out", out, "--methods", "erk,set", "--option", "set.interval=5"]
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    assert "erk" in result.stdout and "accuracy" in result.stdout and "table.csv: 2 networks" in result.stdout
    again = run(*arguments, "--json")
    found = json.loads(again.stdout)
    assert [row["pruning"] for row in found["rows"]] == ["erk", "set"] and found["failed"] == {}
    assert len((out / "table.csv").read_text().splitlines()) == 3


def test_a_failed_network_is_an_exit_status_of_1(tmp_path):
    arguments = [*STUDY, "--out", tmp_path / "out", "--methods", "erk,set", "--option", "set.zeta=3"]
    result = run(*arguments, "--json")
    assert result.exit_code == 1
    assert list(json.loads(result.stdout)["failed"]) == ["mge-digits_mlp-set-0.9-0"]
    assert "error: mge-digits_mlp-set-0.9-0: " in result.stderr and "zeta" in result.stderr


BAD = {
    "sparsities": (["--sparsities", "0.9,much"], "expected numbers joined by commas"),
    "option": (["--option", "rigl=3"], "expected METHOD.NAME=VALUE"),
    "method of the option": (["--methods", "erk", "--option", "rigl.interval=3"], "a method of --methods"),
    "schedule": (["--schedule", "linear"], "schedule must be one of cosine, step, constant"),
    "metrics": (["--metrics", "girth"], "girth"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_usage(case, tmp_path):
    arguments, reason = BAD[case]
    result = run(*STUDY, "--out", tmp_path / "out", *arguments)
    assert result.exit_code in (1, 2) and reason in words(result.output)
    assert not (tmp_path / "out" / "table.csv").exists()


def test_defaults_are_those_of_the_recipe_and_of_the_paper():
    options = inspect.signature(cli_study.study).parameters
    for entry in fields(Recipe):
        assert options[entry.name].default == entry.default, entry.name
    assert cli_study.METHODS.split(",") == list(published.PAI_METHODS)
    assert [float(text) for text in cli_study.SPARSITIES.split(",")] == list(published.PUBLISHED_SPARSITIES)


def test_the_default_methods_exist():
    assert set(cli_study.METHODS.split(",")) <= set(known_methods())
