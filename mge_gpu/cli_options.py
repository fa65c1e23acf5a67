"""The command line's options and arguments, and what is checked of them before anything runs."""

import enum
from pathlib import Path
from typing import Annotated

import typer


class Encoding(enum.StrEnum):
    """The graph encodings that can be asked for."""

    mge = "mge"
    rolled = "rolled"
    rolled_channel = "rolled-channel"


def sparsity_in_range(value: float | None) -> float | None:
    if value is not None and not 0 <= value < 1:
        raise typer.BadParameter(f"{value} is not in [0, 1): it is the share of the weights that goes")
    return value


def new_file(path: Path | None) -> Path | None:
    """A file that is written after minutes of work: whether it can be is asked before them."""
    if path is not None and path != Path("-"):
        if path.is_dir():
            raise typer.BadParameter(f"{path} is a folder; expected a file name")
        if not path.parent.is_dir():
            raise typer.BadParameter(f"there is no folder {path.parent}")
    return path


def new_folder(path: Path | None) -> Path | None:
    if path is not None and path.exists() and not path.is_dir():
        raise typer.BadParameter(f"{path} is a file; expected a folder")
    return path


ModelArgument = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="torchvision:NAME, mge:NAME, package.module:factory, or FILE.pt2 written by torch.export.save",
        show_default=False,
    ),
]
InputOption = Annotated[
    str, typer.Option("--input", metavar="CxHxW", help="Input shape without batch.", show_default=False)
]
SeedOption = Annotated[int, typer.Option(min=0, help="Seeds initial weights, random pruning and data order.")]
DataOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME|FILE",
        help="For methods that need data: digits (default), random, a torchvision set, FILE.npz, FILE.pt.",
        show_default=False,
    ),
]
RootOption = Annotated[
    Path | None,
    typer.Option(help="Folder with the torchvision data set; nothing is downloaded.", show_default=False),
]
MasksOption = Annotated[
    Path | None,
    typer.Option(exists=True, dir_okay=False, help="Masks, .pt or .safetensors: parameter name → 0/1."),
]
WeightsOption = Annotated[
    Path | None, typer.Option(exists=True, dir_okay=False, help="A state dict, .pt or .safetensors.")
]
MethodOption = Annotated[
    str | None,
    typer.Option("--prune", metavar="METHOD", help="Prune first, by this method.", show_default=False),
]
SparsityOption = Annotated[
    float, typer.Option(callback=sparsity_in_range, help="Share of the weights that goes, in [0, 1).")
]
MaybeSparsityOption = Annotated[
    float | None,
    typer.Option(callback=sparsity_in_range, help="For --prune: share of the weights that goes, in [0, 1)."),
]
MinPerLayerOption = Annotated[
    int,
    typer.Option("--min-per-layer", min=0, help="Weights that every layer keeps at least; the count stays."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else on stdout.")]
IdentityOption = Annotated[
    bool, typer.Option("--identity-skips", help="Unit-weight edges for identity skips.")
]
PadOption = Annotated[
    bool, typer.Option(help="Count the input's nodes after the first layer's zero padding.")
]
DeviceOption = Annotated[
    str, typer.Option(metavar="cpu|cuda", help="Where edges are walked; cuda needs the extra cuda.")
]
