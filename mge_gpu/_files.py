"""Read tensors from .pt and .safetensors files without ever running code that a file brings along."""

import os
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from mge_gpu._optional import require
from mge_gpu.errors import DataError

_SAFETENSORS = ".safetensors"
_PT = (".pt", ".pth", ".bin", ".ckpt")


def read_file(path: str | Path) -> Any:
    """The object in a ``.pt`` file (weights only), or the dict of tensors in a ``.safetensors`` file.

    Everything lands on the CPU. Raises DataError for a missing, truncated, corrupted or hostile file
    (a pickle that would run code), and for another suffix; the message names the file.
    """
    path = Path(path)
    if path.suffix.lower() not in (_SAFETENSORS, *_PT):
        raise DataError(f"{path}: the suffix must be .pt, .pth or .safetensors, got {path.suffix!r}")
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    if path.suffix.lower() == _SAFETENSORS:
        return _read_safetensors(path)
    return _read_pt(path)


def write_tensors(tensors: Mapping[str, torch.Tensor], path: str | Path) -> None:
    """Write a dict of tensors to ``.pt`` or ``.safetensors``; DataError for another suffix or no folder."""
    path = Path(path)
    # torch.save keeps strides and safetensors refuses shared storage: write plain copies.
    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    if path.suffix.lower() == _SAFETENSORS:
        library = require("safetensors.torch", "all", "writing .safetensors files")
        write_whole(path, lambda partial: library.save_file(plain, str(partial)))
    elif path.suffix.lower() in _PT:
        write_whole(path, lambda partial: torch.save(plain, partial))
    else:
        raise DataError(f"{path}: the suffix must be .pt, .pth or .safetensors, got {path.suffix!r}")


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file that appears only when it is complete: ``write`` gets a temporary path beside it.

    Raises DataError where it cannot be written (no disk space, no folder); what was there before stays.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        partial.touch()
        usual = partial.stat().st_mode  # safetensors would leave a file that only its owner can read
        write(partial)
        partial.chmod(usual)
        os.replace(partial, path)
    except Exception as error:  # OSError, RuntimeError (torch) or SafetensorError, by the cause
        raise DataError(f"{path}: cannot be written ({_first_line(error)})") from error
    finally:
        partial.unlink(missing_ok=True)


def _read_pt(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise DataError(
            f"{path}: refused, since it holds more than tensors and plain containers, and loading that could "
            f"run code ({_first_line(error)}); save a dict of tensors (a state_dict) instead"
        ) from error
    except Exception as error:
        # A damaged archive surfaces as RuntimeError, EOFError, KeyError, UnicodeDecodeError ...: one meaning.
        raise DataError(
            f"{path}: cannot be read, the file is truncated or not a torch file ({_first_line(error)})"
        ) from error


def _read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    safetensors = require("safetensors.torch", "all", "reading .safetensors files")
    try:
        return safetensors.load_file(str(path), device="cpu")
    except Exception as error:
        raise DataError(
            f"{path}: cannot be read, the file is truncated or not a safetensors file ({_first_line(error)})"
        ) from error


def _first_line(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return text[0][:200] if text else type(error).__name__
