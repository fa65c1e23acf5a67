"""How well a ranker orders methods on an architecture that it has not seen."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mge_gpu._optional import require
from mge_gpu.errors import RankingError
from mge_gpu.ranking.features import GROUP, TOPOLOGY_METRICS
from mge_gpu.ranking.ranker import DEFAULT_KINDS, SUBSETS, Ranker, restricted
from mge_gpu.ranking.scores import kendall_tau, rank_biased_overlap
from mge_gpu.ranking.table import SETTING
from mge_gpu.ranking.training import mean_rank, mean_ranks, seed_means

if TYPE_CHECKING:
    import pandas


def evaluate(
    table: "pandas.DataFrame",
    methods: Sequence[str] | None = None,
    *,
    train_methods: Sequence[str] | None = None,
    metrics: Sequence[str] = TOPOLOGY_METRICS,
    kinds: Sequence[str] = DEFAULT_KINDS,
    subsets: int = SUBSETS,
    seed: int = 0,
) -> "pandas.DataFrame":
    """Leave one architecture out: fit on the others, predict it, compare orders with what training gave.

    Features are made within each seed, predictions averaged over seeds, and the order of methods in each
    (model, data set, sparsity) compared with that by seed-mean accuracy. Beside it stands the baseline: each
    method's mean rank at that sparsity on the other architectures, by the same accuracies and no topology.
    The hyperparameters were chosen by these very scores, so read small differences with care.

    Args:
        table: as `load_table` gives it.
        methods: the candidates to order; None takes all in the table.
        train_methods: the methods to learn from; None takes all in the table, also those not among
            ``methods``.
        metrics, kinds, subsets, seed: as for `Ranker.fit`.

    Returns:
        A row for each setting with at least two methods: ``model``, ``dataset``, ``sparsity``,
        ``candidates``, ``tau``, ``rbo`` (p = 0.9) of the ranker and ``baseline_tau``, ``baseline_rbo``. Tau
        is NaN where all candidates tie.

    Raises:
        RankingError: the table has fewer than two architectures, or fewer than two of the methods.
    """
    pandas = require("pandas", "rank", "evaluating a ranker")
    candidates = restricted(table, methods)
    learned = restricted(table, train_methods)
    architectures = candidates["model"].unique().tolist()
    if len(architectures) < 2 or candidates["method"].nunique() < 2:
        raise RankingError(
            f"leaving one architecture out needs at least 2 architectures and 2 methods; the table "
            f"has {len(architectures)} and {candidates['method'].nunique()}"
        )
    rows = []
    for left_out in architectures:
        unseen = candidates[candidates["model"] == left_out]
        ranker = Ranker.fit(
            learned[learned["model"] != left_out], None, seed, metrics=metrics, kinds=kinds, subsets=subsets
        )
        scored = unseen.assign(score=ranker.predict(ranker.features(unseen, GROUP)))
        elsewhere = mean_ranks(candidates[candidates["model"] != left_out])
        compared = pandas.DataFrame(
            {column: seed_means(scored, column) for column in ("accuracy", "score")}
        ).reset_index("method")
        # A method that no other architecture knows stands in the middle.
        middle = (len(elsewhere) + 1) / 2
        compared["baseline"] = [
            -mean_rank(elsewhere, method, sparsity)
            for method, sparsity in zip(
                compared["method"], compared.index.get_level_values("sparsity"), strict=True
            )
        ]
        compared["baseline"] = compared["baseline"].fillna(-middle)
        for setting, group in compared.groupby(level=list(SETTING), sort=False):
            if len(group) > 1:
                rows.append(dict(zip(SETTING, setting, strict=True)) | _agreement(group))
    return pandas.DataFrame(rows)


def summary(evaluation: "pandas.DataFrame") -> dict[str, float]:
    """The means over settings of `evaluate`'s scores, with the number of settings.

    >>> import pandas
    >>> table = pandas.DataFrame({"tau": [0.5, 1], "rbo": 1, "baseline_tau": 0, "baseline_rbo": 0.5})
    >>> summary(table)
    {'settings': 2, 'tau': 0.75, 'rbo': 1.0, 'baseline_tau': 0.0, 'baseline_rbo': 0.5}
    """
    means = {
        name: round(float(evaluation[name].mean()), 4)
        for name in ("tau", "rbo", "baseline_tau", "baseline_rbo")
    }
    return {"settings": len(evaluation), **means}


def _agreement(group: "pandas.DataFrame") -> dict[str, float]:
    actual = _order(group, "accuracy")
    return {
        "candidates": len(group),
        "tau": kendall_tau(group["score"], group["accuracy"]),
        "rbo": rank_biased_overlap(_order(group, "score"), actual),
        "baseline_tau": kendall_tau(group["baseline"], group["accuracy"]),
        "baseline_rbo": rank_biased_overlap(_order(group, "baseline"), actual),
    }


def _order(group: "pandas.DataFrame", column: str) -> list[str]:
    """Methods, best first; ties in alphabetical order, whichever column it is."""
    return group.sort_values([column, "method"], ascending=[False, True])["method"].tolist()
