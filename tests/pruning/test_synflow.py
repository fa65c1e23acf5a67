"""SynFlow: conservation of flow, pristine statistics, no return of pruned weights, no collapse."""

import pytest
import torch
from torch import nn

from mge_gpu import models
from mge_gpu.errors import PruningError
from mge_gpu.pruning import LayerCollapseWarning, prune
from mge_gpu.pruning.synflow import flow_scores, linearised


def layer_sums(model: nn.Module, shape: tuple[int, ...]) -> tuple[dict[str, float], dict[str, torch.Tensor]]:
    network, weights = linearised(model)
    scores = flow_scores(network, weights, torch.ones(1, *shape, dtype=torch.float64))
    return {name: score.sum().item() for name, score in scores.items()}, scores


def test_flow_is_conserved_where_every_layer_cuts_all_paths() -> None:
    torch.manual_seed(0)
    model = models.conv6()
    sums, _ = layer_sums(model, (3, 32, 32))
    network, _ = linearised(model)
    flow = network(torch.ones(1, 3, 32, 32, dtype=torch.float64)).sum().item()
    assert list(sums.values()) == pytest.approx([flow] * 9, rel=1e-9)


def test_scores_of_a_deep_linear_chain_are_products_of_path_weights() -> None:
    model = nn.Sequential(*(nn.Linear(3, 3, bias=False) for _ in range(3)))
    a, b, c = (layer.weight.detach().double().abs() for layer in model)
    _, scores = layer_sums(model, (3,))
    assert torch.allclose(
        scores["1.weight"], (torch.ones(3, dtype=torch.float64) @ c)[:, None] * b * (a.sum(1))
    )
    assert torch.allclose(scores["2.weight"], c * (b @ a.sum(1)))


@pytest.mark.filterwarnings("ignore::mge_gpu.pruning.LayerCollapseWarning")
def test_signs_and_statistics_do_not_matter() -> None:
    torch.manual_seed(0)
    model = models.resnet20()
    expected = prune(model, "synflow", 0.8, input_shape=(3, 32, 32), iterations=3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(torch.where(torch.rand_like(parameter) < 0.5, -1.0, 1.0))
        for name, buffer in model.named_buffers():
            if "running" in name:
                buffer.uniform_(0.5, 5.0)
    found = prune(model, "synflow", 0.8, input_shape=(3, 32, 32), iterations=3)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_batch_norm_without_running_statistics_passes_the_flow() -> None:
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4, track_running_stats=False), nn.Conv2d(4, 2, 3)
    )
    sums, _ = layer_sums(model, (1, 8, 8))
    assert all(value > 1e-3 for value in sums.values())


def test_iterating_avoids_the_collapse_of_a_single_shot() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(*(nn.Linear(a, b, bias=False) for a, b in ((60, 60), (60, 4), (4, 60))))
    with pytest.warns(LayerCollapseWarning, match=r"1 of 3 layers: 0\.weight"):
        prune(model, "synflow", 0.98, input_shape=(60,), iterations=1)
    steps: list[float | None] = []
    masks = prune(
        model, "synflow", 0.98, input_shape=(60,), progress=lambda text, fraction: steps.append(fraction)
    )
    assert len(steps) == 100 and steps[-1] == 1
    path = torch.ones(60)
    for mask in masks.values():
        path = mask.float() @ path
    assert path.sum() > 0


def test_pruned_weights_never_return() -> None:
    model = models.conv6()
    kept: dict[int, dict[str, torch.Tensor]] = {}
    for steps in (1, 2):  # density 0.5^(t / T): T = 1 at sparsity 0.5 is step 1 of T = 2 at sparsity 0.75
        kept[steps] = prune(model, "synflow", 1 - 0.5**steps, input_shape=(3, 32, 32), iterations=steps)
    for name, mask in kept[2].items():
        assert not (mask & ~kept[1][name]).any()


def test_overflow_is_an_error() -> None:
    model = nn.Sequential(*(nn.Linear(10, 10, bias=False) for _ in range(40)))
    with torch.no_grad():
        for layer in model:
            layer.weight.fill_(1e30)
    with pytest.raises(PruningError, match="overflows float64"):
        prune(model, "synflow", 0.5, input_shape=(10,))


def test_no_flow_is_an_error() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    nn.init.zeros_(model[1].weight)
    with pytest.raises(PruningError, match="every weight scores zero"):
        prune(model, "synflow", 0.5, input_shape=(4,))


def test_models_with_several_outputs() -> None:
    class Heads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.unused = nn.Linear(4, 2), nn.Linear(4, 3), nn.Linear(4, 1)

        def forward(self, x: torch.Tensor) -> dict[str, object]:
            return {"a": self.a(x), "rest": [self.b(x), 3]}

    sums, scores = layer_sums(Heads(), (4,))
    assert sums["a.weight"] > 0 and sums["b.weight"] > 0 and not scores["unused.weight"].any()
