"""Modules that torch.export refuses, each for reasons of its own: what is said of them, and what to do."""

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn

import mge_gpu
from mge_gpu.errors import MaskError, TracingError


def _two_layers() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(18, 3))


def _compiled() -> nn.Module:
    return torch.jit.trace(nn.Sequential(nn.Linear(2, 2)), torch.zeros(1, 2))  # type: ignore[no-any-return]


def _within() -> nn.Module:
    model = nn.Module()
    model.inner = _compiled()
    return model


def _quantized() -> nn.Module:
    return nn.Sequential(nn.ReLU(), torch.ao.nn.quantized.dynamic.Linear(2, 2))


@pytest.mark.filterwarnings("ignore:`torch.jit")
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (_compiled, r"the model is a TopLevelTracedModule of torch\.jit.*made from"),
        (_within, r"layer 'inner' is a TopLevelTracedModule of torch\.jit"),
        (_quantized, r"layer '1' is a Linear of torch\.ao.*before quantization"),
    ],
)
def test_compiled_and_quantized_modules(make: Callable[[], nn.Module], message: str) -> None:
    with pytest.raises(TracingError, match=message):
        mge_gpu.trace(make(), (2,))


@pytest.fixture
def one_process(gloo: str) -> Iterator[None]:
    torch.distributed.init_process_group(gloo, store=torch.distributed.HashStore(), rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.usefixtures("one_process")
def test_distributed_modules() -> None:
    wrapped = nn.parallel.DistributedDataParallel(_two_layers())
    with pytest.raises(TracingError, match=r"the model is a DistributedDataParallel.*its \.module"):
        mge_gpu.trace(wrapped, (1, 5, 5))
    assert mge_gpu.trace(wrapped.module, (1, 5, 5)).num_nodes == 46

    from torch.distributed.fsdp import fully_shard

    spread = _two_layers()
    fully_shard(spread)
    with pytest.raises(TracingError, match=r"Sequential of torch\.distributed.*full state dict"):
        mge_gpu.trace(spread, (1, 5, 5))
    with pytest.raises(MaskError, match=r"0\.weight: got a DTensor"):
        mge_gpu.prune(spread, "magnitude", 0.5)


@pytest.mark.parametrize("to_sparse", [Tensor.to_sparse, Tensor.to_sparse_csr])
def test_weights_of_a_sparse_layout(to_sparse: Callable[[Tensor], Tensor]) -> None:
    model = _two_layers()
    model[3].weight = nn.Parameter(to_sparse(model[3].weight.detach()))
    masks = {"3.weight": torch.ones(3, 18)}
    for attempt in (
        lambda: mge_gpu.trace(model, (1, 5, 5)),
        lambda: mge_gpu.prune(model, "magnitude", 0.5),
        lambda: mge_gpu.apply_masks(model, masks),
        lambda: mge_gpu.masks.masks_of(model),
    ):
        with pytest.raises(MaskError, match=r"3\.weight: got a weight of layout torch\.sparse.*to_dense"):
            attempt()


def test_lazy_layer() -> None:
    with pytest.raises(MaskError, match=r"0\.weight: the layer is lazy.*run the model once"):
        mge_gpu.trace(nn.Sequential(nn.LazyLinear(2)), (3,))


def test_size_that_depends_on_values() -> None:
    class Kept(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(4, 4)
            self.register_buffer("kept", torch.tensor([True, False, True, True]))

        def forward(self, x: Tensor) -> Tensor:
            return self.first(x)[:, self.kept.nonzero()[:, 0]]

    with pytest.raises(TracingError, match=r"aten\.index.*size of its result depends on values.*forward"):
        mge_gpu.trace(Kept(), (4,))
