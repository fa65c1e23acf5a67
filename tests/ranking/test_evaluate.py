"""Leave one out, nested: what is learned, what is chosen, what is scored."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mge_gpu.errors import RankingError
from mge_gpu.metrics.profile import PROFILE_KEYS
from mge_gpu.ranking import agreement, evaluate, summary, transfer
from mge_gpu.ranking.agreement import SCORES, compare, intervals, seed_ceiling
from mge_gpu.ranking.evaluate import baseline_ranks, learning_curve, method_sets
from mge_gpu.ranking.features import GROUP
from mge_gpu.ranking.fit import main
from mge_gpu.ranking.ranker import Ranker
from mge_gpu.ranking.table import PAI_METHODS, load_table
from mge_gpu.ranking.training import DEFAULTS, WITHOUT_LAYERS, default_settings
from mge_gpu.ranking.tuning import GRID, Fits, grid_for, tune
from tests.ranking.conftest import QUICK

STUMPS = replace(QUICK, leaves=2, rounds=1)


def test_topology_that_decides_is_found_and_a_mean_rank_that_says_nothing_is_not(table: pd.DataFrame) -> None:
    found = evaluate(table, grid=[QUICK])
    assert len(found) == 3 * 4
    assert set(found["model"]) == {"a", "b", "c"}
    assert (found["candidates"] == 6).all()
    scores = summary(found)
    assert scores["groups"] == 12
    assert scores["kendall_tau"] > 0.85
    assert scores["rbo"] > 0.95
    assert scores["accuracy_lost"] < 1
    assert scores["baseline"]["kendall_tau"] < 0.4
    assert scores["difference"]["kendall_tau_interval"][0] > 0.4
    assert found["told_right"].mean() > 0.95
    assert found["brier"].mean() < 0.1


def test_nothing_of_what_is_left_out_is_learned_from_or_chosen_by(
    table: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each fit says what it saw: outer folds one architecture less, inner ones two."""
    seen = []
    fit = Ranker.fit.__func__  # type: ignore[attr-defined]

    def spy(cls: type[Ranker], rows: pd.DataFrame, *args: object, **options: object) -> Ranker:
        seen.append(frozenset(rows["model"]))
        return fit(cls, rows, *args, **options)

    monkeypatch.setattr(Ranker, "fit", classmethod(spy))
    evaluate(table, grid=[QUICK])
    assert sorted(map(sorted, seen)) == [["a"], ["a", "b"], ["a", "c"], ["b"], ["b", "c"], ["c"]]


def test_other_accuracies_of_what_is_left_out_change_neither_choice_nor_order(table: pd.DataFrame) -> None:
    grid = [STUMPS, QUICK]
    ours = tune(Fits(table), grid, without=["a"])
    scrambled = table.copy()
    inside = scrambled["model"] == "a"
    scrambled.loc[inside, "accuracy"] = np.random.default_rng(0).uniform(size=inside.sum())
    theirs = tune(Fits(scrambled), grid, without=["a"])
    assert ours == theirs
    assert ours.settings == QUICK  # one stump orders little
    assert ours.scores[QUICK] > ours.scores[STUMPS]


def test_the_folds_say_what_was_chosen(table: pd.DataFrame) -> None:
    found = evaluate(table, grid=[STUMPS, QUICK])
    assert [fold["left_out"] for fold in found.attrs["folds"]] == ["a", "b", "c"]
    for fold in found.attrs["folds"]:
        best = max(fold["inner_scores"], key=lambda entry: entry["score"])
        assert fold["settings"] == best["settings"]
        assert fold["temperature"] > 0


@pytest.mark.parametrize("column", ["sparsity", "dataset"])
def test_other_things_can_be_left_out(table: pd.DataFrame, column: str) -> None:
    rows = table.assign(dataset=np.where(table["seed"] == 0, "one", "two"))
    found = evaluate(rows, leave_out=column, grid=[QUICK])
    assert [fold["left_out"] for fold in found.attrs["folds"]] == sorted(rows[column].unique())
    assert len(found) == len(rows.groupby(["model", "dataset", "sparsity"]))
    with pytest.raises(RankingError, match="at least 2 of them"):
        evaluate(rows[rows[column] == rows[column].iloc[0]], leave_out=column)


