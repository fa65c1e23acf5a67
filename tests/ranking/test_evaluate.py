"""Leave one architecture out."""

from pathlib import Path

import pandas as pd
import pytest

from mge_gpu.errors import RankingError
from mge_gpu.ranking.evaluate import evaluate, summary
from mge_gpu.ranking.fit import main
from mge_gpu.ranking.ranker import Ranker
from mge_gpu.ranking.table import PAI_METHODS, load_table


@pytest.fixture
def table(table_path: Path) -> pd.DataFrame:
    return load_table(table_path)


def test_topology_that_decides_is_found_and_a_mean_rank_that_says_nothing_is_not(table: pd.DataFrame) -> None:
    found = evaluate(table, subsets=0)
    assert len(found) == 3 * 4
    assert set(found["model"]) == {"a", "b", "c"}
    assert (found["candidates"] == 6).all()
    scores = summary(found)
    assert scores["tau"] > 0.85
    assert scores["rbo"] > 0.95
    assert scores["baseline_tau"] < 0.4


def test_an_unseen_architecture_is_not_learned_from(
    table: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    fit = Ranker.fit.__func__  # type: ignore[attr-defined]

    def spy(cls: type[Ranker], rows: pd.DataFrame, *args: object, **options: object) -> Ranker:
        seen.append(set(rows["model"]))
        return fit(cls, rows, *args, **options)

    monkeypatch.setattr(Ranker, "fit", classmethod(spy))
    evaluate(table, subsets=0)
    assert seen == [{"b", "c"}, {"a", "c"}, {"a", "b"}]


def test_the_baseline_wins_where_methods_are_always_ranked_alike(table: pd.DataFrame) -> None:
    place = {"erk": 0.9, "grasp": 0.8, "rigl": 0.7, "snip": 0.6, "synflow": 0.5, "uniform": 0.4}
    found = evaluate(table.assign(accuracy=table["method"].map(place)), subsets=0)
    assert found["baseline_tau"].min() == pytest.approx(1)
    assert found["baseline_rbo"].min() == pytest.approx(1)


def test_only_the_methods_asked_for_are_ordered(table: pd.DataFrame) -> None:
    found = evaluate(table, ["erk", "snip", "uniform"], subsets=0)
    assert (found["candidates"] == 3).all()
    with pytest.raises(RankingError, match="no method 'magnitude'"):
        evaluate(table, ["erk", "magnitude"])


def test_one_architecture_or_one_method_is_too_little(table: pd.DataFrame) -> None:
    with pytest.raises(RankingError, match="at least 2 architectures"):
        evaluate(table[table["model"] == "a"])
    with pytest.raises(RankingError, match="2 methods"):
        evaluate(table, ["erk"])


def test_the_command_fits_and_saves(
    table_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "fitted.json"
    assert main(["--table", str(table_path), "--out", str(out), "--subsets", "1"]) == 0
    fitted = Ranker.load(out)
    assert fitted.provenance["rows"] == 216
    assert "--subsets 1" in fitted.provenance["command"]
    assert str(tmp_path) not in out.read_text()
    assert "6 methods (all methods), as shipped" in fitted.provenance["evaluation"]
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


def test_on_the_published_table_topology_beats_the_mean_rank(published: Path) -> None:
    table = load_table(published)
    everything = summary(evaluate(table, subsets=0))
    assert everything["settings"] == 60
    assert everything["tau"] >= 0.60
    assert everything["rbo"] > everything["baseline_rbo"] + 0.01
    assert everything["baseline_tau"] == pytest.approx(0.538, abs=0.005)
    at_init = summary(evaluate(table, PAI_METHODS))
    assert at_init["tau"] >= 0.42
    assert at_init["rbo"] >= 0.83
