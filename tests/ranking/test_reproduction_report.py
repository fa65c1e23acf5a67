"""The report: verdicts by their rules, and end to end on tables whose answer is known."""

import json
import re
from pathlib import Path

import pytest

import mge_gpu.ranking
from mge_gpu.errors import MissingDependencyError, RankingError
from mge_gpu.ranking import Reproduction
from mge_gpu.ranking.reproduction.markdown import agrees, number, ranged
from mge_gpu.ranking.reproduction.rankings import rankings
from mge_gpu.ranking.reproduction.regression import density_correlations, regressions
from mge_gpu.ranking.reproduction.tables import RAMANUJAN, load
from mge_gpu.ranking.reproduction.verdicts import Part, Verdict, count_answer, verdict_a, verdict_c
from mge_gpu.ranking.table import PAI_METHODS
from tests.ranking.published_folder import tables, write
from tests.test_cli import run

pytest.importorskip("lightgbm")
pytest.importorskip("scipy")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("published") / "t", tables())


@pytest.fixture(scope="module")
def shares() -> list[float]:
    return []


@pytest.fixture(scope="module")
def found(folder: Path, shares: list[float]) -> Reproduction:
    return mge_gpu.ranking.reproduce(folder, ranker=False, progress=lambda text, share: shares.append(share))


def test_answers_to_counts() -> None:
    above, around, below = (0.1, 1.0), (-1.0, 1.0), (-1.0, -0.1)
    assert count_answer([1, 1], [above, above])[0] == "borne out"
    assert count_answer([1, 1], [above, around])[0] == "borne out"
    assert count_answer([1, 1, 1], [above, around, around])[0] == "cannot tell"
    assert count_answer([1, 1, -1], [above, above, below])[0] == "cannot tell"
    assert count_answer([1, -1], [around, around])[0] == "not borne out"
    assert count_answer([1, 1, 1, -1], [around, around, around, below])[0] == "not borne out"
    assert count_answer([], [])[0] == "cannot tell"


@pytest.mark.parametrize(
    ("answers", "whole"),
    [
        (["borne out", "borne out"], "borne out"),
        (["borne out", "not borne out"], "partly borne out"),
        (["borne out", "cannot tell"], "partly borne out"),
        (["not borne out", "cannot tell"], "not borne out"),
        (["cannot tell", "cannot tell"], "cannot tell"),
    ],
)
def test_the_answer_to_a_claim(answers: list[str], whole: str) -> None:
    assert Verdict("a", "", tuple(Part("", answer, "") for answer in answers)).answer == whole  # type: ignore[arg-type]


def test_signs_and_numbers() -> None:
    assert agrees(1.0, (0.5, 2.0), 1) == agrees(-1.0, (-2.0, -0.5), -1) == "yes"
    assert agrees(1.0, (0.5, 2.0), -1) == "no"
    assert agrees(1.0, (-0.5, 2.0), 1) == agrees(float("nan"), (0.5, 1.0), 1) == "cannot tell"
    assert agrees(1.0, (0.5, 2.0), 0) == ""
    assert number(None) == number(float("inf")) == ranged(float("nan"), (0, 1)) == "-"


def test_tables_made_to_bear_a_claim_out_do(found: Reproduction) -> None:
    a, b, c = found.verdicts
    parts = {part.statement: part.answer for part in a.parts}
    for rival in ("rolled topometrics", "rolled-channel topometrics", "Ramanujan metrics", "layer density"):
        assert parts[f"MGE topometrics predict the accuracy drop better than {rival}"] == "borne out"
    bounds = ("borne out", "borne out", "not borne out")
    assert tuple(parts[f"{metric} mostly follows layer density"] for metric in RAMANUJAN) == bounds
    assert b.answer == "cannot tell"  # too few networks
    assert c.answer != "borne out"  # one metric decides; a mixture cannot be better
    assert found.networks["networks"] == 72
    assert found.networks["networks pruned at initialization"] == 60


def test_the_opposite_is_said_of_tables_made_to_the_opposite(tmp_path: Path) -> None:
    content = tables()
    mge, rolled = content["mge_topometrics.csv.gz"], content["bge_rolled_layers.csv.gz"]
    core = dict(zip(mge["accuracy"], mge["k-core"], strict=True))
    rolled["coreness_all"] = rolled["accuracy"].map(core)
    mge["k-core"] = 1.0
    loaded = load(write(tmp_path / "t", content))
    gains = regressions(loaded)[1]
    parts = {p.statement: p for p in verdict_a(gains, density_correlations(loaded)).parts}
    part = parts["MGE topometrics predict the accuracy drop better than rolled topometrics"]
    assert part.answer == "not borne out"
    assert part.evidence.startswith("better in 0 of 8 comparisons")


