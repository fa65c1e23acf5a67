"""Image classification sets of torchvision that lie on disk: found by name, never downloaded."""

import difflib
import inspect
from pathlib import Path
from typing import Any

from mge_gpu._optional import require
from mge_gpu.errors import DataError


def open_image_set(name: str, root: str | Path | None, part: str) -> tuple[Any, str]:
    """The "train" or "test" part of a torchvision data set on disk, and its official name.

    Where the set has only a validation part for testing, that is the test part; a set without parts (an
    ImageFolder) comes whole for either. Raises DataError on an unknown name, and on missing or damaged files.
    """
    datasets = require("torchvision.datasets", "vision", f"the data set {name!r}")
    classes = {
        key: getattr(datasets, key)
        for key in datasets.__all__
        if "root" in inspect.signature(getattr(datasets, key)).parameters
    }
    official = next((key for key in classes if key.lower() == name.lower()), None)
    if official is None:
        close = difflib.get_close_matches(name, ["digits", "random", *classes], n=1, cutoff=0.0)[0]
        raise DataError(
            f"{name!r} is no known data set (did you mean {close!r}?); expected 'digits', "
            "'random', the name of a torchvision data set, or the path of a .npz or .pt file"
        )
    if root is None:
        raise DataError(f"{official}: nothing is downloaded; pass root=, the folder that holds its files")
    if not Path(root).is_dir():
        raise DataError(f"{official}: root {str(root)!r} is no folder")
    failure: Exception | None = None
    for options in _ways(classes[official], part):
        try:
            dataset = classes[official](root, **options)
            samples = len(dataset)
        except Exception as error:  # each data set reports missing or damaged files in its own way
            failure = failure or error
            continue
        if not samples:
            raise DataError(f"{official}: no images under {str(root)!r}")
        return dataset, official
    reason = str(failure).strip().splitlines() or [type(failure).__name__]
    raise DataError(f"{official}: cannot be read from {str(root)!r} ({reason[0]})") from failure


def has_parts(dataset: Any) -> bool:
    """Whether the data set comes in a training and a test part."""
    return not {"train", "split"}.isdisjoint(inspect.signature(type(dataset)).parameters)


def _ways(kind: Any, part: str) -> list[dict[str, Any]]:
    """The arguments to try in turn, since data sets name their parts differently."""
    parameters = inspect.signature(kind).parameters
    choices: list[dict[str, Any]] = [{}]
    if "train" in parameters:
        choices = [{"train": part == "train"}]
    elif "split" in parameters and parameters["split"].default is inspect.Parameter.empty:
        choices = [{"split": "balanced", "train": part == "train"}]  # EMNIST, the only one without a default
    elif "split" in parameters and part == "test":
        choices = [{"split": name} for name in ("test", "val", "valid")]
    always = {"download": False} if "download" in parameters else {}
    return [{**choice, **always} for choice in choices]
