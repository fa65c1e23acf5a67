"""Pictures of graphs and rankings. matplotlib is imported on use and never opens a window."""

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mge_gpu._optional import require
from mge_gpu.errors import GraphError

if TYPE_CHECKING:
    import pandas

# What a node is to the signal -> colour. The names are those of the topometrics.
KINDS = {
    "passes on": "#4c72b0",
    "sink": "#dd8452",
    "source": "#55a868",
    "disconnected": "#c44e52",
}
PALETTE = ("#4c72b0", "#dd8452", "#55a868", "#c44e52", "#8172b3", "#937860", "#da8bc3", "#ccb974")
MAX_EDGES = 5_000_000  # edges that are materialised for a picture; 100 MB of them
BEND = 0.07  # how far an edge bends up for each column that it skips, in heights of the picture
MAX_DRAWN = 20_000  # edges that are drawn: more are a grey block and take minutes


@dataclass(frozen=True)
class Layout:
    """Where the nodes of a graph go on paper.

    Args:
        position: (num_nodes, 2) float64, NaN for nodes that are not drawn.
        kind: (num_nodes,) of indices into `KINDS`.
        notes: one line a partition: its name, its shape and, where thinned out, how many nodes are drawn.
    """

    position: np.ndarray
    kind: np.ndarray
    notes: list[str]


def layout(graph: Any, src: np.ndarray, dst: np.ndarray, nodes_per_partition: int = 64) -> Layout:
    """Lay a graph out with a column for each partition, the input at the left.

    Nodes stand in the order of their ids, with a gap between channels. Of a partition with more than
    ``nodes_per_partition`` nodes, evenly spaced ones are drawn.

    Args:
        graph: a `MultipartiteGraph`.
        src: (num_edges,) int64, source node of each edge.
        dst: (num_edges,) int64, its target.
        nodes_per_partition: most nodes to draw in one column.
    """
    position = np.full((graph.num_nodes, 2), np.nan)
    notes = []
    for column, part in enumerate(graph.partitions):
        shown = min(part.size, nodes_per_partition)
        picked = np.unique(np.linspace(0, part.size - 1, shown).round().astype(np.int64))
        channel = picked // max(part.size // part.shape[0], 1)
        height = np.arange(len(picked)) + 0.8 * (channel - channel[:1])
        if len(picked) > 1:
            height /= height[-1]
        else:
            height = height + 0.5
        position[part.offset + picked] = np.stack([np.full(len(picked), column), 1.0 - height], axis=1)
        size = "×".join(map(str, part.shape))
        notes.append(
            f"{part.name}\n{size}" + ("" if shown == part.size else f"\n{shown} of {part.size:,} drawn")
        )
    return Layout(position, _kinds(graph, src, dst), notes)


def plot_graph(
    graph: Any, path: "str | os.PathLike[str]", *, nodes_per_partition: int = 64, title: str | None = None
) -> None:
    """Draw a small MGE: a column of nodes for each partition, edges as wide as their weight is large.

    Nodes are coloured by what the topometrics call them: sink (something comes in, nothing goes out), source
    (the reverse), disconnected, or none of these. Large partitions are thinned out, and the picture says so.

    Args:
        graph: a `MultipartiteGraph`.
        path: the file to write; its suffix decides the format (.png, .svg, .pdf).
        nodes_per_partition: most nodes to draw in one column.
        title: a line above the picture.

    Raises:
        GraphError: the graph has more than 5,000,000 edges, or the file cannot be written.
        MissingDependencyError: matplotlib is not installed (extra ``plots``).
    """
    figure_class = require("matplotlib.figure", "plots", "plot_graph").Figure
    collections = require("matplotlib.collections", "plots", "plot_graph")
    if graph.num_edges > MAX_EDGES:
        raise GraphError(
            f"the graph has {graph.num_edges:,} edges; a picture is drawn of at most {MAX_EDGES:,}: give a "
            "smaller input or a higher sparsity"
        )
    src, dst, weight = (tensor.cpu().numpy() for tensor in graph.coo())
    plan = layout(graph, src, dst, nodes_per_partition)

    columns = len(graph.partitions)
    figure = figure_class(figsize=(max(5.0, 1.5 * columns), 5.2), dpi=130, layout="constrained")
    axes = figure.add_subplot()
    axes.set_axis_off()
    axes.set_xlim(-0.5, columns - 0.5)
    highest = _draw_edges(axes, collections, plan, src, dst, weight)
    axes.set_ylim(-0.22, highest + 0.03)
    for index, (kind, colour) in enumerate(KINDS.items()):
        at = plan.position[(plan.kind == index) & ~np.isnan(plan.position[:, 0])]
        if len(at):
            axes.scatter(at[:, 0], at[:, 1], s=14, c=colour, label=kind, zorder=3, linewidths=0)
    for column, note in enumerate(plan.notes):
        axes.text(column, -0.04, note, ha="center", va="top", fontsize=7.5)
    axes.legend(loc="lower center", ncols=len(KINDS), fontsize=8, frameon=False, bbox_to_anchor=(0.5, -0.05))
    if title:
        axes.set_title(title, fontsize=10)
    save_figure(figure, path)


