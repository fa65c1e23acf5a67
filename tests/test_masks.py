"""Masks: read from every place that keeps them, checked, applied, saved, and refused when hostile."""

import os
import pickle
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune

import mge_gpu
from mge_gpu.errors import DataError, MaskError
from mge_gpu.masks import (
    apply_masks,
    check_masks,
    check_weight,
    effective_weights,
    load_masks,
    load_weights,
    masks_of,
    prunable_parameters,
    save_masks,
)


class TwoLayers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.bn = nn.BatchNorm2d(4)
        self.fc = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.bn(self.conv(x)).mean((2, 3)))


class FixedMask(nn.Module):
    def __init__(self, mask: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("mask", mask)

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return weight * self.mask


def half(shape: torch.Size) -> torch.Tensor:
    return (torch.arange(shape.numel()) % 2 == 0).reshape(shape)


def test_prunable_parameters_are_every_weight_in_module_order() -> None:
    layers = [
        nn.Conv1d(2, 2, 3),
        nn.Conv2d(2, 2, 3),
        nn.Conv3d(2, 2, 3),
        nn.ConvTranspose1d(2, 2, 3),
        nn.ConvTranspose2d(2, 2, 3),
        nn.ConvTranspose3d(2, 2, 3),
        nn.Linear(2, 2),
        nn.BatchNorm2d(2),
        nn.LayerNorm(2),
        nn.Embedding(2, 2),
    ]
    found = prunable_parameters(nn.Sequential(*layers))
    assert list(found) == [f"{i}.weight" for i in range(7)]
    assert found["1.weight"] is layers[1].weight
    assert list(prunable_parameters(nn.Linear(2, 2))) == ["weight"]


def test_shared_weights_appear_once() -> None:
    first, second = nn.Linear(3, 3), nn.Linear(3, 3)
    second.weight = first.weight
    assert list(prunable_parameters(nn.Sequential(first, second, first))) == ["0.weight"]


def test_lazy_layer_is_refused_by_name() -> None:
    with pytest.raises(MaskError, match=r"1\.weight.*lazy"):
        prunable_parameters(nn.Sequential(nn.Linear(2, 2), nn.LazyLinear(2)))


@pytest.mark.parametrize("how", ["zeros", "prune", "parametrization"])
def test_sparsity_is_read_from_zeros_prune_and_parametrizations(how: str) -> None:
    model = TwoLayers()
    mask = half(model.conv.weight.shape)
    if how == "zeros":
        model.conv.weight.data *= mask
    elif how == "prune":
        prune.custom_from_mask(model.conv, "weight", mask)
    else:
        parametrize.register_parametrization(model.conv, "weight", FixedMask(mask))
    assert list(prunable_parameters(model)) == ["conv.weight", "fc.weight"]
    found = masks_of(model)
    assert torch.equal(found["conv.weight"], mask) and found["fc.weight"].all()
    assert found["conv.weight"].dtype == torch.bool


def test_iterated_pruning_and_a_pruned_bias() -> None:
    model = TwoLayers()
    prune.random_unstructured(model.fc, "bias", 0.5)
    prune.l1_unstructured(model.fc, "weight", 0.25)
    prune.l1_unstructured(model.fc, "weight", 0.5)  # a PruningContainer now
    assert int(masks_of(model)["fc.weight"].sum()) == int(model.fc.weight_mask.sum()) == 3


def test_a_mask_is_read_as_it_is_now_not_as_of_the_last_forward() -> None:
    model = TwoLayers()
    prune.custom_from_mask(model.fc, "weight", torch.ones(2, 4))
    model.fc.weight_mask[0, 0] = 0
    assert not masks_of(model)["fc.weight"][0, 0]
    assert model.fc.weight[0, 0] != 0  # the attribute is stale, and still is


@pytest.mark.parametrize(
    "wrap",
    [
        parametrizations.weight_norm,
        parametrizations.spectral_norm,
        torch.nn.utils.spectral_norm,
        pytest.param(
            torch.nn.utils.weight_norm,
            marks=pytest.mark.filterwarnings("ignore::FutureWarning"),
        ),
    ],
)
def test_norm_reparametrizations(wrap: object) -> None:
    model = TwoLayers()
    wrap(model.conv)  # type: ignore[operator]
    model.eval()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    x = torch.randn(2, 3, 5, 5)
    with torch.no_grad():
        model(x)
        assert torch.allclose(effective_weights(model)["conv.weight"], model.conv.weight)
    model.train()
    masks_of(model)
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key]), key  # no power iteration was taken
    assert model.training and all(module.training for module in model.modules())
    # Zeroing the directions would rescale the weights that stay: refused, and nothing has changed.
    with pytest.raises(MaskError, match=r"conv\.weight.*remove it first"):
        apply_masks(model, {"conv.weight": half(torch.Size((4, 3, 3, 3)))})
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key]), key


