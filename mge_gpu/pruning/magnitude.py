"""Magnitude: the weights that are largest at initialization stay."""

from torch import Tensor, nn

from mge_gpu.errors import PruningError
from mge_gpu.pruning._copy import dense_weights
from mge_gpu.pruning._select import ScoredMasks, allot, kept_count, top_masks


def magnitude(model: nn.Module, sparsity: float, *, scope: str = "global") -> dict[str, Tensor]:
    """Keep the weights of largest |θ|, over the whole network or (``scope="layer"``) in every layer alike.

    With He initialisation the global threshold ranks layers by fan-in: wide layers lose most.
    Raises PruningError on another scope.
    """
    weights = {name: weight.abs() for name, weight in dense_weights(model).items()}
    sizes = [weight.numel() for weight in weights.values()]
    if scope == "global":
        return top_masks(weights, kept_count(sum(sizes), sparsity))
    if scope != "layer":
        raise PruningError(f"magnitude: scope must be 'global' or 'layer', got {scope!r}")
    counts = allot([(1 - sparsity) * size for size in sizes], sizes, kept_count(sum(sizes), sparsity))
    masks: dict[str, Tensor] = {}
    for (name, weight), count in zip(weights.items(), counts, strict=True):
        masks |= top_masks({name: weight}, count)
    return ScoredMasks(masks, weights)
