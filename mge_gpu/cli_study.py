"""`mge-gpu study`: prune, train, test and measure many networks, into a table to fit a ranker on."""

import contextlib
import json as json_module
from pathlib import Path
from typing import Annotated, Any

import typer

from mge_gpu import cli_inputs, cli_outputs
from mge_gpu.cli_options import InputOption, JsonOption, RootOption, new_folder
from mge_gpu.console import Resources, print_json, print_table, progress, reports_errors

METHODS = "snip,grasp,synflow,prospr,uniform,er,erk"
SPARSITIES = "0.6,0.8,0.9,0.95,0.98"


@reports_errors
def study(
    models: Annotated[
        list[str],
        typer.Argument(metavar="MODEL...", help="torchvision:NAME, mge:NAME or package.module:factory."),
    ],
    input_shape: InputOption,
    out: Annotated[
        Path,
        typer.Option(
            callback=new_folder,
            help="Folder for the table; a study that is there goes on.",
            show_default=False,
        ),
    ],
    methods: Annotated[
        str, typer.Option(metavar="NAME,NAME", help="Pruning at initialization and dynamic methods.")
    ] = METHODS,
    sparsities: Annotated[
        str, typer.Option(metavar="S,S", help="Shares of the weights that go.")
    ] = SPARSITIES,
    seeds: Annotated[int, typer.Option(min=1, help="Networks of each kind, seeded 0, 1, ...")] = 3,
    data: Annotated[
        str, typer.Option(metavar="NAME|FILE", help="digits, a torchvision set, FILE.npz or FILE.pt.")
    ] = "digits",
    root: RootOption = None,
    epochs: Annotated[int, typer.Option(min=1)] = 160,
    batch_size: Annotated[int, typer.Option(min=1)] = 128,
    learning_rate: Annotated[float, typer.Option(help="At the start.")] = 0.1,
    momentum: Annotated[float, typer.Option()] = 0.9,
    weight_decay: Annotated[float, typer.Option()] = 5e-4,
    schedule: Annotated[str, typer.Option(metavar="cosine|step|constant")] = "cosine",
    augment: Annotated[
        str, typer.Option(metavar="none|crop-flip", help="Random crops and mirror images.")
    ] = "none",
    amp: Annotated[bool, typer.Option("--amp", help="Automatic mixed precision.")] = False,
    metrics: Annotated[
        str | None,
        typer.Option(metavar="NAME,NAME", help="Topometrics besides those of the published table."),
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(metavar="METHOD.NAME=VALUE", help="An option of a method; can be repeated."),
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Networks trained at the same time.")] = 1,
    device: Annotated[str, typer.Option(metavar="cpu|cuda", help="Where networks are trained.")] = "cpu",
    json: JsonOption = False,
) -> None:
    """Prune, train, test and measure networks by several methods: a table to fit a ranker on.

    Every network's row is kept as soon as it is there; the same command goes on after an interruption.
    """
    names = cli_inputs.names(methods, "--methods")
    options = method_options(option or [], names)
    resources = Resources()
    from mge_gpu.model_spec import parse_shape
    from mge_gpu.training import Recipe
    from mge_gpu.training import study as run

    recipe = Recipe(epochs, batch_size, learning_rate, momentum, weight_decay, schedule, augment, amp)
    with progress() as show:
        table = run(
            models,
            parse_shape(input_shape),
            methods=names,
            sparsities=numbers(sparsities, "--sparsities"),
            seeds=range(seeds),
            out=out,
            data=data,
            root=None if root is None else str(root),
            recipe=recipe,
            metrics=[] if metrics is None else cli_inputs.wanted_metrics(metrics),
            options=options,
            device=device,
            workers=workers,
            progress=show,
        )
    failed: dict[str, str] = table.attrs["failed"]
    if json:
        rows = cli_outputs.records(table)
        print_json({"out": str(out), "rows": rows, "failed": failed} | resources.to_dict())
    else:
        if len(table):
            from mge_gpu.report import frame_table
            from mge_gpu.training import summary

            print_table(frame_table(summary(table)))
        typer.echo(f"{out / 'table.csv'}: {len(table)} networks")
        resources.print()
    for name, why in failed.items():
        typer.echo(f"error: {name}: {why}", err=True)
    if failed:
        raise typer.Exit(1)


def numbers(text: str, option: str) -> list[float]:
    """Comma-separated numbers.

    >>> numbers("0.9,0.98", "--sparsities")
    [0.9, 0.98]
    """
    try:
        return [float(name) for name in cli_inputs.names(text, option)]
    except ValueError:
        raise typer.BadParameter(f"got {option} {text!r}; expected numbers joined by commas") from None


def method_options(given: list[str], methods: list[str]) -> dict[str, dict[str, Any]]:
    """Options of methods from ``method.name=value``; values are read as JSON where they are, else as text.

    >>> method_options(["rigl.interval=12", "snip.bn_mode=eval"], ["snip", "rigl"])
    {'rigl': {'interval': 12}, 'snip': {'bn_mode': 'eval'}}
    """
    found: dict[str, dict[str, Any]] = {}
    for text in given:
        target, equals, value = text.partition("=")
        method, dot, name = target.partition(".")
        if not (equals and dot and name) or method not in methods:
            raise typer.BadParameter(
                f"got --option {text!r}; expected METHOD.NAME=VALUE with a method of --methods"
            )
        parsed: Any = value
        with contextlib.suppress(ValueError):
            parsed = json_module.loads(value)
        found.setdefault(method, {})[name] = parsed
    return found
