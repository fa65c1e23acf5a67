"""From the options of a command to a model, its input shape, masks and data."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from mge_gpu.console import Progress

if TYPE_CHECKING:
    import torch

    from mge_gpu.data import Data


@dataclass(frozen=True)
class Inputs:
    """What a command works on.

    Args:
        model: the network, with its weights.
        shape: input shape without batch.
        masks: parameter name -> (weight shape) bool, True = kept; None: the weights' own zeros count.
        facts: how the sparsity came about, for output: method, sparsity, seed, data, masks, weight counts.
    """

    model: "torch.nn.Module"
    shape: tuple[int, ...]
    masks: "dict[str, torch.Tensor] | None"
    facts: dict[str, Any] = field(default_factory=dict)


def names(text: str, option: str) -> list[str]:
    """Comma-separated names.

    >>> names("er, erk,", "--methods")
    ['er', 'erk']
    """
    found = [name.strip() for name in text.split(",") if name.strip()]
    if not found:
        raise typer.BadParameter(f"got {option} {text!r}; expected names joined by commas")
    if repeated := [name for name in found if found.count(name) > 1]:
        raise typer.BadParameter(f"{option} names {repeated[0]!r} more than once")
    return found


def wanted_metrics(text: str) -> list[str]:
    """Topometrics, each of which exists; ``all`` and ``cheap`` stand for several."""
    from mge_gpu.metrics import METRICS

    return _known(names(text, "--metrics"), ["all", "cheap", *METRICS], "topometric", "--metrics")


def known_methods(text: str | None) -> list[str] | None:
    """A list of pruning methods, each of which exists; None where none was given."""
    from mge_gpu.pruning import METHODS

    return None if text is None else _known(names(text, "--methods"), METHODS, "pruning method", "--methods")


def load(model: str, input_shape: str, weights: Path | None, seed: int) -> Inputs:
    """The model with its weights, and the shape of its input."""
    from mge_gpu.model_spec import load_model, parse_shape

    shape = parse_shape(input_shape)
    network = load_model(model, seed=seed)
    if weights is not None:
        from mge_gpu.masks import load_weights

        load_weights(network, weights)
    return Inputs(network, shape, None)


def prepare(
    model: str,
    input_shape: str,
    *,
    weights: Path | None,
    masks: Path | None,
    prune: str | None,
    sparsity: float | None,
    seed: int,
    data: str | None,
    root: Path | None,
    show: Progress | None,
    min_per_layer: int = 0,
) -> Inputs:
    """The model, and its masks: from a file, from a pruning method, or (None) its own zeros.

    Raises:
        typer.BadParameter: options that do not go together, or an unknown method.
        MGEError: whatever the model, the files or the method do not allow.
    """
    if prune is None and (sparsity is not None or data is not None or root is not None):
        raise typer.BadParameter("--sparsity, --data and --root are for --prune METHOD, which is missing")
    if prune is not None and masks is not None:
        raise typer.BadParameter(
            "--masks and --prune exclude each other: the masks come from the one or the other"
        )
    if prune is not None and sparsity is None:
        raise typer.BadParameter("--prune needs --sparsity")
    if prune is not None:
        from mge_gpu.pruning import METHODS

        _known([prune], METHODS, "pruning method", "METHOD")

    inputs = load(model, input_shape, weights, seed)
    from mge_gpu.masks import load_masks, masks_of

    facts: dict[str, Any] = {}
    kept = None
    if masks is not None:
        kept = load_masks(masks)
        facts["masks"] = str(masks)
    elif prune is not None:
        from mge_gpu.pruning import prune as run

        assert sparsity is not None
        if show:
            show(f"pruning: {prune}", None)
        batches = data_for([prune], inputs, data, root, seed)
        kept = run(
            inputs.model,
            prune,
            sparsity,
            input_shape=inputs.shape,
            data=batches,
            seed=seed,
            min_per_layer=min_per_layer,
            progress=show,
        )
        facts.update(method=prune, sparsity=sparsity, seed=seed)
        if batches is not None:
            facts["data"] = batches.description
    zeros = masks_of(inputs.model) if kept is None else kept
    facts["kept_weights"] = sum(int(mask.sum()) for mask in zeros.values())
    facts["weights"] = sum(mask.numel() for mask in zeros.values())
    return Inputs(inputs.model, inputs.shape, kept, facts)


def data_for(
    methods: list[str] | None, inputs: Inputs, data: str | None, root: Path | None, seed: int
) -> "Data | None":
    """Data for the methods (None: those that a ranking takes by default) if any of them needs some."""
    from mge_gpu.pruning import METHODS

    if methods is not None and not any(METHODS[name].needs_data for name in methods):
        return None
    from mge_gpu.data import load_data
    from mge_gpu.model_spec import num_outputs

    classes = num_outputs(inputs.model, inputs.shape)
    return load_data(data or "digits", inputs.shape, classes, root=root, seed=seed)


def _known(found: list[str], known: Any, what: str, option: str) -> list[str]:
    for name in found:
        if name not in known:
            raise typer.BadParameter(f"{option}: there is no {what} {name!r}; there are {', '.join(known)}")
    return found
