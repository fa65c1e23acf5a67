"""What the command line calls MODEL, and input shapes: from text to a model, with seeded initial weights."""

import contextlib
import importlib
import inspect
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from mge_gpu._optional import require
from mge_gpu._seeds import preserved, seeded
from mge_gpu.errors import MGEError

FORMS = "torchvision:NAME, mge:NAME, package.module:factory or a saved program FILE.pt2"


class ModelSpecError(MGEError, ValueError):
    """The text does not name a model or a shape: wrong form or unknown name."""


class ModelLoadError(MGEError, RuntimeError):
    """The text names a model, but making or reading it failed."""


def parse_shape(text: str) -> tuple[int, ...]:
    """Read an input shape without the batch dimension.

    Raises:
        ModelSpecError: not positive whole numbers joined by ``x``.

    >>> parse_shape("3x224x224")
    (3, 224, 224)
    """
    try:
        shape = tuple(int(part) for part in text.lower().split("x"))
    except ValueError:
        shape = ()
    if not shape or min(shape) < 1:
        raise ModelSpecError(
            f"got the input shape {text!r}; expected sizes joined by x, without batch: 3x32x32"
        )
    return shape


def load_model(spec: str, seed: int = 0) -> torch.nn.Module:
    """Make the model that ``spec`` names.

    ========================  ==============================================================================
    ``torchvision:resnet50``  that torchvision model, without downloaded weights
    ``mge:resnet20``          one of `mge_gpu.models`
    ``package.module:name``   an ``nn.Module``, or a function without required arguments that returns one;
                              modules in the working directory can be named
    ``path/to/file.pt2``      a program saved by ``torch.export.save``. Open only files that you trust.
    ========================  ==============================================================================

    Args:
        spec: the model's name.
        seed: seeds python, numpy and torch while the model is made; their states are restored afterwards.

    Raises:
        ModelSpecError: ``spec`` has none of these forms, or names nothing that exists.
        ModelLoadError: making or reading the model failed.
        MissingDependencyError: torchvision is needed and not installed.

    >>> type(load_model("torch.nn:Identity")).__name__
    'Identity'
    """
    if spec.endswith(".pt2"):
        return _saved_program(Path(spec))
    module, colon, name = spec.partition(":")
    if not (module and colon and name):
        raise ModelSpecError(f"got the model {spec!r}; expected {FORMS}")
    with seeded(seed, _gpus_in_use()):
        if module == "torchvision":
            return _torchvision_model(name, seed)
        if module == "mge":
            return _own_model(name, seed)
        return _from_factory(spec, module, name, seed)


def num_outputs(model: torch.nn.Module, shape: Sequence[int]) -> int:
    """How many classes the model tells apart: the last dimension of its (first) output for an input of zeros.

    Runs the model once, where it lies, in evaluation mode; each module's mode and the generators' states are
    restored, also when the model raises.
    Raises ModelLoadError when the model cannot take an input of ``shape``, or returns no tensor.

    >>> num_outputs(torch.nn.Linear(4, 7), (4,))
    7
    """
    from mge_gpu.tracing.capture import zero_inputs

    modes = [(module, module.training) for module in model.modules()]
    try:
        for module, _ in modes:
            module.training = False
        (x,) = zero_inputs(model, [shape])
        with preserved([x.device]), torch.no_grad():
            output = model(x)
    except Exception as error:
        size = "x".join(map(str, shape))
        raise ModelLoadError(
            f"the model cannot take an input of {size}: {type(error).__name__}: {error}"
        ) from error
    finally:
        for module, training in modes:
            module.training = training
    while not isinstance(output, torch.Tensor):
        try:
            output = next(iter(output.values() if hasattr(output, "values") else output))
        except (TypeError, StopIteration):
            raise ModelLoadError(
                f"the model returns {type(output).__name__}; expected a tensor of class scores"
            ) from None
    return int(output.shape[-1])


