"""Topometrics of each layer's bipartite graph, the baseline that the paper averages over layers."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from torch import nn

from mge_gpu._optional import require
from mge_gpu.errors import MetricError
from mge_gpu.graph import MultipartiteGraph, encode
from mge_gpu.graph.bipartite import bipartite_graphs
from mge_gpu.metrics.base import Workspace, wanted
from mge_gpu.metrics.measuring import Progress, Tally, measure
from mge_gpu.tracing import Program

if TYPE_CHECKING:
    import pandas


def layer_topometrics(
    graph: MultipartiteGraph | nn.Module | Program,
    input_shape: Sequence[int] | None = None,
    metrics: str | Iterable[str] = "all",
    *,
    encoding: str | None = None,
    normalized: bool = False,
    exact: bool = False,
    seed: int = 0,
    progress: Progress | None = None,
    **encode_options: Any,
) -> "pandas.DataFrame":
    """The topometrics of each layer's bipartite graph, a row a layer.

    ``layer_topometrics(...).mean(numeric_only=True)`` are the features of a network that the paper compares
    the MGE with: averages over its layers. A node of the left side without edges is disconnected; there are
    neither sinks nor sources, since every node lies in the input or the output partition.

    Args:
        graph: a rolled or rolled-channel `MultipartiteGraph`; or a model or `Program`, then ``input_shape``
            and the options of `mge_gpu.encode` (``masks``, say) apply.
        input_shape: shape of one sample without the batch dim, where a model is to be traced.
        metrics: as in `mge_gpu.topometrics`.
        encoding: of a model, "rolled" (the default) or "rolled-channel".
        normalized: divide each value by 1, N or E of its layer, as the published MGE table is (the published
            tables of layers hold raw values). NaN in a layer without edges where that means 1 / E.
        exact, seed, progress: as in `mge_gpu.topometrics`.

    Returns:
        A DataFrame with index ``layer`` and a column a metric; an estimated one has a column
        ``<metric>_standard_error`` besides, NaN where it is exact. Needs the extra ``rank`` (pandas).

    Raises:
        GraphError: the encoding is not bipartite, or as in `mge_gpu.encode`.
        MetricError: an unknown metric, or arguments that do not go together.

    Example:
        >>> model = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 4))
        >>> frame = layer_topometrics(model, (3,), ["edges", "k_core"])
        >>> frame.loc["1"].tolist(), float(frame["edges"].mean())
        ([8.0, 2.0], 7.0)
    """
    pandas = require("pandas", "rank", "layer_topometrics")
    keys = wanted(metrics)
    if not isinstance(graph, MultipartiteGraph):
        graph = encode(graph, input_shape, encoding=encoding or "rolled", **encode_options)
    elif input_shape is not None or encoding is not None or encode_options:
        raise MetricError("got a graph and options of encode(); pass them when the graph is encoded")
    count = len(graph.partitions) // 2
    rows = []
    for k, (name, part) in enumerate(bipartite_graphs(graph)):
        if progress is not None:
            progress(name, k / count)
        tally = Tally(part.info, keys)
        measure(Workspace(part, exact, seed), tally, keys)
        report = tally.report()
        values = report.normalized(names="mge") if normalized else dict(report)
        errors = {f"{key}_standard_error": error for key, error in report.standard_errors.items()}
        rows.append({"layer": name} | values | errors)
    columns = ["layer", *keys, *dict.fromkeys(c for row in rows for c in row if c not in ("layer", *keys))]
    frame = pandas.DataFrame(rows, columns=columns).set_index("layer")
    frame.attrs["encoding"] = graph.info["encoding"]
    return frame
