"""`mge-gpu reproduce`: the claims of the MGE paper, checked on the tables that were published with it."""

import json as json_module
from pathlib import Path
from typing import Annotated

import typer

from mge_gpu import cli_outputs
from mge_gpu.cli_options import JsonOption, new_folder
from mge_gpu.console import Resources, print_json, progress, reports_errors


@reports_errors
def reproduce(
    table: Annotated[
        Path,
        typer.Option(metavar="DIR", help="Folder with the four published tables.", show_default=False),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            callback=new_folder,
            help="Folder for report.md, report.json and, where matplotlib is installed, plots.",
        ),
    ] = None,
    ranker: Annotated[
        bool, typer.Option(help="Fit the ranker without each architecture, which takes most of the time.")
    ] = True,
    json: JsonOption = False,
) -> None:
    """Say for each claim of the MGE paper whether its published data bear it out, with figures and intervals.

    (a) the accuracy drop from topometrics by encoding, Ramanujan metrics and density; (b) which metrics
    matter; (c) ranking methods that prune at initialization. The exit status is 0 also where a claim is not
    borne out.
    """
    resources = Resources()
    from mge_gpu.ranking import reproduce as run

    with progress() as show:
        found = run(table, ranker=ranker, progress=show)
    document = found.to_dict()
    files = []
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        cli_outputs.write(out / "report.md", found.markdown())
        cli_outputs.write(out / "report.json", json_module.dumps(document, indent=1) + "\n")
        from mge_gpu.plots_reproduction import plot_reproduction

        files = ["report.md", "report.json", *plot_reproduction(found, out)]
    if json:
        print_json(
            document | {"out": None if out is None else str(out), "files": files} | resources.to_dict()
        )
        return
    for verdict in found.verdicts:
        typer.echo(f"({verdict.claim}) {verdict.answer}: {verdict.wording}")
        for part in verdict.parts:
            typer.echo(f"  {part.answer}: {part.statement}")
            typer.echo(f"    {part.evidence}")
        for note in verdict.notes:
            typer.echo(f"  besides: {note}")
    if out is not None:
        typer.echo(f"{out}: {', '.join(files)}")
        if len(files) == 2:
            typer.echo("no plots: matplotlib is not installed (pip install 'mge_gpu[plots]')", err=True)
    resources.print()
