"""Training: it learns, stays under its masks, repeats and resumes bit for bit, leaves the globals alone."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.amp import GradScaler

import mge_gpu as mge
from mge_gpu.data import Data, load_split
from mge_gpu.errors import DataError, MGEError, PruningError, TrainingError
from mge_gpu.training import Recipe, accuracy, train

RECIPE = Recipe(epochs=4, batch_size=32, learning_rate=0.05)


def blobs(samples: int = 200, classes: int = 3, side: int = 4) -> tuple[Data, Data]:
    """Gaussian clouds around one image a class, which any network learns, in two parts."""
    generator = torch.Generator().manual_seed(1)
    centres = torch.randn(classes, 1, side, side, generator=generator)
    labels = torch.randint(classes, (samples,), generator=generator)
    inputs = centres[labels] + 0.3 * torch.randn(samples, 1, side, side, generator=generator)

    def part(low: int, high: int) -> Data:
        own, named = inputs[low:high], labels[low:high]
        return Data(lambda chosen: (own[chosen], named[chosen]), high - low, 32, 0, "blobs")

    return part(0, samples * 4 // 5), part(samples * 4 // 5, samples)


def network(seed: int = 0) -> nn.Module:
    """Convolution, batch normalisation, dropout, classifier."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(1, 6, 3, padding=1),
            nn.BatchNorm2d(6),
            nn.ReLU(),
            nn.Flatten(),
            nn.Dropout(0.2),
            nn.Linear(96, 3),
        )


def stop(text: str, share: float | None) -> None:
    """Progress of a run that is stopped by hand."""
    if text.startswith("epoch 3"):
        raise KeyboardInterrupt


def test_it_learns_under_fixed_masks() -> None:
    model = network()
    masks = mge.prune(model, "erk", 0.8)
    before = accuracy(model, blobs()[1], 32)
    trained = train(model, blobs(), RECIPE, masks=masks)
    assert trained.accuracy > 0.9 > before and trained.loss < 0.5
    assert trained.accuracy == accuracy(model, blobs()[1], 7)
    for name, mask in masks.items():
        assert torch.equal(trained.masks[name], mask)
        assert not model.get_parameter(name)[~mask].any() and model.get_parameter(name)[mask].all()
    assert trained.exploration_rate == pytest.approx(0.2, abs=0.01)


@pytest.mark.parametrize("method", ["static", "set", "rigl", "snfs", "dsr", "itop-rigl"])
def test_a_run_that_was_stopped_ends_as_one_that_was_not(method: str, tmp_path: Path) -> None:
    options = {} if method in ("static", "set", "snfs") else {"interval": 3}
    how = {"method": method, "sparsity": 0.5, "seed": 3, **options}
    whole, resumed = network(), network()
    expected = train(whole, blobs(), RECIPE, **how)

    file = tmp_path / "run.pt"
    with pytest.raises(KeyboardInterrupt):
        train(resumed, blobs(), RECIPE, checkpoint=file, checkpoint_seconds=0, progress=stop, **how)
    assert file.exists()
    fresh, epochs = network(), []
    found = train(
        fresh, blobs(), RECIPE, checkpoint=file, progress=lambda text, share: epochs.append(text), **how
    )
    assert epochs == ["epoch 3 of 4", "epoch 4 of 4"] and not file.exists()
    assert found.accuracy == expected.accuracy and found.loss == expected.loss
    assert found.exploration_rate == expected.exploration_rate
    for key, value in whole.state_dict().items():
        assert torch.equal(value, fresh.state_dict()[key]), key
    assert all(torch.equal(mask, found.masks[name]) for name, mask in expected.masks.items())


