"""Pictures: what is drawn where, and that files are written. Stand-ins give small known graphs."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from mge_gpu import plots
from mge_gpu.errors import GraphError


def make_graph(shapes, edges, output=None):
    """A graph as the picture sees it: partitions and a list of (source, target, weight)."""
    partitions, offset = [], 0
    for index, shape in enumerate(shapes):
        size = int(np.prod(shape))
        partitions.append(SimpleNamespace(name=f"part{index}", shape=shape, offset=offset, size=size))
        offset += size
    columns = list(zip(*edges, strict=True)) or [(), (), ()]
    coo = (
        torch.tensor(columns[0], dtype=torch.int64),
        torch.tensor(columns[1], dtype=torch.int64),
        torch.tensor(columns[2], dtype=torch.float32),
    )
    return SimpleNamespace(
        num_nodes=offset,
        num_edges=len(edges),
        partitions=partitions,
        input_partitions=(0,),
        output_partitions=(len(shapes) - 1,) if output is None else output,
        coo=lambda: coo,
    )


# i0 -> h3 -> o5, i2 -> h3, i2 -> h4 (which leads nowhere), i1 alone.
TINY = make_graph([(3,), (2,), (1,)], [(0, 3, 1.0), (2, 3, 2.0), (2, 4, 3.0), (3, 5, 4.0)])


def arrays(graph):
    return [tensor.numpy() for tensor in graph.coo()[:2]]


def names(graph):
    return [list(plots.KINDS)[index] for index in plots.layout(graph, *arrays(graph)).kind]


def test_kinds_follow_the_topometrics():
    assert names(TINY) == ["passes on", "disconnected", "passes on", "passes on", "sink", "passes on"]


def test_a_hidden_node_without_input_is_a_source_and_a_dead_output_is_no_sink():
    graph = make_graph([(1,), (2,), (2,)], [(0, 1, 1.0), (1, 3, 1.0), (2, 3, 1.0)])
    assert names(graph) == ["passes on", "passes on", "source", "passes on", "disconnected"]
    heads = make_graph([(1,), (1,), (1,)], [(0, 1, 1.0), (0, 2, 1.0)], output=(1, 2))
    assert names(heads) == ["passes on"] * 3


def test_columns_are_partitions_and_nodes_keep_their_order():
    position = plots.layout(TINY, *arrays(TINY)).position
    assert position[:, 0].tolist() == [0, 0, 0, 1, 1, 2]
    assert position[0, 1] > position[1, 1] > position[2, 1]
    assert position[:, 1].min() >= 0 and position[:, 1].max() <= 1


def test_channels_are_set_apart():
    graph = make_graph([(2, 1, 2), (1,)], [(0, 4, 1.0)])
    height = plots.layout(graph, *arrays(graph)).position[:4, 1]
    within, between = height[0] - height[1], height[1] - height[2]
    assert between == pytest.approx(1.8 * within)


def test_large_partitions_are_thinned_and_the_picture_says_so():
    graph = make_graph([(3, 20, 20), (2,)], [(0, 1200, 1.0)])
    plan = plots.layout(graph, *arrays(graph), nodes_per_partition=50)
    drawn = np.flatnonzero(~np.isnan(plan.position[:1200, 0]))
    assert len(drawn) == 50 and drawn[0] == 0 and drawn[-1] == 1199
    assert "50 of 1,200 drawn" in plan.notes[0] and "drawn" not in plan.notes[1]


@pytest.mark.parametrize("suffix, magic", [("png", b"\x89PNG"), ("svg", b"<?xml")])
def test_plot_graph_writes_a_picture(tmp_path, suffix, magic):
    pytest.importorskip("matplotlib")
    path = tmp_path / f"graph.{suffix}"
    plots.plot_graph(TINY, path, title="tiny")
    assert path.read_bytes().startswith(magic)


def test_plot_graph_without_edges(tmp_path):
    pytest.importorskip("matplotlib")
    plots.plot_graph(make_graph([(2,), (1,)], []), tmp_path / "empty.png")
    assert (tmp_path / "empty.png").stat().st_size > 0


def test_svg_has_a_line_an_edge_and_the_heavier_is_wider(tmp_path):
    pytest.importorskip("matplotlib")
    figure = pytest.importorskip("matplotlib.figure").Figure()
    axes = figure.add_subplot()
    src, dst = arrays(TINY)
    collections = pytest.importorskip("matplotlib.collections")
    plots._draw_edges(axes, collections, plots.layout(TINY, src, dst), src, dst, TINY.coo()[2].numpy())
    (lines,) = axes.collections
    assert len(lines.get_segments()) == 4
    assert np.argsort(lines.get_linewidths()).tolist() == [0, 1, 2, 3]


def test_too_many_edges_are_refused_before_they_are_made(tmp_path):
    pytest.importorskip("matplotlib")
    graph = make_graph([(1,), (1,)], [(0, 1, 1.0)])
    graph.num_edges = plots.MAX_EDGES + 1
    graph.coo = lambda: pytest.fail("the edges were materialised")
    with pytest.raises(GraphError, match=r"5,000,001 edges"):
        plots.plot_graph(graph, tmp_path / "no.png")


@pytest.mark.parametrize("name", ["missing/graph.png", "graph.nonsense"])
def test_a_path_that_cannot_be_written(tmp_path, name):
    pytest.importorskip("matplotlib")
    with pytest.raises(GraphError, match="cannot be written"):
        plots.plot_graph(TINY, tmp_path / name)


class Figures(list):
    """Keeps the figures that would be saved; `drawn` gives the axes of the last."""

    def drawn(self):
        return self[-1].axes[0]


@pytest.fixture
def figures(monkeypatch):
    pytest.importorskip("matplotlib")
    kept = Figures()
    save = plots.save_figure
    monkeypatch.setattr(plots, "save_figure", lambda figure, path: (kept.append(figure), save(figure, path)))
    return kept


def ranking():
    """Three methods whose contributions are known: 0.5 and their sum is the score."""
    frame = pytest.importorskip("pandas").DataFrame(
        {
            "method": ["erk", "er", "snip"],
            "score": [0.8, 0.5, 0.2],
            "best_chance": [0.6, 0.3, 0.1],
            "tier": [1, 1, 2],
        }
    )
    frame.attrs["contributions"] = {
        "erk": {"edges": 0.1, "core": 0.25, "sinks": -0.05, "motifs": 0.0},
        "er": {"edges": 0.1, "core": -0.1, "sinks": 0.0, "motifs": 0.0},
        "snip": {"edges": -0.2, "core": -0.15, "sinks": 0.05, "motifs": 0.0},
    }
    return frame


def bars(axes):
    """Label -> (left end, right end) of each of its bars, from the top."""
    return {
        group.get_label(): [tuple(sorted((bar.get_x(), bar.get_x() + bar.get_width()))) for bar in group]
        for group in axes.containers
    }


def test_plot_ranking(tmp_path, figures):
    frame = ranking()
    plots.plot_ranking(frame, tmp_path / "ranking.png")
    assert (tmp_path / "ranking.png").read_bytes().startswith(b"\x89PNG")
    axes = figures.drawn()
    (found,) = bars(axes).values()
    assert found == [(0, 0.8), (0, 0.5), (0, 0.2)]
    dots, line = axes.lines
    assert list(dots.get_xdata()) == [0.6, 0.3, 0.1]
    assert list(line.get_ydata()) == [1.5, 1.5]  # between the second and the third
    assert axes.yaxis_inverted() and axes.get_xlim() == (0, 1)


def test_plot_ranking_by_another_column(tmp_path, figures):
    frame = ranking()[["method", "score"]].rename(columns={"score": "points"})
    plots.plot_ranking(frame, tmp_path / "ranking.svg", score="points")
    assert list(bars(figures.drawn())) == ["points"]
    with pytest.raises(GraphError, match="no column 'score'"):
        plots.plot_ranking(frame, tmp_path / "ranking.png")


def test_plot_explanation_stacks_what_adds_and_what_takes(tmp_path, figures):
    plots.plot_explanation(ranking(), tmp_path / "why.png")
    assert (tmp_path / "why.png").read_bytes().startswith(b"\x89PNG")
    axes = figures.drawn()
    found = bars(axes)
    assert list(found) == ["core", "edges", "sinks"]  # by size, and none that is 0 everywhere
    np.testing.assert_allclose(found["core"], [(0.5, 0.75), (0.4, 0.5), (0.35, 0.5)])
    np.testing.assert_allclose(found["edges"], [(0.75, 0.85), (0.5, 0.6), (0.15, 0.35)])
    np.testing.assert_allclose(found["sinks"][0], (0.45, 0.5))
    np.testing.assert_allclose(found["sinks"][2], (0.5, 0.55))
    np.testing.assert_allclose(axes.lines[0].get_xdata(), [0.8, 0.5, 0.2])


def test_plot_explanation_sums_up_the_rest(tmp_path, figures):
    plots.plot_explanation(ranking(), tmp_path / "why.png", most=1)
    found = bars(figures.drawn())
    assert list(found) == ["core", "all others"]
    np.testing.assert_allclose(found["all others"], [(0.75, 0.8), (0.5, 0.6), (0.2, 0.35)])


def test_plot_explanation_needs_the_contributions(tmp_path):
    pytest.importorskip("matplotlib")
    frame = ranking()
    frame.attrs = {}
    with pytest.raises(GraphError, match="give the frame that mge_gpu.rank returned"):
        plots.plot_explanation(frame, tmp_path / "why.png")
