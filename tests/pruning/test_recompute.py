"""Running blocks twice: the same scores to the bit, less memory, and the network as it was."""

import pytest
import torch
from torch import Tensor, nn

from mge_gpu.errors import PruningError
from mge_gpu.pruning import _recompute, prune
from mge_gpu.pruning._copy import dense_copy
from mge_gpu.pruning._loss import loss_gradients, set_bn_mode
from mge_gpu.pruning.snip import snip_scores

METHODS = ["snip", "iterative_snip", "force", "grasp"]


class Block(nn.Module):
    """A residual block with batch normalisation, which makes the samples of a batch depend on each other."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width)

    def forward(self, x: Tensor, *, gain: float = 1.0) -> Tensor:
        out = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        return torch.relu(gain * out + nn.functional.dropout(x, 0.3))  # active in any mode


class Stages(nn.Module):
    """A stem, a stack that is called as one and a list whose members are called one by one."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 4, 3)
        self.stage = nn.Sequential(Block(4), Block(4))
        self.more = nn.ModuleList([Block(4), Block(4)])
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stage(self.stem(x))
        for block in self.more:
            x = block(x, gain=0.5)
        return self.head(x.mean((2, 3)))


@pytest.fixture
def model() -> Stages:
    torch.manual_seed(0)
    return Stages()


@pytest.fixture
def data() -> list[tuple[Tensor, Tensor]]:
    torch.manual_seed(1)
    return [(torch.randn(12, 2, 8, 8), torch.arange(12) % 3) for _ in range(3)]


def held(model: nn.Module, data: list, monkeypatch: pytest.MonkeyPatch, worthwhile: int) -> int:
    """Bytes of activations that are held when the loss is known."""
    monkeypatch.setattr(_recompute, "WORTHWHILE", worthwhile)
    network, _ = dense_copy(model)
    set_bn_mode("snip", network, "train")
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with (
        torch.autograd.graph.saved_tensors_hooks(note, lambda t: t),
        _recompute.recomputing(network, data[0][0]),
    ):
        loss = network(data[0][0]).sum()
    assert loss.requires_grad
    return sum(kept.values())


def test_blocks_are_the_members_of_the_innermost_stacks(model: Stages) -> None:
    blocks = _recompute.blocks(model)
    assert blocks == [*model.stage, *model.more]
    pair = nn.Sequential(model, Stages())
    assert _recompute.blocks(pair) == [*blocks, *_recompute.blocks(pair[1])]
    assert _recompute.blocks(nn.Sequential(*(nn.Linear(2, 2) for _ in range(9)))) == []


@pytest.mark.parametrize("bn_mode", ["train", "eval"])
@pytest.mark.parametrize("method", METHODS)
def test_masks_and_scores_stay(
    model: Stages, data: list, method: str, bn_mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for worthwhile in (0, 2**60):
        monkeypatch.setattr(_recompute, "WORTHWHILE", worthwhile)
        masks = prune(model, method, 0.6, data=data, bn_mode=bn_mode)
        torch.manual_seed(5)
        found.append((masks, snip_scores(model, data=data, batches=2, bn_mode=bn_mode)))
    for once, twice in zip(*found, strict=True):
        assert all(torch.equal(once[name], twice[name]) for name in once)


def test_fewer_activations_are_held(model: Stages, data: list, monkeypatch: pytest.MonkeyPatch) -> None:
    assert held(model, data, monkeypatch, 0) < 0.4 * held(model, data, monkeypatch, 2**60)


def test_small_inputs_run_once(model: Stages, data: list, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = data[0][0]
    for more, twice in ((0, True), (1, False)):
        monkeypatch.setattr(_recompute, "WORTHWHILE", inputs.numel() * 4 + more)
        with _recompute.recomputing(model, inputs):
            assert ("forward" in vars(model.stage[0])) == twice
        assert "forward" not in vars(model.stage[0])


def test_the_network_is_as_it_was_when_it_raises(
    model: Stages, data: list, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_recompute, "WORTHWHILE", 0)
    own = model.more[0].forward
    model.more[0].forward = own  # set on the object, not on its class
    network, weights = dense_copy(model)
    before = vars(network.more[0])["forward"]
    with pytest.raises(PruningError, match="the model raised"):
        loss_gradients("snip", network, weights, [(torch.ones(2, 5, 8, 8), torch.tensor([0, 1]))], None)
    assert vars(network.more[0])["forward"] is before
    assert "forward" not in vars(network.stage[0])
