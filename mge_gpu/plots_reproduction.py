"""Pictures of a reproduction: one for each claim. matplotlib is imported on use and never opens a window."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mge_gpu._optional import require
from mge_gpu.errors import MissingDependencyError
from mge_gpu.plots import PALETTE, save_figure

if TYPE_CHECKING:
    from mge_gpu.ranking.reproduction import Reproduction


def plot_reproduction(found: "Reproduction", folder: Path) -> list[str]:
    """Draw ``regression.png``, ``importance.png`` and ``rankings.png``.

    Returns:
        The names of the files: none where matplotlib is not installed, and none of a claim without figures.
    """
    try:
        figure_class = require("matplotlib.figure", "plots", "pictures of a reproduction").Figure
    except MissingDependencyError:
        return []
    files = []
    for name, draw in (("regression", _regression), ("importance", _importance), ("rankings", _rankings)):
        if len(found.frames[name]):
            figure = figure_class(dpi=130, layout="constrained")
            draw(figure, found.frames[name])
            save_figure(figure, folder / f"{name}.png")
            files.append(f"{name}.png")
    return files


def _regression(figure: Any, frame: Any) -> None:
    """Out-of-fold error of each set of features over the strata."""
    figure.set_size_inches(10, 7)
    part = frame[frame["methods"] == "pai"]
    for row, model in enumerate(("ols", "trees")):
        for column, by in enumerate(("sparsity", "model")):
            axes = figure.add_subplot(2, 2, 2 * row + column + 1)
            chosen = part[(part["model"] == model) & (part["by"] == by)]
            strata = chosen["stratum"].drop_duplicates().tolist()
            sets = ("mge", "rolled", "rolled-channel", "ramanujan", "density", "setting")
            for number, (name, color) in enumerate(zip(sets, PALETTE, strict=False)):
                rows = chosen[chosen["features"] == name]
                at = np.array([strata.index(value) for value in rows["stratum"]]) + 0.12 * (number - 2.5)
                _bars(
                    axes, at, rows["mae"].tolist(), rows["mae_interval"].tolist(), color, name, upright=True
                )
            axes.set_xticks(range(len(strata)), [str(value) for value in strata])
            axes.set_ylim(bottom=0)
            axes.set_title(f"{'least squares' if model == 'ols' else 'LightGBM'}, by {by}", fontsize=10)
            axes.set_ylabel("absolute error (points)")
    figure.axes[0].legend(fontsize=7)


def _importance(figure: Any, frame: Any) -> None:
    """Shares of the mean absolute SHAP values, a column for each stratum."""
    figure.set_size_inches(8, 6)
    wide = frame.pivot_table(index="metric", columns=["by", "stratum"], values="shap", sort=False)
    shares = (wide / wide.sum()).to_numpy()
    axes = figure.add_subplot()
    image = axes.imshow(shares, aspect="auto", cmap="Blues", vmin=0)
    axes.set_yticks(range(len(wide)), wide.index.tolist())
    axes.set_xticks(
        range(wide.shape[1]), [str(stratum) for _, stratum in wide.columns], rotation=45, ha="right"
    )
    axes.set_title("share of the mean absolute SHAP values", fontsize=10)
    figure.colorbar(image)


def _rankings(figure: Any, frame: Any) -> None:
    """Kendall's tau of every score."""
    figure.set_size_inches(8, 2 + 0.2 * len(frame))
    axes = figure.add_subplot()
    families = frame["family"].drop_duplicates().tolist()
    for number, family in enumerate(families):
        rows = frame[frame["family"] == family]
        color = PALETTE[number % len(PALETTE)]
        intervals = rows["kendall_tau_interval"].tolist()
        _bars(
            axes, rows.index.to_numpy(), rows["kendall_tau"].tolist(), intervals, color, family, upright=False
        )
    labels = [f"{family}: {score}" for family, score in zip(frame["family"], frame["score"], strict=True)]
    axes.set_yticks(range(len(frame)), labels, fontsize=7)
    axes.axvline(0, color="#999999", linewidth=0.8)
    axes.invert_yaxis()
    axes.set_xlabel("Kendall's tau against the order by accuracy")


def _bars(
    axes: Any,
    at: np.ndarray,
    values: Sequence[float],
    intervals: Sequence[tuple[float, float]],
    color: str,
    label: str,
    *,
    upright: bool,
) -> None:
    """Points with their intervals, upright or lying."""
    if not len(values):
        return
    middle = np.asarray(values)
    errors = np.maximum(np.abs(np.array(intervals).T - middle), 0)
    style: dict[str, Any] = {"fmt": "o", "markersize": 3, "color": color, "label": label, "linewidth": 1}
    if upright:
        axes.errorbar(at, middle, yerr=errors, **style)
    else:
        axes.errorbar(middle, at, xerr=errors, **style)
