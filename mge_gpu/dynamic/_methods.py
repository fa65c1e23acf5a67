"""The table of dynamic methods, and a rule from a name and options."""

import difflib
import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mge_gpu.dynamic.dsr import DSR
from mge_gpu.dynamic.itop import ITOP, GradientITOP
from mge_gpu.dynamic.rigl import RigL
from mge_gpu.dynamic.rule import Rule
from mge_gpu.dynamic.set_ import SET
from mge_gpu.dynamic.snfs import SNFS
from mge_gpu.dynamic.static import Static
from mge_gpu.errors import PruningError

_SHARED = ("total_steps", "steps_per_epoch")


@dataclass(frozen=True)
class Method:
    """A method of dynamic sparse training: ``rule(total_steps, *, ...)``.

    What the rule takes is read off its keyword parameters, as in :class:`mge_gpu.pruning.Method`:
    ``steps_per_epoch`` is handed over where it takes it, any other keyword is an option of the method.
    """

    name: str
    rule: type[Rule]
    summary: str
    paper: str
    initial: str
    """The method in :data:`mge_gpu.pruning.METHODS` that makes the initial masks."""

    @property
    def options(self) -> tuple[str, ...]:
        """Names of the method's own keyword options."""
        return tuple(name for name in self._parameters if name not in _SHARED)

    @property
    def needs_epochs(self) -> bool:
        """Whether ``steps_per_epoch`` (or the option ``interval``) must be given."""
        return "steps_per_epoch" in self._parameters

    @property
    def needs_gradients(self) -> bool:
        """Whether weights are grown where the gradient is large."""
        return self.rule.uses_gradients

    @property
    def _parameters(self) -> list[str]:
        return list(inspect.signature(self.rule).parameters)


METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Method("static", Static, "masks that never change", "pruning at initialization", "erk"),
        Method("set", SET, "drop nearest to zero on either side, grow at random", "Mocanu et al. 2018", "er"),
        Method("dsr", DSR, "drop below a global threshold, grow at random", "Mostafa & Wang 2019", "uniform"),
        Method(
            "snfs", SNFS, "drop smallest, grow largest momentum", "Dettmers & Zettlemoyer 2019", "uniform"
        ),
        Method("rigl", RigL, "drop smallest, grow largest gradient", "Evci et al. 2020", "erk"),
        Method("itop-set", ITOP, "drop smallest, grow at random, rarely", "Liu et al. 2021", "erk"),
        Method(
            "itop-rigl", GradientITOP, "drop smallest, grow by gradient, rarely", "Liu et al. 2021", "erk"
        ),
    )
}

_GROWTHS = {"random": "itop-set", "gradient": "itop-rigl"}


def known_method(method: str, options: Mapping[str, Any]) -> tuple[Method, dict[str, Any]]:
    """The table's entry for a name, and the options that it takes.

    "itop" with the option ``growth``, "random" (the default) or "gradient", is "itop-set" or "itop-rigl".

    >>> entry, options = known_method("itop", {"growth": "gradient", "interval": 100})
    >>> entry.name, options
    ('itop-rigl', {'interval': 100})
    """
    options = dict(options)
    if method == "itop":
        growth = options.pop("growth", "random")
        if growth not in _GROWTHS:
            raise PruningError(f"itop: growth must be 'random' or 'gradient', got {growth!r}")
        method = _GROWTHS[growth]
    if method not in METHODS:
        close = difflib.get_close_matches(str(method), METHODS, n=1)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        raise PruningError(
            f"unknown method of sparse training {method!r}{hint}; known are: {', '.join(METHODS)}"
        )
    entry = METHODS[method]
    for option in options:
        if option not in entry.options:
            known = ", ".join(entry.options) or "none"
            raise PruningError(f"{method} has no option {option!r}; its options are: {known}")
    return entry, options


def make_rule(
    entry: Method, total_steps: int | None, steps_per_epoch: int | None, options: Mapping[str, Any]
) -> Rule:
    """The rule of a method; PruningError on what does not fit it."""
    if total_steps is None and entry.name != "static":
        raise PruningError(
            f"{entry.name} needs total_steps=, the number of trainer.step() calls of the whole run: "
            "its schedule depends on it"
        )
    shared = {"steps_per_epoch": steps_per_epoch} if entry.needs_epochs else {}
    return entry.rule(total_steps, **shared, **options)  # type: ignore[arg-type]
