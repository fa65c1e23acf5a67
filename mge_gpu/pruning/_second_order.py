"""Products of a loss's Hessian with a vector, by differentiating twice."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from mge_gpu.errors import PruningError


def twice_differentiable() -> AbstractContextManager[None]:
    """Attention by plain matrix products: its fused kernels have no second derivative."""
    return sdpa_kernel(SDPBackend.MATH)


def hessian_product(
    method: str, value: Tensor, weights: Mapping[str, Tensor], vector: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Σ_j ∂²value / ∂w_i ∂w_j · v_j by weight name; zero for a weight that the pass never used.

    ``value`` is a scalar, ``vector`` has the shapes of ``weights`` and takes no gradient.

    >>> w = {"w": torch.tensor([1.0, 2.0], requires_grad=True)}
    >>> hessian_product("test", (w["w"] ** 3).sum(), w, {"w": torch.tensor([1.0, 10.0])})
    {'w': tensor([  6., 120.])}

    Raises PruningError when the model cannot be differentiated twice.
    """
    leaves = list(weights.values())
    try:
        first = torch.autograd.grad(value, leaves, create_graph=True, materialize_grads=True)
        _check_twice(first)
        product = torch.stack(
            [(part * vector[name]).sum() for name, part in zip(weights, first, strict=True)]
        ).sum()
        if not product.requires_grad:  # the value is linear in the weights
            return {name: torch.zeros_like(weight) for name, weight in weights.items()}
        second = torch.autograd.grad(product, leaves, materialize_grads=True)
    except RuntimeError as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise PruningError(
            f"{method} needs second derivatives, and differentiating the model twice failed ({reason[0]}); "
            "use a method that needs first derivatives only, snip for example"
        ) from error
    return dict(zip(weights, second, strict=True))


def _check_twice(gradients: Sequence[Tensor]) -> None:
    """RuntimeError where a function in the graph is marked once_differentiable.

    Such a function's gradient leads to a node that raises when it is reached, but has no way on to the
    weights: torch.autograd.grad never reaches it, and would leave out its part of the second derivative.
    """
    waiting = [part.grad_fn for part in gradients if part.grad_fn is not None]
    seen = set(waiting)
    while waiting:
        node = waiting.pop()
        if node.name() == "torch::autograd::Error":
            raise RuntimeError("a function in it is marked once_differentiable")
        for following, _ in node.next_functions:
            if following is not None and following not in seen:
                seen.add(following)
                waiting.append(following)
