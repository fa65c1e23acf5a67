"""State dicts: unwrap them, rename pruned and parametrized entries, load them into a model."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mge_gpu._files import read_file
from mge_gpu._weights import check_values, prunable_places, refresh
from mge_gpu.errors import DataError, MaskError

MASK_SUFFIX = "_mask"
_ORIGINAL_SUFFIX = "_orig"
_WRAPPERS = ("state_dict", "model_state_dict", "model", "masks")
WRAPPER_PREFIXES = ("module.", "_orig_mod.")


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """The dict of tensors in a file, without wrappers ("state_dict") and prefixes ("module.").

    Raises DataError when the file cannot be read or holds something else than a dict of tensors, or several.
    """
    content = _unwrapped(path, read_file(path))
    if not isinstance(content, Mapping):
        raise DataError(
            f"{path}: expected a dict of tensors, got {type(content).__name__}; save the state_dict() alone"
        )
    for key, value in content.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            raise DataError(
                f"{path}: expected a dict of names to tensors, got {type(value).__name__} under {key!r}; "
                "save the state_dict() alone"
            )
        if value.is_meta:
            raise DataError(f"{path}: {key!r} was saved on the device 'meta', without values")
    tensors = dict(content)
    stripped = True
    while stripped and tensors:
        stripped = False
        for prefix in WRAPPER_PREFIXES:
            if all(key.startswith(prefix) for key in tensors):
                tensors = {key.removeprefix(prefix): value for key, value in tensors.items()}
                stripped = True
    return tensors


def _unwrapped(path: str | Path, content: Any) -> Any:
    """What a checkpoint has under one of the usual names, or else the only dict of tensors in it."""
    for key in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or any(isinstance(value, Tensor) for value in content.values()):
        return content
    inside = [key for key, value in content.items() if isinstance(value, Mapping) and _are_tensors(value)]
    if len(inside) > 1:
        names = ", ".join(map(repr, inside))
        raise DataError(f"{path}: got dicts of tensors under {names}, expected one; save the model's alone")
    return content[inside[0]] if inside else content


def _are_tensors(content: Mapping[Any, Any]) -> bool:
    return bool(content) and all(isinstance(value, Tensor) for value in content.values())


def _within(tensors: dict[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors by the model's own names, where they have those of a module that has the model within.

    >>> list(_within({"net.weight": torch.ones(1), "net.bias": torch.ones(1)}, nn.Linear(1, 1).state_dict()))
    ['weight', 'bias']
    """
    name = next(iter(own), "")
    for prefix in (key.removesuffix(name) for key in tensors if key.endswith(f".{name}")):
        renamed = {
            key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)
        }
        if len(renamed) == len(tensors) and set(renamed) <= set(own):
            return renamed
    return tensors


def plain_state_dict(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same state dict with each ``X_orig`` and ``X_mask`` pair multiplied into ``X``.

    >>> state = {"fc.weight_orig": torch.ones(1, 2), "fc.weight_mask": torch.tensor([[1.0, 0.0]])}
    >>> plain_state_dict(state)
    {'fc.weight': tensor([[1., 0.]])}
    """
    plain = {}
    for key, value in tensors.items():
        name = key.removesuffix(_ORIGINAL_SUFFIX)
        if key.endswith(_ORIGINAL_SUFFIX) and name + MASK_SUFFIX in tensors:
            mask = tensors[name + MASK_SUFFIX]
            if mask.shape != value.shape:
                raise MaskError(
                    f"{name}: the mask has shape {tuple(mask.shape)}, the weight {tuple(value.shape)}"
                )
            plain[name] = value * mask.to(value.dtype)
        elif not (key.endswith(MASK_SUFFIX) and key.removesuffix(MASK_SUFFIX) + _ORIGINAL_SUFFIX in tensors):
            plain[key] = value
    return plain


def load_weights(model: nn.Module, path: str | Path) -> None:
    """Load a checkpoint (``.pt``, weights only, or ``.safetensors``) into the model, in place.

    The file holds a state dict, bare or as the only one in a checkpoint (or under "state_dict" or "model"),
    with or without a prefix for all names ("module.", "net."), dense or sparse; one of a model under
    ``torch.nn.utils.prune`` is multiplied out first, so that its zeros are the mask.

    Raises DataError when the file cannot be read or does not fit the model (names the missing, the
    unexpected or the misshapen entry); MaskError on NaN or Inf weights. The model is then unchanged.
    """
    own = {key: value for key, value in model.state_dict().items() if isinstance(value, Tensor)}
    for key, value in own.items():
        check_values(key, value)
    tensors = read_state_dict(path)
    if not set(tensors) <= set(own):
        tensors = _within(plain_state_dict(tensors), own)
    # Checkpoints from before torch 0.4.1 lack this counter, which no forward pass in evaluation mode reads.
    missing = [key for key in own if key not in tensors and not key.endswith("num_batches_tracked")]
    unexpected = [key for key in tensors if key not in own]
    if missing or unexpected:
        raise DataError(
            f"{path}: does not fit the model: {len(missing)} entries are missing{_first(missing)} and "
            f"{len(unexpected)} are unknown to it{_first(unexpected)}; "
            "build the model that the file was saved from"
        )
    for key, value in tensors.items():
        if value.shape != own[key].shape:
            raise DataError(
                f"{path}: {key} has shape {tuple(value.shape)}, the model's has {tuple(own[key].shape)}"
            )
        tensors[key] = value = value.to_dense()
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise MaskError(f"{path}: {key} holds NaN or Inf; a weight must be finite")
    with torch.no_grad():
        model.load_state_dict(tensors, strict=False)
        for place in prunable_places(model).values():
            refresh(place)


def _first(keys: list[str]) -> str:
    return f" (the first is {keys[0]!r})" if keys else ""