def plot_ranking(frame: "pandas.DataFrame", path: "str | os.PathLike[str]", *, score: str = "score") -> None:
    """Draw a ranking of methods, best at the top, as bars of the score.

    Where the frame has them, dots are each method's chance to be the best of all, and lines part the tiers.

    Args:
        frame: what `mge_gpu.rank` returned: methods in the index or in a column ``method``, best first.
        path: the file to write; its suffix decides the format.
        score: the column that holds the score.

    Raises:
        GraphError: the frame has no such column, or the file cannot be written.
        MissingDependencyError: matplotlib is not installed (extra ``plots``).
    """
    figure_class = require("matplotlib.figure", "plots", "plot_ranking").Figure
    if score not in frame.columns:
        raise GraphError(f"the ranking has no column {score!r}; it has {', '.join(map(str, frame.columns))}")
    methods = [str(name) for name in (frame["method"] if "method" in frame.columns else frame.index)]
    figure = figure_class(figsize=(6.0, 1.6 + 0.32 * len(methods)), dpi=130, layout="constrained")
    axes = figure.add_subplot()
    label = "to train to a better accuracy than another of these" if score == "score" else score
    axes.barh(methods, frame[score].to_numpy(dtype=float), color=KINDS["passes on"], label=label)
    if "best_chance" in frame.columns:
        best = frame["best_chance"].to_numpy(dtype=float)
        label = "to be the best of all of these"
        axes.plot(best, methods, "o", c=KINDS["sink"], markeredgecolor="white", label=label, clip_on=False)
    if "tier" in frame.columns:
        note: str | None = "end of a tier (not told apart from its first)"
        for row in np.flatnonzero(np.diff(frame["tier"].to_numpy(dtype=float))):
            axes.axhline(row + 0.5, color="#666666", linewidth=0.8, linestyle=":", label=note)
            note = None  # one line in the legend stands for all
    if score == "score":
        axes.set_xlim(0, 1)
        axes.set_xlabel("predicted chance")
    _finish(figure, axes, columns=1)
    save_figure(figure, path)


def plot_explanation(
    frame: "pandas.DataFrame", path: "str | os.PathLike[str]", *, most: int = len(PALETTE)
) -> None:
    """Draw what moved each method's score away from 1/2, best method at the top.

    What adds to a score goes to the right of 1/2, what takes from it to the left, and the diamond is the
    score: 1/2 and the sum of all. The topometrics that count most over all methods have a colour each; the
    sum of the others is grey.

    Args:
        frame: what `mge_gpu.rank` returned, with its ``attrs["contributions"]``.
        path: the file to write; its suffix decides the format.
        most: how many topometrics have a colour, 8 at most.

    Raises:
        GraphError: the frame has no contributions (pandas drops ``attrs`` in some steps), or the file cannot
            be written.
        MissingDependencyError: matplotlib is not installed (extra ``plots``).
    """
    figure_class = require("matplotlib.figure", "plots", "plot_explanation").Figure
    if not (added := frame.attrs.get("contributions")):
        raise GraphError(
            "the ranking has no attrs['contributions']; give the frame that mge_gpu.rank returned"
        )
    methods = list(frame["method"])
    names = list(added[methods[0]])
    values = np.array([[added[method][name] for name in names] for method in methods])
    order = np.argsort(-np.abs(values).sum(axis=0), kind="stable")
    shown = [at for at in order[: min(most, len(PALETTE))] if values[:, at].any()]
    others = np.delete(values, shown, axis=1).sum(axis=1)
    parts = [(names[at], values[:, at], colour) for at, colour in zip(shown, PALETTE, strict=False)]
    parts += [("all others", others, "#b8b8b8")] if np.abs(others).max() > 1e-9 else []

    figure = figure_class(figsize=(7.5, 2.0 + 0.32 * len(methods)), dpi=130, layout="constrained")
    axes = figure.add_subplot()
    right, left = np.full((2, len(methods)), 0.5)
    for name, part, colour in parts:
        axes.barh(methods, part, left=np.where(part > 0, right, left), color=colour, label=name)
        right, left = right + np.maximum(part, 0), left + np.minimum(part, 0)
    axes.plot(0.5 + values.sum(axis=1), methods, "D", color="black", markeredgecolor="white", label="score")
    axes.axvline(0.5, color="black", linewidth=0.8)
    axes.set_xlabel("predicted chance to train to a better accuracy than another of these (score)")
    _finish(figure, axes, columns=4)
    save_figure(figure, path)


