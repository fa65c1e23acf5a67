"""The report to read, in Markdown."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mge_gpu.ranking.reproduction.regression import EXTRA_SETS, SETS, SETTING_SET
from mge_gpu.ranking.reproduction.tables import Oddity
from mge_gpu.ranking.reproduction.verdicts import NAMES, Verdict

if TYPE_CHECKING:
    import pandas

NOTES = (
    "No accuracies of dense networks are published. The accuracy drop is a stand-in: percentage points below "
    "the best accuracy of the same model and data set, whatever the method and sparsity.",
    "`layer_sparsity` in the tables of layers is a density, and is used as one.",
    'Published "er" is ERK without its fix-up; published "uniform" is one random draw over all weights.',
    "Strength, spectral gap and spectral radius were published for trained weights, which nobody has at "
    "initialization.",
    "The tables of layers subtract the whole network's inputs and outputs from each layer's sources and "
    "sinks, so that these also tell the data set. They are kept as published; the divided sets and the "
    "regressions that know the setting show how much that matters.",
    "The figures in the paper's own tables are not at hand: ours stand beside what its abstract states, and "
    "signs beside those that its reading of a metric implies.",
)


def document(
    networks: Mapping[str, int],
    verdicts: Sequence[Verdict],
    frames: "Mapping[str, pandas.DataFrame]",
    oddities: Sequence[Oddity],
) -> str:
    """The whole report."""
    lines = ["# The MGE paper's claims on its published data", ""]
    lines += ["; ".join(f"{name}: {count:,}" for name, count in networks.items()) + ".", ""]
    for verdict in verdicts:
        lines += [f"## ({verdict.claim}) {verdict.answer}", "", f"Claim: {verdict.wording}.", ""]
        lines += table(
            ("statement", "answer", "figures"), [[p.statement, p.answer, p.evidence] for p in verdict.parts]
        )
        if verdict.notes:
            lines += ["Besides the claim:", "", *(f"- {note}" for note in verdict.notes), ""]
        lines += {"a": _regression, "b": _importance, "c": _rankings}[verdict.claim](frames)
    lines += ["## The data", "", *(f"- {note}" for note in NOTES), ""]
    rows = [[o.what, f"{o.count:,} of {o.of:,}", o.done if o.count else "nothing to do"] for o in oddities]
    return "\n".join([*lines, *table(("what", "how many", "done"), rows)]).rstrip() + "\n"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table and an empty one.

    >>> table(("a", "b"), [["1", "2"]])
    ['| a | b |', '| --- | --- |', '| 1 | 2 |', '']
    """
    lines = [list(header), ["---"] * len(header), *(list(row) for row in rows)]
    return [f"| {' | '.join(line)} |" for line in lines] + [""]


def number(value: Any, digits: int = 2) -> str:
    """A figure, or "-" for one that does not exist."""
    return "-" if value is None or not math.isfinite(value) else f"{value:.{digits}f}"


def ranged(value: Any, interval: Any, digits: int = 2) -> str:
    """A figure and its interval.

    >>> ranged(0.5, (0.25, 0.75))
    '0.50 [0.25, 0.75]'
    """
    if number(value, digits) == "-":
        return "-"
    return f"{number(value, digits)} [{number(interval[0], digits)}, {number(interval[1], digits)}]"


def agrees(value: float, interval: Sequence[float], expected: int) -> str:
    """Whether a figure has the expected sign: "yes" or "no" beyond its interval, else "cannot tell"."""
    if not expected:
        return ""
    low, high = interval
    if not math.isfinite(value) or low <= 0 <= high or not math.isfinite(low + high):
        return "cannot tell"
    return "yes" if (value > 0) == (expected > 0) else "no"


def _regression(frames: "Mapping[str, pandas.DataFrame]") -> list[str]:
    lines = [
        "Cross-validated in 5 folds by network, all seeds of one network together; 95 % bootstrap intervals "
        "over networks. Adjusted R² below 0: worse than the mean. *setting* knows model, data set and "
        "sparsity and no topology.",
        "",
    ]
    figures, gains = frames["regression"], frames["gains"]
    measures = {"r2": "adjusted R², out of fold", "mae": "mean absolute error (points), out of fold"}
    for scope, named in (("pai", "7 methods that prune at initialization"), ("all", "all methods")):
        for model, how in (("ols", "least squares"), ("trees", "LightGBM")):
            part = (
                figures[(figures["methods"] == scope) & (figures["model"] == model)]
                if len(figures)
                else figures
            )
            for measure, title in measures.items():
                lines += _wide(f"{title}, {how}, {named}", part, (*SETS, SETTING_SET), measure)
            if model == "ols":
                lines += _wide(f"Adjusted R², fitted rows, least squares, {named}", part, SETS, "fitted_r2")
                checks = (*EXTRA_SETS, *(f"{SETTING_SET} + {name}" for name in SETS))
                lines += _wide(f"Checks: mean absolute error, least squares, {named}", part, checks, "mae")
    rows = []
    for gain in gains[gains["methods"] == "pai"].to_dict("records") if len(gains) else []:
        expected = 1 if gain["features"] == "mge" and gain["rival"] != SETTING_SET else 0
        rows.append(
            [f"{gain['by']} {gain['stratum']}", gain["model"], gain["features"], gain["rival"], gain["given"]]
            + [ranged(gain["gain"], gain["gain_interval"]), "above 0" if expected else ""]
            + [agrees(gain["gain"], gain["gain_interval"], expected)]
        )
    lines += ["### Points of absolute error that a set of features saves against a rival, same networks", ""]
    header = ("stratum", "model", "features", "rival", "both know", "saved", "the paper says", "agrees")
    lines += table(header, rows)
    rows = [
        [
            f"{row['by']} {row['stratum']}",
            row["metric"],
            f"{row['layers']:,}",
            f"{100 * row['missing']:.1f} %",
        ]
        + [ranged(row.get("r"), row.get("r_interval")), ranged(row.get("rho"), row.get("rho_interval"))]
        for row in frames["density"].to_dict("records")
    ]
    lines += ["### Ramanujan metrics against the density of their layer (the paper: mostly the same)", ""]
    return lines + table(("layers of", "metric", "layers", "missing", "Pearson's r", "Spearman's rho"), rows)


