"""The table of pruning methods, and the one entry point that checks what goes in and what comes out."""

import difflib
import inspect
import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from mge_gpu.data import load_data
from mge_gpu.errors import PruningError
from mge_gpu.masks import check_masks, check_weight
from mge_gpu.pruning._copy import dense_weights
from mge_gpu.pruning._effective import prune_effectively
from mge_gpu.pruning._refill import refill
from mge_gpu.pruning._select import LayerCollapseWarning, ScoredMasks, kept_count
from mge_gpu.pruning.er import er
from mge_gpu.pruning.er_published import er_published
from mge_gpu.pruning.erk import erk
from mge_gpu.pruning.expander import expander
from mge_gpu.pruning.force import force
from mge_gpu.pruning.grasp import grasp
from mge_gpu.pruning.iterative_snip import iterative_snip
from mge_gpu.pruning.magnitude import magnitude
from mge_gpu.pruning.npb import npb
from mge_gpu.pruning.ntk_sap import ntk_sap
from mge_gpu.pruning.phew import phew
from mge_gpu.pruning.prospr import prospr
from mge_gpu.pruning.random_global import random_global
from mge_gpu.pruning.snip import snip
from mge_gpu.pruning.synflow import synflow
from mge_gpu.pruning.uniform import uniform


class InexactCountWarning(UserWarning):
    """A pruning method kept more or fewer weights than asked, as its construction has it."""


class RefillWarning(UserWarning):
    """Layers were given weights that the pruning method had removed, for ``min_per_layer``."""


class EffectiveSparsityWarning(UserWarning):
    """No choice of how much to prune comes near the effective sparsity that was asked for."""


EFFECTIVE_TOLERANCE = 1e-3
"""How far the effective sparsity may be from the one asked for before a warning says so."""

_SHARED = ("input_shape", "data", "seed", "progress")


@dataclass(frozen=True)
class Method:
    """A pruning method: ``function(model, sparsity, *, ...) -> masks``.

    What the function needs is read off its keyword parameters: ``input_shape``, ``data``, ``seed`` and
    ``progress`` are handed over where it takes them, any other keyword is an option of the method.
    """

    name: str
    function: Callable[..., dict[str, Tensor]]
    summary: str
    paper: str
    exact_count: bool = True
    """Whether exactly round((1 - sparsity) N) weights are kept, whatever the options."""

    @property
    def needs_data(self) -> bool:
        """Whether labelled batches must be given."""
        return "data" in self._parameters

    @property
    def needs_input_shape(self) -> bool:
        """Whether the input's shape must be given."""
        return "input_shape" in self._parameters

    @property
    def options(self) -> tuple[str, ...]:
        """Names of the method's own keyword options."""
        return tuple(name for name in self._parameters if name not in _SHARED)

    @property
    def _parameters(self) -> list[str]:
        return list(inspect.signature(self.function).parameters)[2:]


METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Method("uniform", uniform, "random, the same density in every layer", "Gale et al. 2019"),
        Method("random", random_global, "random over the whole network", "the MGE paper's 'uniform'"),
        Method("er", er, "random, Erdős-Rényi layer densities", "Mocanu et al. 2018"),
        Method("erk", erk, "random, Erdős-Rényi-Kernel layer densities", "Evci et al. 2020"),
        Method(
            "er_published",
            er_published,
            "ERK clipped, as in published 'er' rows; count not exact",
            "the MGE paper's 'er'",
            exact_count=False,
        ),
        Method(
            "expander",
            expander,
            "random biregular layers; count exact on request",
            "Prabhu et al. 2018",
            exact_count=False,
        ),
        Method("magnitude", magnitude, "largest initial weights", "Han et al. 2015"),
        Method("synflow", synflow, "largest synaptic flow, iteratively", "Tanaka et al. 2020"),
        Method("ntk_sap", ntk_sap, "largest effect on the tangent kernel, iteratively", "Wang et al. 2023"),
        Method("phew", phew, "random walks from input to output", "Patil & Dovrolis 2021"),
        Method("npb", npb, "many effective nodes and paths, layer by layer", "Pham et al. 2023"),
        Method("snip", snip, "largest sensitivity of the loss", "Lee et al. 2019"),
        Method("grasp", grasp, "weights that keep the gradient flowing", "Wang et al. 2020"),
        Method("prospr", prospr, "largest sensitivity of the loss once trained", "Alizadeh et al. 2022"),
        Method("iterative_snip", iterative_snip, "SNIP in steps", "de Jorge et al. 2021"),
        Method("force", force, "SNIP in steps, pruned weights may return", "de Jorge et al. 2021"),
    )
}


