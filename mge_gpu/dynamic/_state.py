"""A saved state of a SparseTrainer, checked whole before anything is taken from it."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mge_gpu.dynamic._masking import renamed
from mge_gpu.errors import PruningError
from mge_gpu.masks import check_masks

FORMAT = 1

_KEYS = ("method", "settings", "steps", "masks", "explored", "generator", "rule", "history")


class Update(NamedTuple):
    """One change of the topology."""

    step: int
    """The step that it came with or took the place of, counted from 1."""
    moved: int
    """The weights that are active now and were not before; as many went."""
    exploration_rate: float
    """ITOP's R_s after it."""


class State(NamedTuple):
    """What `checked` found."""

    steps: int
    masks: dict[str, Tensor]
    explored: dict[str, Tensor]
    generator: Tensor
    rule: Mapping[str, Any]
    history: list[Update]


def checked(state: Any, method: str, settings: Mapping[str, Any], shapes: Mapping[str, torch.Size]) -> State:
    """The state for a trainer of this method and these settings whose masks have these names and shapes.

    Names may differ by prefixes of wrappers ("module."). Raises PruningError where it is no state, a part is
    missing or broken, or it is another method's, schedule's or model's; MaskError where a mask does not fit.
    """
    if not isinstance(state, Mapping) or state.get("format") != FORMAT:
        raise PruningError("this is no state of a SparseTrainer; pass what trainer.state_dict() gave")
    if missing := [key for key in _KEYS if key not in state]:
        raise PruningError(
            f"the state of a SparseTrainer lacks {missing[0]!r}; save trainer.state_dict() whole"
        )
    for what, own in (("method", method), ("settings", dict(settings))):
        if state[what] != own:
            raise PruningError(
                f"the state was saved with {what} {state[what]!r}, this trainer has {own!r}; build it "
                "alike, or pass the state's masks as masks= to start another run from them"
            )
    masks = {}
    for key in ("masks", "explored"):
        if not isinstance(state[key], Mapping):
            raise _broken(key, state[key])
        masks[key] = check_masks(renamed(state[key], shapes), shapes)
        if absent := [name for name in shapes if name not in masks[key]]:
            raise PruningError(
                f"{absent[0]}: the state has no mask for it; build the model it was saved from"
            )
    if not isinstance(state["steps"], int) or state["steps"] < 0:
        raise _broken("steps", state["steps"])
    if not isinstance(state["rule"], Mapping):
        raise _broken("rule", state["rule"])
    try:
        history = [Update(*entry) for entry in state["history"]]
    except TypeError as error:
        raise _broken("history", state["history"]) from error
    try:
        generator = torch.Generator().set_state(state["generator"].cpu()).get_state()
    except (AttributeError, TypeError, RuntimeError) as error:
        raise _broken("generator", state["generator"]) from error
    return State(state["steps"], masks["masks"], masks["explored"], generator, state["rule"], history)


def _broken(key: str, value: Any) -> PruningError:
    shown = " ".join(repr(value).split())[:60]
    return PruningError(f"the state of a SparseTrainer is broken: its {key!r} is {shown}; save it anew")
