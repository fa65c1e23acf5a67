"""A study: many networks, pruned by several methods, trained and measured, as a table to fit a ranker on."""

import concurrent.futures
import concurrent.futures.process
import json
import multiprocessing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mge_gpu._files import write_whole
from mge_gpu._optional import require
from mge_gpu.errors import MGEError, TrainingError
from mge_gpu.metrics.report import json_ready
from mge_gpu.training.cell import Cell, Setting, checked_cells, grow
from mge_gpu.training.recipe import Recipe
from mge_gpu.training.train import Progress

if TYPE_CHECKING:
    import pandas

TABLE = "table.csv"
_SETTING = "study.json"


def study(
    models: Sequence[str],
    input_shape: Sequence[int],
    *,
    methods: Sequence[str],
    sparsities: Sequence[float],
    out: str | Path,
    seeds: Sequence[int] = (0, 1, 2),
    data: str = "digits",
    root: str | None = None,
    recipe: Recipe | None = None,
    metrics: Sequence[str] = (),
    options: Mapping[str, Mapping[str, Any]] | None = None,
    device: str = "cpu",
    workers: int = 1,
    progress: Progress | None = None,
) -> "pandas.DataFrame":
    """Prune, train, test and measure a network for each model, method, sparsity and seed.

    Each network's row is written under ``out`` as soon as it is there, and a network that is there already is
    not made again: a study that was stopped goes on where it stopped (a network that was being trained, from
    its last checkpoint), and one can be widened by more methods, sparsities or seeds. ``out/table.csv`` has
    the published table's columns and further ones (`mge_gpu.training.cell.grow`), for
    `mge_gpu.ranking.load_table` with ``sparsities=None``.

    Args:
        models: as `mge_gpu.model_spec.load_model` takes them: "mge:digits_resnet", "package.module:factory".
        input_shape: of one sample, for all models.
        methods: of `mge_gpu.pruning.METHODS` and `mge_gpu.dynamic.METHODS`.
        out: a folder; it is made.
        data: "digits", the name of a torchvision data set below ``root``, or a ``.npz`` or ``.pt`` file.
        options: method -> its own options.
        workers: processes, each of which trains one network with its share of the cores.

    Returns:
        The table, a row a network, in the order models, sparsities, methods, seeds. ``attrs["failed"]``
        holds cell name -> why for those that failed; they are tried again the next time.

    Raises:
        TrainingError: nothing to do, an unknown method, or ``out`` holds a study of another setting.
        DataError: ``out`` cannot be written.
    """
    cells = checked_cells(list(models), list(methods), [float(s) for s in sparsities], list(seeds))
    pandas = require("pandas", "rank", "the table of a study")  # and not after the training
    if not isinstance(workers, int) or isinstance(workers, bool) or workers < 1:
        raise TrainingError(f"workers must be a positive integer, got {workers!r}")
    if unused := [method for method in options or {} if method not in methods]:
        raise TrainingError(f"options are given for {unused[0]!r}, which is not among the methods")
    setting = Setting(
        tuple(input_shape),
        str(data),
        None if root is None else str(root),
        recipe or Recipe(),
        tuple(metrics),
        {method: dict((options or {}).get(method, {})) for method in methods},
        device,
    )
    folder = _prepared(Path(out), setting)
    rows = {cell: row for cell in cells if (row := _read(folder, cell)) is not None}
    # Seed by seed, so that a study that is stopped early has compared all methods.
    todo = sorted((cell for cell in cells if cell not in rows), key=lambda cell: cell.seed)
    failed: dict[str, str] = {}
    try:
        for cell, grown in _grown(todo, setting, folder, workers, progress, len(rows), len(cells)):
            if isinstance(grown, str):
                failed[cell.name] = grown
                continue
            rows[cell] = grown
            _write(folder / "runs" / f"{cell.name}.json", grown)
    finally:
        table = pandas.DataFrame([rows[cell] for cell in cells if cell in rows])
        write_whole(folder / TABLE, lambda file: table.to_csv(file, index=False))
    table.attrs["failed"] = failed
    return table


