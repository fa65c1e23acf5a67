"""What the commands print and write: JSON documents, titles, files."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    import pandas

    from mge_gpu.metrics.report import Report


def analysis_document(report: "Report") -> dict[str, Any]:
    """The JSON object of ``analyze``; ``normalized`` is null where the counts it divides by are missing."""
    parts = report.to_dict()
    return {
        **parts["info"],
        "metrics": parts["values"],
        "normalized": report.normalized() if {"nodes", "edges"} <= set(report) | set(report.info) else None,
        "standard_errors": parts["standard_errors"],
        "how": parts["how"],
        "metric_seconds": parts["seconds"],
        "interrupted": parts["interrupted"],
    }


def title(info: dict[str, Any]) -> str:
    """What was analyzed, in one line.

    >>> title({"model": "mge:conv6", "input_shape": (3, 32, 32), "kept_weights": 1000, "weights": 5000})
    'mge:conv6, input 3x32x32: 1,000 of 5,000 weights'
    """
    shape = "x".join(map(str, info["input_shape"]))
    pruned = f", {info['method']} at sparsity {info['sparsity']:g}" if "method" in info else ""
    pruned += f" (data: {info['data']})" if "data" in info else ""
    return f"{info['model']}, input {shape}{pruned}: {info['kept_weights']:,} of {info['weights']:,} weights"


def records(frame: "pandas.DataFrame") -> list[dict[str, Any]]:
    """Rows of a data frame as dicts, a named index among them."""
    return (frame.reset_index() if frame.index.name is not None else frame).to_dict("records")


def ranking_document(frame: "pandas.DataFrame", facts: dict[str, Any]) -> dict[str, Any]:
    """The JSON object of ``rank``: what was asked for, the frame, and what its ``attrs`` say."""
    attrs = {name: frame.attrs.get(name) for name in ("provenance", "chances", "contributions")}
    return facts | {"ranking": records(frame)} | attrs


def save_ranking(frame: "pandas.DataFrame", folder: Path, document: dict[str, Any]) -> None:
    """The ranking beside what `mge_gpu.rank` has written there.

    ranking.csv and topometrics.csv (a row a method), ranking.json (the ``document``), and ranking.png and
    explanation.png; a line on stderr says why where there are none.
    """
    from mge_gpu.console import json_text
    from mge_gpu.errors import MissingDependencyError
    from mge_gpu.plots import plot_explanation, plot_ranking
    from mge_gpu.report import reports_csv

    write(folder / "ranking.csv", frame.to_csv(index=frame.index.name is not None))
    write(folder / "ranking.json", json_text(document) + "\n")
    reports = frame.attrs["reports"]
    for method, report in reports.items():
        report.info.setdefault("method", method)
    write(folder / "topometrics.csv", reports_csv(reports.values()))
    try:
        plot_ranking(frame, folder / "ranking.png")
        plot_explanation(frame, folder / "explanation.png")
    except MissingDependencyError as error:
        typer.echo(f"no pictures in {folder}: {error}", err=True)


def check_picture(path: Path | None) -> None:
    """Bad usage of ``--explain``, or no matplotlib, before minutes of work."""
    if path is None:
        return
    if path.suffix not in (".png", ".svg", ".pdf"):
        raise typer.BadParameter(f"got --explain {path}; expected a name that ends in .png, .svg or .pdf")
    from mge_gpu._optional import require

    require("matplotlib.figure", "plots", "--explain")


def check_stdout(json: bool, csv: Path | None) -> None:
    """Bad usage where JSON and CSV would both go to stdout."""
    if json and csv == Path("-"):
        raise typer.BadParameter("--json and --csv - both want stdout; give --csv a file name")


def write(path: Path, text: str) -> None:
    """Write text to a file, or to stdout for ``-``."""
    if path == Path("-"):
        typer.echo(text, nl=False)
        return
    try:
        path.write_text(text, encoding="utf-8", newline="")
    except OSError as error:
        raise _cannot_write(path, error) from error


def _cannot_write(path: Path, error: OSError) -> Exception:
    from mge_gpu.errors import DataError

    return DataError(f"{str(path)!r} cannot be written: {error.strerror or error}")
