"""SynFlow: iterative pruning by synaptic flow, without data."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from mge_gpu.errors import PruningError
from mge_gpu.pruning._copy import dense_copy, scoring
from mge_gpu.pruning._loss import check_positive
from mge_gpu.pruning._run import gradients, output_tensors, run
from mge_gpu.pruning._select import is_finite
from mge_gpu.pruning._steps import hide, prune_in_steps


def synflow(
    model: nn.Module,
    sparsity: float,
    *,
    input_shape: Sequence[int],
    seed: int = 0,
    iterations: int = 100,
    progress: Callable[[str, float | None], None] | None = None,
) -> dict[str, Tensor]:
    """Keep the weights through which most flow passes, pruning in ``iterations`` exponential steps.

    R = 1ᵀ f_{|θ|}(1), S = |θ ∂R/∂θ|; after step t the density is (1 - sparsity)^(t / iterations), scores
    are computed anew under each mask, globally ranked, and a pruned weight never returns. Runs in
    float64, in evaluation mode, with batch normalisation as if freshly built (mean 0, variance 1).
    Paper: Tanaka et al., "Pruning neural networks without any data by iteratively conserving synaptic
    flow", NeurIPS 2020.

    Raises PruningError when the flow overflows float64, when none reaches the output, or when the model fails
    on ``input_shape``.
    """
    check_positive("synflow", "iterations", iterations)
    with scoring(model, seed):
        network, weights = linearised(model)
        device = next(iter(weights.values())).device
        ones = torch.ones((1, *input_shape), dtype=torch.float64, device=device)

        def score(masks: dict[str, Tensor]) -> dict[str, Tensor]:
            hide(weights, masks)
            scores = flow_scores(network, weights, ones)
            if not all(map(is_finite, scores.values())):
                raise PruningError("synflow: the flow through this network overflows float64")
            return scores

        return prune_in_steps("synflow", weights, sparsity, iterations, score, progress=progress)


def linearised(model: nn.Module) -> tuple[nn.Module, dict[str, nn.Parameter]]:
    """A float64 copy with |θ| for every parameter and pristine batch normalisation; its prunable weights."""
    network, weights = dense_copy(model, torch.float64)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.abs_()
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            _make_pristine(module, next(iter(weights.values())).device)
    return network, weights


def flow_scores(
    network: nn.Module, weights: dict[str, nn.Parameter], ones: Tensor
) -> dict[str, Tensor]:  # (1, C, H, W)
    """S = |θ ∂R/∂θ| of a network from :func:`linearised`, by weight name."""
    flow = torch.stack(
        [part.sum() for part in output_tensors(run(network, ones))] or [ones.new_zeros(())]
    ).sum()
    found = gradients(flow, weights)
    return {name: (weight.detach() * found[name]).abs() for name, weight in weights.items()}


def _make_pristine(norm: nn.Module, device: torch.device) -> None:
    # A layer without running statistics would normalise the constant input to zero, and the flow with it.
    norm.running_mean = torch.zeros(norm.num_features, dtype=torch.float64, device=device)  # type: ignore
    norm.running_var = torch.ones(norm.num_features, dtype=torch.float64, device=device)  # type: ignore
