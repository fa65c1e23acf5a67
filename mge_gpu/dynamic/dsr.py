"""DSR: drop below a global threshold that finds its level, grow at random where weights survive."""

import math
import warnings
from collections.abc import Mapping
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from mge_gpu.dynamic._select import grow_random, spread
from mge_gpu.dynamic.rule import Change, Layer, Rule, SparseTrainingWarning, as_integer
from mge_gpu.dynamic.schedule import doubled_interval, is_due
from mge_gpu.errors import PruningError
from mge_gpu.pruning._select import allot, as_masks, top

STAGES = (0.25, 0.5, 0.75)
"""Shares of the updating period after which the interval doubles."""

TOLERANCE = 0.1
"""How far the number of dropped weights may be from N_p before the threshold changes."""


class DSR(Rule):
    """Dynamic sparse reparameterization.

    After the optimizer's step every active weight with |θ| < H is dropped, K in the whole network; then
    H becomes H/2 if K > 1.1 N_p and 2H if K < 0.9 N_p. K weights are grown at random, a layer's part being
    proportional to the active weights that it has left, never where one was dropped just now. A part beyond
    a layer's room is spread equally over the others. The total count is exact: where fewer than K positions
    are free, only that many weights, the smallest, are dropped.

    Updates come every ``interval`` steps in the first quarter of the updating period, then every 2, 4 and 8
    intervals, and end at ``end`` (80 %) of all steps: the paper's doubling, its epochs put in proportion to
    the run. Warns (SparseTrainingWarning) when H has not found its level at the last update.

    Paper: Mostafa & Wang, "Parameter Efficient Training of Deep Convolutional Neural Networks by Dynamic
    Sparse Reparameterization", ICML 2019.

    Options: ``interval``, ``threshold`` H at the start, ``prune_count`` N_p (without it 1 % of all prunable
    weights, at most a fifth of the active ones), ``end``.
    """

    def __init__(
        self,
        total_steps: int,
        *,
        interval: int = 100,
        threshold: float = 1e-3,
        prune_count: int | None = None,
        end: float = 0.8,
    ) -> None:
        super().__init__("dsr", total_steps, interval, end)
        self.threshold = _checked_threshold(threshold)
        self.prune_count = None if prune_count is None else as_integer("dsr", "prune_count", prune_count)
        self._start = self.threshold

    def prepare(self, masks: Mapping[str, Tensor]) -> None:
        """Settle N_p."""
        active = sum(int(mask.sum()) for mask in masks.values())
        if self.prune_count is None:
            size = sum(mask.numel() for mask in masks.values())
            self.prune_count = max(1, min(round(0.01 * size), active // 5))
        elif self.prune_count >= max(active, 1):
            raise PruningError(
                f"dsr: prune_count is {self.prune_count}, the network has {active} active weights; "
                "ask for fewer to move at an update"
            )

    def due(self, step: int) -> bool:
        """Whether the topology changes at this step; the interval doubles from stage to stage."""
        end = self.end * self.total_steps
        interval = doubled_interval(step, self.interval, [stage * end for stage in STAGES])
        return is_due(step, interval, end)

    def update(self, layers: Mapping[str, Layer], step: int, generator: torch.Generator) -> dict[str, Change]:
        """New masks with the network's count; adapts the threshold."""
        assert self.prune_count is not None
        small = {name: layer.mask & (layer.weight.abs() < self.threshold) for name, layer in layers.items()}
        count = sum(int(below.sum()) for below in small.values())
        room = [layer.mask.numel() - layer.active for layer in layers.values()]
        if count > sum(room):
            small = _smallest(layers, sum(room))
        kept = [layer.mask & ~small[name] for name, layer in layers.items()]
        # Without a survivor anywhere the counts from before must do.
        left = [int(mask.sum()) for mask in kept]
        basis = left if any(left) else [layer.active for layer in layers.values()]
        moved = min(count, sum(room))
        quotas = [moved * number / max(sum(basis), 1) for number in basis]
        changes = {}
        parts = allot(spread(quotas, room), room, moved)
        for (name, layer), survivors, part in zip(layers.items(), kept, parts, strict=True):
            new = grow_random(layer.mask, part, generator) & ~layer.mask
            changes[name] = Change(survivors | new, survivors)
        now = adapted(self.threshold, count, self.prune_count)
        later = range(step + self.interval, self.total_steps, self.interval)
        if now != self.threshold and not any(map(self.due, later)):
            warnings.warn(
                f"dsr: the last update, at step {step}, dropped {count} weights, prune_count is "
                f"{self.prune_count}: the threshold ({self.threshold:.3g}) has not found its level; start "
                "nearer with threshold=, or update more often with interval=",
                SparseTrainingWarning,
                stacklevel=4,
            )
        self.threshold = now
        return changes

    def state_dict(self) -> dict[str, Any]:
        """H."""
        return {"threshold": self.threshold}

    def load_state_dict(self, state: Mapping[str, Any], shapes: Mapping[str, torch.Size]) -> None:
        """Take H over."""
        self.threshold = _checked_threshold(state.get("threshold"))

    def settings(self) -> dict[str, Any]:
        """With H as it was at the start."""
        return {**super().settings(), "threshold": self._start}


def adapted(threshold: float, count: int, target: int) -> float:
    """H/2 if ``count`` is more than 10 % above ``target``, 2H if it is more than 10 % below, else H.

    >>> adapted(1e-3, 111, 100), adapted(1e-3, 110, 100), adapted(1e-3, 89, 100)
    (0.0005, 0.001, 0.002)
    """
    if count > (1 + TOLERANCE) * target:
        return threshold / 2
    return threshold * 2 if count < (1 - TOLERANCE) * target else threshold


def _checked_threshold(value: Any) -> float:
    real = isinstance(value, Real) and not isinstance(value, bool)
    if not real or not 0 < float(value) < math.inf:
        raise PruningError(f"dsr: threshold must be a positive number, got {value!r}")
    return float(value)


def _smallest(layers: Mapping[str, Layer], count: int) -> dict[str, Tensor]:
    """Masks of the ``count`` active weights of smallest magnitude in the whole network."""
    device = next(iter(layers.values())).mask.device
    magnitudes = torch.cat(
        [
            layer.weight.abs().float().masked_fill(~layer.mask, float("inf")).flatten().to(device)
            for layer in layers.values()
        ]
    )
    chosen = as_masks(top(-magnitudes, count), {name: layer.mask for name, layer in layers.items()})
    return {name: mask.to(layers[name].mask.device) for name, mask in chosen.items()}
