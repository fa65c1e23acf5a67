"""A study: the table's format, every combination once, going on, widening, failing networks, refusals."""

import json
from pathlib import Path

import pytest

import mge_gpu as mge
from mge_gpu.errors import TrainingError
from mge_gpu.ranking import table as published
from mge_gpu.ranking.table import load_table
from mge_gpu.training import Recipe, summary
from mge_gpu.training import study as run_study
from mge_gpu.training.cell import Cell, known_methods

pytest.importorskip("sklearn")
pandas = pytest.importorskip("pandas")

MLP = "mge:digits_mlp"
RECIPE = Recipe(epochs=1, learning_rate=0.05)


def small(out: Path, **changes):
    """Two methods at two sparsities with one seed, one epoch each."""
    asked = {
        "models": [MLP],
        "input_shape": (1, 8, 8),
        "methods": ["snip", "set"],
        "sparsities": [0.8, 0.9],
        "seeds": [0],
        "recipe": RECIPE,
        "options": {"set": {"interval": 5}},
    }
    return run_study(out=out, **{**asked, **changes})


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a study that is done."""
    out = tmp_path_factory.mktemp("study")
    small(out, metrics=["effective_nodes"] if "effective_nodes" in mge.metrics.METRIC_KEYS else ["nodes"])
    return out


def test_a_row_for_each_network_in_the_published_format(done: Path) -> None:
    table = load_table(done / "table.csv", sparsities=None)
    assert list(zip(table.method, table.sparsity, table.seed, strict=True)) == [
        ("snip", 0.8, 0), ("set", 0.8, 0), ("snip", 0.9, 0), ("set", 0.9, 0),
    ]  # fmt: skip
    assert set(table.model) == {MLP} and set(table.dataset) == {"digits"}
    assert table.accuracy.between(0.15, 1).all()  # one epoch
    assert set(published.PUBLISHED) <= set(table.columns)
    raw = pandas.read_csv(done / "table.csv")
    weights = 64 * 300 + 300 * 100 + 100 * 10
    assert (raw.weights == weights).all()
    assert (raw.kept_weights == (weights * (1 - raw.sparsity)).round()).all()
    assert (raw.collapsed_layers == 0).all()
    moved = raw.exploration_rate > (1 - raw.sparsity) + 0.01
    assert moved.tolist() == [False, True, False, True]


def test_topometrics_are_those_of_the_trained_network(tmp_path: Path) -> None:
    grown = small(tmp_path, methods=["erk"], sparsities=[0.9], options={})
    model = mge.models.digits_mlp()
    masks = mge.prune(model, "erk", 0.9, seed=0)
    expected = mge.topometrics(mge.encode(model, (1, 8, 8), masks=masks)).normalized()
    # The masks are the method's and the weights are trained: all but strength and spectra are as before.
    weighted = ("avg_node_strength", "spectral_gap", "spectral_radius")
    for column, value in expected.items():
        same = grown[column][0] == pytest.approx(value, rel=1e-9)
        assert same != (column in weighted), column


def test_what_is_there_is_not_made_again(done: Path) -> None:
    before = {file: file.stat().st_mtime_ns for file in (done / "runs").iterdir()}
    steps = []
    again = small(
        done,
        metrics=json.loads((done / "study.json").read_text())["metrics"],
        progress=lambda text, share: steps.append(text),
    )
    assert len(again) == 4 and not steps
    assert before == {file: file.stat().st_mtime_ns for file in (done / "runs").iterdir()}


def test_a_stopped_study_goes_on_and_can_be_widened(tmp_path: Path) -> None:
    def stop(text: str, share: float | None) -> None:
        if text.startswith("3 of"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        small(tmp_path, progress=stop)
    assert len(pandas.read_csv(tmp_path / "table.csv")) == 2
    steps = []
    whole = small(tmp_path, progress=lambda text, share: steps.append(text))
    assert {step.split(":")[0] for step in steps} == {"3 of 4", "4 of 4"}
    straight = small(tmp_path / "straight")
    same = [name for name in whole.columns if not name.endswith("seconds")]
    pandas.testing.assert_frame_equal(whole[same], straight[same])
    options = {"set": {"interval": 5}, "itop-set": {"interval": 5}}
    wider = small(tmp_path, methods=["snip", "set", "itop-set"], options=options)
    assert len(wider) == 6 and list(wider.pruning[:3]) == ["snip", "set", "itop-set"]


def test_workers_give_the_same_networks_up_to_rounding(tmp_path: Path, done: Path) -> None:
    alone = pandas.read_csv(done / "table.csv").query("pruning == 'set'").reset_index()
    shared = small(tmp_path, methods=["set"], workers=2)
    assert (alone.kept_weights == shared.kept_weights).all()
    # Another number of threads sums in another order.
    assert ((alone.accuracy - shared.accuracy).abs() < 0.05).all()


def test_a_network_that_fails_is_named_and_the_others_are_kept(tmp_path: Path) -> None:
    table = small(tmp_path, options={"set": {"interval": 5, "zeta": 2}}, sparsities=[0.9])
    assert table.pruning.tolist() == ["snip"]
    assert list(table.attrs["failed"]) == ["mge-digits_mlp-set-0.9-0"]
    assert "zeta" in table.attrs["failed"]["mge-digits_mlp-set-0.9-0"]


def test_collapsed_layers_are_counted(tmp_path: Path) -> None:
    table = small(tmp_path, methods=["magnitude", "synflow"], sparsities=[0.999], options={})
    assert table.kept_weights.tolist() == [50, 50]
    assert table.collapsed_layers[1] == 0


def test_summary_is_the_mean_over_seeds(tmp_path: Path) -> None:
    table = small(tmp_path, methods=["uniform"], options={}, seeds=[0, 1], sparsities=[0.9])
    (row,) = summary(table).to_dict("records")
    assert row["accuracy"] == pytest.approx(table.accuracy.mean())
    assert row["spread"] == pytest.approx(table.accuracy.std()) and row["networks"] == 2


REFUSED = {
    "no method": ({"methods": []}, "needs methods, got none"),
    "unknown method": ({"methods": ["snap"]}, "unknown method 'snap'"),
    "twice": ({"sparsities": [0.9, 0.9]}, "holds a value twice: 0.9, 0.9"),
    "sparsity": ({"sparsities": [1.0]}, r"in \[0, 1\)"),
    "seed": ({"seeds": [-1]}, "got -1"),
    "workers": ({"workers": 0}, "workers must be a positive integer, got 0"),
    "options": ({"methods": ["snip"]}, "options are given for 'set'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals(case: str, tmp_path: Path) -> None:
    changes, reason = REFUSED[case]
    with pytest.raises(TrainingError, match=reason):
        small(tmp_path / "new", **changes)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    "changes, key",
    [
        ({"recipe": Recipe(epochs=2)}, "recipe"),
        ({"input_shape": (3, 8, 8)}, "input_shape"),
        ({"options": {"set": {"interval": 6}}}, "options"),
        ({"data": "random"}, "data"),
    ],
)
def test_another_setting_needs_another_folder(done: Path, changes: dict, key: str) -> None:
    metrics = json.loads((done / "study.json").read_text())["metrics"]
    with pytest.raises(TrainingError, match=f"holds a study with {key} .*another folder"):
        small(done, metrics=metrics, **changes)


def test_a_damaged_row_is_named(tmp_path: Path) -> None:
    small(tmp_path, methods=["uniform"], options={}, sparsities=[0.9])
    (row,) = (tmp_path / "runs").iterdir()
    row.write_text(row.read_text()[:50])
    with pytest.raises(TrainingError, match=rf"{row.name}: cannot be read .*remove it"):
        small(tmp_path, methods=["uniform"], options={}, sparsities=[0.9])


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(TrainingError, match="file.*cannot be made"):
        small(tmp_path / "file")


def test_names_of_cells_are_names_of_files() -> None:
    names = {Cell(f"a.b:{x}/../c", method, 0.9, 0).name for x in "fg" for method in known_methods()}
    assert len(names) == 2 * len(known_methods()) and not any("/" in name for name in names)