def _torchvision_model(name: str, seed: int) -> torch.nn.Module:
    models: Any = require("torchvision.models", "vision", f"the model torchvision:{name}")
    if name not in models.list_models():
        raise ModelSpecError(f"torchvision has no model {name!r}{_closest(name, models.list_models())}")
    arguments: dict[str, Any] = {"weights": None}
    # Detection and segmentation models download a backbone unless told not to.
    if "weights_backbone" in inspect.signature(models.get_model_builder(name)).parameters:
        arguments["weights_backbone"] = None
    return _called(f"torchvision:{name}", lambda: models.get_model(name, **arguments), seed)


def _own_model(name: str, seed: int) -> torch.nn.Module:
    models = importlib.import_module("mge_gpu.models")
    names = list(models.__all__)
    if name not in names:
        raise ModelSpecError(f"mge_gpu.models has no model {name!r}; it has {', '.join(names)}")
    return _called(f"mge:{name}", getattr(models, name), seed)


def _from_factory(spec: str, module: str, name: str, seed: int) -> torch.nn.Module:
    with _working_directory_importable():
        try:
            found: Any = importlib.import_module(module)
        except ModuleNotFoundError as error:
            # A missing module that was asked for is the caller's slip; one that it needs is its own trouble.
            if error.name and (module == error.name or module.startswith(f"{error.name}.")):
                raise ModelSpecError(f"got the model {spec!r}: there is no module {error.name!r}") from error
            raise ModelLoadError(f"importing {module!r} for {spec!r} failed: {error}") from error
        except Exception as error:
            raise ModelLoadError(
                f"importing {module!r} for the model {spec!r} failed: {_brief(error)}"
            ) from error
        for part in name.split("."):
            if not hasattr(found, part):
                raise ModelSpecError(f"got the model {spec!r}: module {module!r} has no {name!r}")
            found = getattr(found, part)
        if isinstance(found, torch.nn.Module):
            return found
        if not callable(found):
            raise ModelSpecError(
                f"got the model {spec!r}: {name!r} is of type {type(found).__name__}; expected a model or a "
                "function that returns one"
            )
        return _called(spec, found, seed)


def _called(spec: str, factory: Callable[[], Any], seed: int) -> torch.nn.Module:
    try:
        # Seeded anew: importing the factory's module, which happens once, may have drawn numbers.
        untouched = not torch.cuda.is_initialized()
        with seeded(seed, _gpus_in_use()):
            model = factory()
        if untouched and torch.cuda.is_initialized():  # it may have drawn numbers there: from the seed, too
            with seeded(seed, _gpus_in_use()):
                model = factory()
    except MGEError:
        raise
    except Exception as error:
        raise ModelLoadError(f"making the model {spec!r} failed: {_brief(error)}") from error
    if not isinstance(model, torch.nn.Module):
        raise ModelSpecError(f"{spec!r} returned {type(model).__name__}; expected a torch.nn.Module")
    return model


def _saved_program(path: Path) -> torch.nn.Module:
    if not path.is_file():
        raise ModelSpecError(f"got the model {str(path)!r}: there is no such file")
    try:
        return torch.export.load(path).module()
    except Exception as error:
        raise ModelLoadError(
            f"reading {str(path)!r} failed ({_brief(error)}); expected a program that torch.export.save wrote"
        ) from error


def _closest(name: str, names: list[str]) -> str:
    import difflib

    close = difflib.get_close_matches(name, names, n=3)
    return f"; did you mean {', '.join(close)}?" if close else ""


def _brief(error: BaseException) -> str:
    first = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {first}" if first else type(error).__name__


def _gpus_in_use() -> Iterable[int]:
    """All of them, once one is in use: a factory may make its model on any."""
    return range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()


@contextlib.contextmanager
def _working_directory_importable() -> Iterator[None]:
    here = os.getcwd()
    sys.path.insert(0, here)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):
            sys.path.remove(here)
