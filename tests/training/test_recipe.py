"""The recipe: schedules against their formulas, weight decay where it belongs, crops and mirror images."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from mge_gpu.errors import TrainingError
from mge_gpu.training import Recipe


@given(epochs=st.integers(1, 200), part=st.floats(0, 1), rate=st.floats(1e-6, 10))
def test_schedules_follow_their_formulas(epochs: int, part: float, rate: float) -> None:
    at = part * epochs
    cosine = Recipe(epochs, learning_rate=rate).rate(at)
    assert math.isclose(cosine, rate * math.cos(math.pi * part / 2) ** 2, rel_tol=1e-9, abs_tol=1e-12)
    assert Recipe(epochs, learning_rate=rate, schedule="constant").rate(at) == rate
    stepped = Recipe(epochs, learning_rate=rate, schedule="step").rate(at)
    assert math.isclose(stepped, rate * (1 if at < epochs / 2 else 0.1 if at < 0.75 * epochs else 0.01))


def test_weight_decay_leaves_norms_and_biases_alone() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 2))
    model[3].weight.requires_grad_(False)
    decayed, plain = Recipe(weight_decay=0.5).optimizer(model).param_groups
    assert [p.shape for p in decayed["params"]] == [(2, 1, 3, 3)] and decayed["weight_decay"] == 0.5
    assert [p.shape for p in plain["params"]] == [(2,), (2,), (2,), (2,)] and plain["weight_decay"] == 0


@pytest.mark.parametrize("height, width", [(8, 8), (16, 24), (5, 3)])
def test_each_augmented_image_is_a_crop_of_the_padded_one_or_of_its_mirror_image(
    height: int, width: int
) -> None:
    images = torch.rand(16, 2, height, width) + 1
    augmented = Recipe(augment="crop-flip").augmented(images, torch.Generator().manual_seed(0))
    assert augmented.shape == images.shape
    down, right = max(1, height // 8), max(1, width // 8)
    seen = set()
    for image, found in zip(images, augmented, strict=True):
        padded = nn.functional.pad(image, (right, right, down, down))
        crops = {
            (top, left): padded[:, top : top + height, left : left + width]
            for top in range(2 * down + 1)
            for left in range(2 * right + 1)
        }
        matches = [(*place, False) for place, crop in crops.items() if torch.equal(found, crop)]
        matches += [(*place, True) for place, crop in crops.items() if torch.equal(found, crop.flip(-1))]
        assert matches
        seen.update(matches)
    assert len(seen) > 4 and {mirrored for *_, mirrored in seen} == {False, True}


def test_without_augmentation_the_batch_is_itself() -> None:
    images = torch.rand(2, 1, 4, 4)
    assert Recipe().augmented(images, torch.Generator()) is images


BAD = {
    "epochs": 0,
    "batch_size": 2.5,
    "learning_rate": -0.1,
    "momentum": float("nan"),
    "weight_decay": "much",
    "schedule": "linear",
    "augment": "cutout",
}


@pytest.mark.parametrize("name", BAD)
def test_bad_numbers_are_named(name: str) -> None:
    with pytest.raises(TrainingError, match=rf"{name} must be .*got {BAD[name]!r}"):
        Recipe(**{name: BAD[name]})


def test_augmentation_wants_images() -> None:
    with pytest.raises(TrainingError, match=r"images of shape \(batch, C, H, W\), got \(2, 3\)"):
        Recipe(augment="crop-flip").augmented(torch.zeros(2, 3), torch.Generator())
