"""The Ramanujan family: how far each layer's bipartite graph is from the best expander of its degrees."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from mge_gpu._optional import require
from mge_gpu.errors import MetricError
from mge_gpu.graph.bipartite import Bipartite, bipartite_layers
from mge_gpu.linalg.singular import side_by_side, two_largest
from mge_gpu.metrics.measuring import Progress
from mge_gpu.tracing import Program

if TYPE_CHECKING:
    import pandas

SMALLEST_DEGREE = 3
"""Mean degree, left and right, that a subgraph of one left degree needs in order to count."""

TOGETHER = 1 << 26
"""Weights of the layers that are held at the same time."""


def ramanujan(
    model: nn.Module | Program,
    masks: Mapping[str, Tensor] | None = None,
    encoding: str = "rolled",
    *,
    device: str | torch.device | None = None,
    progress: Progress | None = None,
) -> "pandas.DataFrame":
    """The Ramanujan metrics of each layer's bipartite graph, a row a layer.

    Let B be the biadjacency of a layer without the nodes of degree zero, σ₁ ≥ σ₂ its two largest singular
    values, and d_L, d_R the mean degrees left and right. On 0/1 edges, with UB = √(d_L - 1) + √(d_R - 1),

    - ``delta_r`` = UB - σ₂ and ``delta_r_ub`` = (UB - σ₂) / UB,
    - ``delta_r_imdb`` and ``delta_r_imdb_ub``, the means of both over the *subgraphs*: all left nodes of
      exactly δ edges and their neighbours, for each δ, where both mean degrees are at least 3.

    On edges of weight |w| (rolled) or of the kernel's L2 norm (rolled-channel),

    - ``lambda`` = σ₁ - σ₂ and ``lambda_imsg``, its mean over the same subgraphs.

    What is not defined is NaN, and the column ``missing`` says what and why: a layer without edges; UB = 0,
    where no node has two edges; no subgraph that counts.

    The other columns: ``weights``, ``nonzero`` and ``density``, their quotient; ``left`` and ``right`` nodes,
    and those of them that have edges (``left_linked``, ``right_linked``); ``edges``; d_L and d_R
    (``degree_left``, ``degree_right``); ``subgraphs``, how many count.

    Args:
        model: a module (each prunable weight is a layer; nothing is traced or run), or a `Program`.
        masks: parameter name -> mask; True or 1 keeps a weight. Zero weights are no edges either way.
        encoding: "rolled" (left C_in/groups * k_h * k_w) or "rolled-channel" (left C_in).
        device: where the singular values are computed, "cpu" (the default) or "cuda".
        progress: called as progress(text, fraction done or None).

    Returns:
        A DataFrame with index ``layer``. Needs the extra ``rank`` (pandas).

    Raises:
        GraphError: another encoding, or no model.
        MaskError: a mask does not fit, or a weight is not finite.
        MetricError: the device is unknown or not there.

    References: Hoang, Liu, Marculescu and Wang, "Revisiting Pruning at Initialization through the Lens of
    Ramanujan Graph", ICLR 2023 (Δr, its mean over subgraphs); Cunegatti et al., TMLR 2024 (λ).

    Example:
        >>> frame = ramanujan(nn.Conv2d(4, 8, 3))  # complete: σ₂ = 0
        >>> frame.loc["weight", ["degree_left", "degree_right", "delta_r_ub", "delta_r_imdb_ub"]].tolist()
        [8.0, 36.0, 1.0, 1.0]
    """
    pandas = require("pandas", "rank", "ramanujan")
    where = _device(device)
    rows: list[dict[str, Any]] = []
    held: list[Bipartite] = []
    for layer in bipartite_layers(model, masks, encoding):
        held.append(layer)
        if sum(h.matrix.numel() for h in held) > TOGETHER:
            rows += _measured(held, where, progress)
            held = []
    rows += _measured(held, where, progress)
    frame = pandas.DataFrame(rows, columns=COLUMNS).set_index("layer")
    frame.attrs["encoding"] = encoding
    return frame


class _Part:
    """A bipartite graph without nodes of degree zero."""

    def __init__(self, matrix: Tensor, edges: int) -> None:
        linked = (matrix != 0).any(dim=0)
        self.matrix = matrix if bool(linked.all()) else matrix[:, linked]  # (left, right), >= 0
        self.edges = edges

    @property
    def degrees(self) -> tuple[float, float]:
        """Mean degree left and right, NaN without edges."""
        left, right = self.matrix.shape
        return (self.edges / left, self.edges / right) if self.edges else (math.nan, math.nan)

    @property
    def bound(self) -> float:
        """UB, the σ₂ of the best expanders of these mean degrees."""
        left, right = self.degrees
        return math.sqrt(left - 1) + math.sqrt(right - 1)


class _Layer:
    """A layer's graph and those of its subgraphs that count; ``parts`` begins with the whole."""

    def __init__(self, layer: Bipartite, device: torch.device) -> None:
        self.layer = layer
        matrix = layer.matrix.to(device)
        matrix = matrix if matrix.dtype == torch.float64 else matrix.float()
        degree, order = (matrix != 0).sum(0).sort(stable=True)
        order = order[degree > 0]
        whole = matrix.T[order].abs()
        self.parts = [_Part(whole, int(degree.sum()))]
        counts = torch.bincount(degree).tolist()
        begin = 0
        for delta, count in enumerate(counts[1:], 1):
            if count and delta >= SMALLEST_DEGREE:
                part = _Part(whole[begin : begin + count], delta * count)
                if part.degrees[1] >= SMALLEST_DEGREE:
                    self.parts.append(part)
            begin += count


