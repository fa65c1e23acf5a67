"""Masks: which weights of a model are kept, where that is read from, and how it is checked.

A mask is a bool tensor of the weight's shape, True where the weight is kept. Masks travel as a dict from
the weight's name ("layer1.0.conv1.weight") to its mask. The same name is used whatever holds the weight:
a plain parameter, ``torch.nn.utils.prune`` (``weight_orig`` and ``weight_mask``) or a parametrization.
"""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from mge_gpu import _weights
from mge_gpu._files import write_tensors
from mge_gpu._state_dict import MASK_SUFFIX, load_weights, read_state_dict
from mge_gpu.errors import MaskError

__all__ = [
    "apply_masks",
    "check_masks",
    "check_weight",
    "effective_weights",
    "load_masks",
    "load_weights",
    "masks_of",
    "prunable_parameters",
    "save_masks",
]


def prunable_parameters(model: nn.Module) -> dict[str, Tensor]:
    """Every weight of a convolution, transposed convolution or Linear, by name, in module order.

    So are the joint or single input projections of ``nn.MultiheadAttention`` ("attn.in_proj_weight").
    Biases and normalisation layers are never prunable. A weight that several modules share appears once.
    The tensors are the model's own stored ones: for a weight under ``torch.nn.utils.prune`` that is
    ``weight_orig``, the dense weight; see :func:`effective_weights` for the weights a forward pass uses.
    Raises MaskError for a lazy layer that has no weight yet.

    >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(8, 2))
    >>> {name: tuple(weight.shape) for name, weight in prunable_parameters(model).items()}
    {'0.weight': (8, 3, 3, 3), '3.weight': (2, 8)}
    """
    places = _weights.prunable_places(model)
    return {name: _weights.stored_weight(place, name) for name, place in places.items()}


def effective_weights(model: nn.Module) -> dict[str, Tensor]:
    """The weights that the next forward pass uses (masks and parametrizations applied), detached.

    Keys as in :func:`prunable_parameters`. A plain weight comes without a copy.

    >>> layer = nn.Linear(2, 2)
    >>> _ = torch.nn.utils.prune.custom_from_mask(layer, "weight", torch.eye(2))
    >>> int(effective_weights(layer)["weight"].count_nonzero())
    2
    """
    return {name: _weights.effective_weight(p) for name, p in _weights.prunable_places(model).items()}


def masks_of(model: nn.Module) -> dict[str, torch.Tensor]:
    """The sparsity that a model already has: True where the effective weight is not exactly zero.

    Returns bool CPU tensors. Raises MaskError, with the weight's name, on NaN or Inf.

    >>> layer = nn.Linear(3, 1)
    >>> _ = layer.weight.data.copy_(torch.tensor([[0.5, 0.0, -1.0]]))
    >>> masks_of(layer)["weight"].tolist()
    [[True, False, True]]
    """
    masks = {}
    for name, weight in effective_weights(model).items():
        check_weight(name, weight)
        masks[name] = (weight != 0).cpu()
    return masks


def pieces(tensor: Tensor) -> tuple[Tensor, ...]:
    """The values in flat pieces, so that what is computed of them takes little memory beside a huge weight.

    >>> [len(part) for part in pieces(torch.zeros(3, 2))]
    [6]
    """
    return tensor.reshape(-1).split(1 << 22)


def check_weight(name: str, tensor: Tensor) -> None:
    """Raise MaskError if a weight holds NaN or Inf, or no values.

    >>> check_weight("fc.weight", torch.tensor([1.0, float("nan")]))
    Traceback (most recent call last):
    mge_gpu.errors.MaskError: fc.weight: 1 of 2 values are NaN or Inf; a weight must be finite
    """
    _weights.check_values(name, tensor)
    finite = sum(int(torch.isfinite(part).sum()) for part in pieces(tensor))
    if bad := tensor.numel() - finite:
        raise MaskError(f"{name}: {bad} of {tensor.numel()} values are NaN or Inf; a weight must be finite")


def check_masks(masks: Mapping[str, Tensor], shapes: Mapping[str, Sequence[int]]) -> dict[str, torch.Tensor]:
    """Masks as bool CPU tensors, after checking each against the weight of its name.

    ``masks`` may be bool, or of any numeric dtype with only zeros and ones (True, 1: kept), dense or
    sparse; ``shapes`` maps the known names to the weights' shapes. Names may be left out.

    Raises MaskError, with the name, on: an unknown name (suggests the closest), another shape, NaN or Inf,
    a value other than 0 and 1, or something that is no tensor.

    >>> check_masks({"fc.weight": torch.tensor([[1.0, 0.0]])}, {"fc.weight": (1, 2)})
    {'fc.weight': tensor([[ True, False]])}
    """
    if not isinstance(masks, Mapping):
        raise MaskError(f"masks must be a dict of parameter name to tensor, got {type(masks).__name__}")
    checked = {}
    for name, mask in masks.items():
        if name not in shapes:
            raise MaskError(f"{name}: no prunable weight has this name{_suggestion(str(name), shapes)}")
        mask = _as_dense(name, mask)
        if tuple(mask.shape) != tuple(shapes[name]):
            raise MaskError(
                f"{name}: the mask has shape {tuple(mask.shape)}, the weight {tuple(shapes[name])}"
            )
        checked[name] = _as_bool(name, mask)
    return checked


