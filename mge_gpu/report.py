"""Reports and rankings for reading: rich tables, Markdown and CSV."""

import csv
import io
import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from rich import box
from rich.table import Table

from mge_gpu.metrics.profile import PROFILE_KEYS
from mge_gpu.metrics.report import INTERRUPTED, PUBLISHED, Report, format_number

if TYPE_CHECKING:
    import pandas

HEADER = ("metric", "value", "published as", "normalized", "how", "seconds")


def report_rows(report: Report) -> list[tuple[str, str, str, str, str, str]]:
    """One row of text a metric, in the order of `HEADER`.

    >>> report_rows(Report({"nodes": 1200}, how={"nodes": "counted"}))
    [('nodes', '1,200', 'nodes', '1,200', 'counted', '')]
    """
    normalized = report.normalized(names="mge")
    how = report.how()
    rows = []
    for key in (*report, *report.interrupted):
        there = key in report
        rows.append(
            (
                key,
                report.format_value(key) if there else "",
                PUBLISHED[key][0] if key in PUBLISHED else "",
                format_number(normalized[key]) if key in normalized else "",
                how.get(key, "") if there else INTERRUPTED,
                f"{report.seconds[key]:.3f}" if key in report.seconds else "",
            )
        )
    return rows


def report_table(report: Report) -> Table:
    """A rich table of one report, without published names to stay narrow; empty columns are left out."""
    published = HEADER.index("published as")
    header, *rows = ([*row[:published], *row[published + 1 :]] for row in (HEADER, *report_rows(report)))
    return _table(header, rows, right=("value", "normalized", "seconds"))


def report_markdown(report: Report) -> str:
    """One report as a Markdown table.

    >>> print(report_markdown(Report({"nodes": 3})))
    | metric | value | published as | normalized |
    | --- | ---: | --- | ---: |
    | nodes | 3 | nodes | 3 |
    """
    return _markdown(HEADER, report_rows(report), right=("value", "normalized", "seconds"))


def reports_csv(reports: Iterable[Report]) -> str:
    """Many reports as CSV: a row a report, its ``info`` first, then raw values and standard errors.

    A column is there if any report has it; what a report lacks is left empty. Standard errors stand in
    columns named ``<metric>_standard_error``; metrics lost to an interruption are named under
    ``interrupted``.

    >>> print(reports_csv([Report({"nodes": 3, "edges": 2}, info={"method": "er"})]), end="")
    method,nodes,edges
    er,3,2
    """
    rows = [
        {key: _cell(value) for key, value in report.info.items() if key not in report}
        | dict(report)
        | {f"{key}_standard_error": error for key, error in report.standard_errors.items()}
        | ({INTERRUPTED: " ".join(report.interrupted)} if report.interrupted else {})
        for report in reports
    ]
    columns = list(dict.fromkeys(column for row in rows for column in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def frame_table(frame: "pandas.DataFrame") -> Table:
    """A rich table of a data frame (a ranking, for example) with numbers for reading.

    A named index becomes the first column.
    """
    header, rows, right = _frame_rows(frame)
    return _table(header, rows, right)


def ranking_tables(frame: "pandas.DataFrame") -> tuple[Table, Table, Table]:
    """What `mge_gpu.rank` returned as three tables narrow enough for a terminal.

    The order of the methods; what moved the score of each; the raw topometrics and the profile of the layers
    behind it, with a column for each method in that order.
    """
    reports: dict[str, Report] = frame.attrs["reports"]
    methods = [str(method) for method in frame["method"]]
    keys = list(dict.fromkeys(key for method in methods for key in reports[method]))
    rows = [
        [key, *(reports[method].format_value(key) if key in reports[method] else "" for method in methods)]
        for key in keys
    ]
    layers = [key for key in PROFILE_KEYS if key in frame]
    rows += [[key, *map(_text, frame[key])] for key in layers]
    behind = {*PUBLISHED, *layers, "reasons"}
    order = frame[[column for column in frame.columns if column not in behind]]
    reasons = [[method, text] for method, text in zip(methods, frame["reasons"], strict=True)]
    return (
        frame_table(order),
        _table(["method", "what moved its score most, from 0.5"], reasons, right=()),
        _table(["topometric", *methods], rows, right=methods),
    )


def frame_markdown(frame: "pandas.DataFrame") -> str:
    """A data frame as a Markdown table with numbers for reading."""
    header, rows, right = _frame_rows(frame)
    return _markdown(header, rows, right)


def _frame_rows(frame: "pandas.DataFrame") -> tuple[list[str], list[tuple[str, ...]], list[str]]:
    if frame.index.name is not None:
        frame = frame.reset_index()
    header = [str(column) for column in frame.columns]
    records = list(frame.itertuples(index=False, name=None))
    right = [
        name for name, *cells in zip(header, *records, strict=True) if cells and all(map(_is_number, cells))
    ]
    return header, [tuple(_text(cell) for cell in record) for record in records], right


def _is_number(cell: Any) -> bool:
    return not isinstance(cell, str | bool) and hasattr(cell, "__float__")


def _text(cell: Any) -> str:
    if not _is_number(cell):
        return "" if cell is None else str(cell)
    number = cell.item() if hasattr(cell, "item") else cell
    if isinstance(number, float) and math.isnan(number):
        return ""
    return f"{number:.4g}" if isinstance(number, float) and not number.is_integer() else format_number(number)


def _cell(value: Any) -> Any:
    """Shapes as the command line spells them: (3, 32, 32) is 3x32x32."""
    if isinstance(value, tuple | list) and value and all(isinstance(size, int) for size in value):
        return "x".join(map(str, value))
    return value


def _filled(header: Sequence[str], rows: Sequence[Sequence[str]]) -> tuple[list[str], list[list[str]]]:
    keep = [i for i in range(len(header)) if not rows or any(row[i] for row in rows)]
    return [header[i] for i in keep], [[row[i] for i in keep] for row in rows]


def _table(header: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[str]) -> Table:
    names, cells = _filled(header, rows)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in names:
        table.add_column(name, justify="right" if name in right else "left", overflow="fold")
    for row in cells:
        table.add_row(*row)
    return table


def _markdown(header: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[str]) -> str:
    names, cells = _filled(header, rows)
    rule = ["---:" if name in right else "---" for name in names]
    lines = [names, rule, *([cell.replace("|", "\\|") for cell in row] for row in cells)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