def prune(
    model: nn.Module,
    method: str,
    sparsity: float,
    *,
    input_shape: Sequence[int] | None = None,
    data: Any = None,
    seed: int = 0,
    min_per_layer: int = 0,
    effective: bool = False,
    progress: Callable[[str, float | None], None] | None = None,
    **options: Any,
) -> dict[str, Tensor]:
    """Masks (True: kept) of a model's prunable weights, with exactly round((1 - sparsity) N) weights kept.

    Two methods come only near that count, and say how near (InexactCountWarning): "expander" without its
    option ``exact=True``, and "er_published".

    Works on a copy: the model, its mode and hooks, and all random generators stay as they were. The same
    seed gives the same masks. Masks that the model already has are not respected: pruning starts from its
    dense weights (``weight_orig`` under ``torch.nn.utils.prune``; zeros in a plain weight are weights).

    ``method`` is a name in :data:`METHODS`; ``input_shape`` is without the batch; ``data`` is anything that
    yields (inputs, labels) batches (a DataLoader, a list, what :func:`mge_gpu.data.load_data` returns), one
    such pair, or the name ("digits") or file that load_data takes; ``options`` are the method's own.
    With ``min_per_layer`` every layer keeps at least so many weights (a smaller layer all): those its method
    ranks highest, in place of the lowest-ranked ones of other layers (of random methods: random ones); the
    count stays, and a RefillWarning names the layers.
    With ``effective=True`` ``sparsity`` is the effective one, which counts weights that no path from the
    input to an output passes as pruned (`mge_gpu.metrics.effective_masks`): fewer weights are pruned
    directly, as many as bisection finds. It needs ``input_shape``, and warns with EffectiveSparsityWarning
    where the nearest that there is differs by more than 0.001.
    Returns bool CPU tensors of the weights' shapes, by name, in module order.

    Warns with LayerCollapseWarning, naming the layers, when a layer keeps no weight, and when a method that
    prunes in steps has left a network that passes no signal. Raises PruningError on an unknown method or
    option, a sparsity outside [0, 1), a missing ``input_shape`` or ``data``, or a ``min_per_layer`` that
    takes more weights than are kept; MaskError on NaN or Inf weights; DataError on data that do not fit.

    >>> model = nn.Linear(10, 10)
    >>> masks = prune(model, "magnitude", 0.9)
    >>> int(masks["weight"].sum())
    10
    """
    entry = _known_method(method)
    if not isinstance(model, nn.Module):
        raise PruningError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    sparsity = _checked_sparsity(sparsity)
    if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
        raise PruningError(f"seed must be an integer of 0 or more, got {seed!r}")
    if not isinstance(min_per_layer, int) or isinstance(min_per_layer, bool) or min_per_layer < 0:
        raise PruningError(f"min_per_layer must be an integer of 0 or more, got {min_per_layer!r}")
    for option in options:
        if option not in entry.options:
            known = ", ".join(entry.options) or "none"
            raise PruningError(f"{method} has no option {option!r}; its options are: {known}")
    weights = dense_weights(model)
    if not weights:
        raise PruningError("the model has no convolution or linear layer to prune")
    for name, weight in weights.items():
        check_weight(name, weight)
    if input_shape is not None or entry.needs_input_shape or effective:
        what = f"{method} to an effective sparsity" if effective else method
        input_shape = _checked_input_shape(what, input_shape)
    if entry.needs_data:
        data = _checked_data(method, data, input_shape, seed)

    shared = {"input_shape": input_shape, "data": data, "seed": seed, "progress": progress}
    taken = {key: value for key, value in shared.items() if key in entry._parameters}

    def prune_at(direct: float) -> dict[str, Tensor]:
        return entry.function(model, direct, **taken, **options)

    if effective:
        found, report = prune_effectively(model, input_shape or (), sparsity, prune_at)
        if abs(report.error) > EFFECTIVE_TOLERANCE:
            warnings.warn(
                f"{method} reaches no effective sparsity nearer to {sparsity:g} than "
                f"{report.effective_sparsity:.4f} (direct {report.direct_sparsity:.4f})",
                EffectiveSparsityWarning,
                stacklevel=2,
            )
    else:
        found = prune_at(sparsity)
        _check_count(entry, sparsity, found)
    masks = check_masks(found, {name: weight.shape for name, weight in weights.items()})
    if min_per_layer:
        scored = ScoredMasks(masks, found.scores) if isinstance(found, ScoredMasks) else masks
        masks, added = refill(scored, min_per_layer, seed)
        if added:
            warnings.warn(
                f"min_per_layer={min_per_layer} gave weights back that {method} at sparsity {sparsity:g} had "
                f"removed: {', '.join(f'{count} to {name}' for name, count in added.items())}",
                RefillWarning,
                stacklevel=2,
            )
    collapsed = [name for name, mask in masks.items() if mask.numel() and not bool(mask.any())]
    if collapsed:
        warnings.warn(
            f"{method} at sparsity {sparsity:g} keeps no weight of {len(collapsed)} of {len(masks)} layers: "
            f"{', '.join(collapsed)}",
            LayerCollapseWarning,
            stacklevel=2,
        )
    return masks