def apply_masks(model: nn.Module, masks: Mapping[str, Tensor]) -> None:
    """Set to exactly zero, in place, every weight of the model whose mask is False.

    Weights without a mask stay as they are. Under ``torch.nn.utils.prune`` or a parametrization the
    stored tensor is zeroed. Raises MaskError as :func:`check_masks` does, or when zeroing the stored tensor
    of a parametrization does more than zero those weights (a weight norm rescales the kept ones); the model
    is then unchanged.

    >>> layer = nn.Linear(2, 1)
    >>> apply_masks(layer, {"weight": torch.tensor([[False, True]])})
    >>> (layer.weight == 0).tolist()
    [[True, False]]
    """
    places = _weights.prunable_places(model)
    stored = {name: _weights.stored_weight(place, name) for name, place in places.items()}
    for name, weight in stored.items():
        _weights.check_values(name, weight)
    checked = check_masks(masks, {name: weight.shape for name, weight in stored.items()})
    undo: dict[str, Tensor] = {}
    with torch.no_grad():
        # Parametrized weights first: they are the ones that can refuse.
        for name in sorted(checked, key=lambda key: _weights.is_plain(places[key])):
            place, weight = places[name], stored[name]
            dropped = ~checked[name].to(weight.device)
            if _weights.is_plain(place):
                weight.masked_fill_(dropped, 0)
                continue
            undo[name] = weight.clone()
            expected = _weights.effective_weight(place).masked_fill(dropped, 0)
            weight.masked_fill_(dropped, 0)
            if not torch.equal(_weights.effective_weight(place), expected):
                for changed, values in undo.items():
                    stored[changed].copy_(values)
                    _weights.refresh(places[changed])
                raise MaskError(
                    f"{name}: zeros in the tensor that its parametrization starts from change more than the "
                    "dropped weights; remove it first (torch.nn.utils.parametrize.remove_parametrizations)"
                )
            _weights.refresh(place)


def save_masks(masks: Mapping[str, Tensor], path: str | Path) -> None:
    """Write masks as bool tensors to ``.pt`` or ``.safetensors``; errors as in :func:`check_masks`."""
    shapes = {name: mask.shape for name, mask in masks.items()}
    write_tensors(check_masks(masks, shapes), path)


def load_masks(path: str | Path) -> dict[str, torch.Tensor]:
    """Read masks from ``.pt`` (weights only, no code runs) or ``.safetensors``.

    The file holds a dict of masks, or the state dict of a model under ``torch.nn.utils.prune``, whose
    ``weight_mask`` entries are taken. A ``module.`` prefix (data parallel) is removed.

    Raises DataError on a missing, truncated or hostile file; MaskError, with the name, on masks that are
    not binary (a file of weights, say) or when there are none.
    """
    tensors = read_state_dict(path)
    by_hook = {
        name.removesuffix(MASK_SUFFIX): mask for name, mask in tensors.items() if name.endswith(MASK_SUFFIX)
    }
    if by_hook:
        # Biases can be pruned too; they are no part of the masks here.
        by_hook = {name: mask for name, mask in by_hook.items() if name.split(".")[-1] in _weights.NAMES}
    chosen = by_hook or tensors
    if not chosen:
        raise MaskError(f"{path}: holds no masks")
    try:
        return {name: _as_bool(name, _as_dense(name, mask)) for name, mask in chosen.items()}
    except MaskError as error:
        raise MaskError(f"{path}: {error}; a file of weights is read by load_weights") from error


def _as_dense(name: str, mask: Tensor) -> Tensor:
    if not isinstance(mask, Tensor):
        try:
            mask = torch.as_tensor(mask)
        except (TypeError, ValueError, RuntimeError) as error:
            raise MaskError(f"{name}: a mask must be a tensor, got {type(mask).__name__}") from error
    _weights.check_values(name, mask)
    mask = mask.detach()
    return (mask if mask.layout == torch.strided else mask.to_dense()).cpu()


def _as_bool(name: str, mask: Tensor) -> torch.Tensor:
    if mask.dtype == torch.bool:
        return mask
    if (mask.is_floating_point() or mask.is_complex()) and not bool(torch.isfinite(mask).all()):
        raise MaskError(f"{name}: the mask holds NaN or Inf; a mask holds only 0 and 1")
    other = mask[(mask != 0) & (mask != 1)]
    if other.numel():
        raise MaskError(
            f"{name}: {other.numel()} of {mask.numel()} mask values are neither 0 nor 1 "
            f"(the first is {other[0].item():.6g}); a mask holds only 0 and 1"
        )
    return mask != 0


def _suggestion(name: str, known: Iterable[str]) -> str:
    names = list(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.0)
    return f"; did you mean {close[0]!r}?" if close else "; the model has no prunable weights"
