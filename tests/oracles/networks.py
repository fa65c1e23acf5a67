"""Small networks as lists of steps: one list gives the torch module and its reference graph.

A step says what it is (a parametric layer, an elementwise pass, a view, a route, a pool, a sum, a
product or a concatenation), so that the reference needs no tracing.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

Kind = Literal["layer", "pass", "view", "route", "pool", "add", "mul", "cat", "set"]


@dataclass(frozen=True)
class Step:
    """One operation; ``inputs`` are indices of values, value 0 is the input and step k makes value k + 1.

    "view" is a bijection of the elements (reshape, permutation), "route" any other copying of them. "set"
    links each element once to all that its derivative at random positive inputs is not zero for; a module
    whose softmax would be constant on a single token has a method ``surrogate`` for that.
    """

    kind: Kind
    inputs: tuple[int, ...]
    module: nn.Module


class Apply(nn.Module):
    """A function as a module, named for readable failures."""

    def __init__(self, label: str, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.label, self.function = label, function

    def forward(self, *tensors: Tensor) -> Tensor:
        return self.function(*tensors)

    def extra_repr(self) -> str:
        return self.label


class Network(nn.Module):
    """Runs the steps one after the other and returns the values that are asked for."""

    def __init__(self, steps: list[Step], outputs: tuple[int, ...]) -> None:
        super().__init__()
        self.steps = nn.ModuleList(s.module for s in steps)  # a module used twice has two names
        self.wiring = [s.inputs for s in steps]
        self.outputs = outputs

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        values = [x]
        for module, inputs in zip(self.steps, self.wiring, strict=True):
            values.append(module(*[values[i] for i in inputs]))
        found = tuple(values[i] for i in self.outputs)
        return found[0] if len(found) == 1 else found


@dataclass(repr=False)
class Case:
    """A network under construction or finished; ``add`` runs each step at once to know its shape."""

    input_shape: tuple[int, ...]
    steps: list[Step] = field(default_factory=list)
    outputs: tuple[int, ...] = ()
    values: list[Tensor] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.values.append(torch.zeros(1, *self.input_shape))

    def add(
        self, kind: Kind, module: nn.Module | Callable[..., Tensor], *inputs: int, label: str = ""
    ) -> int:
        """Append a step and return the index of its value."""
        if not isinstance(module, nn.Module):
            module = Apply(label or getattr(module, "__name__", kind), module)
        module.eval()
        with torch.no_grad():
            self.values.append(module(*[self.values[i] for i in inputs]))
        self.steps.append(Step(kind, inputs, module))
        return len(self.values) - 1

    def shape(self, value: int) -> tuple[int, ...]:
        """Shape of a value, without the batch dim."""
        return tuple(self.values[value].shape[1:])

    @property
    def nodes(self) -> int:
        """Nodes so far, fresh sums counted twice and the padding of the input not at all."""
        layers = [v for v, s in zip(self.values[1:], self.steps, strict=True) if s.kind == "layer"]
        return sum(v.numel() for v in [self.values[0], *layers])

    def module(self) -> Network:
        """The network as torch runs it."""
        return Network(self.steps, self.outputs).eval()

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text(f"{self!r}")

    def __repr__(self) -> str:
        lines = [f"input {self.input_shape}"]
        for k, step in enumerate(self.steps):
            weight = getattr(step.module, "weight", None) if step.kind == "layer" else None
            zeros = "" if weight is None else f"  # {int((weight == 0).sum())} of {weight.numel()} zero"
            sources = ", ".join(f"v{i}" for i in step.inputs)
            lines.append(f"v{k + 1} {self.shape(k + 1)} = {step.kind}: {step.module}({sources}){zeros}")
        return "\n".join([*lines, f"return {', '.join(f'v{i}' for i in self.outputs)}"])
