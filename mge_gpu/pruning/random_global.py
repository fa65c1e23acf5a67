"""Random: one draw over all weights of the network, uniform over layers only in expectation."""

import torch
from torch import Tensor, nn

from mge_gpu.pruning._copy import dense_weights
from mge_gpu.pruning._select import as_masks, kept_count


def random_global(model: nn.Module, sparsity: float, *, seed: int = 0) -> dict[str, Tensor]:
    """Keep a random subset of all weights, every subset of the exact size equally likely.

    This is the method that the MGE paper's table calls "uniform".
    """
    weights = dense_weights(model)
    total = sum(weight.numel() for weight in weights.values())
    chosen = torch.randperm(total, generator=torch.Generator().manual_seed(seed))
    flat = torch.zeros(total, dtype=torch.bool)
    flat[chosen[: kept_count(total, sparsity)]] = True
    return as_masks(flat, weights)
