"""ProsPr: sensitivity of the loss after a few training steps to the weights at their start."""

from collections.abc import Callable
from itertools import count, islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from mge_gpu.errors import PruningError
from mge_gpu.pruning._copy import dense_copy, scoring
from mge_gpu.pruning._loss import Loss, check_number, check_positive, loss_of, set_bn_mode
from mge_gpu.pruning._run import gradients, repeated, run
from mge_gpu.pruning._second_order import hessian_product, twice_differentiable
from mge_gpu.pruning._select import kept_count, top_masks

Progress = Callable[[str, float | None], None]


def prospr(
    model: nn.Module,
    sparsity: float,
    *,
    data: Any,
    seed: int = 0,
    steps: int = 3,
    lr: float = 0.5,
    momentum: float = 0.9,
    first_order: bool = False,
    bn_mode: str = "train",
    loss: Loss | None = None,
    progress: Progress | None = None,
) -> dict[str, Tensor]:
    """Keep the weights whose removal would change the loss most after ``steps`` training steps, in one shot.

    S = |∂L(θ_M; B_M)/∂c| at c = 1, where training starts from c θ_init and takes M steps of SGD,
    v ← ``momentum`` v + ∇L(θ; B_k), θ ← θ - ``lr`` v, on all parameters (biases, normalisation and frozen
    ones too). The derivative goes through the training; with ``first_order`` only through the last loss, as
    if ∂θ_M/∂θ_0 were 1. Every step, and the last loss, take the next batch of ``data``, M + 1 in all; where
    these end, they are read again from the start. ``bn_mode`` and ``loss`` as for
    :func:`mge_gpu.pruning.snip.snip`.

    The training is differentiated backwards step by step, from M + 1 copies of the parameters. Memory is
    that of these, of M + 1 batches and of one graph for two derivatives, however many the steps are.
    Paper: Alizadeh et al., "Prospect Pruning: Finding Trainable Weights at Initialization using
    Meta-Gradients", ICLR 2022.

    Raises DataError on data that do not fit, PruningError on bad options, when the training diverges, when
    the model fails or cannot be differentiated twice.
    """
    with scoring(model, seed), twice_differentiable():
        scores = prospr_scores(
            model,
            data=data,
            steps=steps,
            lr=lr,
            momentum=momentum,
            first_order=first_order,
            bn_mode=bn_mode,
            loss=loss,
            progress=progress,
        )
        return top_masks(scores, kept_count(sum(score.numel() for score in scores.values()), sparsity))


def prospr_scores(
    model: nn.Module,
    *,
    data: Any,
    steps: int = 3,
    lr: float = 0.5,
    momentum: float = 0.9,
    first_order: bool = False,
    bn_mode: str = "train",
    loss: Loss | None = None,
    progress: Progress | None = None,
) -> dict[str, Tensor]:
    """The sensitivities |∂L(θ_M; B_M)/∂c| by weight name; see :func:`prospr`."""
    check_positive("prospr", "steps", steps)
    check_number("prospr", "lr", lr, "a positive number", lambda value: value > 0)
    check_number("prospr", "momentum", momentum, "in [0, 1)", lambda value: 0 <= value < 1)
    network, weights = dense_copy(model)
    set_bn_mode("prospr", network, bn_mode)
    parameter = next(iter(weights.values()))
    batches = list(islice(repeated(data, parameter.device, parameter.dtype), steps + 1))

    evaluations = steps + 1 if first_order else 2 * steps + 1
    number = count(1)

    def loss_at(point: dict[str, Tensor], step: int) -> Tensor:
        inputs, labels = batches[step]
        output = run(lambda given: functional_call(network, point, (given,)), inputs)
        value = loss_of("prospr", output, labels, loss)
        if not bool(torch.isfinite(value)):
            raise PruningError(
                f"prospr: the loss is {value.item()} after {step} training steps at lr {lr:g}; lower lr"
            )
        if progress is not None:
            done = next(number)
            progress(f"prospr: loss {done}/{evaluations}", done / evaluations)
        return value

    trained = {name: value for name, value in network.named_parameters() if value.is_floating_point()}
    path = [{name: value.detach().clone().requires_grad_(True) for name, value in trained.items()}]
    velocity = {name: torch.zeros_like(value) for name, value in trained.items()}
    for step in range(steps):
        slope = gradients(loss_at(path[step], step), path[step])
        velocity = {name: momentum * velocity[name] + slope[name] for name in velocity}
        path.append(
            {
                name: (value - lr * velocity[name]).detach().requires_grad_(True)
                for name, value in path[step].items()
            }
        )

    # Backwards through v' = momentum v + ∇L_k(θ), θ' = θ - lr v': the last loss's derivatives in θ and in v.
    by_theta = gradients(loss_at(path[steps], steps), path[steps])
    if not first_order:
        by_v = {name: torch.zeros_like(value) for name, value in trained.items()}
        for step in reversed(range(steps)):
            by_v = {name: by_v[name] - lr * by_theta[name] for name in by_v}
            curved = hessian_product("prospr", loss_at(path[step], step), path[step], by_v)
            by_theta = {name: by_theta[name] + curved[name] for name in by_theta}
            by_v = {name: momentum * by_v[name] for name in by_v}
    return {name: (weight.detach() * by_theta[name]).abs() for name, weight in weights.items()}
