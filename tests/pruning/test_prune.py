"""What holds for every method: exact counts, determinism, an untouched model, clear refusals."""

import random
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize
from torch.nn.utils import prune as torch_prune

from mge_gpu import models
from mge_gpu.data import load_data
from mge_gpu.errors import DataError, MaskError, PruningError
from mge_gpu.masks import apply_masks, prunable_parameters
from mge_gpu.pruning import METHODS, InexactCountWarning, LayerCollapseWarning, Method, prune

SPARSITIES = (0.6, 0.8, 0.9, 0.95, 0.98)
EXACT = [name for name, method in METHODS.items() if method.exact_count]
INEXACT = [name for name in METHODS if name not in EXACT]
RANDOM = ("uniform", "random", "er", "erk", "er_published", "expander")
FEW: dict[str, dict[str, Any]] = {
    "synflow": {"iterations": 3},
    "grasp": {"samples_per_class": 1},
    "prospr": {"steps": 1, "lr": 0.1},
    "iterative_snip": {"steps": 2},
    "force": {"steps": 2},
    "ntk_sap": {"iterations": 2, "samples": 4},
}


def batch(shape: tuple[int, ...] = (3, 32, 32), size: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    return torch.randn(size, *shape, generator=generator), torch.arange(size) % 10


def quiet(model: nn.Module, method: str, sparsity: float, **options: Any) -> dict[str, torch.Tensor]:
    """prune without its warnings, and with few steps and samples."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LayerCollapseWarning)
        warnings.simplefilter("ignore", InexactCountWarning)
        defaults = {"input_shape": (3, 32, 32), "data": batch(), **FEW.get(method, {})}
        return prune(model, method, sparsity, **{**defaults, **options})


class Small(nn.Module):
    """Convolution, batch norm, dropout, a shared layer and a classifier, for 3x6x6 inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.bn = nn.BatchNorm2d(8)
        self.drop = nn.Dropout(0.5)
        self.mix = nn.Linear(8, 8)
        self.fc = nn.Linear(8, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.bn(self.conv(x))).mean((2, 3))
        return self.fc(self.drop(torch.relu(self.mix(torch.relu(self.mix(x))))))


SMALL = {"input_shape": (3, 6, 6), "data": batch((3, 6, 6))}


def small() -> nn.Module:
    torch.manual_seed(0)
    return Small()


@pytest.fixture(scope="module")
def resnet20() -> nn.Module:
    torch.manual_seed(0)
    return models.resnet20()


@pytest.mark.parametrize("sparsity", SPARSITIES)
@pytest.mark.parametrize("method", EXACT)
def test_counts_are_exact_on_resnet20(resnet20: nn.Module, method: str, sparsity: float) -> None:
    masks = quiet(resnet20, method, sparsity)
    weights = prunable_parameters(resnet20)
    assert list(masks) == list(weights) and len(masks) == 22
    total = sum(weight.numel() for weight in weights.values())
    assert sum(int(mask.sum()) for mask in masks.values()) == round((1 - sparsity) * total)
    for name, mask in masks.items():
        assert mask.dtype == torch.bool and mask.shape == weights[name].shape and mask.device.type == "cpu"


@pytest.mark.parametrize("sparsity", SPARSITIES)
@pytest.mark.parametrize("method", INEXACT)
def test_a_count_that_is_not_exact_is_said(resnet20: nn.Module, method: str, sparsity: float) -> None:
    with pytest.warns(InexactCountWarning) as caught:
        masks = prune(resnet20, method, sparsity)
    kept, total = sum(int(mask.sum()) for mask in masks.values()), 270_896
    assert {name: tuple(m.shape) for name, m in masks.items()} == {
        name: tuple(w.shape) for name, w in prunable_parameters(resnet20).items()
    }
    asked = round((1 - sparsity) * total)
    text = (
        f"{method} keeps {kept:,} of 270,896 weights (sparsity {1 - kept / total:.4f}), "
        f"{kept - asked:+,} from the {asked:,} of sparsity {sparsity:g}"
    )
    assert [str(warning.message) for warning in caught] == [text]


def test_a_method_that_breaks_its_promise_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def lazy(model: nn.Module, sparsity: float) -> dict[str, torch.Tensor]:
        return {name: torch.ones_like(w).bool() for name, w in prunable_parameters(model).items()}

    monkeypatch.setitem(METHODS, "lazy", Method("lazy", lazy, "keeps all", "none"))
    with pytest.raises(PruningError, match=r"lazy keeps 360 of 360 .*\+180 from the 180 .*promises"):
        prune(small(), "lazy", 0.5)


@pytest.mark.parametrize("method", ["uniform", "random", "er", "erk", "magnitude"])
def test_counts_are_exact_on_torchvision_resnet18(method: str) -> None:
    torchvision = pytest.importorskip("torchvision")
    model = torchvision.models.resnet18(weights=None)
    for sparsity in (0.6, 0.98):
        masks = quiet(model, method, sparsity)
        assert len(masks) == 21
        total = sum(mask.numel() for mask in masks.values())
        assert sum(int(mask.sum()) for mask in masks.values()) == round((1 - sparsity) * total)


@pytest.mark.parametrize("method", METHODS)
def test_no_sparsity_keeps_everything(method: str) -> None:
    assert all(mask.all() for mask in quiet(small(), method, 0, **SMALL).values())


def snapshot(model: nn.Module) -> list[Any]:
    return [
        {key: value.clone() for key, value in model.state_dict().items()},
        [id(parameter) for parameter in model.parameters()],
        [None if p.grad is None else p.grad.clone() for p in model.parameters()],
        [p.requires_grad for p in model.parameters()],
        [module.training for module in model.modules()],
        [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()],
    ]


def rng_state() -> list[Any]:
    numpy_state = np.random.get_state()
    return [torch.get_rng_state(), list(numpy_state[1]), numpy_state[2], random.getstate()]  # type: ignore[index]


def same(left: Any, right: Any) -> bool:
    if isinstance(left, torch.Tensor):
        return torch.equal(left, right)
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list):
        return len(left) == len(right) and all(same(a, b) for a, b in zip(left, right, strict=True))
    return bool(left == right)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("method", METHODS)