def summary(table: "pandas.DataFrame") -> "pandas.DataFrame":
    """A study's table over seeds: a row for each model, sparsity and method, in the table's order.

    Columns: ``accuracy`` (mean), ``spread`` (its standard deviation over seeds, NaN for one),
    ``kept_weights`` (mean), ``empty_layers`` (mean number of layers without a weight) and ``networks`` (how
    many).
    """
    groups = table.groupby(["model", "sparsity", "pruning"], sort=False)
    found = groups.agg(
        accuracy=("accuracy", "mean"),
        spread=("accuracy", "std"),
        kept_weights=("kept_weights", "mean"),
        empty_layers=("collapsed_layers", "mean"),
        networks=("seed", "count"),
    )
    return found.reset_index()


def _grown(
    cells: list[Cell],
    setting: Setting,
    folder: Path,
    workers: int,
    progress: Progress | None,
    done: int,
    total: int,
) -> Iterator[tuple[Cell, dict[str, Any] | str]]:
    """Each cell with its row, or with the reason why there is none."""
    if workers == 1:
        for number, cell in enumerate(cells, done):
            yield cell, _attempt(cell, setting, folder, _part(progress, cell, number, total))
        return
    # A forked process would share the threads and locks of torch and numba.
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(workers, context, _share_cores, (workers,)) as pool:
        waiting = {pool.submit(_attempt, cell, setting, folder): cell for cell in cells}
        try:
            for number, future in enumerate(concurrent.futures.as_completed(waiting), done + 1):
                if progress is not None:
                    progress(f"{number} of {total}: {waiting[future].name}", number / total)
                yield waiting[future], future.result()
        except concurrent.futures.process.BrokenProcessPool as error:
            raise TrainingError(
                f"one of {workers} worker processes ended without a word (out of memory?); what was done is "
                "kept, so run again, with fewer workers"
            ) from error
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in list((pool._processes or {}).values()):
                process.terminate()
            raise


def _attempt(
    cell: Cell, setting: Setting, folder: Path, progress: Progress | None = None
) -> dict[str, Any] | str:
    try:
        return grow(cell, setting, folder / "checkpoints" / f"{cell.name}.pt", progress)
    except MGEError as error:
        return str(error)


def _share_cores(workers: int) -> None:
    import numba
    import torch

    threads = max(1, (multiprocessing.cpu_count()) // workers)
    torch.set_num_threads(threads)
    numba.set_num_threads(min(threads, numba.get_num_threads()))


def _part(progress: Progress | None, cell: Cell, number: int, total: int) -> Progress | None:
    if progress is None:
        return None
    return lambda text, share: progress(
        f"{number + 1} of {total}: {cell.name}: {text}", (number + (share or 0.0)) / total
    )


def _prepared(folder: Path, setting: Setting) -> Path:
    """The folder, which holds no study yet or one of this setting; further methods bring their options."""
    wanted = json_ready(asdict(setting))
    wanted.pop("device")  # where it ran does not make another study of it
    try:
        (folder / "runs").mkdir(parents=True, exist_ok=True)
        (folder / "checkpoints").mkdir(exist_ok=True)
    except OSError as error:
        raise TrainingError(
            f"{folder}: cannot be made ({error.strerror or error}); expected a folder"
        ) from error
    file = folder / _SETTING
    there = _json(file) if file.exists() else wanted
    wanted["options"] = {**there.get("options", {}), **wanted["options"]}
    for key, value in wanted.items():
        held = there.get(key)
        if key == "options":
            held = {**value, **(held or {})}
        if held != value:
            raise TrainingError(
                f"{folder}: holds a study with {key} {held!r}, and {value!r} is asked for; use another folder"
            )
    _write(file, wanted)
    return folder


def _read(folder: Path, cell: Cell) -> dict[str, Any] | None:
    file = folder / "runs" / f"{cell.name}.json"
    return _json(file) if file.exists() else None


def _json(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise TrainingError(f"{file}: cannot be read ({error}); remove it to compute it again") from error
    if not isinstance(found, dict):
        raise TrainingError(f"{file}: holds {type(found).__name__}, expected an object; remove it")
    return found


def _write(file: Path, content: Mapping[str, Any]) -> None:
    text = json.dumps(json_ready(content), indent=1, allow_nan=False) + "\n"
    write_whole(file, lambda partial: partial.write_text(text, encoding="utf-8"))