def test_the_documents_hold_everything(found: Reproduction) -> None:
    document = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert [verdict["claim"] for verdict in document["verdicts"]] == ["a", "b", "c"]
    assert len(document["figures"]["regression"]) == len(found.frames["regression"])
    text = found.markdown()
    for verdict in found.verdicts:
        assert f"## ({verdict.claim}) {verdict.answer}" in text
        assert all(part.evidence in text for part in verdict.parts)
    assert all(oddity.what in text for oddity in found.oddities)
    assert "stand-in" in text
    assert not re.search(r"(?<!-)\b(nan|inf)\b", text)
    lines = text.splitlines()
    heads = [number for number, line in enumerate(lines) if line.startswith("| --- ")]
    assert len(heads) > 10
    for head in heads:
        assert lines[head].count("|") == lines[head - 1].count("|") == lines[head + 1].count("|")


def test_progress_only_grows(found: Reproduction, shares: list[float]) -> None:
    assert shares == sorted(shares)
    assert shares[0] == 0
    assert 0.5 < shares[-1] <= 1


def test_the_command_writes_its_files_and_prints_one_object(
    found: Reproduction, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mge_gpu.ranking, "reproduce", lambda table, **options: found)
    result = run("reproduce", "--table", tmp_path, "--out", tmp_path / "out", "--json")
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert document["verdicts"][0]["claim"] == "a"
    assert document["files"][:2] == ["report.md", "report.json"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(document["files"])
    for name in document["files"][2:]:  # none where matplotlib is not installed
        assert (tmp_path / "out" / name).read_bytes()[:4] == b"\x89PNG"
    assert json.loads((tmp_path / "out" / "report.json").read_text())["verdicts"] == document["verdicts"]
    assert (tmp_path / "out" / "report.md").read_text() == found.markdown()
    text = run("reproduce", "--table", tmp_path)
    assert text.exit_code == 0
    for verdict in found.verdicts:
        assert f"({verdict.claim}) {verdict.answer}: " in text.stdout


def test_without_matplotlib_there_are_no_pictures(
    found: Reproduction, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*arguments: object) -> None:
        raise MissingDependencyError("no matplotlib")

    monkeypatch.setattr("mge_gpu.plots_reproduction.require", missing)
    monkeypatch.setattr(mge_gpu.ranking, "reproduce", lambda table, **options: found)
    result = run("reproduce", "--table", tmp_path, "--out", tmp_path / "out")
    assert result.exit_code == 0
    assert "no plots: matplotlib is not installed" in result.stderr
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["report.json", "report.md"]


def test_bad_tables_are_said_in_one_line(tmp_path: Path) -> None:
    result = run("reproduce", "--table", tmp_path)
    assert result.exit_code == 1
    assert result.stderr.startswith("error: ")
    assert len(result.stderr.strip().splitlines()) == 1
    assert run("reproduce").exit_code == 2
    content = tables()
    for frame in content.values():
        for column in {"pruning", "pruning_algorithm"} & set(frame):
            frame[column] = frame[column].replace(dict.fromkeys(PAI_METHODS, "set"))
    content["mge_topometrics.csv.gz"] = content["mge_topometrics.csv.gz"].query("pruning == 'rigl'")
    with pytest.raises(RankingError, match="no network is pruned by one of snip"):
        mge_gpu.ranking.reproduce(write(tmp_path / "t", content))


def test_on_the_published_tables(published: Path) -> None:
    """Everything but all-method regressions, importances and the ranker, which would take minutes."""
    loaded = load(published)
    counts = [(oddity.count, oddity.of) for oddity in loaded.oddities]
    for known in ((47, 1979), (1485, 46392), (5610, 46392), (43, 1975), (42, 1975), (74, 46392), (90, 46318)):
        assert known in counts
    assert len(loaded.networks) == 1932
    pai = loaded.restricted(PAI_METHODS)
    _, gains = regressions(pai)
    claim = verdict_a(gains, density_correlations(pai))
    answers = {part.statement: part.answer for part in claim.parts}
    assert answers["MGE topometrics predict the accuracy drop better than Ramanujan metrics"] == "borne out"
    assert (
        answers["MGE topometrics predict the accuracy drop better than rolled topometrics"] == "not borne out"
    )
    assert answers["degree_bound mostly follows layer density"] == "borne out"
    assert answers["iterative_spectral_gap mostly follows layer density"] == "not borne out"
    figures, differences = rankings(loaded, ranker=False)
    assert verdict_c(differences).answer == "borne out"
    tau = figures.set_index(["family", "score"])["kendall_tau"]
    assert tau["no topology", "mean rank on the others"] == pytest.approx(0.28, abs=0.01)
    assert tau["ceiling", "one seed against the others"] == pytest.approx(0.71, abs=0.01)