def _wide(title: str, part: "pandas.DataFrame", sets: Sequence[str], measure: str) -> list[str]:
    if not len(part):
        return []
    rows = []
    for (by, stratum), group in part.groupby(["by", "stratum"], sort=False):
        cells = group.set_index("features").to_dict("index")
        first = next(iter(cells.values()))
        row = [f"{by} {stratum}", f"{first['rows']} ({first['networks']})"]
        for name in sets:
            interval = cells[name].get(f"{measure}_interval")
            value = cells[name][measure]
            row.append(number(value) if interval is None else ranged(value, interval))
        rows.append(row)
    return [f"### {title}", "", *table(("stratum", "rows (networks)", *sets), rows)]


def _importance(frames: "Mapping[str, pandas.DataFrame]") -> list[str]:
    lines = [
        "Of the accuracy drop, 7 methods that prune at initialization. *coefficient*: least squares, all "
        "columns standardised, points of drop for one standard deviation; columns are collinear, so that "
        "coefficients are large and of opposite signs. *permutation*: points of LightGBM's out-of-fold "
        "absolute error that permuting the column adds. *SHAP*: mean absolute value, points. *direction*: "
        "correlation of a column with its SHAP values. Intervals: Student's t over seeds. *implied*: the "
        "sign that the paper's reading of the metric implies; empty where dividing by E leaves none.",
        "",
    ]
    frame = frames["importance"]
    if not len(frame):
        return [*lines, "Too few networks in every stratum.", ""]
    for (by, stratum), group in frame.groupby(["by", "stratum"], sort=False):
        rows = []
        for row in group.sort_values("shap", ascending=False).to_dict("records"):
            cells = [
                ranged(row[name], row[f"{name}_interval"]) for name in ("coefficient", "permutation", "shap")
            ]
            cells.append(ranged(row["direction"], row["direction_interval"]))
            sign = {1: "+", -1: "−", 0: ""}[row["expected"]]
            told = [
                agrees(row[n], row[f"{n}_interval"], row["expected"]) for n in ("coefficient", "direction")
            ]
            rows.append([row["metric"], *cells, sign, *told])
        header = ("metric", "coefficient", "permutation", "SHAP", "direction", "implied")
        lines += [
            f"### {by} {stratum}",
            "",
            *table((*header, "coefficient agrees", "direction agrees"), rows),
        ]
    return lines


def _rankings(frames: "Mapping[str, pandas.DataFrame]") -> list[str]:
    lines = [
        "Order of the methods that prune at initialization within (model, data set, sparsity), by seed "
        "means, against that of accuracy. Signs, weights, choices and the ranker come from the other "
        "architectures. A score that ties all methods counts as tau 0. 95 % bootstrap intervals over pairs "
        "of model and data set. The ranker has its default settings, which were chosen on this table: "
        "`mge-gpu evaluate` chooses them within the other architectures.",
        "",
    ]
    figures = frames["rankings"].merge(
        frames["ranking_gains"].rename(columns={"rival": "score"}),
        on=["family", "score"],
        suffixes=("", "_gain"),
    )
    rows = []
    for row in figures.to_dict("records"):
        cells = [ranged(row[name], row[f"{name}_interval"], 3) for name in ("kendall_tau", "rbo")]
        single = row["family"] == "mge" and not row["score"].startswith("mixture")
        expected = single or row["family"] == "ramanujan"
        gain = [ranged(row["kendall_tau_gain"], row["kendall_tau_interval_gain"], 3)]
        told = agrees(row["kendall_tau_gain"], row["kendall_tau_interval_gain"], int(expected))
        family = NAMES.get(row["family"], row["family"])
        rows.append(
            [family, row["score"], str(row["settings"]), *cells, *gain, "above 0" if expected else "", told]
        )
    header = (
        "family",
        "score",
        "settings",
        "tau",
        "RBO",
        "tau saved by the MGE mixture",
        "the paper says",
        "agrees",
    )
    return lines + table(header, rows)
