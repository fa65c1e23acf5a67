"""A fitted ranker: a LightGBM model, what it was fitted on, and the baseline that it has to beat."""

import datetime
import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mge_gpu import __version__
from mge_gpu._optional import require
from mge_gpu.errors import RankingError
from mge_gpu.metrics.report import PUBLISHED, json_ready
from mge_gpu.ranking.features import KINDS, TOPOLOGY_METRICS, group_features
from mge_gpu.ranking.model_text import check_model_text, trees_only
from mge_gpu.ranking.table import PAI_METHODS
from mge_gpu.ranking.training import PARAMETERS, ROUNDS, fit_model_text, mean_ranks

if TYPE_CHECKING:
    import pandas

FORMAT = "mge_gpu ranker 1"
SUBSETS = 2
DEFAULT_KINDS = ("z",)
_LARGEST_FILE = 16 * 2**20  # bytes; the shipped file is 30 times smaller


@dataclass(frozen=True)
class Ranker:
    """Scores candidates from their topometrics relative to each other.

    Attributes:
        model_text: the trees in LightGBM's text format.
        metrics: metric keys that the features are made of.
        kinds: how they are made relative to the group of candidates, see `group_features`.
        mean_ranks: method -> sparsity -> mean rank (1 is best) among the pruning-at-initialization methods of
            the table, under the table's names: the baseline without topology.
        provenance: what the trees were fitted on and how; JSON types only.
    """

    model_text: str = field(repr=False)
    metrics: tuple[str, ...]
    kinds: tuple[str, ...]
    mean_ranks: Mapping[str, Mapping[str, float]]
    provenance: Mapping[str, Any] = field(repr=False)

    @classmethod
    def fit(
        cls,
        table: "pandas.DataFrame",
        methods: Sequence[str] | None = None,
        seed: int = 0,
        *,
        metrics: Sequence[str] = TOPOLOGY_METRICS,
        kinds: Sequence[str] = DEFAULT_KINDS,
        subsets: int = SUBSETS,
        provenance: Mapping[str, Any] | None = None,
    ) -> "Ranker":
        """Fit to a table of trained networks. The same table and seed give the same ranker.

        Args:
            table: as `load_table` gives it.
            methods: the methods to learn from; None takes all in the table.
            seed: for LightGBM's bagging and the random subsets.
            metrics: metric keys to make features of. The default leaves out what depends on the values of the
                weights: the table has trained ones, a network that is to be ranked has not.
            kinds: how metrics are made relative to the group.
            subsets: how many random subsets of each group to learn from beside the whole group.
            provenance: facts to record besides those that are known here.

        Raises:
            RankingError: a method or a metric is unknown, or the table holds nothing to learn from.
        """
        rows = restricted(table, methods)
        if not metrics or (unknown := [name for name in metrics if name not in PUBLISHED]):
            raise RankingError(
                f"unknown metric {unknown[0]!r} to rank by; known are {', '.join(PUBLISHED)}"
                if metrics
                else "a ranker needs at least one metric"
            )
        text = trees_only(fit_model_text(rows, metrics, kinds, subsets=subsets, seed=seed))
        at_init = rows[rows["method"].isin(PAI_METHODS)]
        facts = {
            "rows": len(rows),
            "methods": sorted(rows["method"].unique()),
            "models": sorted(rows["model"].unique()),
            "datasets": sorted(rows["dataset"].unique()),
            "sparsities": sorted(rows["sparsity"].unique().tolist()),
            "subsets": subsets,
            "seed": seed,
            "parameters": {**PARAMETERS, "rounds": ROUNDS},
            "versions": versions(),
            "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        }
        return cls(
            model_text=text,
            metrics=tuple(metrics),
            kinds=tuple(kinds),
            mean_ranks=mean_ranks(at_init if len(at_init) else rows),
            provenance=json_ready(facts | dict(provenance or {})),
        )

    @property
    def feature_names(self) -> list[str]:
        """The columns that `predict` expects, in this order."""
        return ["sparsity", *(f"{kind}_{metric}" for kind in self.kinds for metric in self.metrics)]

    def features(self, rows: "pandas.DataFrame", group: Sequence[str] = ()) -> "pandas.DataFrame":
        """`group_features` with this ranker's metrics and kinds; all rows are one group unless told."""
        return group_features(rows, self.metrics, group=group, kinds=self.kinds)

    def predict(self, features: "pandas.DataFrame") -> np.ndarray:  # (rows,), float64
        """The predicted accuracy in units of the group's standard deviation; higher is better.

        Raises:
            RankingError: a feature column is missing.
        """
        if missing := [name for name in self.feature_names if name not in features.columns]:
            raise RankingError(
                f"the ranker needs the feature {missing[0]!r}; got {', '.join(features.columns)}"
            )
        values = features[self.feature_names].to_numpy("float64")
        return np.asarray(self._booster.predict(values, num_threads=1), dtype="float64")

    def save(self, path: str | Path) -> None:
        """Write a JSON file. Raises RankingError where it cannot be written."""
        document = {
            "format": FORMAT,
            "provenance": self.provenance,
            "metrics": self.metrics,
            "kinds": self.kinds,
            "mean_ranks": self.mean_ranks,
            "model": self.model_text.splitlines(),
        }
        try:
            Path(path).write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        except OSError as error:
            raise RankingError(f"{path}: the ranker cannot be written ({error})") from error

    @classmethod
    def load(cls, path: str | Path) -> "Ranker":
        """Read what `save` wrote. Nothing in the file is run, and the trees are checked before they are used.

        Raises:
            RankingError: there is no such file, or it is truncated, damaged or no ranker.
        """
        try:
            with Path(path).open("rb") as file:
                content = file.read(_LARGEST_FILE + 1)
        except OSError as error:
            raise RankingError(f"{path}: the ranker cannot be read ({error.strerror or error})") from error
        if len(content) > _LARGEST_FILE:
            raise RankingError(f"{path}: is larger than {_LARGEST_FILE >> 20} MiB, which no ranker is")
        try:
            return _from_document(json.loads(content))
        except RankingError as error:
            raise RankingError(f"{path}: is not a usable ranker: {error}") from error
        except (ValueError, RecursionError) as error:
            raise RankingError(
                f"{path}: is not a ranker, or is truncated ({type(error).__name__}: {error}); fit one with "
                "python -m mge_gpu.ranking.fit"
            ) from error

    @cached_property
    def _booster(self) -> Any:
        lightgbm = require("lightgbm", "rank", "ranking pruning methods")
        return lightgbm.Booster(model_str=self.model_text)


def restricted(table: "pandas.DataFrame", methods: Sequence[str] | None) -> "pandas.DataFrame":
    """The rows of these methods; RankingError where the table does not know one of them."""
    if methods is None:
        return table
    known = table["method"].unique().tolist()
    if unknown := [name for name in methods if name not in known]:
        raise RankingError(f"the table has no method {unknown[0]!r}; it has {', '.join(sorted(known))}")
    return table[table["method"].isin(list(methods))]


def versions() -> dict[str, str]:
    """The versions of what a fit depends on."""
    packages = ("lightgbm", "pandas", "numpy")
    return {
        "python": platform.python_version(),
        "mge_gpu": __version__,
        **{package: metadata.version(package) for package in packages},
    }


def _from_document(document: Any) -> Ranker:
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise RankingError(f"expected a JSON object with format {FORMAT!r}")
    metrics, kinds = _strings(document, "metrics", tuple(PUBLISHED)), _strings(document, "kinds", KINDS)
    lines = _strings(document, "model", None)
    ranks, provenance = document.get("mean_ranks"), document.get("provenance")
    if not isinstance(provenance, dict):
        raise RankingError("'provenance' must be an object")
    if not isinstance(ranks, dict) or not all(_is_rank_row(row) for row in ranks.values()):
        raise RankingError("'mean_ranks' must map methods to sparsities to ranks from 1 on")
    ranker = Ranker("\n".join(lines) + "\n", metrics, kinds, ranks, provenance)
    check_model_text(ranker.model_text, ranker.feature_names)
    return ranker


def _is_rank_row(row: Any) -> bool:
    if not isinstance(row, dict) or not row:
        return False
    numbers = all(isinstance(rank, int | float) and not isinstance(rank, bool) for rank in row.values())
    return numbers and all(rank >= 1 and 0 <= float(sparsity) < 1 for sparsity, rank in row.items())


def _strings(document: dict[str, Any], name: str, allowed: tuple[str, ...] | None) -> tuple[str, ...]:
    value = document.get(name)
    if not isinstance(value, list) or not value or not all(isinstance(part, str) for part in value):
        raise RankingError(f"{name!r} must be a list of strings")
    if allowed is not None and (set(value) - set(allowed) or len(set(value)) < len(value)):
        raise RankingError(
            f"{name!r} must hold each of {', '.join(allowed)} at most once; got {', '.join(value)}"
        )
    return tuple(value)
