"""Normalisations written out pass through, as the layers do; gates with a layer in between do not."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import mge_gpu


def layer_norm(x: Tensor) -> Tensor:
    mean = x.mean(-1, keepdim=True)
    return (x - mean) / torch.sqrt((x - mean).pow(2).mean(-1, keepdim=True) + 1e-6)


def layer_norm_by_variance(x: Tensor) -> Tensor:
    variance, mean = torch.var_mean(x, dim=-1, keepdim=True)
    return (x - mean) * torch.rsqrt(variance + 1e-6) * 2 + 1


def root_mean_square(x: Tensor) -> Tensor:
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6)


def unit_length(x: Tensor) -> Tensor:
    return F.normalize(x, dim=-1)


def softmax(x: Tensor) -> Tensor:
    e = (x - x.amax(-1, keepdim=True)).exp()
    return e / e.sum(-1, keepdim=True)


def response_norm(x: Tensor) -> Tensor:
    size = x.norm(p=2, dim=1, keepdim=True)
    return torch.addcmul(torch.zeros(1), torch.ones(1), x * (size / (size.mean(-1, keepdim=True) + 1e-6)))


def mean_gate(x: Tensor) -> Tensor:
    return x * torch.sigmoid(x.mean(1, keepdim=True) * 3)


FORMS = [
    layer_norm, layer_norm_by_variance, root_mean_square, unit_length, softmax, response_norm, mean_gate,
]  # fmt: skip


class Net(nn.Module):
    def __init__(self, form: object, skip: bool) -> None:
        super().__init__()
        self.a, self.b, self.c = (nn.Linear(4, 4) for _ in range(3))
        self.form, self.skip = form, skip

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        y = self.form(self.b(x))  # type: ignore[operator]
        return self.c(x + y if self.skip else y)


@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize("form", FORMS)
def test_written_out(form: object, skip: bool) -> None:
    """The graph is that of the network without the normalisation, and its output is as fresh."""
    torch.manual_seed(0)
    net, plain = Net(form, skip), Net(nn.Identity(), skip)
    plain.load_state_dict(net.state_dict())
    one, other = (mge_gpu.encode(m, (3, 4)) for m in (net, plain))
    assert one.num_edges == other.num_edges == 3 * 3 * 16
    assert abs(one.to_scipy() - other.to_scipy()).nnz == 0


def test_gate_with_a_layer_in_between_is_a_sum() -> None:
    gate = nn.Linear(4, 4)
    net = Net(lambda x: x * gate(x.mean(1, keepdim=True)).sigmoid(), False)
    net.gate = gate
    assert mge_gpu.encode(net, (3, 4)).num_edges == 3 * 2 * 16 + 3 * 16 + (48 + 48)


def test_mean_of_another_tensor_is_a_sum() -> None:
    """x - mean(y) is no normalisation of x."""

    class Other(Net):
        def forward(self, x: Tensor) -> Tensor:
            x = self.a(x)
            return self.c(x / self.b(x).mean(-1, keepdim=True))

    graph = mge_gpu.encode(Other(None, False), (3, 4))
    assert graph.num_edges == 3 * 16 + 3 * 16 + 3 * (16 + 16)


def test_mean_added_is_a_sum() -> None:
    """x + mean(x) mixes the mean in: every reader sees all of the row."""

    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.c = nn.Linear(4, 4), nn.Conv1d(4, 1, 1)

        def forward(self, x: Tensor) -> Tensor:
            x = self.a(x)
            return self.c((x + x.mean(-1, keepdim=True)).transpose(1, 2))

    assert mge_gpu.encode(Mixed(), (3, 4)).num_edges == 3 * 16 + 3 * 4


def test_standardised_kernel_is_read_and_masked_before_it_is_computed() -> None:
    class Standardised(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            w = self.weight
            w = (w - w.mean((1, 2, 3), keepdim=True)) / w.std((1, 2, 3), keepdim=True)
            return F.conv2d(x, w)

    torch.manual_seed(0)
    model = nn.Sequential(Standardised(2, 3, 2))
    program = mge_gpu.trace(model, (2, 2, 2))
    assert [x.weight_name for x in program.layers] == ["0.weight"]
    mask = torch.rand(3, 2, 2, 2) < 0.5
    masked = mge_gpu.encode(program, masks={"0.weight": mask})
    w = model[0].weight.detach() * mask
    w = (w - w.mean((1, 2, 3), keepdim=True)) / w.std((1, 2, 3), keepdim=True)
    block = torch.from_numpy(masked.to_scipy().toarray())[:8, 8:].T
    torch.testing.assert_close(block, w.abs().reshape(3, 8))
