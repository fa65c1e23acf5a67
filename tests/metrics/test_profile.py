"""How weights are spread over layers: against loops over single weights."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import mge_gpu
from mge_gpu.errors import MaskError
from mge_gpu.metrics import PROFILE_KEYS, layer_profile


def network(groups: int = 1) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, groups=groups), nn.ReLU(), nn.Conv2d(4, 2, 2), nn.Flatten(), nn.Linear(2, 3)
    )


def by_loops(model: nn.Module, masks: dict[str, torch.Tensor]) -> dict[str, float]:
    densities, degrees, bare = [], [], []
    for name, module in model.named_children():
        if not isinstance(module, nn.Conv2d | nn.Linear):
            continue
        mask, groups = masks[f"{name}.weight"], getattr(module, "groups", 1)
        out, per = mask.shape[:2]
        edges = set()
        for j in range(out):
            for i in range(per):
                if mask[j, i].any():
                    edges.add((j * groups // out * per + i, j))
        nodes = per * groups + out
        touched = len({i for i, _ in edges}) + len({j for _, j in edges})
        densities.append(max(float(mask.float().mean()), 1e-5))
        degrees.append(max(len(edges), 0.5) / nodes)
        bare.append((nodes - touched) / nodes)

    def mean_log(values: list[float]) -> float:
        return math.exp(sum(map(math.log, values)) / len(values))

    a, b, c = densities
    found = (mean_log(densities), a, c, a, b, c, mean_log(degrees), sum(bare) / 3)
    return dict(zip(PROFILE_KEYS, found, strict=True))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 2]), st.sampled_from([0.0, 0.05, 0.3, 1.0]))
def test_against_loops_over_weights(seed: int, groups: int, keep: float) -> None:
    model, random = network(groups), torch.Generator().manual_seed(seed)
    masks = {
        name: (torch.rand(weight.shape, generator=random) < keep).float()
        for name, weight in model.named_parameters()
        if name.endswith("weight")
    }
    found = layer_profile(model, masks)
    assert found == pytest.approx(by_loops(model, masks), rel=1e-6)
    assert layer_profile(mge_gpu.trace(model, (2, 4, 4)), masks) == found


def test_thirds_of_many_layers_and_of_few() -> None:
    model = nn.Sequential(*(nn.Linear(4, 4) for _ in range(7)))
    masks = {f"{k}.weight": torch.zeros(4, 4) for k in range(7)}
    for k, mask in enumerate(masks.values()):
        mask.view(-1)[: k + 1] = 1
    found = layer_profile(model, masks)
    product = [1 * 2 * 3, 4 * 5, 6 * 7]
    expected = [(p / 16**n) ** (1 / n) for p, n in zip(product, (3, 2, 2), strict=True)]
    assert [found[f"{part}_density"] for part in ("early", "middle", "late")] == pytest.approx(expected)
    two = layer_profile(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)))
    assert math.isnan(two["late_density"]) and two["middle_density"] == 1
    assert all(math.isnan(value) for value in layer_profile(nn.ReLU()).values())


def test_a_mask_that_does_not_fit() -> None:
    with pytest.raises(MaskError):
        layer_profile(network(), {"0.weight": torch.ones(1)})
