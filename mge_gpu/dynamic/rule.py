"""What a method of dynamic sparse training is: when it changes the masks, and to which ones."""

import inspect
import math
from collections.abc import Mapping
from numbers import Real
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from mge_gpu.dynamic.schedule import is_due
from mge_gpu.errors import PruningError


class SparseTrainingWarning(UserWarning):
    """Part of what was asked of a sparse training run does not take place."""


class Layer(NamedTuple):
    """What a rule sees of a layer at an update; nothing of it may be changed in place."""

    weight: Tensor
    """Detached, exactly zero where ``mask`` is False."""
    mask: Tensor
    """bool, True where the weight is active."""
    gradient: Tensor | None
    """Of the loss with respect to all weights, the inactive too; only for rules that use gradients."""

    @property
    def active(self) -> int:
        """The number of active weights."""
        return int(self.mask.sum())


class Change(NamedTuple):
    """What an update makes of a layer's mask."""

    mask: Tensor
    """The new mask."""
    kept: Tensor
    """Where values and optimizer state live on; active weights outside of it start at zero."""


class Rule:
    """A method with its schedule. Subclasses give `update`, and `observe` and state where they have any.

    ``steps`` are counted from 1. Updates come every ``interval`` steps, before ``end`` (a share) of
    ``total_steps`` have been made, and never at the last step: what it grew would stay at zero.
    """

    replaces_step: ClassVar[bool] = False
    """Whether an update takes the place of the optimizer's step."""
    uses_gradients: ClassVar[bool] = False
    """Whether `update` needs gradients."""

    def __init__(self, name: str, total_steps: int, interval: int, end: float = 1.0) -> None:
        self.name = name
        self.total_steps = as_integer(name, "total_steps", total_steps)
        self.interval = as_integer(name, "interval", interval)
        self.end = self._share("end", end)

    def prepare(self, masks: Mapping[str, Tensor]) -> None:
        """Called once with the initial masks."""

    def due(self, step: int) -> bool:
        """Whether the topology changes at this step."""
        return is_due(step, self.interval, self.end * self.total_steps)

    def observe(self, gradients: Mapping[str, Tensor | None]) -> None:
        """Called before every step with the gradients of all weights, the inactive too."""

    def update(self, layers: Mapping[str, Layer], step: int, generator: torch.Generator) -> dict[str, Change]:
        """The new masks; layers that are left out stay as they are."""
        raise NotImplementedError

    def state_dict(self) -> dict[str, Any]:
        """What the rule remembers between steps; tensors, numbers and dicts of them."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any], shapes: Mapping[str, torch.Size]) -> None:
        """Take over what `state_dict` gave for weights of these shapes.

        Raises PruningError where the state does not fit; nothing is changed then.
        """

    def settings(self) -> dict[str, Any]:
        """The schedule and the options in force, by name."""
        names = [name for name in inspect.signature(type(self)).parameters if hasattr(self, name)]
        return {name: getattr(self, name) for name in sorted({"total_steps", "interval", "end", *names})}

    def _share(self, option: str, value: Any, least: float = 0.0) -> float:
        real = isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(float(value))
        if not real or not least <= value <= 1:
            raise PruningError(f"{self.name}: {option} must be a number in [{least:g}, 1], got {value!r}")
        return float(value)


def interval_of_epochs(name: str, interval: int | None, steps_per_epoch: int | None) -> int:
    """The interval of a method that updates once an epoch: ``interval``, or an epoch's steps.

    >>> interval_of_epochs("set", None, 391)
    391
    """
    if interval is not None:
        return interval
    if steps_per_epoch is None:
        raise PruningError(
            f"{name} changes the topology once an epoch: pass steps_per_epoch=, the number of steps "
            "in one (len(loader), say), or interval= in steps"
        )
    return as_integer(name, "steps_per_epoch", steps_per_epoch)


def as_integer(method: str, option: str, value: Any) -> int:
    """The value, if it is an integer of 1 or more; PruningError otherwise.

    >>> as_integer("rigl", "interval", 100)
    100
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise PruningError(f"{method}: {option} must be an integer of 1 or more, got {value!r}")
    return value