def _known_method(method: str) -> Method:
    if method in METHODS:
        return METHODS[method]
    close = difflib.get_close_matches(str(method), METHODS, n=1)
    hint = f" (did you mean {close[0]!r}?)" if close else ""
    raise PruningError(f"unknown pruning method {method!r}{hint}; known are: {', '.join(METHODS)}")


def _check_count(entry: Method, sparsity: float, masks: dict[str, Tensor]) -> None:
    """Warn when the method came only near the asked count; PruningError when it promises to meet it."""
    kept, total = (sum(int(count(mask)) for mask in masks.values()) for count in (Tensor.sum, Tensor.numel))
    asked = kept_count(total, sparsity)
    if kept == asked:
        return
    text = (
        f"{entry.name} keeps {kept:,} of {total:,} weights (sparsity {1 - kept / total:.4f}), "
        f"{kept - asked:+,} from the {asked:,} of sparsity {sparsity:g}"
    )
    if entry.exact_count:
        raise PruningError(f"{text}; it promises that count, please report this")
    warnings.warn(text, InexactCountWarning, stacklevel=3)


def _checked_sparsity(sparsity: float) -> float:
    real = isinstance(sparsity, Real) and not isinstance(sparsity, bool)
    if not real or math.isnan(sparsity) or not 0 <= sparsity < 1:
        raise PruningError(
            f"sparsity must be in [0, 1), the share of weights to remove (0.98 keeps 2 %), got {sparsity!r}"
        )
    return float(sparsity)


def _checked_input_shape(method: str, input_shape: Sequence[int] | None) -> tuple[int, ...]:
    if input_shape is None:
        raise PruningError(
            f"{method} runs the model and needs input_shape=, the input's shape without the batch, "
            "(3, 32, 32) say"
        )
    shape = tuple(input_shape)
    if not shape or not all(isinstance(size, int) and size > 0 for size in shape):
        raise PruningError(f"input_shape must be positive integers without the batch, got {shape}")
    return shape


def _checked_data(method: str, data: Any, input_shape: Sequence[int] | None, seed: int) -> Any:
    if data is None:
        raise PruningError(
            f"{method} needs labelled data: pass data=, a DataLoader or other iterable of (inputs, labels) "
            "batches, or 'digits' with input_shape="
        )
    if isinstance(data, str | Path):
        return load_data(
            data, _checked_input_shape(f"{method} with data {data!r}", input_shape), None, seed=seed
        )
    return data