def test_the_model_and_all_generators_stay_as_they_were(method: str, training: bool) -> None:
    model = small().train(training)
    model.bn.train(not training)
    calls: list[int] = []
    model.conv.register_forward_hook(lambda *_: calls.append(1))
    model.fc.weight.requires_grad_(False)
    model(batch((3, 6, 6))[0]).sum().backward()
    calls.clear()
    before, random_before = snapshot(model), rng_state()
    masks = quiet(model, method, 0.5, **SMALL)
    assert same(snapshot(model), before) and same(rng_state(), random_before) and not calls
    assert masks["fc.weight"].any()  # frozen weights are scored like the others

    class Broken(Small):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            torch.rand(3)
            raise RuntimeError("boom")

    if METHODS[method].needs_data or METHODS[method].needs_input_shape:
        broken = Broken().train(training)
        before, random_before = snapshot(broken), rng_state()
        with pytest.raises(PruningError, match=r"RuntimeError on an input of shape .*boom"):
            prune(broken, method, 0.5, **SMALL)
        assert same(snapshot(broken), before) and same(rng_state(), random_before)


@pytest.mark.parametrize("method", METHODS)
def test_the_same_seed_gives_the_same_masks(method: str) -> None:
    model = small()
    dataset = torch.utils.data.TensorDataset(*batch((3, 6, 6), 64))
    loader = torch.utils.data.DataLoader(dataset, batch_size=8, shuffle=True)
    options = {**SMALL, "data": loader}
    first = quiet(model, method, 0.7, seed=3, **options)
    torch.manual_seed(77)
    np.random.seed(7)
    model.train()
    again = quiet(model, method, 0.7, seed=3, **options)
    assert same(first, again)
    other = quiet(model, method, 0.7, seed=4, **options)
    depends_on_the_seed = METHODS[method].needs_data or method in (*RANDOM, "ntk_sap", "phew", "npb")
    assert same(first, other) != depends_on_the_seed


@pytest.mark.parametrize("method", METHODS)
def test_works_where_gradients_are_off(method: str) -> None:
    expected = quiet(small(), method, 0.5, **SMALL)
    with torch.no_grad():
        assert same(quiet(small(), method, 0.5, **SMALL), expected)
    with torch.inference_mode():
        assert same(quiet(small(), method, 0.5, **SMALL), expected)


