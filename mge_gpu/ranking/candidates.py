"""The candidates of a ranking: each method's masks and the topometrics of the network that they leave."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from mge_gpu.backends import device_of
from mge_gpu.errors import MissingDependencyError, RankingError
from mge_gpu.metrics.report import Report
from mge_gpu.ranking.kept import Kept

if TYPE_CHECKING:
    from torch import Tensor, nn

Progress = Callable[[str, float | None], None]

BUDGET = 2_000_000_000
"""Two-step walks of a candidate's exact counts: features are logarithms, which 0.5 % hardly moves."""

DEFAULT_METHODS = (
    "uniform",
    "random",
    "er",
    "erk",
    "magnitude",
    "synflow",
    "snip",
    "grasp",
    "prospr",
)
"""What a ranking compares unless told otherwise: the published methods and two controls.

A candidate moves the features of those beside it, so a new method is ranked only where it is asked for.
"""


def checked_methods(methods: Sequence[str] | None, data: Any) -> list[str]:
    """The names to compare: ``methods``, or for None those of `DEFAULT_METHODS` that this ``data`` allows.

    Raises:
        RankingError: an unknown or repeated name, fewer than two, or a method that needs data and has none.
    """
    from mge_gpu.pruning import METHODS

    if methods is None:
        names = [name for name in DEFAULT_METHODS if data is not None or not METHODS[name].needs_data]
    elif isinstance(methods, str):
        raise RankingError(f"methods must be a list of names, got the string {methods!r}")
    else:
        names = list(methods)
    if unknown := [name for name in names if name not in METHODS]:
        raise RankingError(f"unknown pruning method {unknown[0]!r}; known are {', '.join(METHODS)}")
    if repeated := [name for i, name in enumerate(names) if name in names[:i]]:
        raise RankingError(f"the method {repeated[0]!r} is given twice; each can stand in a ranking once")
    if len(names) < 2:
        raise RankingError(
            f"a ranking needs at least 2 methods, got {len(names)}; known are {', '.join(METHODS)}"
        )
    if data is None and (hungry := [name for name in names if METHODS[name].needs_data]):
        raise RankingError(
            f"the method {hungry[0]!r} needs labelled data: pass data=, 'digits' for example, or "
            f"leave it out of methods"
        )
    return names


def measure(
    model: "nn.Module",
    input_shape: tuple[int, ...],
    sparsity: float,
    names: list[str],
    *,
    data: Any,
    seed: int,
    metrics: list[str],
    progress: Progress | None,
    kept: Kept | None = None,
) -> "tuple[dict[str, dict[str, Tensor]], dict[str, Report]]":
    """Masks and report of each method, in the order of ``names``; the model is traced once, if at all.

    What ``kept`` has is taken from it, and what it lacks is put there as soon as it is done. On a GPU all
    methods are measured in one batch, when all have pruned.

    Raises:
        RankingError: a method, the encoding or the measuring failed; names the method.
        TracingError: the model cannot be traced.
    """
    import mge_gpu
    from mge_gpu.metrics.profile import layer_profile
    from mge_gpu.pruning import prune

    masks: dict[str, dict[str, Tensor]] = {}
    reports: dict[str, Report] = {}
    for name in names:
        if kept is not None and (there := kept.get(name, metrics)) is not None:
            masks[name], reports[name] = there
    left = [name for name in names if name not in reports]
    program = None
    device = device_of(next(model.parameters(), None))
    at_once = 1 if device.type == "cpu" else len(names)
    for start in range(0, len(left), at_once):
        batch = left[start : start + at_once]
        program = program or mge_gpu.trace(model, input_shape)
        begin, step = len(reports) / len(names), 0.5 / len(names)
        for k, name in enumerate(batch):
            pruning = _part(progress, f"{name}: pruning", begin + k * step, step)
            with _stopped_at([name], sparsity):
                masks[name] = prune(
                    model, name, sparsity, input_shape=input_shape, data=data, seed=seed, progress=pruning
                )
        size = len(batch) * step
        measuring = _part(progress, f"{', '.join(batch)}: measuring", begin + size, size)
        with _stopped_at(batch, sparsity):
            found = mge_gpu.topometrics(
                [masks[name] for name in batch],
                metrics=metrics,
                model=program,
                budget=BUDGET,
                seed=seed,
                progress=measuring,
                device=device,
            )
            for name, report in zip(batch, found, strict=True):
                report.info["layers"] = layer_profile(program, masks[name])
                if kept is not None and not report.interrupted:
                    kept.put(name, masks[name], report)
            reports |= zip(batch, found, strict=True)
        if any(report.interrupted for report in found):  # a ranking of half the methods would be a wrong one
            raise KeyboardInterrupt
    if progress is not None:
        progress("putting the methods in order", 1.0)
    return {name: masks[name] for name in names}, {name: reports[name] for name in names}


@contextmanager
def _stopped_at(batch: list[str], sparsity: float) -> Iterator[None]:
    """Errors within this name the methods that were worked on."""
    try:
        yield
    except MissingDependencyError:
        raise  # says what to install already
    except Exception as error:
        which = f"the method {batch[0]!r}" if len(batch) == 1 else f"the methods {', '.join(batch)}"
        raise RankingError(f"ranking stopped at {which} at sparsity {sparsity:g}: {error}") from error


def _part(progress: Progress | None, what: str, start: float, length: float) -> Progress | None:
    """A callback for one step of the whole, which begins at ``start`` and is ``length`` of it."""
    if progress is None:
        return None
    progress(what, start)
    return lambda text, share: progress(f"{what}: {text}", start + length * (share or 0.0))
