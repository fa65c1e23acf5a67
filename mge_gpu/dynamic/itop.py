"""ITOP: rare and thorough updates, so that many weights are tried before training ends."""

from collections.abc import Mapping

import torch

from mge_gpu.dynamic._select import drop_smallest, grow_largest, grow_random, rounded_up
from mge_gpu.dynamic.rule import Change, Layer, Rule
from mge_gpu.dynamic.schedule import cosine


class ITOP(Rule):
    """In-time over-parameterization with random growth ("itop-set").

    After the optimizer's step, each layer of n active weights drops the ⌈f(t) n⌉ of smallest |θ|,
    f(t) = 0.005 + (α - 0.005)/2 (1 + cos(π t / T)) with T all steps, and grows as many at random among all
    that are then inactive. A weight that was dropped just now can be grown again, and then keeps its value.

    Paper: Liu et al., "Do We Actually Need Dense Over-Parameterization? In-Time Over-Parameterization in
    Sparse Training", ICML 2021.

    Options: ``interval`` ΔT, ``drop_fraction`` α, ``final_fraction`` that it falls to.
    """

    def __init__(
        self,
        total_steps: int,
        *,
        interval: int = 1500,
        drop_fraction: float = 0.5,
        final_fraction: float = 0.005,
    ) -> None:
        super().__init__("itop-rigl" if self.uses_gradients else "itop-set", total_steps, interval)
        self.drop_fraction = self._share("drop_fraction", drop_fraction)
        self.final_fraction = self._share("final_fraction", final_fraction)

    def fraction(self, step: int) -> float:
        """f(t), the share of a layer's active weights that an update at this step drops."""
        return cosine(self.drop_fraction, step, self.total_steps, self.final_fraction)

    def update(self, layers: Mapping[str, Layer], step: int, generator: torch.Generator) -> dict[str, Change]:
        """New masks with each layer's count."""
        changes = {}
        for name, layer in layers.items():
            count = rounded_up(self.fraction(step), layer.active)
            kept = drop_smallest(layer.weight, layer.mask, count)
            if layer.gradient is None:
                grown = grow_random(kept, count, generator)
            else:
                grown = grow_largest(layer.gradient.abs(), kept, count)
            changes[name] = Change(grown, grown & layer.mask)
        return changes


class GradientITOP(ITOP):
    """The same with growth by largest |gradient| of the step's batch, as RigL has it ("itop-rigl")."""

    uses_gradients = True

    def __init__(
        self,
        total_steps: int,
        *,
        interval: int = 4000,
        drop_fraction: float = 0.5,
        final_fraction: float = 0.005,
    ) -> None:
        super().__init__(
            total_steps, interval=interval, drop_fraction=drop_fraction, final_fraction=final_fraction
        )