@pytest.mark.parametrize("method", METHODS)
def test_weights_under_torch_prune_are_pruned_from_the_dense_ones(method: str) -> None:
    expected = quiet(small(), method, 0.5, **SMALL)
    model = small()
    torch_prune.random_unstructured(model.conv, "weight", 0.5)
    torch_prune.l1_unstructured(model.mix, "weight", 0.5)
    torch_prune.l1_unstructured(model.fc, "bias", 0.0)
    before = snapshot(model)
    masks = quiet(model, method, 0.5, **SMALL)
    assert same(masks, expected) and same(snapshot(model), before)
    apply_masks(model, masks)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_parametrized_weights_are_pruned_as_the_forward_pass_sees_them(method: str) -> None:
    for wrap in (parametrizations.weight_norm, torch.nn.utils.weight_norm):
        model, plain = small(), small()
        wrap(model.conv)
        with torch.no_grad():
            if hasattr(model.conv, "weight_g"):
                model.conv.weight_g.mul_(torch.arange(1.0, 9.0).reshape(8, 1, 1, 1))
            else:
                model.conv.parametrizations.weight.original0.mul_(torch.arange(1.0, 9.0).reshape(8, 1, 1, 1))
            plain.conv.weight.mul_(torch.arange(1.0, 9.0).reshape(8, 1, 1, 1))
        model.eval()
        masks = quiet(model, method, 0.5, **SMALL)
        expected = quiet(plain, method, 0.5, **SMALL)
        differing = sum(int((masks[name] != expected[name]).sum()) for name in masks)
        assert differing <= 2  # g v / |v| rounds: a weight at the threshold may change sides


def test_pruning_a_model_with_zeros_counts_them_as_weights() -> None:
    model = small()
    apply_masks(model, quiet(model, "magnitude", 0.9, **SMALL))
    masks = quiet(model, "random", 0.5, **SMALL)
    total = sum(mask.numel() for mask in masks.values())
    assert sum(int(mask.sum()) for mask in masks.values()) == round(0.5 * total)


def test_shared_weights_are_one() -> None:
    model = small()
    model.other = nn.Linear(8, 8)
    model.other.weight = model.mix.weight
    assert list(quiet(model, "snip", 0.5, **SMALL)) == ["conv.weight", "mix.weight", "fc.weight"]


def test_half_precision_models_are_scored_in_float32() -> None:
    model = small().to(torch.bfloat16)
    for method in METHODS:
        masks = quiet(model, method, 0.5, **SMALL)
        assert method in INEXACT or sum(int(mask.sum()) for mask in masks.values()) == round(
            0.5 * (216 + 64 + 80)
        )
    assert model.conv.weight.dtype == torch.bfloat16


def test_a_collapsed_layer_is_named() -> None:
    model = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 2, bias=False))
    model[1].weight.data.mul_(1e-6)
    with pytest.warns(
        LayerCollapseWarning, match=r"magnitude at sparsity 0.5 keeps no weight of 1 of 2.*1\.weight"
    ):
        prune(model, "magnitude", 0.5)


def test_nothing_is_warned_about_without_collapse() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        prune(small(), "uniform", 0.5)