@pytest.mark.gradients
@pytest.mark.parametrize("method", ["static", "set", "rigl", "snfs", "dsr", "itop-rigl"])
def test_training_on_a_gpu(gpu: str, method: str, tmp_path: Path) -> None:
    """In mixed precision it learns, under masks that are there, and goes on from a checkpoint."""
    model, file = network(), tmp_path / "run.pt"
    recipe = replace(RECIPE, amp=True)
    how = {"method": method, "sparsity": 0.5, "seed": 3, "device": gpu, "checkpoint": file}

    with pytest.raises(KeyboardInterrupt):
        train(network(), blobs(), recipe, checkpoint_seconds=0, progress=stop, **how)
    found = train(model, blobs(), recipe, **how)
    assert found.accuracy > 0.8 and found.accuracy == accuracy(model, blobs()[1], 7, gpu)
    for name, mask in found.masks.items():
        weight = model.get_parameter(name)
        assert weight.device.type == gpu and not weight[~mask.to(gpu)].any()


def test_the_seed_decides_and_no_global_generator_moves() -> None:
    state = torch.get_rng_state()
    runs = {}
    for key, seed in {"one": 0, "again": 0, "other": 1}.items():
        model = network()
        train(model, blobs(), Recipe(epochs=1, batch_size=32, augment="crop-flip"), sparsity=0.5, seed=seed)
        runs[key] = model[0].weight
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(runs["one"], runs["again"]) and not torch.equal(runs["one"], runs["other"])


def test_mixed_precision_trains() -> None:
    trained = train(network(), blobs(), Recipe(4, 32, 0.05, amp=True), sparsity=0.5)
    assert trained.accuracy > 0.9


@pytest.mark.parametrize("method", ["static", "set", "rigl", "snfs", "dsr", "itop-rigl"])
def test_losses_are_scaled_for_half_precision(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU, and the scale follows: with each step that it is not too large for it grows here."""
    made = []

    def scaler(device: str, enabled: bool) -> torch.amp.GradScaler:
        made.append(GradScaler(device, growth_interval=1, enabled=True))
        return made[-1]

    monkeypatch.setattr(torch.amp, "GradScaler", scaler)
    trained = train(network(), blobs(), RECIPE, method=method, sparsity=0.5, seed=3)
    assert trained.accuracy > 0.8 and made[0].get_scale() == 2.0 ** (16 + 4 * 5)


def test_accuracy_restores_each_modules_mode() -> None:
    model = network().train()
    model[1].eval()
    accuracy(model, blobs()[1], 32)
    assert model.training and not model[1].training and model[4].training


def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "run.pt"

    def stop(text: str, share: float | None) -> None:
        if text.startswith("epoch 2"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(network(), blobs(), RECIPE, sparsity=0.5, checkpoint=file, checkpoint_seconds=0, progress=stop)
    with pytest.raises(TrainingError, match="another run"):
        train(network(), blobs(), RECIPE, sparsity=0.5, seed=1, checkpoint=file)
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(DataError, match="truncated"):
        train(network(), blobs(), RECIPE, sparsity=0.5, checkpoint=file)


def test_a_run_that_diverges_says_where() -> None:
    with pytest.raises(PruningError, match=r"0\.weight: .*NaN or Inf at step 2; .*lower the learning rate"):
        train(network(), blobs(), Recipe(epochs=4, learning_rate=1e30), sparsity=0.5)


def test_outputs_that_are_no_scores_are_refused() -> None:
    with pytest.raises(TrainingError, match=r"class scores .*got a tensor of shape \(32, 6, 4, 4\)"):
        train(nn.Sequential(nn.Conv2d(1, 6, 3, padding=1)), blobs(), RECIPE, sparsity=0.5)


def test_a_model_that_raises_is_named_with_its_input() -> None:
    with pytest.raises(PruningError, match=r"input of shape \(32, 1, 4, 4\)"):
        train(nn.Linear(5, 3), blobs(), RECIPE, sparsity=0.5)


def test_labels_beyond_the_classes_are_an_error_of_ours() -> None:
    with pytest.raises(MGEError, match="labels run from 0 to 2, .*2 classes"):
        train(nn.Sequential(nn.Flatten(), nn.Linear(16, 2)), blobs(), RECIPE, sparsity=0.5)


def test_digits_are_learned() -> None:
    pytest.importorskip("sklearn")
    from mge_gpu.models import digits_mlp

    trained = train(digits_mlp(), load_split("digits", (1, 8, 8), 10), Recipe(epochs=5), sparsity=0.5)
    assert trained.accuracy > 0.9
