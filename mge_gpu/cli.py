"""The command line: `mge-gpu analyze | ramanujan | rank | prune | study | evaluate |
reproduce | bench | plot | doctor`.

Everything heavy is imported by the command that needs it, so that `--help` and bad usage answer at once.
"""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

import mge_gpu
from mge_gpu import cli_bench, cli_evaluate, cli_inputs, cli_layers, cli_outputs, cli_reproduce, cli_study
from mge_gpu.cli_options import (
    DataOption,
    DeviceOption,
    Encoding,
    IdentityOption,
    InputOption,
    JsonOption,
    MasksOption,
    MaybeSparsityOption,
    MethodOption,
    MinPerLayerOption,
    ModelArgument,
    PadOption,
    RootOption,
    SeedOption,
    SparsityOption,
    WeightsOption,
    new_file,
    new_folder,
)
from mge_gpu.console import (
    INTERRUPTED,
    Interrupted,
    Resources,
    print_json,
    print_table,
    progress,
    reports_errors,
)

app = typer.Typer(
    help="Topology of pruned neural networks as multipartite graphs.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"mge-gpu {mge_gpu.__version__}")
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Topology of pruned neural networks as multipartite graphs."""


@app.command()
@reports_errors
def analyze(
    model: ModelArgument,
    input_shape: InputOption,
    masks: MasksOption = None,
    weights: WeightsOption = None,
    prune: MethodOption = None,
    sparsity: MaybeSparsityOption = None,
    seed: SeedOption = 0,
    data: DataOption = None,
    root: RootOption = None,
    encoding: Annotated[Encoding, typer.Option(help="Which graph.")] = Encoding.mge,
    metrics: Annotated[
        str,
        typer.Option(
            metavar="all|cheap|NAME,NAME",
            help="Which topometrics; cheap: those that need no pass over the edges.",
        ),
    ] = "all",
    exact: Annotated[bool, typer.Option("--exact", help="Never estimate, however long it takes.")] = False,
    identity_skips: IdentityOption = False,
    pad_input: PadOption = True,
    device: DeviceOption = "cpu",
    json: JsonOption = False,
    csv: Annotated[
        Path | None,
        typer.Option(
            callback=new_file, metavar="FILE|-", help="Write the values as CSV; - is stdout, without table."
        ),
    ] = None,
) -> None:
    """Topometrics of a network: of its zeros, of given masks, or of what a pruning method would leave.

    Cheap metrics come first; after Ctrl-C those that are there are printed, and the exit status is 130.
    """
    wanted = cli_inputs.wanted_metrics(metrics)
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
        if show:
            show("encoding", None)
        graph = mge_gpu.encode(
            inputs.model,
            inputs.shape,
            masks=inputs.masks,
            encoding=str(encoding),
            pad_input=pad_input,
            identity_skips=identity_skips,
            device=device,
        )
        report = mge_gpu.topometrics(graph, metrics=wanted, exact=exact, seed=seed, progress=show)
    report.info.update(
        {"model": model, "input_shape": inputs.shape, "encoding": str(encoding)} | inputs.facts
    )
    if csv is not None:
        from mge_gpu.report import reports_csv

        cli_outputs.write(csv, reports_csv([report]))
    if json:
        print_json(cli_outputs.analysis_document(report) | resources.to_dict())
    elif csv != Path("-"):
        from mge_gpu.report import report_table

        typer.echo(cli_outputs.title(report.info))
        print_table(report_table(report))
    if not json:
        resources.print()
    if report.interrupted:
        raise Interrupted(f"without {', '.join(report.interrupted)}")


app.command()(cli_layers.ramanujan)


@app.command()
@reports_errors
def rank(
    model: ModelArgument,
    input_shape: InputOption,
    sparsity: SparsityOption,
    methods: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,NAME",
            help="Methods to compare (default: the published ones, random and magnitude).",
            show_default=False,
        ),
    ] = None,
    weights: WeightsOption = None,
    seed: SeedOption = 0,
    data: DataOption = None,
    root: RootOption = None,
    out: Annotated[
        Path | None,
        typer.Option(
            callback=new_folder,
            help="Folder for masks, tables and pictures; one that was stopped goes on.",
            show_default=False,
        ),
    ] = None,
    explain: Annotated[
        Path | None,
        typer.Option(
            callback=new_file,
            metavar="FILE",
            help="Draw what moved each score: .png, .svg or .pdf.",
            show_default=False,
        ),
    ] = None,
    ranker: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="A fitted ranker instead of the shipped one."),
    ] = None,
    device: Annotated[
        str, typer.Option(metavar="cpu|cuda", help="Where masks are made and edges walked.")
    ] = "cpu",
    json: JsonOption = False,
) -> None:
    """Rank pruning methods for a network by the topology of what they leave, best first."""
    from mge_gpu.backends import get_backend

    names = cli_inputs.known_methods(methods)
    cli_outputs.check_picture(explain)
    get_backend(device)  # raises where it cannot be used
    resources = Resources()
    with progress() as show:
        inputs = cli_inputs.load(model, input_shape, weights, seed)
        batches = cli_inputs.data_for(names, inputs, data, root, seed)
        frame = mge_gpu.rank(
            inputs.model.to(device),
            inputs.shape,
            sparsity=sparsity,
            methods=names,
            data=batches,
            seed=seed,
            ranker=ranker,
            progress=show,
            out=out,
        )
    described = "none needed" if batches is None else batches.description
    facts = {"model": model, "input_shape": inputs.shape, "sparsity": sparsity, "seed": seed}
    document = cli_outputs.ranking_document(frame, facts | {"data": described})
    if out is not None:
        cli_outputs.save_ranking(frame, out, document)
    if json:
        print_json(document | resources.to_dict())
    else:
        from mge_gpu.report import ranking_tables

        typer.echo(f"{model}, input {input_shape}, sparsity {sparsity:g}; data: {described}")
        for table in ranking_tables(frame):
            print_table(table)
        if provenance := frame.attrs.get("provenance"):
            typer.echo(f"ranker: {provenance}")
        resources.print()
    if explain is not None:  # last, so that a picture that cannot be written loses nothing
        from mge_gpu.plots import plot_explanation

        plot_explanation(frame, explain)


@app.command()
@reports_errors
def prune(
    model: ModelArgument,
    method: Annotated[
        str, typer.Argument(metavar="METHOD", help="snip, synflow, erk, ...", show_default=False)
    ],
    input_shape: InputOption,
    sparsity: SparsityOption,
    out: Annotated[
        Path,
        typer.Option(callback=new_file, help="Masks to write, .safetensors or .pt.", show_default=False),
    ],
    weights: WeightsOption = None,
    seed: SeedOption = 0,
    data: DataOption = None,
    root: RootOption = None,
    min_per_layer: MinPerLayerOption = 0,
    json: JsonOption = False,
) -> None:
    """Write the masks that a pruning method finds for a network."""
    if out.suffix not in (".pt", ".safetensors"):
        raise typer.BadParameter(f"got --out {out}; expected a name that ends in .safetensors or .pt")
    resources = Resources()
    with progress() as show:
        inputs = cli_inputs.prepare(
            model,
            input_shape,
            masks=None,
            weights=weights,
            prune=method,
            sparsity=sparsity,
            seed=seed,
            data=data,
            root=root,
            show=show,
            min_per_layer=min_per_layer,
        )
    from mge_gpu.masks import save_masks

    masks = inputs.masks or {}
    save_masks(masks, out)
    layers = [{"layer": name, "kept": int(mask.sum()), "of": mask.numel()} for name, mask in masks.items()]
    if json:
        print_json({"model": model, **inputs.facts, "out": str(out), "layers": layers} | resources.to_dict())
        return
    for layer in layers:
        typer.echo(f"{layer['layer']}: {layer['kept']:,} of {layer['of']:,} kept")
    typer.echo(f"{out}: {inputs.facts['kept_weights']:,} of {inputs.facts['weights']:,} weights kept")
    resources.print()


app.command()(cli_study.study)
app.command()(cli_bench.bench)
app.command()(cli_evaluate.evaluate)
app.command()(cli_reproduce.reproduce)


@app.command()
@reports_errors
def plot(
    model: ModelArgument,
    input_shape: InputOption,
    out: Annotated[Path, typer.Option(callback=new_file, help="Picture to write: .png, .svg or .pdf.")],
    masks: MasksOption = None,
    weights: WeightsOption = None,
    prune: MethodOption = None,
    sparsity: MaybeSparsityOption = None,
    seed: SeedOption = 0,
    data: DataOption = None,
    root: RootOption = None,
    identity_skips: IdentityOption = False,
    pad_input: PadOption = True,
    nodes: Annotated[int, typer.Option(min=1, help="Most nodes to draw of each layer.")] = 64,
) -> None:
    """Draw the graph of a small network."""
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
        from mge_gpu.plots import plot_graph

        graph = mge_gpu.encode(
            inputs.model, inputs.shape, masks=inputs.masks, pad_input=pad_input, identity_skips=identity_skips
        )
        title = f"{model}: {graph.num_nodes:,} nodes, {graph.num_edges:,} edges"
        plot_graph(graph, out, nodes_per_partition=nodes, title=title)
    typer.echo(str(out))


@app.command()
@reports_errors
def doctor(json: JsonOption = False) -> None:
    """Check this installation: a tiny graph with a known answer, what is installed, which device."""
    from mge_gpu.doctor import healthy, run_checks

    checks = run_checks()
    if json:
        print_json({"healthy": healthy(checks), "checks": [check.to_dict() for check in checks]})
    else:
        width = max(len(check.name) for check in checks)
        for check in checks:
            hint = f"  →  {check.hint}" if check.hint else ""
            typer.echo(f"{check.status:<7}  {check.name:<{width}}  {check.detail}{hint}")
    raise typer.Exit(0 if healthy(checks) else 1)


def main() -> None:
    """Entry point of ``mge-gpu`` and ``python -m mge_gpu``."""
    try:
        app(prog_name="mge-gpu")
    except SystemExit as end:
        if end.code != INTERRUPTED:
            raise
        # A kernel that Ctrl-C abandoned may still run: taking the interpreter down beside it takes seconds.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(INTERRUPTED)
