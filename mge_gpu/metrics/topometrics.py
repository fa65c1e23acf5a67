"""`topometrics`: compute metrics of one graph, or of many masks of one network, and report them."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, overload

from torch import Tensor, nn

from mge_gpu.errors import MetricError
from mge_gpu.graph import MultipartiteGraph, encode
from mge_gpu.metrics.base import Workspace, wanted
from mge_gpu.metrics.batch import measure_masks
from mge_gpu.metrics.measuring import Progress, Tally, measure
from mge_gpu.metrics.report import Report
from mge_gpu.tracing import Program

Masks = Mapping[str, Tensor]


@overload
def topometrics(
    graph: MultipartiteGraph | nn.Module | Program,
    input_shape: Sequence[int] | None = None,
    metrics: str | Iterable[str] = "all",
    *,
    model: None = None,
    exact: bool = False,
    budget: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
    **encode_options: Any,
) -> Report: ...


@overload
def topometrics(
    graph: Sequence[Masks],
    input_shape: Sequence[int] | None = None,
    metrics: str | Iterable[str] = "all",
    *,
    model: nn.Module | Program,
    exact: bool = False,
    budget: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
    **encode_options: Any,
) -> list[Report]: ...


def topometrics(
    graph: MultipartiteGraph | nn.Module | Program | Sequence[Masks],
    input_shape: Sequence[int] | None = None,
    metrics: str | Iterable[str] = "all",
    *,
    model: nn.Module | Program | None = None,
    exact: bool = False,
    budget: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
    **encode_options: Any,
) -> Report | list[Report]:
    """Measure the topology of a graph, or of a model that is encoded first, or of many masks of one model.

    Metrics are computed cheap ones first. Ctrl-C stops within about a second and keeps what was computed:
    the report comes back with the missing metrics named in ``report.interrupted``. A Ctrl-C before the
    first metric, or a second one, raises KeyboardInterrupt as usual.

    Args:
        graph: a `MultipartiteGraph`; or a model or `Program`, then ``input_shape`` and the options
            of `mge_gpu.encode` apply; or a list of masks (parameter name -> mask), then ``model`` is
            needed. Such a batch shares the trace and the geometry. On the CPU small graphs have their
            eigenvalues computed side by side, one on each core; on a GPU as many graphs as fit its memory
            are one graph for the counts: sinks to removable, components, cuts, k_core, two_hop, motifs.
        input_shape: shape of one sample without the batch dim, where a model is to be traced.
        metrics: "all"; "cheap", those that take O(nonzero weights + nodes) whatever the number of edges
            (nodes, edges, sinks, sources, disconnected, removable, one_hop, strength); a key of
            `METRIC_KEYS`, or of `PATH_KEYS`, the metrics of the paths from the input to an output: effective
            density and nodes, and natural logarithms of the number of paths, path norms and the path-kernel
            trace (-inf where there is no path); or a list of these.
        model: the module or `Program` that a list of masks is for.
        exact: never estimate. Without it, counts over a stated cost are estimated from a sample and
            carry a standard error in the report.
        budget: that cost, in two-step walks that counting two_hop or motifs may take; None takes 2e10, a
            minute or two on two cores. With 2e9 they take seconds, with errors of about 0.5 %.
        seed: of start vectors and samples; the global random state is not used.
        progress: called as progress(text, fraction done) before each metric.

    Returns:
        A `Report`; for a list of masks a list of them, in its order.

    Raises:
        MetricError: unknown metric, or arguments that do not go together.
        MaskError: a mask does not fit; says which of the list.
        GraphError: metrics of paths of a graph from a file of format 2.
        NotEnoughMemoryError: metrics of a large graph that the memory available cannot hold, before any is
            computed.

    Example:
        >>> import torch
        >>> layer = torch.nn.Linear(2, 1, bias=False)
        >>> _ = layer.weight.data.copy_(torch.tensor([[-3.0, 0.0]]))
        >>> report = topometrics(layer, (2,))
        >>> report["disconnected_nodes"], report["cut_edges"], round(report["spectral_radius"], 6)
        (1, 1, 6.0)
        >>> masks = [{"weight": torch.tensor([[1, 0]])}, {"weight": torch.tensor([[0, 0]])}]
        >>> [r["edges"] for r in topometrics(masks, (2,), metrics="cheap", model=layer)]
        [1, 0]
    """
    keys = wanted(metrics)
    if isinstance(graph, MultipartiteGraph):
        if input_shape is not None or model is not None or encode_options:
            raise MetricError("got a graph and options of encode(); pass them when the graph is encoded")
    elif isinstance(graph, nn.Module | Program):
        if model is not None:
            raise MetricError("got a model twice; model= is for a list of masks")
        graph = encode(graph, input_shape, **encode_options)
    else:
        return measure_masks(
            _list_of_masks(graph), model, input_shape, keys, exact, budget, seed, progress, encode_options
        )
    tally = Tally(graph.info, keys)
    try:
        measure(Workspace(graph, exact, seed, budget), tally, keys, progress)
        if progress is not None:
            progress("done", 1.0)
    except KeyboardInterrupt:
        if not tally.found:  # there is nothing to keep
            raise
    return tally.report()


def _list_of_masks(given: Any) -> list[Masks]:
    """The batch, once it is sure that it is one."""
    if isinstance(given, Mapping):
        raise MetricError(
            "got one mapping of masks; pass topometrics(model, input_shape, masks=...), or a list of mappings"
        )
    if not isinstance(given, Sequence) or isinstance(given, str):
        raise MetricError(
            f"got {type(given).__name__}, expected a graph, a model, a Program or a list of masks"
        )
    for k, masks in enumerate(given):
        if not isinstance(masks, Mapping):
            raise MetricError(
                f"masks[{k}] is {type(masks).__name__}, expected a mapping from parameter name to mask"
            )
    return list(given)
