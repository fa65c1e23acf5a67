"""A fitted ranker: models of pairs, what they were fitted on, and the baseline that they have to beat."""

import datetime
import json
import math
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import expit, logit

from mge_gpu import __version__
from mge_gpu._optional import require
from mge_gpu.errors import RankingError
from mge_gpu.metrics.profile import PROFILE_KEYS
from mge_gpu.metrics.report import json_ready
from mge_gpu.ranking.features import (
    GROUP,
    LAYER_FEATURES,
    METRICS,
    group_codes,
    group_medians,
    topology_features,
)
from mge_gpu.ranking.linear import Linear
from mge_gpu.ranking.model_text import check_model_text
from mge_gpu.ranking.pairs import (
    VIEWS,
    columns_of,
    group_pairs,
    mean_chances,
    pair_features,
    reversed_pairs,
)
from mge_gpu.ranking.table import PAI_METHODS
from mge_gpu.ranking.training import (
    PARAMETERS,
    Settings,
    default_settings,
    fit_pairs,
    known_values,
    mean_ranks,
    mean_shares,
)

if TYPE_CHECKING:
    import pandas

FORMAT = "mge_gpu ranker 3"
_LARGEST_FILE = 16 * 2**20  # bytes; the shipped file is far smaller
_DEPTH = 1.0
"""How far below the sparsest group (in the log of the mean degree) a group is wholly out of depth."""


