"""Paths from the input to an output: what lies on one, how many there are, and their norms.

Padding of the input is no input, and a path ends at a node that the network returns. Identity skips are
always followed, whether or not the graph has edges for them.
"""

from mge_gpu.metrics import sweeps
from mge_gpu.metrics.base import Measured, Workspace, metric

MARKS = "marks from the input and from the outputs"
SCALED = "one sweep over all weights, scaled by powers of two"


def _course(w: Workspace) -> sweeps.Course:
    if "course" not in w.operators:
        w.operators["course"] = sweeps.Course(w.graph.flow, w.backend)
    found: sweeps.Course = w.operators["course"]
    return found


def _reached(w: Workspace) -> sweeps.Reached:
    if "reached" not in w.operators:
        w.operators["reached"] = sweeps.reached(_course(w))
    marks: sweeps.Reached = w.operators["reached"]
    return marks


def _norms(w: Workspace) -> sweeps.Norms:
    if "norms" not in w.operators:
        w.operators["norms"] = sweeps.norms(_course(w))
    found: sweeps.Norms = w.operators["norms"]
    return found


@metric("effective_density")
def effective_density(w: Workspace) -> Measured:
    """Share of the network's prunable weights that lie on a path from the input to an output.

    One minus the effective sparsity of Vysogorets and Kempe, "Connectivity matters: neural network pruning
    through the lens of effective sparsity", JMLR 2023.
    """
    flow = w.graph.flow
    count = sweeps.count_effective(_course(w), _reached(w))
    return Measured(w.of_each(count / max(flow.weights, 1)), MARKS)


@metric("effective_nodes")
def effective_nodes(w: Workspace) -> Measured:
    """Number of nodes on a path from the input to an output."""
    before, behind = (marks[: w.graph.num_nodes] for marks in _reached(w))
    return Measured(w.total(before & behind), MARKS)


@metric("log_effective_paths")
def log_effective_paths(w: Workspace) -> Measured:
    """Natural logarithm of the number of paths; -inf where there is none.

    Paths in the graph with identity skips (``encode(..., identity_skips=True)``), where all routes from one
    node to another are one edge. For a dense multilayer perceptron the sum of the logarithms of its widths.
    """
    found = sweeps.log_paths(_course(w))
    return Measured(w.of_each(found), "one sweep over all edges, scaled by powers of two")


@metric("l1_path_norm")
def l1_path_norm(w: Workspace) -> Measured:
    """Natural logarithm of the sum over paths p of the product of |w|; -inf where there is none.

    The sum is SynFlow's R (Tanaka et al., NeurIPS 2020). Every route through the weights is a path here.
    """
    return Measured(w.of_each(_norms(w).l1), SCALED)


@metric("l2_path_norm")
def l2_path_norm(w: Workspace) -> Measured:
    """Natural logarithm of the square root of the sum over paths p of the product of w^2; -inf for none.

    Neyshabur, Salakhutdinov and Srebro, "Path-SGD", NeurIPS 2015.
    """
    return Measured(w.of_each(_norms(w).l2), SCALED)


@metric("path_kernel_trace")
def path_kernel_trace(w: Workspace) -> Measured:
    """Natural logarithm of sum_p sum_{i in p} (pi_p / w_i)^2, pi_p the product of p's weights; -inf for none.

    The trace of the path kernel (Gebhart, Saxena and Schrater, 2021; PHEW: Patil and Dovrolis, ICML 2021),
    over the weights that are not zero.
    """
    return Measured(w.of_each(_norms(w).trace), SCALED)
