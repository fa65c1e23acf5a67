"""Labelled batches for the data-driven pruners: handwritten digits, random, torchvision, own files."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mge_gpu._files import read_file
from mge_gpu._image_sets import has_parts, open_image_set
from mge_gpu._optional import require
from mge_gpu.errors import DataError

_RANDOM_SAMPLES = 4096
_STATISTICS_SAMPLES = 256
_SUFFIXES = (".npz", ".pt", ".pth")
_TEST_SHARE = 0.2
_SPLIT_SEED = 0
_INPUT_KEYS = ("inputs", "input", "x", "X", "images", "data")
_LABEL_KEYS = ("labels", "label", "y", "targets", "target")


@dataclass(frozen=True)
class Data:
    """Batches ``(inputs, labels)`` in an order that the seed fixes; iterating twice gives the same batches.

    ``fetch`` maps a 1-d int64 tensor of sample numbers to float32 inputs (B, *input_shape) and int64
    labels (B,), so that samples are resized batch by batch. ``description`` says where they come from.
    """

    fetch: Callable[[Tensor], tuple[Tensor, Tensor]]
    samples: int
    batch_size: int
    seed: int
    description: str

    def __len__(self) -> int:
        """Number of batches; the last one may be smaller."""
        return -(-self.samples // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        order = torch.randperm(self.samples, generator=torch.Generator().manual_seed(self.seed))
        for chosen in order.split(self.batch_size):
            yield self.fetch(chosen)


def load_data(
    spec: str | Path,
    input_shape: Sequence[int],
    num_classes: int | None,
    *,
    root: str | Path | None = None,
    batch_size: int = 128,
    seed: int = 0,
) -> Data:
    """Labelled batches of the shape that a model takes.

    ``spec`` is one of

    - ``"digits"``: scikit-learn's 1,797 handwritten digits (10 classes), resized to the input's height
      and width, repeated over its channels, standardised. Real data that needs no download;
    - ``"random"``: Gaussian inputs with random labels, which carry no information;
    - the name of a torchvision data set whose files lie under ``root`` (nothing is downloaded), resized
      and standardised by the channel statistics of a sample;
    - the path of a ``.npz`` or ``.pt`` file with ``inputs`` (N, *input_shape) and ``labels`` (N,), used as
      they are (uint8 inputs are divided by 255).

    ``input_shape`` is without the batch, (C, H, W) for the image sources. ``num_classes`` may be None where
    labels cannot be checked. The order depends on ``seed`` alone, and no global generator is touched.

    Raises DataError on an unknown name, a missing, truncated or hostile file, another shape, labels outside
    ``num_classes``; MissingDependencyError without scikit-learn or torchvision.

    >>> data = load_data("random", (3, 8, 8), 10, batch_size=4)
    >>> inputs, labels = next(iter(data))
    >>> inputs.shape, labels.shape
    (torch.Size([4, 3, 8, 8]), torch.Size([4]))
    """
    shape = _checked_shape(input_shape)
    if not isinstance(batch_size, int) or batch_size < 1:
        raise DataError(f"batch_size must be a positive integer, got {batch_size!r}")
    if spec == "random":
        if num_classes is None:
            raise DataError("data 'random' draws labels and needs num_classes")
        return _random(shape, num_classes, batch_size, seed)
    if spec == "digits":
        return _digits(shape, num_classes, batch_size, seed)
    if Path(spec).suffix.lower() in _SUFFIXES:
        return _from_file(Path(spec), shape, num_classes, batch_size, seed)
    return _from_torchvision(str(spec), shape, num_classes, root, batch_size, seed)


def load_split(
    spec: str | Path,
    input_shape: Sequence[int],
    num_classes: int | None,
    *,
    root: str | Path | None = None,
    batch_size: int = 128,
    seed: int = 0,
) -> tuple[Data, Data]:
    """Batches to train on and batches to test on, which share no sample; arguments as for :func:`load_data`.

    torchvision data sets come in these two parts. From everything else a fifth is kept for testing: the
    same samples whatever ``seed`` is, which orders the batches only.

    >>> train, test = load_split("random", (3, 8, 8), 10)
    >>> train.samples, test.samples
    (3277, 819)
    """
    whole = load_data(spec, input_shape, num_classes, root=root, batch_size=batch_size, seed=seed)
    named = str(spec) not in ("digits", "random") and Path(spec).suffix.lower() not in _SUFFIXES
    if named and has_parts(open_image_set(str(spec), root, "train")[0]):
        shape = _checked_shape(input_shape)
        test = _from_torchvision(str(spec), shape, num_classes, root, batch_size, seed, "test")
        return whole, test
    if whole.samples < 2:
        raise DataError(f"{spec}: holds {whole.samples} samples; a training and a test part need one each")
    order = torch.randperm(whole.samples, generator=torch.Generator().manual_seed(_SPLIT_SEED))
    tested = max(1, round(whole.samples * _TEST_SHARE))
    return _subset(whole, order[tested:], "training"), _subset(whole, order[:tested], "test")


def _subset(data: Data, chosen: Tensor, what: str) -> Data:  # chosen: (n,) int64, sample numbers
    def fetch(numbers: Tensor) -> tuple[Tensor, Tensor]:
        return data.fetch(chosen[numbers])

    description = f"{data.description}, the {what} part of {len(chosen)} samples"
    return replace(data, fetch=fetch, samples=len(chosen), description=description)


def _random(shape: tuple[int, ...], num_classes: int, batch_size: int, seed: int) -> Data:
    def fetch(chosen: Tensor) -> tuple[Tensor, Tensor]:
        # Seeded by the batch's first sample: every batch differs and none depends on which came before.
        generator = torch.Generator().manual_seed(seed * _RANDOM_SAMPLES + int(chosen[0]))
        inputs = torch.randn((len(chosen), *shape), generator=generator)
        return inputs, torch.randint(num_classes, (len(chosen),), generator=generator)

    description = f"random: Gaussian inputs and random labels of {num_classes} classes, not real data"
    return Data(fetch, max(batch_size, _RANDOM_SAMPLES), batch_size, seed, description)


def _digits(shape: tuple[int, ...], num_classes: int | None, batch_size: int, seed: int) -> Data:
    channels, height, width = _image_shape(shape, "digits")
    digits = require("sklearn.datasets", "rank", "the data set 'digits'").load_digits()
    images = torch.as_tensor(digits.images, dtype=torch.float32).unsqueeze(1)  # (1797, 1, 8, 8)
    images = (images - images.mean()) / images.std()
    labels = _checked_labels(torch.as_tensor(digits.target), num_classes, "digits")

    def fetch(chosen: Tensor) -> tuple[Tensor, Tensor]:
        resized = _resize(images[chosen], height, width)
        return resized.expand(-1, channels, -1, -1).contiguous(), labels[chosen]

    description = (
        f"digits: scikit-learn's 1,797 handwritten digits, 8x8 resized to {height}x{width}"
        f" and repeated over {channels} channels"
    )
    return Data(fetch, len(images), batch_size, seed, description)


def _from_file(
    path: Path, shape: tuple[int, ...], num_classes: int | None, batch_size: int, seed: int
) -> Data:
    inputs, labels = _read_arrays(path)
    if tuple(inputs.shape[1:]) != shape:
        raise DataError(
            f"{path}: inputs have shape (N, {_text(inputs.shape[1:])}), expected (N, {_text(shape)})"
        )
    if labels.ndim != 1 or len(labels) != len(inputs) or not len(labels):
        raise DataError(
            f"{path}: labels must be one integer per input, got shape {tuple(labels.shape)} "
            f"for {len(inputs)} inputs"
        )
    if inputs.is_complex():
        raise DataError(f"{path}: inputs must be real numbers, got {inputs.dtype}")
    scale = 255 if inputs.dtype == torch.uint8 else 1
    if inputs.is_floating_point() and not bool(torch.isfinite(inputs).all()):
        raise DataError(f"{path}: inputs hold NaN or Inf")
    labels = _checked_labels(labels, num_classes, str(path))

    def fetch(chosen: Tensor) -> tuple[Tensor, Tensor]:
        return inputs[chosen].float() / scale, labels[chosen]

    return Data(fetch, len(inputs), batch_size, seed, f"{path.name}: {len(inputs)} samples")


def _read_arrays(path: Path) -> tuple[Tensor, Tensor]:
    if path.suffix.lower() == ".npz":
        if not path.is_file():
            raise DataError(f"{path}: no such file")
        try:
            with np.load(path, allow_pickle=False) as archive:
                content: Any = {key: torch.as_tensor(archive[key]) for key in archive.files}
        except (
            Exception
        ) as error:  # BadZipFile, ValueError (pickled objects), TypeError, EOFError, zlib.error
            raise DataError(
                f"{path}: cannot be read, truncated or not an archive of plain arrays ({error})"
            ) from error
    else:
        content = read_file(path)
    if isinstance(content, list | tuple) and len(content) == 2:
        content = {"inputs": content[0], "labels": content[1]}
    if isinstance(content, dict):
        found = [
            next((content[key] for key in keys if key in content), None)
            for keys in (_INPUT_KEYS, _LABEL_KEYS)
        ]
        if isinstance(found[0], Tensor) and isinstance(found[1], Tensor) and found[0].ndim:
            return found[0], found[1]
    held = sorted(map(str, content)) if isinstance(content, dict) else type(content).__name__
    raise DataError(f"{path}: expected the arrays 'inputs' and 'labels', found {held}")


def _from_torchvision(
    name: str,
    shape: tuple[int, ...],
    num_classes: int | None,
    root: str | Path | None,
    batch_size: int,
    seed: int,
    part: str = "train",
) -> Data:
    channels, height, width = _image_shape(shape, name)
    dataset, official = open_image_set(name, root, "train")
    functional = require("torchvision.transforms.functional", "vision", f"the data set {name!r}")

    def image(index: int) -> tuple[Tensor, int]:
        picture, label = dataset[index]
        if not isinstance(label, int | np.integer | Tensor) or (
            isinstance(label, Tensor) and label.numel() != 1
        ):
            raise DataError(f"{official}: labels must be one integer per image, got {type(label).__name__}")
        pixels = functional.to_tensor(picture)  # (C, H, W) in [0, 1]
        if pixels.shape[0] != channels:
            if channels == 1:
                pixels = pixels.mean(0, keepdim=True)
            elif pixels.shape[0] == 1:
                pixels = pixels.expand(channels, -1, -1)
            else:
                raise DataError(
                    f"{official}: images have {pixels.shape[0]} channels, the model takes {channels}"
                )
        return _resize(pixels.unsqueeze(0), height, width)[0], int(label)

    # Both parts are standardised by the training part's statistics.
    generator = torch.Generator().manual_seed(seed)
    sample = torch.randperm(len(dataset), generator=generator)[:_STATISTICS_SAMPLES]
    pixels = torch.stack([image(int(index))[0] for index in sample])
    mean = pixels.mean((0, 2, 3)).reshape(-1, 1, 1)
    std = pixels.std((0, 2, 3)).reshape(-1, 1, 1).clamp_min(1e-6)
    if part == "test":
        dataset, official = open_image_set(name, root, part)

    def fetch(chosen: Tensor) -> tuple[Tensor, Tensor]:
        pairs = [image(int(index)) for index in chosen]
        labels = _checked_labels(torch.tensor([label for _, label in pairs]), num_classes, official)
        return (torch.stack([pixels for pixels, _ in pairs]) - mean) / std, labels

    description = f"{official}: {len(dataset)} images, resized to {height}x{width}"
    return Data(fetch, len(dataset), batch_size, seed, description)


def _checked_shape(input_shape: Sequence[int]) -> tuple[int, ...]:
    shape = tuple(input_shape)
    if not shape or not all(isinstance(size, int) and size > 0 for size in shape):
        raise DataError(f"input_shape must be positive integers without the batch, got {shape}")
    return shape


def _image_shape(shape: tuple[int, ...], source: str) -> tuple[int, int, int]:
    if len(shape) != 3:
        raise DataError(f"{source}: images fit an input of shape (C, H, W), the model takes {shape}")
    return shape[0], shape[1], shape[2]


def _checked_labels(labels: Tensor, num_classes: int | None, source: str) -> Tensor:  # (N,) -> (N,) int64
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise DataError(f"{source}: labels must be integers, got {labels.dtype}")
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or (num_classes is not None and high >= num_classes):
        allowed = "0 or more" if num_classes is None else f"0 to {num_classes - 1}, the model's classes"
        raise DataError(f"{source}: labels run from {low} to {high}, expected {allowed}")
    return labels.long()


def _resize(images: Tensor, height: int, width: int) -> Tensor:  # (B, C, h, w) -> (B, C, height, width)
    return torch.nn.functional.interpolate(
        images, size=(height, width), mode="bilinear", align_corners=False, antialias=True
    )


def _text(shape: Sequence[int]) -> str:
    return ", ".join(map(str, shape))
