"""Checkpoints as training scripts write them: what they wrap a state dict in, and how its names begin."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import prune

from mge_gpu.errors import DataError
from mge_gpu.masks import load_weights, masks_of

State = dict[str, Tensor]


def network() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 3))


def pruned() -> nn.Sequential:
    model = network()
    prune.l1_unstructured(model[0], "weight", 0.5)
    return model


def renamed(state: State, prefix: str) -> State:
    return {prefix + key: value for key, value in state.items()}


FORMS: dict[str, Callable[[State], Any]] = {
    "under another name": lambda s: {"net": s, "acc": 93.1, "epoch": 4},
    "beside an optimizer": lambda s: {
        "weights": s,
        "optimizer": {"state": {}, "param_groups": [{"lr": 0.1}]},
    },
    "named as in a module around it": lambda s: {"state_dict": renamed(s, "net."), "epoch": 4},
    "twice": lambda s: {"model": {"state_dict": renamed(s, "module.backbone.")}},
    "beside averages": lambda s: {"state_dict": s, "ema": {k: v + 1 for k, v in s.items()}},
    "sparse": lambda s: {k: v.to_sparse() if v.dim() > 1 else v for k, v in s.items()},
}


@pytest.mark.filterwarnings("ignore:Validating sparse tensor")
@pytest.mark.parametrize("make", [network, pruned])
@pytest.mark.parametrize("form", FORMS)
def test_forms_of_checkpoints(tmp_path: Path, form: str, make: Callable[[], nn.Module]) -> None:
    saved, model = make(), network()
    torch.save(FORMS[form](saved.state_dict()), tmp_path / "c.pt")
    load_weights(model, tmp_path / "c.pt")
    assert torch.equal(model[0].weight, saved[0].weight)  # type: ignore[index]
    assert torch.equal(model[3].bias, saved[3].bias)  # type: ignore[index]
    assert torch.equal(masks_of(model)["0.weight"], masks_of(saved)["0.weight"])


def test_one_layer_of_a_file(tmp_path: Path) -> None:
    """Names that differ by more than a beginning which all share are another network's."""
    saved = network()
    torch.save(saved[3].state_dict(), tmp_path / "layer.pt")
    layer = nn.Linear(8, 3)
    load_weights(layer, tmp_path / "layer.pt")
    assert torch.equal(layer.weight, saved[3].weight)
    torch.save(saved.state_dict(), tmp_path / "all.pt")
    with pytest.raises(DataError, match=r"2 entries are missing.* 9 are unknown"):
        load_weights(layer, tmp_path / "all.pt")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda s: {"student": s, "teacher": s}, r"under 'student', 'teacher', expected one"),
        (lambda s: {"net": s, "acc": torch.ones(1)}, r"dict under 'net'; save the state_dict\(\) alone"),
        (lambda s: {"net": {"weight": "text"}}, r"dict under 'net'; save the state_dict\(\) alone"),
        (lambda s: [s], r"got list; save the state_dict\(\) alone"),
    ],
)
def test_checkpoints_that_do_not_say_what_is_meant(
    tmp_path: Path, content: Callable[[State], Any], message: str
) -> None:
    torch.save(content(dict(network().state_dict())), tmp_path / "c.pt")
    with pytest.raises(DataError, match=rf"c\.pt: .*{message}"):
        load_weights(network(), tmp_path / "c.pt")
