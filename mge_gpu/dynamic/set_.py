"""SET: once an epoch, drop the weights nearest to zero on either side and grow as many at random."""

from collections.abc import Mapping

import torch
from torch import Tensor

from mge_gpu.dynamic._select import drop_smallest, grow_random, rounded_down
from mge_gpu.dynamic.rule import Change, Layer, Rule, interval_of_epochs


class SET(Rule):
    """Sparse evolutionary training.

    Paper: Mocanu et al., "Scalable training of artificial neural networks with adaptive sparse connectivity
    inspired by network science", Nature Communications 2018.

    Options: ``interval`` in steps (an epoch's without it), ``drop_fraction`` ζ.
    """

    def __init__(
        self,
        total_steps: int,
        *,
        steps_per_epoch: int | None = None,
        interval: int | None = None,
        drop_fraction: float = 0.3,
    ) -> None:
        super().__init__("set", total_steps, interval_of_epochs("set", interval, steps_per_epoch))
        self.drop_fraction = self._share("drop_fraction", drop_fraction)

    def update(self, layers: Mapping[str, Layer], step: int, generator: torch.Generator) -> dict[str, Change]:
        """New masks with each layer's count; all that is grown starts at zero. A dense layer stays."""
        changes = {}
        for name, layer in layers.items():
            if not layer.mask.all():  # in a dense layer only values would be lost
                kept = drop_near_zero(layer.weight, layer.mask, self.drop_fraction)
                count = layer.active - int(kept.sum())
                changes[name] = Change(grow_random(kept, count, generator), kept)
        return changes


def drop_near_zero(weight: Tensor, mask: Tensor, fraction: float) -> Tensor:  # (*), (*) bool -> (*) bool
    """The mask without the ⌊ζ p⌋ of p positive and ⌊ζ n⌋ of n negative active weights that are nearest to 0.

    Active weights that are exactly zero are dropped too, whatever ζ > 0 is: they are nearest of all.

    >>> weight = torch.tensor([0.5, -0.1, 0.1, -3.0, 0.0, 2.0, -2.0])
    >>> drop_near_zero(weight, torch.ones(7, dtype=torch.bool), 0.34).int().tolist()
    [1, 0, 0, 1, 0, 1, 1]
    """
    if fraction == 0:
        return mask.clone()
    weight = weight.detach()
    positive, negative = mask & (weight > 0), mask & (weight < 0)
    kept = torch.zeros_like(mask)
    for side in (positive, negative):
        kept |= drop_smallest(weight, side, rounded_down(fraction, int(side.sum())))
    return kept