def test_the_baseline_wins_where_methods_are_always_ranked_alike(table: pd.DataFrame) -> None:
    place = {"erk": 0.9, "grasp": 0.8, "rigl": 0.7, "snip": 0.6, "synflow": 0.5, "uniform": 0.4}
    found = evaluate(table.assign(accuracy=table["method"].map(place)), grid=[QUICK])
    assert found["baseline_kendall_tau"].min() == pytest.approx(1)
    assert found["baseline_rbo"].min() == pytest.approx(1)
    assert found["baseline_top1"].min() == 1
    assert found["baseline_accuracy_lost"].max() == 0


def test_only_the_methods_asked_for_are_ordered(table: pd.DataFrame) -> None:
    found = evaluate(table, ["erk", "snip", "uniform"], grid=[QUICK])
    assert (found["candidates"] == 3).all()
    with pytest.raises(RankingError, match="no method 'magnitude'"):
        evaluate(table, ["erk", "magnitude"])
    assert method_sets(table) == {
        "all 6 methods": ["erk", "grasp", "rigl", "snip", "synflow", "uniform"],
        "5 methods that prune at initialization": ["snip", "grasp", "synflow", "uniform", "erk"],
    }
    with pytest.raises(RankingError, match="2 methods"):
        evaluate(table, ["erk"])


def test_scores_of_one_setting_by_hand(table: pd.DataFrame) -> None:
    class Fixed:
        """Says that methods beat each other in alphabetical order, with a chance of 0.8."""

        def chances(self, rows: pd.DataFrame, group: object) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
            first, second = np.array([0, 0, 1, 1, 2, 2]), np.array([1, 2, 0, 2, 0, 1])
            return first, second, np.where(first < second, 0.8, 0.2)

        def depth(self, rows: pd.DataFrame, group: object) -> np.ndarray:
            return np.zeros(len(rows))

    rows = pd.DataFrame({"method": ["a", "b", "c"], "accuracy": [0.6, 0.7, 0.5]})
    rows = rows.assign(model="m", dataset="d", sparsity=0.9, seed=0)
    found = compare(Fixed(), rows, lambda rows: rows["accuracy"].to_numpy()).iloc[0]  # type: ignore[arg-type]
    assert found["kendall_tau"] == pytest.approx(1 / 3)
    assert found["rbo"] == pytest.approx(0.9**3 + 0.1 * (0 + 0.9 + 0.81))
    assert found["top1"] == 0
    assert found["accuracy_lost"] == pytest.approx(10)
    assert found["told_apart"] == 1
    assert found["told_right"] == pytest.approx(2 / 3)
    assert found["brier"] == pytest.approx((0.8**2 + 2 * 0.2**2) / 3)
    assert found["baseline_kendall_tau"] == found["baseline_rbo"] == found["baseline_top1"] == 1


def test_the_ceiling_by_hand() -> None:
    rows = pd.DataFrame(
        [("a", 0, 0.9), ("a", 1, 0.8), ("b", 0, 0.7), ("b", 1, 0.85), ("c", 0, 0.1)],
        columns=["method", "seed", "accuracy"],
    ).assign(model="m", dataset="d", sparsity=0.9)
    found = seed_ceiling(rows)
    assert found["seed"].tolist() == [0, 1]
    assert found["kendall_tau"].tolist() == [-1, -1]
    assert found["accuracy_lost"].tolist() == pytest.approx([5, 20])
    assert not len(seed_ceiling(rows[rows["seed"] == 0]))


def test_intervals_cover_the_mean_as_often_as_they_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agreement, "RESAMPLES", 300)
    random = np.random.default_rng(0)
    inside = 0
    for trial in range(200):
        found = pd.DataFrame({"x": random.normal(1.0, 1, 40)})
        low, high = intervals(found, ("x",), seed=trial)["x_interval"]
        inside += low <= 1 <= high
    assert 0.88 < inside / 200 < 0.98
    nothing = intervals(pd.DataFrame({"x": [np.nan]}), ("x",))
    assert nothing == {"x": None, "x_interval": None}


def test_the_learning_curve_leaves_out_what_it_predicts(table: pd.DataFrame) -> None:
    curve = learning_curve(Fits(table), QUICK, {"all": None})
    assert curve.groupby("learned").size().to_dict() == {1: 3 * 8, 2: 3 * 4}
    scores = curve.groupby("learned")["kendall_tau"].mean()
    assert scores[2] > 0.85


