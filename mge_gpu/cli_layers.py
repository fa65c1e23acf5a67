"""`mge-gpu ramanujan`: a row a layer of the network's bipartite graphs."""

import enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mge_gpu import cli_inputs, cli_outputs
from mge_gpu.cli_options import (
    DataOption,
    InputOption,
    JsonOption,
    MasksOption,
    MaybeSparsityOption,
    MethodOption,
    ModelArgument,
    RootOption,
    SeedOption,
    WeightsOption,
    new_file,
)
from mge_gpu.console import Resources, print_json, print_table, progress, reports_errors

if TYPE_CHECKING:
    import pandas

WIDE = ("weights", "nonzero", "left", "right", "left_linked", "right_linked", "missing")
"""Columns that the table on the terminal leaves to --json and --csv."""


class Bipartite(enum.StrEnum):
    """The encodings that have a graph a layer."""

    rolled = "rolled"
    rolled_channel = "rolled-channel"


@reports_errors
def ramanujan(
    model: ModelArgument,
    input_shape: InputOption,
    masks: MasksOption = None,
    weights: WeightsOption = None,
    prune: MethodOption = None,
    sparsity: MaybeSparsityOption = None,
    seed: SeedOption = 0,
    data: DataOption = None,
    root: RootOption = None,
    encoding: Annotated[Bipartite, typer.Option(help="Which bipartite graph.")] = Bipartite.rolled,
    device: Annotated[
        str, typer.Option(metavar="cpu|cuda", help="Where singular values are computed.")
    ] = "cpu",
    json: JsonOption = False,
    csv: Annotated[
        Path | None,
        typer.Option(
            callback=new_file, metavar="FILE|-", help="Write all columns as CSV; - is stdout, without table."
        ),
    ] = None,
) -> None:
    """Ramanujan metrics of every layer: how far its bipartite graph is from the best expander."""
    cli_outputs.check_stdout(json, csv)
    resources = Resources()
    with progress() as show:
        inputs = cli_inputs.prepare(
            model,
            input_shape,
            masks=masks,
            weights=weights,
            prune=prune,
            sparsity=sparsity,
            seed=seed,
            data=data,
            root=root,
            show=show,
        )
        import mge_gpu

        program = mge_gpu.trace(inputs.model, inputs.shape)
        frame = mge_gpu.ramanujan(program, inputs.masks, str(encoding), device=device, progress=show)
    info = {"model": model, "input_shape": inputs.shape, "encoding": str(encoding)} | inputs.facts
    if csv is not None:
        cli_outputs.write(csv, frame.to_csv())
    if json:
        print_json(info | {"layers": cli_outputs.records(frame)} | resources.to_dict())
        return
    if csv != Path("-"):
        from mge_gpu.report import frame_table

        typer.echo(cli_outputs.title(info))
        print_table(frame_table(frame.drop(columns=list(WIDE))))
        for line in _reasons(frame):
            typer.echo(line)
    resources.print()


def _reasons(frame: "pandas.DataFrame") -> list[str]:
    """Why values are missing, each reason once with its number of layers."""
    reasons = frame["missing"][frame["missing"] != ""].str.split("; ").explode().value_counts()
    return [f"missing in {count} of {len(frame)} layers: {reason}" for reason, count in reasons.items()]
