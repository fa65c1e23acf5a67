"""Names, masks and values of weights, however the model stores them; modules that are used twice."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune, spectral_norm, weight_norm

import mge_gpu
from mge_gpu.masks import effective_weights, masks_of, prunable_parameters


def dense(graph: mge_gpu.MultipartiteGraph, source: int, target: int) -> Tensor:
    """The block between two partitions as a (target, source) matrix."""
    s, t = graph.partitions[source], graph.partitions[target]
    matrix = torch.from_numpy(graph.to_scipy().toarray())
    return matrix[s.offset : s.offset + s.size, t.offset : t.offset + t.size].T


class Ternary(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return torch.sign(weight) * (weight.abs() > 0.2)


def _hooked(how: str, layer: nn.Module) -> nn.Module:
    if how == "prune":
        prune.random_unstructured(layer, "weight", 0.5)
    elif how == "prune twice":
        prune.random_unstructured(layer, "weight", 0.3)
        prune.l1_unstructured(layer, "weight", 0.5)
    elif how == "weight_norm":
        weight_norm(layer)
    elif how == "spectral_norm":
        spectral_norm(layer)
    elif how == "parametrized weight_norm":
        parametrizations.weight_norm(layer)
    elif how == "parametrized spectral_norm":
        parametrizations.spectral_norm(layer)
    elif how == "orthogonal":
        parametrizations.orthogonal(layer)
    else:
        parametrize.register_parametrization(layer, "weight", Ternary())
    return layer


KINDS = [
    "prune", "prune twice", "weight_norm", "spectral_norm", "parametrized weight_norm",
    "parametrized spectral_norm", "orthogonal", "ternary",
]  # fmt: skip


@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated")
@pytest.mark.parametrize("how", KINDS)
def test_computed_weights(how: str) -> None:
    """The graph holds the weights that a forward pass uses, under the names that masks use."""
    torch.manual_seed(0)
    model = nn.Sequential(_hooked(how, nn.Linear(6, 5)), nn.ReLU(), nn.Linear(5, 2))
    program = mge_gpu.trace(model, (6,))
    assert (
        [x.weight_name for x in program.layers]
        == list(prunable_parameters(model))
        == ["0.weight", "2.weight"]
    )
    weights = effective_weights(model)
    graph = mge_gpu.encode(program)
    torch.testing.assert_close(dense(graph, 0, 1), weights["0.weight"].abs())
    assert graph.num_edges == sum(int(mask.sum()) for mask in masks_of(model).values())
    mask = torch.arange(30).reshape(5, 6) % 2
    masked = mge_gpu.encode(program, masks={"0.weight": mask})
    torch.testing.assert_close(dense(masked, 0, 1), weights["0.weight"].abs() * mask)


def test_weights_are_read_when_the_graph_is_built() -> None:
    """One program serves a model whose weights and pruning hooks go on changing."""
    model = nn.Sequential(nn.Linear(3, 3, bias=False))
    prune.custom_from_mask(model[0], "weight", torch.eye(3))
    program = mge_gpu.trace(model, (3,))
    assert mge_gpu.encode(program).num_edges == 3
    with torch.no_grad():
        model[0].weight_orig[0, 0] = 0
        model[0].weight_mask[2, :] = 1
    graph = mge_gpu.encode(program)
    expected = (model[0].weight_orig * model[0].weight_mask).detach().abs()
    torch.testing.assert_close(dense(graph, 0, 1), expected)
    assert graph.num_edges == 4


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(4, 4, bias=False)
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(torch.relu(self.body(x))))


def test_mask_of_a_shared_module_acts_on_both_uses() -> None:
    model = Twice()
    program = mge_gpu.trace(model, (4,))
    assert [x.weight_name for x in program.layers] == ["body.weight", "body.weight", "head.weight"]
    graph = mge_gpu.encode(program, masks={"body.weight": torch.eye(4)})
    for source in (0, 1):
        expected = model.body.weight.detach().abs() * torch.eye(4)
        torch.testing.assert_close(dense(graph, source, source + 1), expected)
    assert graph.num_edges == 4 + 4 + 8


def test_mask_of_a_tied_weight_acts_on_both_layers() -> None:
    model = nn.Sequential(nn.Linear(3, 3, bias=False), nn.ReLU(), nn.Linear(3, 3, bias=False))
    model[2].weight = model[0].weight
    assert list(prunable_parameters(model)) == ["0.weight"]
    graph = mge_gpu.encode(model, (3,), {"0.weight": torch.tril(torch.ones(3, 3))})
    assert graph.num_edges == 12


def test_module_under_two_names() -> None:
    class Alias(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(3, 3, bias=False)
            self.second = self.first

        def forward(self, x: Tensor) -> Tensor:
            return self.second(self.first(x))

    graph = mge_gpu.encode(Alias(), (3,), {"first.weight": torch.eye(3)})
    assert graph.num_edges == 6


class InPlace(nn.Module):
    """The same residual block as `Plain`, written with in-place ops."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(2, 2, 3, padding=1), nn.Conv2d(2, 2, 1), nn.Conv2d(2, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        out = self.a(x)
        out.relu_()
        out += self.b(x)
        out.mul_(2.0)
        torch.nn.functional.relu(out, inplace=True)
        return self.c(out)


class Plain(InPlace):
    def forward(self, x: Tensor) -> Tensor:
        return self.c(torch.relu((torch.relu(self.a(x)) + self.b(x)) * 2.0))


def test_in_place_ops_give_the_graph_of_their_plain_forms() -> None:
    in_place, plain = InPlace(), Plain()
    plain.load_state_dict(in_place.state_dict())
    one, other = (mge_gpu.encode(m, (2, 4, 4)) for m in (in_place, plain))
    assert [p.name for p in one.partitions] == [p.name for p in other.partitions]
    assert len(one.partitions) == 3  # a and b end in one node set
    assert abs(one.to_scipy() - other.to_scipy()).nnz == 0


def test_in_place_residual_is_an_identity_skip() -> None:
    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(3, 3), nn.Linear(3, 3)

        def forward(self, x: Tensor) -> Tensor:
            x = self.a(x)
            out = self.b(torch.relu(x))
            out += x
            return out

    assert mge_gpu.encode(Residual(), (3,)).num_edges == 18
    skips = mge_gpu.encode(Residual(), (3,), {"b.weight": torch.zeros(3, 3)}, identity_skips=True)
    torch.testing.assert_close(dense(skips, 1, 2), torch.eye(3))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_dtypes(dtype: torch.dtype) -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8, 2)).to(dtype)
    graph = mge_gpu.encode(model, (1, 4, 4))
    torch.testing.assert_close(dense(graph, 1, 2), model[3].weight.detach().abs().float())
    assert graph.coo()[2].dtype == torch.float32
