"""NTK-SAP: the score against its definition by finite differences, statistics, batches and inits."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mge_gpu.errors import PruningError
from mge_gpu.pruning import prune
from mge_gpu.pruning._copy import dense_copy
from mge_gpu.pruning.ntk_sap import response_gradients


def network(track: bool = True) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 3, 3, padding=1),
        nn.BatchNorm2d(3, track_running_stats=track),
        nn.Tanh(),
        nn.Dropout(0.5),
        nn.Flatten(),
        nn.Linear(3 * 16, 2),
    ).double()


def setting() -> tuple[nn.Module, dict[str, torch.Tensor], dict[str, torch.Tensor], torch.Tensor]:
    model = network()
    generator = torch.Generator().manual_seed(1)
    names = {name: p for name, p in model.named_parameters() if p.ndim > 1}
    masks = {n: torch.rand(p.shape, generator=generator) < 0.7 for n, p in names.items()}
    delta = {n: 0.1 * torch.randn(p.shape, generator=generator, dtype=p.dtype) for n, p in names.items()}
    return model, masks, delta, torch.randn(5, 2, 4, 4, generator=generator, dtype=torch.float64)


def test_the_score_is_the_derivative_of_its_definition() -> None:
    """Central differences in m, kept and pruned weights alike, of a forward pass written out by hand."""
    model, masks, delta, x = setting()
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([1.0, 2.0, -1.5]))
        model[1].running_mean.fill_(3.0)  # must not matter
    convolution, classifier = model[0], model[5]

    def hidden(w: torch.Tensor) -> torch.Tensor:
        return F.conv2d(x, w, convolution.bias, padding=1)

    at = hidden(masks["0.weight"] * convolution.weight)
    mean, variance = at.mean((0, 2, 3)), at.var((0, 2, 3), unbiased=True)

    def output(first: torch.Tensor, last: torch.Tensor) -> torch.Tensor:
        scale = model[1].weight / (variance + model[1].eps).sqrt()
        normal = (hidden(first) - mean[:, None, None]) * scale[:, None, None] + model[1].bias[:, None, None]
        return normal.tanh().flatten(1) @ last.T + classifier.bias

    def change(m: dict[str, torch.Tensor]) -> float:
        one = output(m["0.weight"] * convolution.weight, m["5.weight"] * classifier.weight)
        other = output(
            m["0.weight"] * (convolution.weight + delta["0.weight"]),
            m["5.weight"] * (classifier.weight + delta["5.weight"]),
        )
        return float((one - other).square().sum())

    copy, weights = dense_copy(model)
    theta = {name: weight.detach() for name, weight in weights.items()}
    found = response_gradients(copy, theta, delta, masks, x)
    step = 1e-6
    with torch.no_grad():
        for name, mask in masks.items():
            expected = torch.zeros_like(theta[name])
            for k in range(mask.numel()):
                values = []
                for sign in (1, -1):
                    m = {key: value.double() for key, value in masks.items()}
                    m[name].view(-1)[k] += sign * step
                    values.append(change(m))
                expected.view(-1)[k] = (values[0] - values[1]) / (2 * step)
            assert torch.allclose(found[name], expected, rtol=1e-6, atol=1e-8), name
            assert expected[~mask].abs().max() > 1e-3


def test_batch_norm_without_running_statistics_is_scored_alike() -> None:
    model, masks, delta, x = setting()
    results = []
    for track in (True, False):
        copy, weights = dense_copy(network(track))
        results.append(response_gradients(copy, {n: w.detach() for n, w in weights.items()}, delta, masks, x))
    assert all(torch.allclose(results[0][name], results[1][name]) for name in masks)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, dict[str, torch.Tensor]]]:
    """What each call of response_gradients was given."""
    seen: list[dict[str, dict[str, torch.Tensor]]] = []

    def spy(network, theta, delta, masks, x):  # type: ignore[no-untyped-def]
        seen.append(
            {
                "theta": theta,
                "delta": delta,
                "masks": {n: m.detach().clone() for n, m in masks.items()},
                "x": {"x": x},
            }
        )
        return response_gradients(network, theta, delta, masks, x)

    monkeypatch.setattr("mge_gpu.pruning.ntk_sap.response_gradients", spy)
    return seen


def test_batches_inits_and_steps(calls: list[dict[str, dict[str, torch.Tensor]]]) -> None:
    model = network()
    own = {n: p.detach().clone() for n, p in model.named_parameters() if p.ndim > 1}
    options = {"iterations": 2, "samples": 5, "batch_size": 3, "inits": 2, "epsilon": 0.5}
    prune(model, "ntk_sap", 0.75, input_shape=(2, 4, 4), seed=1, **options)
    assert [len(call["x"]["x"]) for call in calls] == [3, 2] * 4  # 2 steps of 2 inits of 2 batches
    inputs = torch.cat([call["x"]["x"].flatten() for call in calls])
    assert inputs.unique().numel() == inputs.numel()
    assert abs(inputs.mean()) < 0.15 and inputs.std() == pytest.approx(1, abs=0.1)
    moves = torch.cat([call["delta"]["5.weight"].flatten() for call in calls])
    assert moves.unique().numel() == moves.numel() and moves.std() == pytest.approx(0.5, abs=0.05)
    kept = [sum(int(m.sum()) for m in call["masks"].values()) for call in calls]
    assert kept == [150] * 4 + [75] * 4
    for number, call in enumerate(calls):
        for name, weight in call["theta"].items():
            first = number % 4 < 2
            assert torch.equal(weight, own[name]) == first
            assert torch.equal(weight.flatten().sort().values, own[name].flatten().sort().values)


def test_weights_that_do_not_reach_the_output_go_first() -> None:
    class Heads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.unused, self.used = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> list[object]:
            return [self.used(x), "and", {"twice": 2 * self.used(x)}]

    with pytest.warns(UserWarning, match=r"keeps no weight of 1 of 2 layers: unused\.weight"):
        masks = prune(Heads(), "ntk_sap", 0.5, input_shape=(4,), iterations=1, samples=3)
    assert masks["used.weight"].all()


def test_overflow_is_an_error() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    for layer in model:
        nn.init.constant_(layer.weight, 1e20)
    with pytest.raises(PruningError, match=r"0\.weight: the pruning scores are not finite"):
        prune(model, "ntk_sap", 0.5, input_shape=(4,), samples=3)