def _finish(figure: Any, axes: Any, columns: int) -> None:
    """The best at the top, a legend above, no frame."""
    axes.invert_yaxis()
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside upper center", ncols=columns, fontsize=8, frameon=False)


def _kinds(graph: Any, src: np.ndarray, dst: np.ndarray) -> np.ndarray:
    """Index into `KINDS` of each node, by the definitions of the local topometrics."""
    enters = np.bincount(dst, minlength=graph.num_nodes) > 0
    leaves = np.bincount(src, minlength=graph.num_nodes) > 0
    is_input, is_output = np.zeros((2, graph.num_nodes), dtype=bool)
    for members, partitions in ((is_input, graph.input_partitions), (is_output, graph.output_partitions)):
        for index in partitions:
            part = graph.partitions[index]
            members[part.offset : part.offset + part.size] = True
    names = list(KINDS)
    kind = np.full(graph.num_nodes, names.index("passes on"))
    kind[enters & ~leaves & ~is_output] = names.index("sink")
    kind[~enters & leaves & ~is_input] = names.index("source")
    kind[~enters & ~leaves] = names.index("disconnected")
    return kind


def _draw_edges(
    axes: Any, collections: Any, plan: Layout, src: np.ndarray, dst: np.ndarray, weight: np.ndarray
) -> float:
    """Draw the edges whose ends are both drawn; returns the height of the highest point."""
    drawn = np.flatnonzero(~np.isnan(plan.position[src, 0]) & ~np.isnan(plan.position[dst, 0]))
    if len(drawn) > MAX_DRAWN:
        # The heaviest: they are what one would see.
        drawn = drawn[np.argsort(weight[drawn])[-MAX_DRAWN:]]
        axes.text(
            0.99, 1.0, f"the {MAX_DRAWN:,} heaviest edges", transform=axes.transAxes, ha="right", fontsize=7.5
        )
    if not len(drawn):
        return 1.0
    start, end = plan.position[src[drawn]], plan.position[dst[drawn]]
    span = end[:, 0] - start[:, 0]
    # Edges that skip columns bend, so that they are not taken for edges of the columns between.
    step = np.linspace(0.0, 1.0, 13)[None, :, None]
    lines = start[:, None] * (1 - step) + end[:, None] * step
    lines[:, :, 1] += (BEND * np.abs(span - np.sign(span)))[:, None] * np.sin(np.pi * step[:, :, 0])
    # Edge widths from hairline to bold; the root keeps small weights visible beside large ones.
    share = np.sqrt(weight[drawn] / max(float(weight[drawn].max()), np.finfo(np.float32).tiny))
    crowd = min(1.0, 600 / len(drawn))
    axes.add_collection(
        collections.LineCollection(
            list(lines), linewidths=0.2 + 1.1 * share, colors="#555555", alpha=0.15 + 0.35 * crowd, zorder=1
        )
    )
    return max(1.0, float(lines[:, :, 1].max()))


def save_figure(figure: Any, path: "str | os.PathLike[str]") -> None:
    """Write a matplotlib figure; GraphError where the file cannot be written."""
    try:
        figure.savefig(path)
    except (OSError, ValueError) as error:
        raise GraphError(f"the picture {str(path)!r} cannot be written: {error}") from error
