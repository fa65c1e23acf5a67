"""One network of a study, made, pruned, trained, tested and measured: a row of the published table."""

import itertools
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from mge_gpu.data import Data, load_split
from mge_gpu.dynamic import METHODS as DYNAMIC
from mge_gpu.errors import TrainingError
from mge_gpu.graph import encode
from mge_gpu.metrics import layer_profile, topometrics
from mge_gpu.metrics.report import PUBLISHED
from mge_gpu.model_spec import load_model, num_outputs
from mge_gpu.pruning import METHODS, InexactCountWarning, LayerCollapseWarning, prune
from mge_gpu.training.recipe import Recipe
from mge_gpu.training.train import Progress, train


@dataclass(frozen=True)
class Setting:
    """What all networks of a study share.

    Args:
        input_shape: of one sample.
        data: what `mge_gpu.data.load_split` takes, with ``root``.
        recipe: how each network is trained.
        metrics: topometrics of the trained network beside those of the published table.
        options: method -> its own options, for pruning and for dynamic methods.
        device: where it is trained.
    """

    input_shape: tuple[int, ...]
    data: str = "digits"
    root: str | None = None
    recipe: Recipe = field(default_factory=Recipe)
    metrics: tuple[str, ...] = ()
    options: dict[str, dict[str, Any]] = field(default_factory=dict)
    device: str = "cpu"


@dataclass(frozen=True)
class Cell:
    """Which network: a model (as `mge_gpu.model_spec.load_model` takes it), a method, a sparsity, a seed.

    >>> Cell("mge:digits_mlp", "snip", 0.9, 0).name
    'mge-digits_mlp-snip-0.9-0'
    """

    model: str
    method: str
    sparsity: float
    seed: int

    @property
    def name(self) -> str:
        """The name of its files."""
        model = "".join(letter if letter.isalnum() or letter in "._" else "-" for letter in self.model)
        return f"{model}-{self.method}-{self.sparsity:g}-{self.seed}"


def known_methods() -> list[str]:
    """The methods that a study can compare: pruning at initialization, then dynamic sparse training."""
    return [*METHODS, *(name for name in DYNAMIC if name != "static")]


def grow(
    cell: Cell, setting: Setting, checkpoint: Path | None = None, progress: Progress | None = None
) -> dict[str, Any]:
    """Make, prune, train, test and measure the network; its row.

    The row has the columns of the published table (``accuracy``, ``pruning``, ``sparsity``, ``model``,
    ``dataset``, ``seed`` and the topometrics of `Report.normalized`, of the trained network) and besides:
    those of `mge_gpu.metrics.layer_profile`, ``kept_weights``, ``weights``, ``collapsed_layers`` (layers
    without a weight), ``loss`` of the last epoch, ``exploration_rate``, ``train_seconds``, ``seconds``, and
    the metrics that were asked for under our keys.

    Raises:
        MGEError: whatever the model, the data, the method or the training do not allow.
    """
    begin = time.perf_counter()
    model = load_model(cell.model, seed=cell.seed)
    parts = split_for(model, setting, cell.seed)
    options = setting.options.get(cell.method, {})
    how: dict[str, Any] = {"method": "static"}
    if cell.method in METHODS:
        with warnings.catch_warnings():
            for said_by_a_column in (LayerCollapseWarning, InexactCountWarning):
                warnings.simplefilter("ignore", said_by_a_column)
            how["masks"] = prune(
                model,
                cell.method,
                cell.sparsity,
                input_shape=setting.input_shape,
                data=parts[0],
                seed=cell.seed,
                **options,
            )
    else:
        how = {"method": cell.method, "sparsity": cell.sparsity, **options}
    trained = train(
        model,
        parts,
        setting.recipe,
        seed=cell.seed,
        device=setting.device,
        checkpoint=checkpoint,
        progress=progress,
        **how,
    )
    if progress is not None:
        progress("topometrics", 1.0)
    model.to("cpu")
    report = topometrics(
        encode(model, setting.input_shape, masks=trained.masks),
        metrics=[*PUBLISHED, *setting.metrics],
        seed=cell.seed,
    )
    if report.interrupted:
        raise KeyboardInterrupt
    kept = [int(mask.sum()) for mask in trained.masks.values()]
    return {
        "accuracy": trained.accuracy,
        "pruning": cell.method,
        "sparsity": cell.sparsity,
        "model": cell.model,
        "dataset": setting.data,
        "seed": cell.seed,
        **report.normalized(),
        **{key: report[key] for key in report if key not in PUBLISHED},
        **layer_profile(model, trained.masks),
        "kept_weights": sum(kept),
        "weights": sum(mask.numel() for mask in trained.masks.values()),
        "collapsed_layers": kept.count(0),
        "loss": trained.loss,
        "exploration_rate": trained.exploration_rate,
        "train_seconds": trained.seconds,
        "seconds": time.perf_counter() - begin,
    }


def split_for(model: torch.nn.Module, setting: Setting, seed: int) -> tuple[Data, Data]:
    """Training and test data of the model's shape, checked against its number of outputs."""
    classes = num_outputs(model, setting.input_shape)
    return load_split(
        setting.data,
        setting.input_shape,
        classes,
        root=setting.root,
        batch_size=setting.recipe.batch_size,
        seed=seed,
    )


def checked_cells(
    models: list[str], methods: list[str], sparsities: list[float], seeds: list[int]
) -> list[Cell]:
    """All combinations, in the order of the table.

    Raises TrainingError on an unknown method, a sparsity outside [0, 1), a repeated value or none at all.
    """
    named: dict[str, Sequence[Any]] = {
        "models": models,
        "methods": methods,
        "sparsities": sparsities,
        "seeds": seeds,
    }
    for what, values in named.items():
        if not values:
            raise TrainingError(f"a study needs {what}, got none")
        if len(set(values)) < len(values):
            raise TrainingError(f"{what} holds a value twice: {', '.join(map(str, values))}")
    if unknown := [name for name in methods if name not in known_methods()]:
        raise TrainingError(f"unknown method {unknown[0]!r}; known are {', '.join(known_methods())}")
    if wrong := [value for value in sparsities if not 0 <= value < 1]:
        raise TrainingError(f"a sparsity must be in [0, 1), the share of weights that goes; got {wrong[0]!r}")
    if wrong_seeds := [seed for seed in seeds if seed < 0]:
        raise TrainingError(f"a seed must be 0 or more, got {wrong_seeds[0]}")
    combined = itertools.product(models, sparsities, methods, seeds)
    return [Cell(model, method, sparsity, seed) for model, sparsity, method, seed in combined]
