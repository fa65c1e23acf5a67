"""A floor under what a pruning method leaves of each layer, whatever the method."""

from collections.abc import Mapping

import torch
from torch import Tensor

from mge_gpu.errors import PruningError
from mge_gpu.pruning._select import ScoredMasks, as_masks, top


def refill(
    masks: Mapping[str, Tensor], min_per_layer: int, seed: int
) -> tuple[dict[str, Tensor], dict[str, int]]:
    """The same number of weights, but at least ``min_per_layer`` (or all) of each layer.

    With masks that carry scores these are the layer's highest-scoring weights, and the others make room by
    their lowest-scoring ones; without scores both are drawn at random. Where the masks keep the highest
    scores of the whole network, the result is the choice of highest total score under the floor.
    Returns the masks, and by layer how many weights were added. Raises PruningError when the floors sum to
    more than is kept.

    >>> masks, added = refill({"a": torch.tensor([True] * 3), "b": torch.tensor([False] * 3)}, 1, seed=0)
    >>> int(masks["a"].sum()), int(masks["b"].sum()), added
    (2, 1, {'b': 1})
    """
    kept = sum(int(mask.sum()) for mask in masks.values())
    floors = {name: min(min_per_layer, mask.numel()) for name, mask in masks.items()}
    if sum(floors.values()) > kept:
        raise PruningError(
            f"min_per_layer={min_per_layer} takes {sum(floors.values())} weights in {len(masks)} layers, but "
            f"only {kept} are kept; prune less or lower it"
        )
    added = {
        name: floors[name] - int(mask.sum()) for name, mask in masks.items() if int(mask.sum()) < floors[name]
    }
    if not added:
        return dict(masks), {}
    scores = masks.scores if isinstance(masks, ScoredMasks) else _random_scores(masks, seed)
    fixed = {name: top(scores[name].flatten(), floors[name]) for name in masks}
    flat = torch.cat([mask.flatten() for mask in masks.values()])
    held = torch.cat(list(fixed.values()))
    spare = (flat & ~held).nonzero().flatten()
    values = torch.cat([scores[name].flatten() for name in masks])
    held[spare[top(values[spare], kept - int(held.sum()))]] = True
    return as_masks(held, masks), added


def _random_scores(masks: Mapping[str, Tensor], seed: int) -> dict[str, Tensor]:
    """Random numbers, those of kept weights above all others."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.rand(mask.shape, generator=generator, dtype=torch.float64) + mask
        for name, mask in masks.items()
    }
