"""RigL: every ΔT steps, drop the smallest weights and grow those with the largest gradient."""

from collections.abc import Mapping

import torch

from mge_gpu.dynamic._select import drop_smallest, grow_largest, rounded_down
from mge_gpu.dynamic.rule import Change, Layer, Rule
from mge_gpu.dynamic.schedule import cosine
from mge_gpu.errors import PruningError


class RigL(Rule):
    """Rigging the lottery.

    An update takes the place of the optimizer's step. In each layer of n active weights it drops the
    ⌊f(t) n⌋ of smallest |θ|, f(t) = α/2 (1 + cos(π t / T_end)), and grows as many of largest |gradient|
    among all that are then inactive. A weight that was dropped just now can be grown again, and then keeps
    its value and optimizer state; others start at zero.

    Paper: Evci et al., "Rigging the Lottery: Making All Tickets Winners", ICML 2020.

    Options: ``interval`` ΔT of 2 or more, ``drop_fraction`` α, ``end`` = T_end as a share of all steps.
    """

    replaces_step = True
    uses_gradients = True

    def __init__(
        self, total_steps: int, *, interval: int = 100, drop_fraction: float = 0.3, end: float = 0.75
    ) -> None:
        super().__init__("rigl", total_steps, interval, end)
        if self.interval == 1:
            raise PruningError(
                "rigl: interval must be 2 or more, got 1; an update takes the place of the optimizer's step, "
                "so no weight would be trained"
            )
        self.drop_fraction = self._share("drop_fraction", drop_fraction)

    def fraction(self, step: int) -> float:
        """f(t), the share of a layer's active weights that an update at this step drops."""
        return cosine(self.drop_fraction, step, self.end * self.total_steps)

    def update(self, layers: Mapping[str, Layer], step: int, generator: torch.Generator) -> dict[str, Change]:
        """New masks with each layer's count."""
        changes = {}
        for name, layer in layers.items():
            assert layer.gradient is not None
            count = rounded_down(self.fraction(step), layer.active)
            kept = drop_smallest(layer.weight, layer.mask, count)
            grown = grow_largest(layer.gradient.abs(), kept, count)
            changes[name] = Change(grown, grown & layer.mask)
        return changes
