"""`mge-gpu bench`: how fast edges are written down, metrics computed and products made on this machine."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from mge_gpu import cli_inputs, cli_outputs
from mge_gpu.cli_options import (
    DeviceOption,
    InputOption,
    JsonOption,
    ModelArgument,
    SeedOption,
    SparsityOption,
    new_file,
)
from mge_gpu.console import json_text, print_json, print_table, progress, reports_errors


class What(StrEnum):
    """What is measured."""

    edges = "encode"
    topometrics = "topometrics"
    spectral = "spectral"


@reports_errors
def bench(
    what: Annotated[What, typer.Argument(help="Edges written down; each metric; products and spectra.")],
    model: ModelArgument,
    input_shape: InputOption,
    sparsity: SparsityOption,
    prune: Annotated[str, typer.Option(metavar="METHOD", help="What makes the masks.")] = "erk",
    metrics: Annotated[str, typer.Option(metavar="all|cheap|NAME,NAME", help="Which topometrics.")] = "all",
    repeats: Annotated[int, typer.Option(min=1, help="Calls that count; the median is shown.")] = 5,
    seed: SeedOption = 0,
    device: DeviceOption = "cpu",
    json: JsonOption = False,
    out: Annotated[
        Path | None, typer.Option(callback=new_file, help="Write the JSON to a file, too.")
    ] = None,
) -> None:
    """Median seconds and peak memory on this machine, with what is needed to compare them with another's."""
    import mge_gpu
    from mge_gpu import bench as measure

    wanted = cli_inputs.wanted_metrics(metrics)
    with progress() as show:
        inputs = cli_inputs.prepare(
            model,
            input_shape,
            weights=None,
            masks=None,
            prune=prune,
            sparsity=sparsity,
            seed=seed,
            data=None,
            root=None,
            show=show,
        )
        graph = mge_gpu.encode(inputs.model, inputs.shape, masks=inputs.masks, device=device)
        if what is What.edges:
            rows = [measure.encode(graph, repeats)]
        elif what is What.topometrics:
            rows = list(measure.topometrics(graph, repeats, wanted))
        else:
            rows = list(measure.spectral(graph, repeats))
    document: dict[str, Any] = {
        "benchmark": str(what),
        "model": model,
        "input_shape": inputs.shape,
        "device": str(graph.device),
        "nodes": graph.num_nodes,
        "edges": graph.num_edges,
        "repeats": repeats,
        **inputs.facts,
        "rows": rows,
        "machine": measure.machine(graph.device),
    }
    if out is not None:
        cli_outputs.write(out, json_text(document) + "\n")
    if json:
        print_json(document)
    else:
        typer.echo(cli_outputs.title({"model": model, "input_shape": inputs.shape} | inputs.facts))
        typer.echo(f"{graph.num_nodes:,} nodes, {graph.num_edges:,} edges, on {graph.device}")
        print_table(table(rows))


def table(rows: list[dict[str, Any]]) -> Any:
    """A rich table of the figures: seconds, rates in G/s, memory in GB."""
    from rich.table import Table

    shown = Table()
    columns = list(dict.fromkeys(name for row in rows for name in row))
    for name in columns:
        shown.add_column(name, justify="left" if isinstance(rows[-1].get(name), str) else "right")
    for row in rows:
        shown.add_row(*(figure(name, row[name]) if name in row else "" for name in columns))
    return shown


def figure(name: str, value: Any) -> str:
    """A figure with its unit.

    >>> figure("seconds", 0.01234), figure("bytes_per_second", 2.5e9), figure("copy_share", 0.5)
    ('0.0123 s', '2.5 G/s', '50 %')
    """
    if name == "seconds":
        return f"{value:.3g} s"
    if name.endswith("_per_second"):
        return f"{value / 1e9:.3g} G/s"
    if name.endswith("_share"):
        return f"{value:.0%}".replace("%", " %")
    if name.startswith("peak_"):
        return f"{value / 1e9:.2f} GB"
    return f"{value:,}" if isinstance(value, int) else str(value)
