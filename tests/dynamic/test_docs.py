"""docs/dynamic.md: its code runs, and its table has the methods and defaults that there are."""

import inspect
import re
from pathlib import Path

import pytest

from mge_gpu.dynamic import METHODS, Update

TEXT = (Path(__file__).parents[2] / "docs" / "dynamic.md").read_text(encoding="utf-8")


def test_the_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sklearn")
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    for code in re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL):
        exec(compile(code, "docs/dynamic.md", "exec"), names)
    assert names["trainer"].steps == names["steps"]
    assert len(names["reports"]) == names["trainer"].updates > 3
    assert names["trainer"].history[-1].exploration_rate > 0.12


def test_the_table_has_every_method_with_its_options() -> None:
    rows = {row.split("`")[1]: row for row in TEXT.splitlines() if row.startswith("| `")}
    assert set(rows) == set(METHODS) - {"static"}
    for name, row in rows.items():
        for option in METHODS[name].options:
            if option in ("drop_fraction", "final_fraction") and name.startswith("itop"):
                continue  # "f as for `snfs`"
            if option == "interval" and name == "snfs":
                continue  # as for `set`
            assert f"`{option}`" in row, f"{name}: {option}"
            default = inspect.signature(METHODS[name].rule).parameters[option].default
            if option != "final_fraction" and default is not None and name != "snfs":
                assert str(default) in row, f"{name}: {option} is {default}"
        assert {"er": "ER", "erk": "ERK", "uniform": "uniform"}[METHODS[name].initial] == row.split("|")[
            5
        ].strip()
    assert f"Update({', '.join(Update._fields)})" in TEXT