@pytest.mark.parametrize("sparsity", [1, 1.0, -0.1, 2, float("nan"), float("inf"), "0.5", None, True])
def test_sparsity_outside_its_range(sparsity: Any) -> None:
    with pytest.raises(PruningError, match=r"sparsity must be in \[0, 1\)"):
        prune(small(), "uniform", sparsity)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda m: prune(m, "snap", 0.5),
            PruningError,
            r"'snap' \(did you mean 'snip'\?\).*uniform, random, er",
        ),
        (lambda m: prune(m, "zzz", 0.5), PruningError, "known are: uniform"),
        (lambda m: prune(m, "snip", 0.5), PruningError, "snip needs labelled data: pass data="),
        (lambda m: prune(m, "snip", 0.5, data="digits"), PruningError, "needs input_shape="),
        (lambda m: prune(m, "synflow", 0.5), PruningError, "synflow .*needs input_shape="),
        (lambda m: prune(m, "synflow", 0.5, input_shape=(3, -1)), PruningError, "positive integers"),
        (lambda m: prune(m, "synflow", 0.5, input_shape=(1, 6, 6)), PruningError, r"shape \(1, 1, 6, 6\)"),
        (lambda m: prune(m, "synflow", 0.5, input_shape=(3, 6, 6), iterations=0), PruningError, "iterations"),
        (lambda m: prune(m, "ntk_sap", 0.5, input_shape=(3, 6, 6), inits=0), PruningError, "inits"),
        (lambda m: prune(m, "ntk_sap", 0.5, input_shape=(3, 6, 6), epsilon=0), PruningError, "epsilon"),
        (lambda m: prune(m, "expander", 0.5, unit="tap"), PruningError, "'tap'"),
        (lambda m: prune(m, "uniform", 0.5, min_per_layer=-1), PruningError, "min_per_layer"),
        (lambda m: prune(m, "uniform", 0.9, min_per_layer=20), PruningError, "takes 60 .* only 36"),
        (lambda m: prune(m, "magnitude", 0.5, scope="block"), PruningError, "'block'"),
        (lambda m: prune(m, "magnitude", 0.5, power=2), PruningError, "no option 'power'.*are: scope"),
        (lambda m: prune(m, "uniform", 0.5, power=2), PruningError, "options are: none"),
        (lambda m: prune(m, "erk", 0.5, power=-1), PruningError, "power must be 0 or more"),
        (lambda m: prune(m, "uniform", 0.5, seed=-1), PruningError, "seed"),
        (lambda m: prune(m, "snip", 0.5, data=SMALL["data"], bn_mode="off"), PruningError, "bn_mode"),
        (lambda m: prune(m, "snip", 0.5, data=SMALL["data"], batches=0), PruningError, "batches"),
        (lambda m: prune(m, "snip", 0.5, data=[]), DataError, "holds 0 batches, 1 were"),
        (lambda m: prune(m, "snip", 0.5, data=[SMALL["data"]], batches=2), DataError, "holds 1 batches"),
        (lambda m: prune(m, "snip", 0.5, data=3), DataError, "got int"),
        (lambda m: prune(m, "snip", 0.5, data=[torch.ones(2)]), DataError, "pair of tensors"),
        (
            lambda m: prune(m, "snip", 0.5, data=(torch.ones(2, 3, 6, 6), torch.ones(3))),
            DataError,
            "one label",
        ),
        (
            lambda m: prune(m, "snip", 0.5, data=(torch.ones(2, 3, 6, 6), torch.tensor([0, 10]))),
            DataError,
            "from 0 to 10, but the model has 10 classes",
        ),
        (lambda m: prune(m, "snip", 0.5, data=(torch.ones(2, 3, 6, 6), torch.ones(2))), DataError, "integer"),
        (lambda m: prune(nn.ReLU(), "uniform", 0.5), PruningError, "no convolution or linear layer"),
        (lambda m: prune("resnet20", "uniform", 0.5), PruningError, r"torch\.nn\.Module, got str"),
    ],
)
def test_refusals_say_what_to_do(call: Callable[[nn.Module], Any], error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        call(small())


@pytest.mark.parametrize("method", METHODS)
def test_nan_weights_are_named(method: str) -> None:
    model = small()
    model.mix.weight.data[0, 0] = torch.nan
    with pytest.raises(MaskError, match=r"mix\.weight: 1 of 64"):
        quiet(model, method, 0.5, **SMALL)


def test_what_cannot_be_copied() -> None:
    import threading

    model = small()
    model.lock = threading.Lock()
    with pytest.raises(PruningError, match="cannot be copied"):
        prune(model, "synflow", 0.5, input_shape=(3, 6, 6))
    assert prune(model, "erk", 0.5)


def test_methods_say_what_they_need() -> None:
    hungry = {"snip", "grasp", "prospr", "iterative_snip", "force"}
    shaped = {"synflow", "ntk_sap", "phew", "npb"}
    assert {name for name, method in METHODS.items() if method.needs_data} == hungry
    assert {name for name, method in METHODS.items() if method.needs_input_shape} == shaped
    assert INEXACT == ["er_published", "expander"]
    assert METHODS["snip"].options == ("batches", "bn_mode", "loss")
    assert METHODS["magnitude"].options == ("scope",)
    assert METHODS["npb"].options == ("density", "alpha", "beta", "max_p", "min_n", "chunk")
    assert all(method.summary and method.paper for method in METHODS.values())


def test_data_by_name_and_as_a_loader_agree() -> None:
    pytest.importorskip("sklearn")
    model = small()
    by_name = quiet(model, "snip", 0.5, input_shape=(3, 6, 6), data="digits", seed=2)
    loaded = load_data("digits", (3, 6, 6), 10, seed=2)
    assert same(by_name, quiet(model, "snip", 0.5, data=loaded, seed=2))
    assert not same(by_name, quiet(model, "snip", 0.5, data=load_data("digits", (3, 6, 6), 10, seed=9)))


def test_a_mask_parametrization_counts_as_the_weight_it_yields() -> None:
    class Halve(nn.Module):
        def forward(self, weight: torch.Tensor) -> torch.Tensor:
            return weight * (torch.arange(weight.shape[0]) < weight.shape[0] // 2)[:, None]

    model = small()
    parametrize.register_parametrization(model.mix, "weight", Halve())
    masks = quiet(model, "magnitude", 0.5, scope="layer", **SMALL)
    assert masks["mix.weight"][:4].all() and not masks["mix.weight"][4:].any()
