"""Attention against the Jacobian of the module itself, in every form that networks write it in."""

import pytest
import torch
from torch import Tensor, nn

import mge_gpu
from mge_gpu.errors import TracingError
from tests.graph.test_jacobian import assert_equal_graphs
from tests.oracles.attention import FORMS, Attention
from tests.oracles.jacobian import reference_graph
from tests.oracles.networks import Case


def heads(x: Tensor, count: int) -> Tensor:
    """(B, N, C) -> (B, heads, N, C / heads)."""
    return x.unflatten(-1, (count, -1)).transpose(1, 2)


def attend(case: Case, v: int, module: nn.Module, count: int = 2, width: int = 4) -> int:
    """Projections, attention with ``count`` heads, projection."""
    parts = []
    for _ in range(3):
        p = case.add("layer", nn.Linear(case.shape(v)[-1], width), v)
        parts.append(case.add("view", lambda x: heads(x, count), p, label="heads"))
    out = case.add("set", module, *parts)
    out = case.add("view", lambda x: x.transpose(1, 2).flatten(2), out, label="join heads")
    return case.add("layer", nn.Linear(width, 3), out)


MASKS = {
    "none": None,
    "pairs": torch.tensor([[1, 1, 0, 0], [1, 0, 1, 0], [0, 1, 1, 1], [0, 0, 0, 1]]).bool(),
    "additive": torch.tensor([[0.0, -100, 0, -1], [0, 0, -torch.inf, 0], [0, 0, 0, 0], [-100, -100, 0, 0]]),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("bias", [False, True])
def test_attention(form: str, mask: str, bias: bool) -> None:
    torch.manual_seed(0)
    case = Case((4, 3))
    module = Attention(form, MASKS[mask], torch.randn(2, 4, 4) if bias else None)
    case.outputs = (attend(case, 0, module),)
    assert_equal_graphs(case, True, False)


@pytest.mark.parametrize("form", FORMS)
def test_causal_attention(form: str) -> None:
    torch.manual_seed(0)
    case = Case((4, 3))
    case.outputs = (attend(case, 0, Attention(form, causal=True)),)
    assert_equal_graphs(case, True, False)


@pytest.mark.parametrize("form", ["fused", "matmul"])
def test_grouped_queries(form: str) -> None:
    """Four heads of queries, two of keys and values: each pair of heads shares its nodes."""

    class Grouped(nn.Module):
        def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            if form == "fused":
                return nn.functional.scaled_dot_product_attention(q, k, v, enable_gqa=True)
            return Attention("matmul")(q, *(x.repeat_interleave(2, 1) for x in (k, v)))

        def surrogate(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            return Attention("matmul").surrogate(q, *(x.repeat_interleave(2, 1) for x in (k, v)))

    torch.manual_seed(0)
    case = Case((3, 2))
    parts = []
    for count in (4, 2, 2):
        p = case.add("layer", nn.Linear(2, count * 2), 0)
        parts.append(case.add("view", lambda x, count=count: heads(x, count), p, label="heads"))
    out = case.add("set", Grouped(), *parts)
    out = case.add("view", lambda x: x.transpose(1, 2).flatten(2), out, label="join heads")
    case.outputs = (case.add("layer", nn.Linear(8, 2), out),)
    assert_equal_graphs(case, True, False)


class Windows(nn.Module):
    """Shifted window attention on a map of 4 x 6; the windows in the batch dim or in a dim of their own."""

    def __init__(self, folded: bool) -> None:
        super().__init__()
        self.folded = folded
        self.qkv, self.proj = nn.Linear(4, 12), nn.Linear(4, 4)
        mask = torch.zeros(6, 1, 4, 4)
        mask[3:, :, :2, 2:] = -100
        self.attention = Attention("matmul", mask)

    def forward(self, x: Tensor) -> Tensor:  # (B, 4, 4, 6) -> (B, 4, 4, 6)
        x = torch.roll(x, (-1, -1), (2, 3)).view(-1, 4, 2, 2, 3, 2).permute(0, 2, 4, 3, 5, 1)
        x = x.reshape(6, 4, 4) if self.folded else x.reshape(1, 6, 4, 4)
        out = self.attention(*(heads_of_windows(p) for p in self.qkv(x).chunk(3, -1)))
        out = self.proj(out.transpose(-3, -2).flatten(-2))
        out = out.reshape(1, 2, 3, 2, 2, 4).permute(0, 5, 1, 3, 2, 4).reshape(1, 4, 4, 6)
        return torch.roll(out, (1, 1), (2, 3))


def heads_of_windows(x: Tensor) -> Tensor:
    """(..., N, C) -> (..., 2, N, C / 2)."""
    return x.unflatten(-1, (2, -1)).transpose(-3, -2)


def test_folded_windows() -> None:
    """Windows in the batch dim give the graph of windows in a dim of their own, node by node."""
    torch.manual_seed(0)
    folded, apart = Windows(True), Windows(False)
    apart.load_state_dict(folded.state_dict())
    one, other = (mge_gpu.encode(m, (4, 4, 6)) for m in (folded, apart))
    assert [p.shape for p in one.partitions] == [p.shape for p in other.partitions]
    assert one.num_edges == other.num_edges > 0
    assert abs(one.to_scipy() - other.to_scipy()).nnz == 0


def test_tokens_first() -> None:
    """nn.MultiheadAttention moves the batch behind the tokens: the nodes are the tokens' all the same."""
    torch.manual_seed(0)
    module = nn.MultiheadAttention(4, 2, batch_first=True)

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = module

        def forward(self, x: Tensor) -> Tensor:
            return self.attention(x, x, x, need_weights=False)[0]

    case = Case((3, 4))
    fused = nn.Linear(4, 12)
    fused.weight = module.in_proj_weight
    made = case.add("layer", fused, 0)
    parts = [
        case.add("route", lambda x, k=k: heads(x.chunk(3, -1)[k], 2), made, label="part") for k in range(3)
    ]
    out = case.add("set", Attention("matmul"), *parts)
    out = case.add("view", lambda x: x.transpose(1, 2).flatten(2), out, label="join heads")
    case.outputs = (case.add("layer", module.out_proj, out),)
    graph = mge_gpu.encode(Block(), (3, 4))
    reference = reference_graph(case)
    assert [p.shape for p in graph.partitions] == reference.shapes
    src, dst, weight = (x.tolist() for x in graph.coo())
    found = dict(zip(zip(src, dst, strict=True), weight, strict=True))
    assert found == pytest.approx(reference.edges, rel=1e-5)


class Cross(nn.Module):
    """Queries of the first tokens, keys and values of the others: in_proj_weight is cut in pieces."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(x[:, :2], x[:, 2:], x[:, 2:] * 1, need_weights=False)[0]


def test_masks_act_on_the_whole_of_a_parameter_that_is_cut() -> None:
    torch.manual_seed(0)
    model = Cross()
    program = mge_gpu.trace(model, (5, 4))
    names = [x.weight_name for x in program.layers]
    assert names == ["attention.in_proj_weight"] * 3 + ["attention.out_proj.weight"]
    assert program.weight_shapes()["attention.in_proj_weight"] == (12, 4)
    mask = torch.rand(12, 4) < 0.5
    masked = mge_gpu.encode(program, masks={"attention.in_proj_weight": mask})
    with torch.no_grad():
        model.attention.in_proj_weight *= mask
    by_weight = mge_gpu.encode(program)
    assert masked.num_edges == by_weight.num_edges < mge_gpu.encode(Cross(), (5, 4)).num_edges
    assert abs(masked.to_scipy() - by_weight.to_scipy()).nnz == 0
    into_queries = masked.to_scipy()[:20, 20:28]  # queries of tokens 0 and 1
    assert into_queries.nnz == 2 * int(mask[:4].sum())
    with pytest.raises(mge_gpu.errors.MaskError, match=r"in_proj_weight.*\(4, 4\).*\(12, 4\)"):
        mge_gpu.encode(program, masks={"attention.in_proj_weight": mask[:4]})


@pytest.mark.parametrize("form", ["fused", "matmul"])
def test_bias_that_depends_on_the_input(form: str) -> None:
    """What is added to the scores of token i is one more route of its output."""

    class Biased(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.q, self.k, self.v, self.bias, _ = (nn.Linear(3, n) for n in (2, 2, 2, 4, 2))
            self.out = nn.Linear(2, 3)

        def forward(self, x: Tensor) -> Tensor:
            q, k, v, bias = self.q(x), self.k(x), self.v(x), self.bias(x)
            if form == "matmul":
                return self.out(((q @ k.transpose(1, 2)) * 0.5 + bias).softmax(-1) @ v)
            return self.out(nn.functional.scaled_dot_product_attention(q, k, v, bias))

    # an output token sees 2 nodes of its query, 4 of its bias, and keys and values of all 4 tokens
    assert mge_gpu.encode(Biased(), (4, 3)).num_edges == 4 * 3 * 10 + 4 * 3 * (2 + 4 + 8 + 8)


def test_scores_that_are_too_many_to_tell_apart_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Gram(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(3, 4), nn.Linear(6, 2)

        def forward(self, x: Tensor) -> Tensor:
            y = self.a(x)
            return self.b(y @ y.transpose(1, 2))

    assert mge_gpu.encode(Gram(), (6, 3)).num_edges == 6 * 12 + 6 * 2 * 24
    monkeypatch.setattr("mge_gpu.tracing.sets.MAX_TABLE", 100)
    with pytest.raises(TracingError, match="projections of their own"):
        mge_gpu.trace(Gram(), (6, 3))
