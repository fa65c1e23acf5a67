"""Choosing settings by leaving one architecture out, and calibrating the chances on what was left out."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np

from mge_gpu.errors import RankingError
from mge_gpu.metrics.report import json_ready
from mge_gpu.ranking.agreement import compare
from mge_gpu.ranking.features import GROUP
from mge_gpu.ranking.pairs import win_shares
from mge_gpu.ranking.ranker import Ranker, log_odds
from mge_gpu.ranking.table import PAI_METHODS
from mge_gpu.ranking.training import DEFAULTS, WITHOUT_LAYERS, Settings, default_settings

if TYPE_CHECKING:
    import pandas

GRID = (DEFAULTS, replace(DEFAULTS, linear=0.2), WITHOUT_LAYERS)
"""The settings that are chosen from where the layers are known; see `grid_for`."""

TEMPERATURES = tuple(np.geomspace(0.2, 3, 28).tolist())


@dataclass
class Fits:
    """Rankers fitted to a table without some values of a column, each fitted once.

    Attributes:
        table: as `load_table` gives it.
        column: what is left out.
        seed: for LightGBM's bagging.
    """

    table: "pandas.DataFrame"
    column: str = "model"
    seed: int = 0
    _known: dict[Any, Ranker] = field(default_factory=dict, repr=False)
    _scores: dict[Any, float] = field(default_factory=dict, repr=False)

    def score(self, settings: Settings, value: Any, without: Sequence[Any] = ()) -> float:
        """How well a ranker that has seen neither this value of the column nor those orders this one.

        The mean of tau and rank-biased overlap over settings, for all methods and for those that prune at
        initialization, weighted alike.
        """
        key = (settings, value, frozenset(without))
        if key not in self._scores:
            rows = self.table[self.table[self.column] == value]
            ranker = self.ranker(settings, (*without, value))
            scores = []
            for part in (rows, rows[rows["method"].isin(PAI_METHODS)]):
                found = compare(ranker, part, lambda rows: np.zeros(len(rows)))
                if len(found):
                    scores.append(found[["kendall_tau", "rbo"]].mean().mean())
            self._scores[key] = float(np.mean(scores))
        return self._scores[key]

    @property
    def values(self) -> list[Any]:
        """The values of the column."""
        return sorted(self.table[self.column].unique().tolist())

    def ranker(self, settings: Settings, without: Sequence[Any]) -> Ranker:
        """The ranker fitted to the rows without these values of the column."""
        parts = []
        for view in settings.views:
            # Weights play no part in the fit.
            one = replace(settings, views=(view,), linear=0.0, linear_far=0.0, fallback=0.0)
            key = (one, frozenset(without))
            if key not in self._known:
                rows = self.table[~self.table[self.column].isin(without)]
                self._known[key] = Ranker.fit(rows, seed=self.seed, settings=one)
            parts.append(self._known[key])
        trees = {view: text for part in parts for view, text in part.trees.items()}
        facts = {**parts[0].provenance, "settings": json_ready(asdict(settings))}
        shares = (settings.linear, settings.linear_far)
        return replace(parts[0], trees=trees, shares=shares, fallback=settings.fallback, provenance=facts)

    def subsets(self) -> Iterator[tuple[Any, ...]]:
        """Every choice of values to leave out that leaves out one and leaves one in."""
        for size in range(len(self.values) - 1, 0, -1):
            yield from combinations(self.values, size)


@dataclass(frozen=True)
class Choice:
    """What `tune` found: the settings, the temperature, and the score of every alternative."""

    settings: Settings
    temperature: float
    scores: dict[Settings, float]


def grid_for(table: "pandas.DataFrame") -> tuple[Settings, ...]:
    """`GRID`, or `WITHOUT_LAYERS` alone where the table has no layers."""
    return GRID if default_settings(table) == DEFAULTS else (WITHOUT_LAYERS,)


def tune(fits: Fits, grid: Sequence[Settings] = GRID, without: Sequence[Any] = ()) -> Choice:
    """Choose settings by leaving one value out of those that remain, in turn.

    The score is the mean of `Fits.score`. With only one value left there is nothing to choose by: the first
    of the grid is taken, at temperature 1.

    Args:
        fits: what to learn from.
        grid: what to choose from; the first of the best is taken.
        without: values that play no part at all.
    """
    if not grid:
        raise RankingError("tuning needs at least one choice of settings, got none")
    inside = [value for value in fits.values if value not in without]
    if len(inside) < 2:
        return Choice(grid[0], 1.0, {})
    scores = {
        settings: float(np.mean([fits.score(settings, value, without) for value in inside]))
        for settings in (grid if len(grid) > 1 else ())
    }
    best = max(grid, key=lambda settings: scores.get(settings, 0.0))
    return Choice(best, _temperature(fits, best, inside, without), scores)


def _temperature(fits: Fits, settings: Settings, inside: list[Any], without: Sequence[Any]) -> float:
    """The temperature at which the log-loss of the chances is least on what was left out."""
    chances, wins = [], []
    for value in inside:
        rows = fits.table[fits.table[fits.column] == value]
        first, second, chance = fits.ranker(settings, (*without, value)).chances(rows, GROUP)
        chances.append(chance)
        wins.append(win_shares(rows, first, second))
    odds, target = log_odds(np.concatenate(chances)), np.concatenate(wins)
    losses = [np.mean(np.logaddexp(0, t * odds) - target * t * odds) for t in TEMPERATURES]
    return TEMPERATURES[int(np.argmin(losses))]
