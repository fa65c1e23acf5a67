"""Extreme eigenvalues of many networks that are one graph, all at once."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from mge_gpu.errors import MetricError
from mge_gpu.linalg import rows
from mge_gpu.linalg.many import ManyInfo, largest_magnitudes
from mge_gpu.linalg.many_largest import largest_of_each
from mge_gpu.metrics.base import Measured
from mge_gpu.metrics.colours import laplacian_signs
from mge_gpu.metrics.together import OneByOne, Together


class Products:
    """x -> (A + A^T) x of all networks of a union, whose vectors are rows in the order of their own nodes.

    Args:
        w: the workspace.
        single: multiply in float32.
    """

    def __init__(self, w: Together, single: bool) -> None:
        self.backend, self.networks, self.n = w.backend, w.networks, w.num_nodes
        self.operator: Any = w.backend.operator(w.blocks, w.blocks, single=single, prepared=w.prepared)
        number = np.float32 if single else np.float64
        self.given = np.zeros(w.graph.num_nodes, number, like=w.backend.prototype())  # in the union's order
        self.shared = w.backend.tensor(self.given)
        self.device, self.dtype = self.shared.device, self.shared.dtype
        width, nodes = rows.width(self.n), np.arange(w.graph.num_nodes, dtype=np.int32)
        place = torch.arange(self.networks * width, device=self.device).view(-1, width)[:, : self.n]
        self.place = torch.empty(len(nodes), dtype=torch.int64, device=self.device)  # of a node in the rows
        self.place[torch.from_numpy(w.union.rows(nodes)).to(self.device).long()] = place

    def __call__(self, x: Tensor) -> Tensor:
        """The products, (networks, width) of `rows.width`."""
        torch.index_select(x.view(-1), 0, self.place, out=self.shared)
        image = self.backend.tensor(self.operator(self.given))
        out = torch.zeros_like(x)
        out.view(-1).index_copy_(0, self.place, image)
        return out

    def ones(self) -> Tensor:
        """One at each node, as rows."""
        x = torch.zeros(self.networks, rows.width(self.n), dtype=self.dtype, device=self.device)
        x[:, : self.n] = 1
        return x

    def measured(self, values: np.ndarray, info: ManyInfo, what: str) -> Measured:
        """All networks' values, and of each how it was computed."""
        how = f"{what}, {info.products} products; {self.operator.how}"
        hows: Any = [how if converged else f"{how}; not converged" for converged in info.converged]
        found: Any = values
        return Measured(found, hows)


def products(w: Together, single: bool) -> Products:
    """Those of a workspace, made once."""
    found: Products = w.operators.get("rows") or Products(w, single)
    w.operators["rows"] = found
    return found


def gaps(w: Together, tol: float, single: bool) -> Measured:
    """|lambda|_1 - |lambda|_3 of each network's A + A^T.

    Raises:
        OneByOne: some number is NaN or Inf.
    """
    apply = products(w, single)
    try:
        values, info = largest_magnitudes(
            apply, w.networks, w.num_nodes, 3, tol=tol, seed=w.seed, dtype=apply.dtype, device=apply.device
        )
    except MetricError as error:
        raise OneByOne from error
    found = np.zeros((w.networks, 3))
    found[:, : values.shape[1]] = np.abs(values)
    return apply.measured(found[:, 0] - found[:, 2], info, "Lanczos on the adjacency")


def radii(w: Together, tol: float, single: bool) -> Measured:
    """The largest eigenvalue of each network's Laplacian D - A.

    Raises:
        OneByOne: some number is NaN or Inf.
    """
    apply = products(w, single)
    strength = apply(apply.ones())
    start = strength / strength.amax(1, keepdim=True).clamp_min(torch.finfo(apply.dtype).tiny)
    signs = laplacian_signs(w, np.float32 if single else np.float64)
    start.square_()[:, : w.num_nodes] *= torch.from_numpy(signs).to(apply.device)
    try:
        values, info = largest_of_each(
            lambda x: torch.addcmul(apply(x).neg_(), strength, x),
            w.networks,
            w.num_nodes,
            tol=tol,
            start=start,
            dtype=apply.dtype,
            device=apply.device,
        )
    except MetricError as error:
        raise OneByOne from error
    return apply.measured(values, info, "Lanczos on the Laplacian")