def test_a_mask_parametrization_can_be_masked_further() -> None:
    model = TwoLayers()
    parametrize.register_parametrization(model.conv, "weight", FixedMask(half(model.conv.weight.shape)))
    mask = torch.ones(4, 3, 3, 3, dtype=torch.bool)
    mask[0] = False
    kept = model.conv.weight[1:].clone()
    apply_masks(model, {"conv.weight": mask})
    assert torch.equal(masks_of(model)["conv.weight"], mask & half(mask.shape))
    assert torch.equal(model.conv.weight[1:], kept)


def test_a_parametrization_that_refills_zeros_is_refused_and_undone() -> None:
    class Shift(nn.Module):
        def forward(self, weight: torch.Tensor) -> torch.Tensor:
            return weight + 1

    model = TwoLayers()
    parametrize.register_parametrization(model.fc, "weight", Shift())
    prune.custom_from_mask(model.conv, "weight", torch.ones(4, 3, 3, 3))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(MaskError, match=r"fc\.weight.*remove"):
        apply_masks(
            model, {"conv.weight": half(model.conv.weight.shape), "fc.weight": half(torch.Size((2, 4)))}
        )
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_a_low_rank_parametrization_is_refused() -> None:
    class Product(nn.Module):
        def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
            return a @ b

        def right_inverse(self, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return weight[:, :1], weight[:1]

    model = TwoLayers()
    parametrize.register_parametrization(model.fc, "weight", Product(), unsafe=True)
    assert masks_of(model)["fc.weight"].shape == (2, 4)
    with pytest.raises(MaskError, match="remove it first"):
        apply_masks(model, {"fc.weight": half(torch.Size((2, 4)))})


@pytest.mark.parametrize("pruned", [False, True])
def test_apply_masks_zeroes_in_place(pruned: bool) -> None:
    model = TwoLayers()
    if pruned:
        prune.custom_from_mask(model.fc, "weight", torch.ones(2, 4))
    untouched = model.conv.weight.clone()
    mask = half(torch.Size((2, 4)))
    apply_masks(model, {"fc.weight": mask.float()})
    assert torch.equal(model.fc.weight != 0, mask)
    assert torch.equal(model.conv.weight, untouched)
    model(torch.randn(2, 3, 5, 5)).sum().backward()
    assert torch.equal(model.fc.weight != 0, mask)


def test_apply_masks_drops_infinite_weights() -> None:
    layer = nn.Linear(2, 1)
    layer.weight.data[0, 0] = torch.inf
    apply_masks(layer, {"weight": torch.tensor([[0, 1]])})
    assert layer.weight[0, 0] == 0


SHAPES = {"conv.weight": (4, 3, 3, 3), "fc.weight": (2, 4)}


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        ({"fc.wieght": torch.ones(2, 4)}, r"fc\.wieght.*did you mean 'fc\.weight'"),
        ({"fc.weight": torch.ones(4, 2)}, r"fc\.weight.*\(4, 2\).*\(2, 4\)"),
        ({"fc.weight": torch.full((2, 4), torch.nan)}, r"fc\.weight.*NaN"),
        ({"fc.weight": torch.full((2, 4), torch.inf)}, r"fc\.weight.*Inf"),
        ({"fc.weight": torch.full((2, 4), 0.5)}, r"fc\.weight.*8 of 8.*0\.5"),
        ({"fc.weight": torch.full((2, 4), -1)}, r"fc\.weight.*neither 0 nor 1"),
        ({"fc.weight": torch.ones(2, 4, device="meta")}, r"fc\.weight.*no values"),
        ({"fc.weight": "dense"}, r"fc\.weight.*must be a tensor"),
        ([torch.ones(2, 4)], "must be a dict"),
    ],
)
def test_bad_masks_are_refused_by_name(masks: dict[str, torch.Tensor], message: str) -> None:
    with pytest.raises(MaskError, match=message):
        check_masks(masks, SHAPES)
    model = TwoLayers()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(MaskError, match=message):
        apply_masks(model, masks)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@given(
    bits=st.lists(st.booleans(), min_size=8, max_size=8),
    dtype=st.sampled_from([torch.bool, torch.uint8, torch.int64, torch.float16, torch.float64]),
    sparse=st.booleans(),
)
def test_masks_of_any_dtype_and_layout_agree(bits: list[bool], dtype: torch.dtype, sparse: bool) -> None:
    mask = torch.tensor(bits).reshape(2, 4)
    given_mask = mask.to(dtype)
    if sparse:
        given_mask = given_mask.to_sparse()
    assert torch.equal(check_masks({"fc.weight": given_mask}, SHAPES)["fc.weight"], mask)
    assert torch.equal(check_masks({"fc.weight": mask.numpy()}, SHAPES)["fc.weight"], mask)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_nonfinite_weights_are_named(value: float) -> None:
    model = TwoLayers()
    model.fc.weight.data[1, 2] = value
    with pytest.raises(MaskError, match=r"fc\.weight: 1 of 8"):
        masks_of(model)
    with pytest.raises(MaskError, match="here: 1 of 8"):
        check_weight("here", model.fc.weight)


