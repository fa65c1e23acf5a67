"""`mge-gpu evaluate`: how well a ranker fitted to one table orders the methods of others."""

import enum
from pathlib import Path
from typing import Annotated, Any

import typer

from mge_gpu import cli_inputs
from mge_gpu.cli_options import JsonOption
from mge_gpu.console import Resources, print_json, reports_errors


class LeaveOut(enum.StrEnum):
    """What is left out in turn."""

    model = "model"
    dataset = "dataset"
    sparsity = "sparsity"


TABLE = "CSV table in the published format, or its directory."


@reports_errors
def evaluate(
    train: Annotated[Path, typer.Option(help=f"What to learn from: {TABLE}", show_default=False)],
    test: Annotated[
        Path | None,
        typer.Option(help=f"What to predict: {TABLE} Without it, parts of --train are left out in turn."),
    ] = None,
    methods: Annotated[
        str | None,
        typer.Option(metavar="NAME,NAME", help="Candidates to order (default: all in the table)."),
    ] = None,
    leave_out: Annotated[LeaveOut, typer.Option(help="Without --test: what is left out.")] = LeaveOut.model,
    seed: Annotated[int, typer.Option(min=0, help="For LightGBM's bagging and the bootstrap.")] = 0,
    json: JsonOption = False,
) -> None:
    """Say how well a ranker that is fitted to a table of trained networks orders the methods of others.

    Kendall's tau, rank-biased overlap (p = 0.9), how often the best method comes first, and the percentage
    points of accuracy lost by training the first; means over groups (model, data set, sparsity) with 95 %
    bootstrap intervals, and the same for the baseline that knows each method's mean rank only.
    """
    names = None if methods is None else cli_inputs.names(methods, "--methods")
    resources = Resources()
    from mge_gpu.ranking import evaluate as leave_one_out
    from mge_gpu.ranking import load_table
    from mge_gpu.ranking.agreement import intervals, seed_ceiling, summary
    from mge_gpu.ranking.evaluate import transfer
    from mge_gpu.ranking.ranker import restricted

    learned = load_table(train, sparsities=None)
    if test is None:
        tested = learned
        found = leave_one_out(learned, names, leave_out=leave_out.value, seed=seed)
    else:
        tested = load_table(test, sparsities=None)
        found = transfer(learned, tested, names, seed=seed)
    document: dict[str, Any] = {
        "train": str(train),
        "test": None if test is None else str(test),
        "left_out": leave_out.value if test is None else None,
        "methods": sorted(restricted(tested, names)["method"].unique().tolist()),
    }
    document |= summary(found, seed)
    document["calibration"] = intervals(
        found, ("depth", "told_apart", "told_right", "brier", "best_chance"), seed
    )
    ceiling = seed_ceiling(restricted(tested, names))
    document["seed_ceiling"] = summary(ceiling, seed) if len(ceiling) else None
    document["folds"] = found.attrs.get("folds", [])
    if json:
        print_json(document | resources.to_dict())
        return
    for line in _lines(document):
        typer.echo(line)
    resources.print()


def _lines(document: dict[str, Any]) -> list[str]:
    """The document for people."""
    learned = f"{document['train']}: {document['groups']} groups, {len(document['methods'])} methods"
    lines = [f"{learned}; tested on {document['test'] or 'what was left out: ' + document['left_out']}"]
    for fold in document["folds"]:
        scores = ", ".join(
            f"{_named(entry['settings'])} {entry['score']:.3f}" for entry in fold["inner_scores"]
        )
        lines.append(
            f"  without {fold['left_out']}: {_named(fold['settings'])} chosen "
            f"(inner scores: {scores or 'nothing to choose by'}), temperature {fold['temperature']:g}"
        )
    for title, part in {
        "ranker": document,
        "mean rank": document["baseline"],
        "difference": document["difference"],
        "seed ceiling": document["seed_ceiling"],
    }.items():
        if part is not None:
            lines.append(f"{title:>12}: " + ", ".join(_score(part, name) for name in _NAMED))
    return lines


def _named(settings: dict[str, Any]) -> str:
    return f"{settings['leaves']} leaves of {'+'.join(settings['views'])}"


_NAMED = {"kendall_tau": "tau", "rbo": "RBO", "top1": "top-1", "accuracy_lost": "points lost"}


def _score(scores: dict[str, Any], name: str) -> str:
    if scores[name] is None:
        return f"{_NAMED[name]} unknown"
    low, high = scores[f"{name}_interval"]
    return f"{_NAMED[name]} {scores[name]:.3f} [{low:.3f}, {high:.3f}]"
