"""The input projections of attention are weights like others: listed, pruned, masked, seen by the graph."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize, prune

import mge_gpu
from mge_gpu.masks import apply_masks, effective_weights, load_masks, masks_of, prunable_parameters
from mge_gpu.pruning import METHODS

NAMES = ["embed.weight", "attention.in_proj_weight", "attention.out_proj.weight", "head.weight"]


class Attentive(nn.Module):
    """Tokens of six, attention with two heads, a head."""

    def __init__(self, **options: int) -> None:
        super().__init__()
        self.embed = nn.Linear(4, 6)
        self.attention = nn.MultiheadAttention(6, 2, batch_first=True, **options)
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:  # (B, 5, 4) -> (B, 3)
        x = self.embed(x)
        return self.head(self.attention(x, x, x, need_weights=False)[0].mean(1))


def test_projections_are_listed() -> None:
    assert list(prunable_parameters(Attentive())) == NAMES
    apart = list(prunable_parameters(nn.MultiheadAttention(6, 2, kdim=5, vdim=4)))
    assert apart == ["q_proj_weight", "k_proj_weight", "v_proj_weight", "out_proj.weight"]


@pytest.mark.parametrize(
    "method", ["uniform", "erk", "magnitude", "synflow", "snip", "grasp", "prospr", "phew", "npb"]
)
def test_methods_prune_them(method: str) -> None:
    torch.manual_seed(0)
    model = Attentive().train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    data = [(torch.randn(8, 5, 4), torch.randint(0, 3, (8,)))]
    options: dict[str, object] = {"data": data} if METHODS[method].needs_data else {}
    if method == "grasp":
        options["samples_per_class"] = 1
    masks = mge_gpu.prune(model, method, 0.6, input_shape=(5, 4), **options)
    assert list(masks) == NAMES
    assert sum(int(m.sum()) for m in masks.values()) == round(0.4 * sum(m.numel() for m in masks.values()))
    assert 0 < masks["attention.in_proj_weight"].float().mean() < 1
    assert model.training and all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_the_graph_sees_their_masks_however_they_are_kept() -> None:
    torch.manual_seed(0)
    model = Attentive()
    masks = mge_gpu.prune(model, "uniform", 0.7, seed=1)
    expected = mge_gpu.encode(model, (5, 4), masks=masks)
    assert expected.num_edges < mge_gpu.encode(model, (5, 4)).num_edges
    hooked = Attentive()
    hooked.load_state_dict(model.state_dict())
    prune.custom_from_mask(hooked.attention, "in_proj_weight", masks["attention.in_proj_weight"])
    for name in ("embed", "head"):
        prune.custom_from_mask(getattr(hooked, name), "weight", masks[f"{name}.weight"])
    prune.custom_from_mask(hooked.attention.out_proj, "weight", masks["attention.out_proj.weight"])
    assert all(torch.equal(masks_of(hooked)[k], m) for k, m in masks.items())
    apply_masks(model, masks)
    assert int(effective_weights(model)["attention.in_proj_weight"].count_nonzero()) == int(
        masks["attention.in_proj_weight"].sum()
    )
    for graph in (mge_gpu.encode(model, (5, 4)), mge_gpu.encode(hooked, (5, 4))):
        assert graph.num_edges == expected.num_edges
        assert abs(graph.to_scipy() - expected.to_scipy()).max() < 1e-6


def test_masks_of_a_hook_are_read_from_a_file(tmp_path) -> None:
    model = Attentive()
    mask = torch.rand(18, 6) < 0.5
    prune.custom_from_mask(model.attention, "in_proj_weight", mask)
    torch.save(model.state_dict(), tmp_path / "state.pt")
    assert torch.equal(load_masks(tmp_path / "state.pt")["attention.in_proj_weight"], mask)


def test_a_parametrized_projection() -> None:
    class Halved(nn.Module):
        def forward(self, weight: Tensor) -> Tensor:
            return weight / 2

    model = Attentive()
    dense = model.attention.in_proj_weight.detach().clone()
    parametrize.register_parametrization(model.attention, "in_proj_weight", Halved())
    assert torch.equal(effective_weights(model)["attention.in_proj_weight"], dense / 2)
    masks = {"attention.in_proj_weight": torch.rand(18, 6) < 0.5}
    apply_masks(model, masks)
    assert torch.equal(masks_of(model)["attention.in_proj_weight"], masks["attention.in_proj_weight"])