# --- files -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_a_file_of_masks_has_the_rights_of_any_new_file(tmp_path: Path, suffix: str) -> None:
    (tmp_path / "other").touch()
    save_masks({"weight": torch.ones(2, 2)}, tmp_path / f"m{suffix}")
    assert (tmp_path / f"m{suffix}").stat().st_mode == (tmp_path / "other").stat().st_mode


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_masks_round_trip(tmp_path: Path, suffix: str) -> None:
    masks = {
        "conv.weight": half(torch.Size(SHAPES["conv.weight"])),
        "fc.weight": half(torch.Size((2, 4))).T.T,
    }
    save_masks(masks, tmp_path / f"masks{suffix}")
    found = load_masks(tmp_path / f"masks{suffix}")
    assert found.keys() == masks.keys()
    assert all(torch.equal(found[name], masks[name]) for name in masks)


def test_masks_come_out_of_a_pruned_models_state_dict(tmp_path: Path) -> None:
    model = TwoLayers()
    prune.custom_from_mask(model.conv, "weight", half(model.conv.weight.shape))
    prune.random_unstructured(model.conv, "bias", 0.5)
    wrapped = {
        "state_dict": {f"module.{key}": value for key, value in model.state_dict().items()},
        "epoch": 3,
    }
    torch.save(wrapped, tmp_path / "model.pt")
    found = load_masks(tmp_path / "model.pt")
    assert list(found) == ["conv.weight"]
    assert torch.equal(found["conv.weight"], half(model.conv.weight.shape))


def test_weights_are_no_masks(tmp_path: Path) -> None:
    torch.save(TwoLayers().state_dict(), tmp_path / "weights.pt")
    with pytest.raises(MaskError, match=r"weights\.pt: conv\.weight.*load_weights"):
        load_masks(tmp_path / "weights.pt")
    torch.save({}, tmp_path / "empty.pt")
    with pytest.raises(MaskError, match="holds no masks"):
        load_masks(tmp_path / "empty.pt")


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("pruned", [False, True])
def test_weights_round_trip(tmp_path: Path, suffix: str, pruned: bool) -> None:
    from mge_gpu._files import write_tensors

    saved, model = TwoLayers(), TwoLayers()
    mask = half(torch.Size((2, 4)))
    if pruned:
        prune.custom_from_mask(saved.fc, "weight", mask)
    else:
        apply_masks(saved, {"fc.weight": mask})
    write_tensors(
        {f"module.{key}": value for key, value in saved.state_dict().items()}, tmp_path / f"w{suffix}"
    )
    load_weights(model, tmp_path / f"w{suffix}")
    assert torch.equal(model.fc.weight, saved.fc.weight) and torch.equal(model.conv.weight, saved.conv.weight)
    assert torch.equal(masks_of(model)["fc.weight"], mask)


