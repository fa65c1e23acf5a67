"""NTK-SAP: iterative pruning by what the neural tangent kernel loses, without data."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call

from mge_gpu.errors import PruningError
from mge_gpu.pruning._copy import dense_copy, scoring
from mge_gpu.pruning._loss import check_positive, set_bn_mode
from mge_gpu.pruning._run import gradients, output_tensors, run
from mge_gpu.pruning._select import is_finite
from mge_gpu.pruning._steps import prune_in_steps


def ntk_sap(
    model: nn.Module,
    sparsity: float,
    *,
    input_shape: Sequence[int],
    seed: int = 0,
    iterations: int = 20,
    samples: int = 100,
    batch_size: int = 256,
    epsilon: float = 0.01,
    inits: int = 1,
    progress: Callable[[str, float | None], None] | None = None,
) -> dict[str, Tensor]:
    """Keep the weights that the network's response to a small change of all weights depends on most.

    S = |∂/∂m Σ_x ‖f(x; m θ) - f(x; m (θ + Δ))‖²| with Δ ~ N(0, ``epsilon``²) on the prunable weights: the
    sum estimates ``epsilon``² times the nuclear norm of the tangent kernel. x is ``samples`` draws of N(0, I)
    of ``input_shape``, in batches of at most ``batch_size`` (memory grows with it), each with a Δ of its
    own; all are drawn anew in each of ``iterations`` exponential steps (density (1 - sparsity)^(t / T)
    after step t, globally ranked, a pruned weight never returns). Batch normalisation takes its statistics
    from one pass of the batch through m θ and then uses them in both networks; all other layers are in
    evaluation mode.

    With ``inits`` above 1 the gradients are summed over as many initialisations before the absolute value,
    which makes the mask depend less on the weights at hand (the paper takes 5 on CIFAR-10, else 1): the
    first is the model's own, each further one shuffles every prunable weight's elements, which is a fresh
    draw wherever they are independent and alike, whatever the model was initialised by.
    Paper: Wang et al., "NTK-SAP: Improving neural network pruning by aligning training dynamics", ICLR 2023.

    Raises PruningError on bad options, when the outputs overflow, or when the model fails on ``input_shape``.
    """
    for option, value in (
        ("iterations", iterations),
        ("samples", samples),
        ("batch_size", batch_size),
        ("inits", inits),
    ):
        check_positive("ntk_sap", option, value)
    if not epsilon > 0:
        raise PruningError(f"ntk_sap: epsilon must be above 0, got {epsilon!r}")
    with scoring(model, seed):
        network, weights = dense_copy(model)
        # Drawn on the CPU, so that every device prunes by the same numbers.
        generator = torch.Generator().manual_seed(seed)
        own = {name: weight.detach().clone() for name, weight in weights.items()}
        thetas = [own, *(_shuffled(own, generator) for _ in range(1, inits))]

        def score(masks: dict[str, Tensor]) -> dict[str, Tensor]:
            sums = {name: torch.zeros_like(weight) for name, weight in own.items()}
            for theta in thetas:
                for start in range(0, samples, batch_size):
                    size = min(batch_size, samples - start)
                    parameter = next(iter(own.values()))
                    x = _normal((size, *input_shape), generator, parameter)
                    delta = {name: epsilon * _normal(w.shape, generator, w) for name, w in theta.items()}
                    for name, gradient in response_gradients(network, theta, delta, masks, x).items():
                        sums[name] += gradient
            if not all(map(is_finite, sums.values())):
                raise PruningError(
                    "ntk_sap: this network's outputs overflow; check that its weights are of ordinary size"
                )
            return {name: part.abs() for name, part in sums.items()}

        return prune_in_steps("ntk_sap", weights, sparsity, iterations, score, progress=progress)


def response_gradients(
    network: nn.Module,
    theta: Mapping[str, Tensor],
    delta: Mapping[str, Tensor],
    masks: Mapping[str, Tensor],
    x: Tensor,
) -> dict[str, Tensor]:  # x: (B, *input_shape)
    """∂/∂m Σ_x ‖f(x; m θ) - f(x; m (θ + Δ))‖² by weight name, at ``masks`` (of any dtype).

    ``network`` is a copy from ``dense_copy``; its batch normalisation is given the statistics of x under m θ.
    """
    leaves = {name: masks[name].to(weight).requires_grad_() for name, weight in theta.items()}
    plain = {name: leaves[name] * weight for name, weight in theta.items()}
    moved = {name: leaves[name] * (weight + delta[name]) for name, weight in theta.items()}
    _collect_statistics(network, plain, x)
    change = [
        (one - other).square().sum()
        for one, other in zip(_outputs(network, plain, x), _outputs(network, moved, x), strict=True)
    ]
    return gradients(sum(change, start=x.new_zeros(())), leaves)


def _outputs(network: nn.Module, weights: dict[str, Tensor], x: Tensor) -> list[Tensor]:
    return list(output_tensors(run(lambda inputs: functional_call(network, weights, (inputs,)), x)))


def _collect_statistics(network: nn.Module, weights: dict[str, Tensor], x: Tensor) -> None:
    """Give every batch normalisation, also one that keeps none, the statistics of this batch."""
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.track_running_stats, module.momentum = True, 1.0
            module.running_mean, module.running_var = (
                x.new_zeros(module.num_features),
                x.new_ones(module.num_features),
            )
    set_bn_mode("ntk_sap", network, "train")
    with torch.no_grad():
        _outputs(network, weights, x)
    set_bn_mode("ntk_sap", network, "eval")


def _normal(shape: Sequence[int], generator: torch.Generator, like: Tensor) -> Tensor:
    """Standard normal numbers, with the dtype and device of a tensor."""
    return torch.randn(*shape, generator=generator, dtype=like.dtype).to(like.device)


def _shuffled(weights: Mapping[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
    """Each weight's own elements in random order."""
    return {
        name: weight.flatten()[torch.randperm(weight.numel(), generator=generator).to(weight.device)].reshape(
            weight.shape
        )
        for name, weight in weights.items()
    }