def _measured(
    given: Sequence[Bipartite], device: torch.device, progress: Progress | None
) -> list[dict[str, Any]]:
    """The rows of some layers, all their singular values found together."""
    if progress is not None and given:
        progress(f"singular values of {given[0].name} to {given[-1].name}", None)
    layers = side_by_side(lambda k: _Layer(given[k], device), len(given), device)
    parts = [part for layer in layers for part in layer.parts]
    matrices = [part.matrix for part in parts]
    sigma = two_largest(matrices * 2, [True] * len(parts) + [False] * len(parts))
    pattern, weighted = iter(sigma[: len(parts)]), iter(sigma[len(parts) :])
    return [_row(layer, [(next(pattern), next(weighted)) for _ in layer.parts]) for layer in layers]


def _row(given: _Layer, sigma: Sequence[tuple[np.ndarray, np.ndarray]]) -> dict[str, Any]:
    """One layer's row from the singular values, of the pattern and of the weights, of each of its parts."""
    layer, whole = given.layer, given.parts[0]
    bounds = [part.bound for part in given.parts]
    delta = [bound - float(pattern[1]) for bound, (pattern, _) in zip(bounds, sigma, strict=True)]
    gap = [float(weighted[0] - weighted[1]) for _, weighted in sigma]
    subgraphs = len(given.parts) - 1
    missing = []
    if not whole.edges:
        missing.append("all: the layer has no edges")
    else:
        if not bounds[0]:
            missing.append("delta_r_ub: UB is 0, no node has two edges")
        if not subgraphs:
            missing.append(
                f"delta_r_imdb, delta_r_imdb_ub, lambda_imsg: no left degree of {SMALLEST_DEGREE} or more "
                f"whose nodes lead to a mean right degree of {SMALLEST_DEGREE} or more"
            )
    right, left = layer.matrix.shape
    return {
        "layer": layer.name,
        "weights": layer.weights,
        "nonzero": layer.nonzero,
        "density": layer.nonzero / layer.weights if layer.weights else math.nan,
        "left": left,
        "right": right,
        "left_linked": whole.matrix.shape[0],
        "right_linked": whole.matrix.shape[1],
        "edges": whole.edges,
        "degree_left": whole.degrees[0],
        "degree_right": whole.degrees[1],
        "delta_r": delta[0],
        "delta_r_ub": delta[0] / bounds[0] if bounds[0] else math.nan,
        "delta_r_imdb": _mean(delta[1:]),
        "delta_r_imdb_ub": _mean([d / bound for d, bound in zip(delta[1:], bounds[1:], strict=True)]),
        "lambda": gap[0] if whole.edges else math.nan,
        "lambda_imsg": _mean(gap[1:]),
        "subgraphs": subgraphs,
        "missing": "; ".join(missing),
    }


COLUMNS = (
    "layer", "weights", "nonzero", "density", "left", "right", "left_linked", "right_linked", "edges",
    "degree_left", "degree_right", "delta_r", "delta_r_ub", "delta_r_imdb", "delta_r_imdb_ub", "lambda",
    "lambda_imsg", "subgraphs", "missing",
)  # fmt: skip
"""The index and the columns of the frame; without layers it has no others either."""


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan


def _device(device: str | torch.device | None) -> torch.device:
    try:
        where = torch.device(device or "cpu")
        if where.type not in ("cpu", "cuda"):
            raise RuntimeError("no double precision, or no values")
        torch.empty(0, device=where)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise MetricError(
            f"got device {str(device)!r}, expected 'cpu' or a 'cuda' that is there ({reason})"
        ) from error
    return where