def test_weights_load_into_a_pruned_model_too(tmp_path: Path) -> None:
    saved, model = TwoLayers(), TwoLayers()
    for each in (saved, model):
        prune.custom_from_mask(each.fc, "weight", torch.ones(2, 4))
    saved.fc.weight_mask[0] = 0
    torch.save(saved.state_dict(), tmp_path / "w.pt")
    load_weights(model, tmp_path / "w.pt")
    assert torch.equal(model.fc.weight, saved.fc.weight_orig * saved.fc.weight_mask)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda s: s.pop("fc.bias"), DataError, r"1 entries are missing.*fc\.bias"),
        (lambda s: s.update({"head.weight": torch.ones(1)}), DataError, r"unknown.*head\.weight"),
        (lambda s: s.update({"fc.weight": torch.ones(3, 3)}), DataError, r"fc\.weight.*\(3, 3\).*\(2, 4\)"),
        (lambda s: s["fc.weight"].fill_(torch.nan), MaskError, r"fc\.weight.*NaN"),
        (lambda s: s.update({"fc.bias": torch.ones(2, device="meta")}), DataError, r"fc\.bias.*'meta'"),
        (lambda s: s.update({"fc.weight": "text"}), DataError, r"str under 'fc\.weight'"),
    ],
)
def test_weights_that_do_not_fit(tmp_path: Path, change: object, error: type, message: str) -> None:
    model = TwoLayers()
    state = {key: value.clone() for key, value in model.state_dict().items()}
    change(state)  # type: ignore[operator]
    torch.save(state, tmp_path / "w.pt")
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(error, match=message):
        load_weights(model, tmp_path / "w.pt")
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_a_model_without_values_is_refused_by_name(tmp_path: Path) -> None:
    """Loading into one, or masking one, would do nothing without a word."""
    torch.save(TwoLayers().state_dict(), tmp_path / "w.pt")
    with torch.device("meta"):
        model = TwoLayers()
    for use in (
        lambda: masks_of(model),
        lambda: apply_masks(model, {"fc.weight": torch.ones(2, 4)}),
        lambda: load_weights(model, tmp_path / "w.pt"),
        lambda: mge_gpu.encode(model, (3, 8, 8)),
        lambda: mge_gpu.prune(model, "magnitude", 0.5),
    ):
        with pytest.raises(MaskError, match=r"^(conv|fc)\.weight: got a tensor on the device 'meta'"):
            use()


class Bomb:
    """Unpickling it creates the folder it was given."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (self.path,)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("form", ["zip", "legacy", "pickle"])
def test_a_hostile_file_is_refused_and_runs_nothing(tmp_path: Path, form: str) -> None:
    path, target = tmp_path / "hostile.pt", tmp_path / "executed"
    content = {"fc.weight": torch.ones(2, 4), "bomb": Bomb(str(target))}
    if form == "pickle":
        path.write_bytes(pickle.dumps(Bomb(str(target))))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=form == "zip")
    with pytest.raises(DataError, match=r"hostile\.pt"):
        load_masks(path)
    with pytest.raises(DataError, match=r"hostile\.pt"):
        load_weights(TwoLayers(), path)
    assert not target.exists()
    with open(path, "rb") as file:  # the file would have run code
        if form == "pickle":
            pickle.load(file)
            assert target.exists()


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.99])
def test_truncated_files(tmp_path: Path, suffix: str, share: float) -> None:
    path = tmp_path / f"masks{suffix}"
    save_masks({"fc.weight": torch.ones(64, 64)}, path)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(DataError, match=f"masks\\{suffix}: cannot be read"):
        load_masks(path)


def test_hostile_safetensors_header(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes((2**62).to_bytes(8, "little") + b"{}")
    with pytest.raises(DataError, match=r"m\.safetensors: cannot be read"):
        load_masks(path)
    header = b'{"a":{"dtype":"BOOL","shape":[999999999999],"data_offsets":[0,4]}}'
    path.write_bytes(len(header).to_bytes(8, "little") + header + b"\0\0\0\0")
    with pytest.raises(DataError, match=r"m\.safetensors: cannot be read"):
        load_masks(path)


def test_missing_file_wrong_suffix_wrong_content(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        load_masks(tmp_path / "none.pt")
    with pytest.raises(DataError, match="suffix"):
        load_masks(tmp_path / "masks.txt")
    with pytest.raises(DataError, match="suffix"):
        save_masks({"a": torch.ones(1)}, tmp_path / "masks.txt")
    with pytest.raises(DataError, match="cannot be written"):
        save_masks({"a": torch.ones(1)}, tmp_path / "no" / "folder" / "masks.pt")
    torch.save([torch.ones(1)], tmp_path / "list.pt")
    with pytest.raises(DataError, match="got list"):
        load_masks(tmp_path / "list.pt")
