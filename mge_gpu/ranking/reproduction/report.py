"""The reproduction as a whole: run it, and read it as JSON or Markdown."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mge_gpu.errors import RankingError
from mge_gpu.metrics.report import json_ready
from mge_gpu.ranking.reproduction.importance import agreement_of_strata, importances
from mge_gpu.ranking.reproduction.markdown import document
from mge_gpu.ranking.reproduction.rankings import rankings
from mge_gpu.ranking.reproduction.regression import complete_rows, density_correlations, regressions
from mge_gpu.ranking.reproduction.tables import NETWORK, Oddity, Tables, load
from mge_gpu.ranking.reproduction.verdicts import Verdict, verdict_a, verdict_b, verdict_c
from mge_gpu.ranking.table import PAI_METHODS

if TYPE_CHECKING:
    import pandas

_SHARES = {"tables": 0.05, "regression": 0.3, "importance": 0.1, "ranking": 0.55}
"""Of the time, roughly."""


@dataclass(frozen=True)
class Reproduction:
    """The paper's claims beside what the published data say.

    Attributes:
        table_dir: where the tables were read from.
        networks: trained networks in the joined tables, by the column that they are counted by.
        verdicts: one for each claim.
        frames: the figures: ``regression``, ``gains`` (claim a, see `regressions`; ``methods`` is "pai" or
            "all"), ``density`` (see `density_correlations`), ``importance`` and ``importance_by_seed`` (claim
            b), ``agreement`` (of importances), ``rankings`` and ``ranking_gains`` (claim c).
        oddities: what was odd in the data and what was done about it.
    """

    table_dir: str
    networks: Mapping[str, int]
    verdicts: tuple[Verdict, ...]
    frames: "Mapping[str, pandas.DataFrame]"
    oddities: tuple[Oddity, ...]

    def to_dict(self) -> dict[str, Any]:
        """Everything, in types that strict JSON knows; NaN and infinities as None."""
        frames = {name: frame.to_dict("records") for name, frame in self.frames.items()}
        return json_ready(
            {
                "table": self.table_dir,
                "networks": dict(self.networks),
                "verdicts": [verdict.to_dict() for verdict in self.verdicts],
                "oddities": [oddity.to_dict() for oddity in self.oddities],
                "figures": frames,
            }
        )

    def markdown(self) -> str:
        """The report to read."""
        return document(self.networks, self.verdicts, self.frames, self.oddities)


def reproduce(
    table_dir: str | Path,
    *,
    ranker: bool = True,
    progress: Callable[[str, float], None] | None = None,
) -> Reproduction:
    """Check the three claims of the MGE paper on the tables published with it.

    Cunegatti, Farina, Bucur and Iacca, "Understanding Sparse Neural Networks from their Topology via
    Multipartite Graph Representations", TMLR 2024 (arXiv 2305.16886).

    Args:
        table_dir: the folder with ``mge_topometrics.csv.gz``, ``bge_rolled_layers.csv.gz``,
            ``bge_rolled_channel_layers.csv.gz`` and ``ramanujan_layers.csv.gz``.
        ranker: fit the ranker of `mge_gpu.rank` without each architecture, for claim (c); most of the time.
        progress: called with what is being done and the share that is done.

    Raises:
        RankingError: a table is missing, damaged or lacks a column, or holds too little to compare.
        MissingDependencyError: pandas, SciPy or LightGBM is not installed.
    """
    begun = 0.0

    def part(name: str) -> Callable[[str, float], None]:
        nonlocal begun
        start, begun = begun, begun + _SHARES[name]

        def show(what: str, share: float) -> None:
            if progress is not None:
                progress(what, start + share * _SHARES[name])

        show(name, 0.0)
        return show

    part("tables")
    tables = load(table_dir)
    pai = tables.restricted(PAI_METHODS)
    if not len(pai.networks):
        raise RankingError(f"{table_dir}: no network is pruned by one of {', '.join(PAI_METHODS)}")
    show = part("regression")
    figures, gains = regressions(pai, lambda what, share: show(what, share / 2))
    more, more_gains = regressions(tables, lambda what, share: show(f"{what}, all methods", 0.5 + share / 2))
    correlations = density_correlations(pai)
    by_seed, importance = importances(pai, part("importance"))
    agreements = [
        agreement_of_strata(by_seed, by, figure)
        for by in ("sparsity", "model")
        for figure in ("shap", "permutation", "coefficient")
    ]
    orders, order_gains = rankings(tables, ranker=ranker, progress=part("ranking"))
    return Reproduction(
        str(table_dir),
        {
            "networks": len(tables.networks),
            "networks pruned at initialization": len(pai.networks),
            "kinds of network (all but the seed)": len(tables.networks.drop_duplicates(list(NETWORK))),
            "layers with Ramanujan metrics": len(tables.layers),
        },
        (verdict_a(gains, correlations), verdict_b(agreements), verdict_c(order_gains)),
        {
            "regression": _stacked(pai=figures, all=more),
            "gains": _stacked(pai=gains, all=more_gains),
            "density": correlations,
            "importance": importance,
            "importance_by_seed": by_seed,
            "agreement": _frame(agreements),
            "rankings": orders,
            "ranking_gains": order_gains,
        },
        (*tables.oddities, _incomplete(tables)),
    )


def _incomplete(tables: Tables) -> Oddity:
    gone = ~complete_rows(tables)
    done = "left out of (a): sets of features are compared on the same networks"
    return Oddity("networks without every feature of every set", int(gone.sum()), len(gone), done)


def _frame(rows: list[dict[str, Any]]) -> "pandas.DataFrame":
    import pandas

    return pandas.DataFrame(rows)


def _stacked(**parts: "pandas.DataFrame") -> "pandas.DataFrame":
    import pandas

    return pandas.concat([frame.assign(methods=name) for name, frame in parts.items()], ignore_index=True)
