"""How the commands behave: errors in one line, warnings and progress beside the output, time and memory.

Results go to stdout, everything else to stderr. Exit status: 0 done, 1 failed, 2 bad usage, 130 Ctrl-C
(what was computed until then is printed).
"""

import contextlib
import functools
import json
import logging
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, ParamSpec, TypeVar

import typer

from mge_gpu._memory import peak_rss_bytes

P = ParamSpec("P")
R = TypeVar("R")
INTERRUPTED = 130
"""Exit status after Ctrl-C: 128 and the number of the signal, as shells have it."""

Progress = Callable[[str, float | None], None]


class Interrupted(KeyboardInterrupt):
    """Ctrl-C came; the text says what is missing of what was printed."""


def reports_errors(command: Callable[P, R]) -> Callable[P, R]:
    """Turn an `MGEError` into one line on stderr and exit status 1, a wrong MODEL or shape into bad usage.

    Ctrl-C ends with one line and exit status 130.
    """

    @functools.wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        from mge_gpu.errors import MGEError
        from mge_gpu.model_spec import ModelSpecError

        # torch logs a traceback of its own for an input that does not fit, beside the error that it raises.
        logging.getLogger("torch._subclasses.fake_tensor").setLevel(logging.CRITICAL)
        try:
            with warnings.catch_warnings():
                warnings.showwarning = _show_warning
                return command(*args, **kwargs)
        except ModelSpecError as error:
            raise typer.BadParameter(str(error)) from error
        except MGEError as error:
            typer.echo(f"error: {one_line(str(error))}", err=True)
            raise typer.Exit(1) from error
        except KeyboardInterrupt as error:
            what = f": {one_line(str(error))}" if str(error) else ""
            typer.echo(f"interrupted{what}", err=True)
            raise typer.Exit(INTERRUPTED) from error

    return wrapped


def one_line(text: str) -> str:
    """The text without line breaks.

    >>> one_line("first\\n  second")
    'first second'
    """
    return " ".join(text.split())


def _show_warning(message: Warning | str, *_where: Any, **_more: Any) -> None:
    typer.echo(f"warning: {one_line(str(message))}", err=True)


@contextlib.contextmanager
def progress() -> Iterator[Progress | None]:
    """A progress callable that draws on the terminal, or None where stderr is a pipe or a file."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    with Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
    ) as bars:
        task = bars.add_task("", total=None)

        def show(text: str, fraction: float | None) -> None:
            bars.update(
                task, description=text, total=None if fraction is None else 1.0, completed=fraction or 0.0
            )

        yield show


def print_table(table: Any) -> None:
    """A rich table on stdout; in a pipe, where there is no width to keep to, neither folded nor coloured."""
    from rich.console import Console

    Console(width=None if sys.stdout.isatty() else 200).print(table)


def print_json(document: Any) -> None:
    """One JSON object on stdout."""
    typer.echo(json_text(document))


def json_text(document: Any) -> str:
    """JSON; NaN and infinities, which it has no word for, become null."""
    from mge_gpu.metrics.report import json_ready

    return json.dumps(json_ready(document), indent=2, allow_nan=False)


@dataclass
class Resources:
    """Wall-clock time since it was made, and the peak memory of this process.

    >>> Resources().seconds() >= 0
    True
    """

    started: float = field(default_factory=time.perf_counter)

    def seconds(self) -> float:
        """Seconds since the start."""
        return time.perf_counter() - self.started

    def to_dict(self) -> dict[str, float | int | None]:
        """For JSON output: ``seconds`` and ``peak_rss_bytes``."""
        return {"seconds": round(self.seconds(), 3), "peak_rss_bytes": peak_rss_bytes()}

    def print(self) -> None:
        """One line on stderr."""
        peak = peak_rss_bytes()
        memory = "" if peak is None else f", peak memory {peak / 2**20:,.0f} MiB"
        typer.echo(f"{self.seconds():.1f} s{memory}", err=True)
