"""What a ranking has done so far, in a folder, so that one that was stopped goes on."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mge_gpu._files import write_whole
from mge_gpu.errors import MGEError, RankingError
from mge_gpu.metrics.report import Report, json_ready

if TYPE_CHECKING:
    from torch import Tensor, nn


class Kept:
    """Masks (``<method>.safetensors``) and report (``<method>.json``) of each method that is done.

    Args:
        folder: where they are; it is made.
        identity: what a stored result must agree on to be used again; one that does not is made anew.

    Raises:
        RankingError: the folder cannot be made.
    """

    def __init__(self, folder: str | Path, identity: Mapping[str, Any]) -> None:
        self.folder, self.identity = Path(folder), json_ready(dict(identity))
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RankingError(f"{folder}: cannot be made ({error.strerror or error})") from error

    def get(self, method: str, metrics: Sequence[str]) -> "tuple[dict[str, Tensor], Report] | None":
        """Masks and report of a method; None where they are missing, damaged, or of another ranking."""
        from mge_gpu.masks import load_masks

        try:
            stored = json.loads(self._report(method).read_text(encoding="utf-8"))
            if stored["identity"] != self.identity:
                return None
            report = Report.from_json(json.dumps(stored["report"]))
            masks = load_masks(self._masks(method))
        except (OSError, ValueError, TypeError, KeyError, MGEError):
            return None
        return (masks, report) if set(metrics) <= set(report) else None

    def put(self, method: str, masks: "Mapping[str, Tensor]", report: Report) -> None:
        """Store a method's masks, then its report, each whole or not at all.

        Raises:
            DataError: they cannot be written.
        """
        from mge_gpu.masks import save_masks

        self._report(method).unlink(missing_ok=True)  # it says that the masks beside it are its own
        save_masks(masks, self._masks(method))
        text = json.dumps({"identity": self.identity, "report": json_ready(report.to_dict())}, indent=1)
        write_whole(self._report(method), lambda partial: partial.write_text(text + "\n", encoding="utf-8"))

    def _masks(self, method: str) -> Path:
        return self.folder / f"{method}.safetensors"

    def _report(self, method: str) -> Path:
        return self.folder / f"{method}.json"


def fingerprint(model: "nn.Module") -> str:
    """SHA-256 (hex) of the model's parameters and buffers, names and values."""
    import torch

    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