@dataclass(frozen=True)
class Ranker:
    """Says how likely one candidate is to train to a better accuracy than another, from their topometrics.

    Attributes:
        trees: view (see `mge_gpu.ranking.pairs.VIEWS`) -> trees in LightGBM's text format.
        linear: the linear model beside them.
        shares: the weight of ``linear`` in the log-odds within the ranker's depth and far out of it.
        temperature: what the log-odds are multiplied by, so that chances are calibrated on architectures
            that were not learned from; 1 leaves them as they are.
        fallback: the largest weight of the baseline, see `chances`.
        least_degree: the log of the mean degree of the sparsest group that was learned from.
        mean_shares: method -> sparsity -> mean share of the other methods that it beats, under the table's
            names: the baseline without topology, to fall back on.
        mean_ranks: method -> sparsity -> mean rank (1 is best) among the pruning-at-initialization methods of
            the table: the same baseline, to show.
        provenance: what the models were fitted on and how; JSON types only.
    """

    trees: Mapping[str, str] = field(repr=False)
    linear: Linear = field(repr=False)
    shares: tuple[float, float]
    temperature: float
    fallback: float
    least_degree: float
    mean_shares: Mapping[str, Mapping[str, float]] = field(repr=False)
    mean_ranks: Mapping[str, Mapping[str, float]] = field(repr=False)
    provenance: Mapping[str, Any] = field(repr=False)

    @property
    def metrics(self) -> tuple[str, ...]:
        """The columns that candidates must have: topometrics, and `PROFILE_KEYS` where a view has them."""
        layers = any(name in LAYER_FEATURES for view in self.trees for name in VIEWS[view])
        return (*METRICS, *PROFILE_KEYS) if layers else METRICS

    @classmethod
    def fit(
        cls,
        table: "pandas.DataFrame",
        methods: Sequence[str] | None = None,
        seed: int = 0,
        *,
        settings: Settings | None = None,
        temperature: float = 1.0,
        provenance: Mapping[str, Any] | None = None,
    ) -> "Ranker":
        """Fit to a table of trained networks. The same table and seed give the same ranker.

        Args:
            table: as `load_table` gives it.
            methods: the methods to learn from; None takes all in the table.
            seed: for LightGBM's bagging.
            settings: see `Settings`; None takes `default_settings` of the table.
            temperature: see `Ranker`; `mge_gpu.ranking.tuning.tune` finds it.
            provenance: facts to record besides those that are known here.

        Raises:
            RankingError: a method is unknown, or the table holds nothing to learn from.
        """
        rows = restricted(table, methods)
        settings = settings or default_settings(table)
        at_init = rows[rows["method"].isin(PAI_METHODS)]
        facts = {
            "rows": len(rows),
            "methods": sorted(rows["method"].unique()),
            "models": sorted(rows["model"].unique()),
            "datasets": sorted(rows["dataset"].unique()),
            "sparsities": sorted(rows["sparsity"].unique().tolist()),
            "seed": seed,
            "settings": asdict(settings),
            "parameters": dict(PARAMETERS),
            "versions": versions(),
            "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        }
        medians = group_medians(topology_features(rows), group_codes(rows, GROUP))
        trees, linear = fit_pairs(rows, settings, seed)
        return cls(
            trees=trees,
            linear=linear,
            shares=(settings.linear, settings.linear_far),
            temperature=temperature,
            fallback=settings.fallback,
            least_degree=float(medians["degree"].min()),
            mean_shares=mean_shares(rows),
            mean_ranks=mean_ranks(at_init if len(at_init) else rows),
            provenance=json_ready(facts | dict(provenance or {})),
        )

    def chances(
        self, rows: "pandas.DataFrame", group: Sequence[str] = ()
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The chance that the first of two candidates of a group trains to a better accuracy than the second.

        The boosters' mean over both orders of the pair as log-odds, mixed with those of the linear model,
        times ``temperature``. Where a group is sparser than all that were learned from, `depth` says how
        far. There the linear model weighs more, since trees answer everything beyond their table as they
        answer its edge, and the chance is mixed with that of the baseline, (1 + s_first − s_second) / 2 for
        the two methods' ``mean_shares``, with a weight of up to ``fallback``; a pair with a method that the
        baseline does not know goes without. On the dense side topology holds up and the baseline does not,
        see docs/ranker.md, so nothing changes there.

        Args:
            rows: columns ``method``, ``sparsity`` and `metrics`, and those of ``group``.
            group: columns whose values are the same within a group; none makes all rows one group.

        Returns:
            first, second: (pairs,) row numbers, each pair in both orders; chances: (pairs,) float64.

        Raises:
            RankingError: a column is missing.
        """
        if missing := [name for name in self.metrics if name not in rows.columns]:
            raise RankingError(
                f"the ranker needs the column {missing[0]!r}; got {', '.join(map(str, rows.columns))}"
            )
        first, second = group_pairs(group_codes(rows, group))
        features = pair_features(rows, group, first, second)
        if not len(first):
            return first, second, np.empty(0)
        each = [
            booster.predict(features[:, columns_of(view)], num_threads=1)
            for view, booster in self.boosters.items()
        ]
        chance = np.mean(each, axis=0)
        trees = log_odds((chance + 1 - chance[reversed_pairs(first, second)]) / 2)
        depth = self.depth(rows, group)[first]
        share = self.linear_share(depth)
        chance = self.calibrated((1 - share) * trees + share * self.linear.odds(features))
        weight, baseline = self.baseline(rows, depth, first, second)
        return first, second, chance + weight * (baseline - chance)

    def linear_share(self, depth: np.ndarray) -> np.ndarray:  # (pairs,) -> (pairs,), float64
        """The weight of the linear model in the log-odds of pairs at a depth, see `depth`."""
        near, far = self.shares
        return near + (far - near) * depth

    def calibrated(self, odds: np.ndarray) -> np.ndarray:  # (pairs,) -> (pairs,), float64
        """Chances from log-odds, which are multiplied by ``temperature``."""
        return np.asarray(expit(self.temperature * odds))

    def baseline(
        self, rows: "pandas.DataFrame", depth: np.ndarray, first: np.ndarray, second: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """What `chances` falls back on: (pairs,) weights, and the chances that the baseline gives.

        Where it does not know a method, the weight is 0 and the chance 0.5.
        """
        known = known_values(self.mean_shares, rows)
        chance = (1 + known[first] - known[second]) / 2
        weight = np.where(np.isfinite(chance), self.fallback * depth, 0)
        return weight, np.nan_to_num(chance, nan=0.5)

    def predict(self, rows: "pandas.DataFrame", group: Sequence[str] = ()) -> np.ndarray:  # (rows,), float64
        """Each candidate's mean chance to beat another one of its group, see `chances`; higher is better."""
        first, _, chance = self.chances(rows, group)
        return mean_chances(len(rows), first, chance)

    def depth(self, rows: "pandas.DataFrame", group: Sequence[str] = ()) -> np.ndarray:  # (rows,), float64
        """How far out of its depth the ranker is: 0 where it has learned from groups as sparse, up to 1."""
        degree = group_medians(topology_features(rows), group_codes(rows, group))["degree"].to_numpy()
        return np.clip(np.nan_to_num((self.least_degree - degree) / _DEPTH), 0, 1)

    def save(self, path: str | Path) -> None:
        """Write a JSON file. Raises RankingError where it cannot be written."""
        document = {
            "format": FORMAT,
            "provenance": self.provenance,
            "linear": self.linear.to_dict(),
            "shares": list(self.shares),
            "temperature": self.temperature,
            "fallback": self.fallback,
            "least_degree": self.least_degree,
            "mean_shares": self.mean_shares,
            "mean_ranks": self.mean_ranks,
            "models": [
                {"view": view, "features": VIEWS[view], "trees": text.splitlines()}
                for view, text in self.trees.items()
            ],
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
    def boosters(self) -> dict[str, Any]:
        """View -> the ``lightgbm.Booster`` of its trees."""
        lightgbm = require("lightgbm", "rank", "ranking pruning methods")
        return {view: lightgbm.Booster(model_str=text) for view, text in self.trees.items()}


def log_odds(chance: np.ndarray) -> np.ndarray:  # (pairs,) -> (pairs,), float64
    """log(p / (1 - p)) of chances, at most 13.8 in size."""
    return np.asarray(logit(np.clip(chance, 1e-6, 1 - 1e-6)))


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
    provenance = document.get("provenance")
    if not isinstance(provenance, dict):
        raise RankingError("'provenance' must be an object")
    return Ranker(
        trees=_trees(document.get("models")),
        linear=Linear.from_dict(document.get("linear")),
        shares=_shares(document.get("shares")),
        temperature=_number(document, "temperature", 0, math.inf),
        fallback=_number(document, "fallback", 0, 1),
        least_degree=_number(document, "least_degree", -math.inf, math.inf),
        mean_shares=_by_method(document, "mean_shares", 0, 1),
        mean_ranks=_by_method(document, "mean_ranks", 1, math.inf),
        provenance=provenance,
    )


def _trees(models: Any) -> dict[str, str]:
    if not isinstance(models, list) or not models or not all(isinstance(model, dict) for model in models):
        raise RankingError("'models' must be a list of objects")
    found: dict[str, str] = {}
    for model in models:
        view, lines = model.get("view"), model.get("trees")
        if not isinstance(view, str) or view not in VIEWS or view in found:
            raise RankingError(f"'view' must be each of {', '.join(VIEWS)} at most once; got {view!r}")
        if model.get("features") != list(VIEWS[view]):
            raise RankingError(f"the features of {view!r} must be {', '.join(VIEWS[view])}")
        if not isinstance(lines, list) or not all(isinstance(line, str) for line in lines):
            raise RankingError("'trees' must be a list of strings")
        found[view] = "\n".join(lines) + "\n"
        check_model_text(found[view], VIEWS[view])
    return found


def _shares(value: Any) -> tuple[float, float]:
    if not isinstance(value, list) or len(value) != 2 or not all(_is_number(item, 0, 1) for item in value):
        raise RankingError("'shares' must be two numbers from 0 to 1")
    return float(value[0]), float(value[1])


def _is_number(value: Any, low: float, high: float) -> bool:
    real = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return real and low <= value <= high


def _number(document: dict[str, Any], name: str, low: float, high: float) -> float:
    value: Any = document.get(name)
    if not _is_number(value, low, high):
        raise RankingError(f"{name!r} must be a number from {low} to {high}")
    return float(value)


def _by_method(document: dict[str, Any], name: str, low: float, high: float) -> dict[str, dict[str, float]]:
    values = document.get(name)
    if not isinstance(values, dict) or not all(
        isinstance(row, dict)
        and row
        and all(_is_number(value, low, high) and 0 <= float(key) < 1 for key, value in row.items())
        for row in values.values()
    ):
        raise RankingError(f"{name!r} must map methods to sparsities to numbers from {low} to {high}")
    return values