def test_from_one_table_to_another(table: pd.DataFrame) -> None:
    """New names, other sparsities, one seed, a missing method, missing metrics: what another study has."""
    train, test = table[table["model"] != "c"], table[(table["model"] == "c") & (table["seed"] == 1)]
    test = test.assign(
        method=test["method"].replace("snip", "new"), sparsity=test["sparsity"].replace({0.6: 0.5})
    )
    test = test[~((test["method"] == "erk") & (test["sparsity"] == 0.9))].copy()
    test.loc[test["method"] == "grasp", ["sink_nodes", "motifs"]] = np.nan
    found = transfer(train, test, settings=QUICK)
    assert sorted(found["candidates"]) == [5, 6, 6, 6]
    assert summary(found)["kendall_tau"] > 0.7
    assert found[list(SCORES)].notna().all().all()
    few = transfer(train, test, ["new", "rigl"], settings=QUICK)
    assert (few["candidates"] == 2).all()
    with pytest.raises(RankingError, match="two of the methods"):
        transfer(train, test, ["new"], settings=QUICK)


def test_layers_are_used_where_both_tables_know_them(table: pd.DataFrame) -> None:
    plain = table.drop(columns="bare_channels")
    assert default_settings(table) == DEFAULTS
    assert default_settings(table, plain) == default_settings(plain) == WITHOUT_LAYERS
    one_unknown = table["layer_density"].where(table.index != 3)
    assert default_settings(table, table.assign(layer_density=one_unknown)) == WITHOUT_LAYERS
    assert grid_for(table) == GRID and grid_for(plain) == (WITHOUT_LAYERS,)
    knows = Ranker.fit(table, settings=replace(DEFAULTS, rounds=2, leaves=3))
    assert set(PROFILE_KEYS) <= set(knows.metrics)
    with pytest.raises(RankingError, match="needs the column 'bare_channels'"):
        knows.predict(plain, GROUP)
    without = Ranker.fit(plain, settings=replace(WITHOUT_LAYERS, rounds=2, leaves=3))
    np.testing.assert_array_equal(without.predict(plain, GROUP), without.predict(table, GROUP))


def test_densities_that_decide_are_found(table: pd.DataFrame) -> None:
    """Without a word of the graph."""
    told = table.assign(accuracy=0.1 + 0.8 * table["late_density"])
    told = told.assign(accuracy=told.groupby(["model", "sparsity", "method"])["accuracy"].transform("mean"))
    found = evaluate(told, grid=[replace(QUICK, views=("densities",))])
    assert summary(found)["kendall_tau"] > 0.4
    assert summary(found)["difference"]["kendall_tau"] > 0.3


def test_a_method_without_a_past_stands_in_the_middle_of_the_baseline(table: pd.DataFrame) -> None:
    baseline = baseline_ranks(table)
    rows = pd.DataFrame({"method": ["erk", "new"], "sparsity": [0.9, 0.9]})
    assert baseline(rows).tolist() == [-baseline.ranks["erk"]["0.9"], -3.5]


def test_the_command_fits_and_saves(
    table_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mge_gpu.ranking.fit.grid_for", lambda table: (QUICK,))
    out = tmp_path / "fitted.json"
    assert main(["--table", str(table_path), "--out", str(out)]) == 0
    fitted = Ranker.load(out)
    assert fitted.provenance["rows"] == 216
    assert str(tmp_path) not in out.read_text()
    assert list(fitted.provenance["evaluation"]) == list(method_sets(load_table(table_path)))
    assert "tau" in capsys.readouterr().out


def test_the_command_says_what_is_wrong(
    table_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--table", str(tmp_path), "--out", str(tmp_path / "r.json")]) == 1
    assert "no such file" in capsys.readouterr().err
    assert main(["--table", str(table_path), "--out", str(tmp_path / "no" / "r.json")]) == 1
    assert "no folder" in capsys.readouterr().err
    with pytest.raises(SystemExit) as caught:
        main(["--table", str(table_path)])
    assert caught.value.code == 2


def test_on_the_published_table_one_unseen_architecture_is_ordered_better_than_by_mean_rank(
    published: Path,
) -> None:
    """One fold only: all of them, nested, take minutes and stand in the shipped ranker's provenance."""
    table = load_table(published)
    train, test = table[table["model"] != "CONV-6"], table[table["model"] == "CONV-6"]
    everything = summary(transfer(train, test, settings=replace(QUICK, leaves=31, rounds=150)))
    assert everything["groups"] == 15
    assert everything["kendall_tau"] >= 0.50
    assert everything["difference"]["kendall_tau_interval"][0] > 0.1
    at_init = summary(transfer(train, test, PAI_METHODS, settings=replace(QUICK, leaves=31, rounds=150)))
    assert at_init["difference"]["kendall_tau_interval"][0] > 0.1
