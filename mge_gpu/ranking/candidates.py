"""The candidates of a ranking: each method's masks and the topometrics of the network that they leave."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

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

    What ``kept`` has is taken from it, and what it lacks is put there as soon as it is done.

    Raises:
        RankingError: a method, the encoding or the measuring failed; names the method.
        TracingError: the model cannot be traced.
    """
    import mge_gpu
    from mge_gpu.pruning import prune

    program = None
    masks: dict[str, dict[str, Tensor]] = {}
    reports: dict[str, Report] = {}
    for number, name in enumerate(names):
        pruning = _part(progress, f"{name}: pruning", number / len(names), 0.5 / len(names))
        measuring = _part(progress, f"{name}: measuring", (number + 0.5) / len(names), 0.5 / len(names))
        if kept is not None and (there := kept.get(name, metrics)) is not None:
            masks[name], reports[name] = there
            continue
        program = program or mge_gpu.trace(model, input_shape)
        try:
            masks[name] = prune(
                model, name, sparsity, input_shape=input_shape, data=data, seed=seed, progress=pruning
            )
            graph = mge_gpu.encode(program, masks=masks[name])
            reports[name] = mge_gpu.topometrics(
                graph, metrics=metrics, budget=BUDGET, seed=seed, progress=measuring
            )
            if reports[name].interrupted:  # a ranking of half the methods would be a wrong one
                raise KeyboardInterrupt
            if kept is not None:
                kept.put(name, masks[name], reports[name])
        except MissingDependencyError:
            raise  # says what to install already
        except Exception as error:
            raise RankingError(
                f"ranking stopped at the method {name!r} at sparsity {sparsity:g}: {error}"
            ) from error
    if progress is not None:
        progress("putting the methods in order", 1.0)
    return masks, reports


def _part(progress: Progress | None, what: str, start: float, length: float) -> Progress | None:
    """A callback for one step of the whole, which begins at ``start`` and is ``length`` of it."""
    if progress is None:
        return None
    progress(what, start)
    return lambda text, share: progress(f"{what}: {text}", start + length * (share or 0.0))
