"""Do settings tuned by Optuna order pruning methods better than those that are shipped?

    python benchmarks/ranker_tuning.py --table DIR [--trials 40] [--out FILE]

Nested: for each architecture of the table, trees and linear model are tuned by Optuna's TPE on the scores of
`Fits.score` within the *other* architectures (fitted to all but one of them, tested on that one), and the
best settings are then scored on the architecture that was left out. Prints one JSON object. A trial takes
some ten seconds of one core; the first ones are the same for all folds, which share their fits.

Needs optuna, which nothing else here does: ``pip install optuna``.
"""

import argparse
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import optuna
import pandas

from mge_gpu.ranking.agreement import compare, summary
from mge_gpu.ranking.evaluate import baseline_ranks, method_sets
from mge_gpu.ranking.ranker import restricted
from mge_gpu.ranking.table import load_table
from mge_gpu.ranking.training import DEFAULTS, Settings
from mge_gpu.ranking.tuning import Fits, tune

VIEWS = (
    "differences,places,robust",
    "densities",
    "channels",
    "densities,channels",
    "densities,robust",
    "densities,differences",
    "densities,channels,places",
)
SPACE: dict[str, tuple[Any, ...]] = {
    "views": VIEWS,
    "leaves": (15, 31, 63, 127),
    "rounds": (100, 200, 300),
    "learning_rate": (0.03, 0.05, 0.08),
    "lambda_l2": (1.0, 5.0, 20.0),
    "feature_fraction": (0.4, 0.6, 0.8, 1.0),
    "leaf_pairs": (10, 30, 60),
    "linear": (0.0, 0.1, 0.2, 0.3, 0.4),
    "penalty": (0.02, 0.07, 0.2),
}
"""What is chosen from. Few values each, so that trials share fits."""

SHARED = 4
"""Trials before TPE has enough to go by; they are drawn alike in each fold."""


def settings_of(chosen: dict[str, Any]) -> Settings:
    """The settings of one trial."""
    views = tuple(chosen["views"].split(","))
    return replace(DEFAULTS, **{**chosen, "views": views, "linear_far": max(0.5, chosen["linear"])})


def best(fits: Fits, without: str, trials: int) -> tuple[Settings, float]:
    """The settings with the best mean score within the other architectures, and that score."""
    inside = [value for value in fits.values if value != without]

    def objective(trial: optuna.Trial) -> float:
        chosen = {name: trial.suggest_categorical(name, values) for name, values in SPACE.items()}
        return sum(fits.score(settings_of(chosen), value, (without,)) for value in inside) / len(inside)

    sampler = optuna.samplers.TPESampler(seed=0, n_startup_trials=SHARED)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    study.enqueue_trial({name: getattr(DEFAULTS, name) for name in SPACE} | {"views": "densities,channels"})
    study.optimize(objective, trials)
    return settings_of(study.best_params), study.best_value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--table", required=True, help="the folder of the published tables")
    parser.add_argument("--trials", type=int, default=40, help="for each fold (default: 40)")
    parser.add_argument("--out", type=Path, help="JSON file")
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)

    table = load_table(options.table)
    fits, folds = Fits(table), []
    orders: dict[str, list[pandas.DataFrame]] = {name: [] for name in method_sets(table)}
    for value in fits.values:
        settings, score = best(fits, value, options.trials)
        choice = tune(fits, (settings,), without=(value,))
        ranker = replace(fits.ranker(settings, (value,)), temperature=choice.temperature)
        for name, methods in method_sets(table).items():
            rows = restricted(table, methods)
            there = rows["model"] == value
            orders[name].append(compare(ranker, rows[there], baseline_ranks(rows[~there])))
        folds.append({"left_out": value, "inner_score": round(score, 4), "settings": asdict(settings)})
    outer = {name: summary(pandas.concat(parts, ignore_index=True)) for name, parts in orders.items()}
    text = json.dumps(
        {"optuna": optuna.__version__, "trials": options.trials, "folds": folds, "outer": outer}
    )
    print(text)
    if options.out:
        options.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
