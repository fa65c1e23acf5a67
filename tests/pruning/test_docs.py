"""docs/pruning.md and the README: the methods, what they need and their options are those that there are."""

import re
from pathlib import Path

from mge_gpu.pruning import METHODS

ROOT = Path(__file__).parents[2]


def test_the_table_has_every_method_with_what_it_needs_and_its_options() -> None:
    text = (ROOT / "docs" / "pruning.md").read_text(encoding="utf-8")
    rows = {row.split("`")[1]: row.split("|")[2:6] for row in text.splitlines() if row.startswith("| `")}
    assert set(rows) == set(METHODS)
    for name, (_, needs, options, paper) in rows.items():
        method = METHODS[name]
        expected = "data" if method.needs_data else "input shape" if method.needs_input_shape else ""
        assert needs.strip() == expected, name
        assert re.findall(r"`(\w+)`", options) == list(method.options), name
        assert re.search(r"(19|20)\d\d|the MGE paper", paper), name


def test_the_readme_counts_them() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert re.findall(r"one of (\d+) methods", text) == [str(len(METHODS))]
