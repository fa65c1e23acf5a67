"""SNFS: once an epoch, move weights to the layers and positions where the momentum is largest."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from mge_gpu.dynamic._masking import renamed
from mge_gpu.dynamic._select import drop_smallest, grow_largest, rounded_up, spread
from mge_gpu.dynamic.rule import Change, Layer, Rule, interval_of_epochs
from mge_gpu.dynamic.schedule import cosine
from mge_gpu.errors import PruningError
from mge_gpu.pruning._select import allot

DENSE = 0.2
"""Layers that are less sparse than this drop less while their share grows."""

FULL = 0.99
"""The share of a layer's free positions that growth fills at most, as long as others have room."""


class SNFS(Rule):
    """Sparse networks from scratch (sparse momentum).

    The momentum m ← β m + (1 - β) gradient is kept here for all weights, the inactive too, since the
    optimizer's own is zero for those. After the optimizer's step each layer of n active weights drops the
    ⌈f(t) n⌉ of smallest |θ|, f falling from α to 0.005 by a cosine over all steps. What all layers dropped
    is grown again, at the inactive positions of largest |m|, a layer's part being proportional to the mean
    |m| of its active weights (see `parts`). The total count is exact.

    Paper: Dettmers & Zettlemoyer, "Sparse Networks from Scratch: Faster Training without Losing Performance",
    arXiv 1907.04840, 2019.

    Options: ``interval`` in steps (an epoch's without it), ``drop_fraction`` α (the paper has 0.2 for
    ImageNet), ``final_fraction`` that it falls to, ``momentum`` β.
    """

    def __init__(
        self,
        total_steps: int,
        *,
        steps_per_epoch: int | None = None,
        interval: int | None = None,
        drop_fraction: float = 0.5,
        final_fraction: float = 0.005,
        momentum: float = 0.9,
    ) -> None:
        super().__init__("snfs", total_steps, interval_of_epochs("snfs", interval, steps_per_epoch))
        self.drop_fraction = self._share("drop_fraction", drop_fraction)
        self.final_fraction = self._share("final_fraction", final_fraction)
        self.momentum = self._share("momentum", momentum)
        if self.momentum == 1:
            raise PruningError("snfs: momentum must be below 1, or no gradient counts; got 1")
        self._momenta: dict[str, Tensor] = {}

    def fraction(self, step: int) -> float:
        """f(t), the share of a layer's active weights that an update at this step drops."""
        return cosine(self.drop_fraction, step, self.total_steps, self.final_fraction)

    def observe(self, gradients: Mapping[str, Tensor | None]) -> None:
        """m ← β m + (1 - β) gradient; a layer without gradient has none of it to add."""
        for name, gradient in gradients.items():
            momentum = self._momenta.get(name)
            if gradient is None:
                if momentum is not None:
                    momentum.mul_(self.momentum)
                continue
            wide = gradient.detach().to(torch.promote_types(gradient.dtype, torch.float32))
            if momentum is None:
                self._momenta[name] = wide * (1 - self.momentum)
            else:
                if momentum.device != wide.device:
                    momentum = self._momenta[name] = momentum.to(wide.device)
                momentum.mul_(self.momentum).add_(wide, alpha=1 - self.momentum)

    def update(self, layers: Mapping[str, Layer], step: int, generator: torch.Generator) -> dict[str, Change]:
        """New masks with the network's count."""
        momenta = [self._momenta.get(name, torch.zeros_like(layer.weight)) for name, layer in layers.items()]
        means = [
            float(momentum[layer.mask].abs().mean()) if layer.active else 0.0
            for momentum, layer in zip(momenta, layers.values(), strict=True)
        ]
        active = [layer.active for layer in layers.values()]
        sizes = [layer.mask.numel() for layer in layers.values()]
        dropped, grown = parts(means, active, sizes, self.fraction(step))
        changes = {}
        for (name, layer), momentum, less, more in zip(layers.items(), momenta, dropped, grown, strict=True):
            mask = grow_largest(momentum.abs(), drop_smallest(layer.weight, layer.mask, less), more)
            changes[name] = Change(mask, mask & layer.mask)
        return changes

    def state_dict(self) -> dict[str, Any]:
        """The momenta, CPU tensors by weight."""
        return {"momenta": {name: momentum.cpu().clone() for name, momentum in self._momenta.items()}}

    def load_state_dict(self, state: Mapping[str, Any], shapes: Mapping[str, torch.Size]) -> None:
        """Take the momenta over; they follow their gradients to whatever device at the next step."""
        momenta = state.get("momenta")
        if not isinstance(momenta, Mapping):
            raise PruningError(f"snfs: the state must hold momenta by weight, got {type(momenta).__name__}")
        momenta = renamed(momenta, shapes)
        for name, momentum in momenta.items():
            if name not in shapes:
                raise PruningError(f"snfs: the state has momentum for {name!r}, which has no mask here")
            if not isinstance(momentum, Tensor) or momentum.shape != shapes[name]:
                got = tuple(momentum.shape) if isinstance(momentum, Tensor) else type(momentum).__name__
                raise PruningError(f"{name}: the state's momentum is {got}, the weight {tuple(shapes[name])}")
        self._momenta = {name: momentum.clone() for name, momentum in momenta.items()}


def parts(
    means: Sequence[float], active: Sequence[int], sizes: Sequence[int], fraction: float
) -> tuple[list[int], list[int]]:
    """How many weights each layer drops and grows, from its mean |momentum| and its active weights.

    A layer drops ⌈fraction · active⌉; one that is less than 20 % sparse and whose share is above average
    drops no more than its sparsity times ``active``. A layer's share is its mean over the sum of means. It
    grows its share of all that was dropped, up to 99 % of the positions that are free after its drop; what is
    above is spread equally over the others. Where that would lose weights, or nothing has momentum, all free
    positions may be filled, or each layer grows what it dropped.

    >>> parts([3.0, 1.0], [100, 100], [1000, 1000], 0.5)
    ([50, 50], [75, 25])
    """
    total_mean = sum(means)
    shares = [mean / total_mean for mean in means] if total_mean > 0 else [0.0] * len(means)
    dropped = []
    for share, count, size in zip(shares, active, sizes, strict=True):
        sparsity = (size - count) / size if size else 0.0  # exact where it is DENSE; 1 - 0.8 is less than 0.2
        growing = sparsity < DENSE and share * len(shares) > 1
        dropped.append(rounded_up(min(sparsity, fraction) if growing else fraction, count))
    if total_mean <= 0:
        return dropped, list(dropped)
    total = sum(dropped)
    free = [size - count + less for size, count, less in zip(sizes, active, dropped, strict=True)]
    room = [int(FULL * size) for size in free]
    if sum(room) < total:
        room = free
    return dropped, allot(spread([share * total for share in shares], room), room, total)
