"""What the tracer refuses, warns of, or takes without harm: networks and inputs that are not as usual."""

import re
import warnings

import pytest
import torch
from torch import Tensor, nn

import mge_gpu
from mge_gpu.errors import MaskError, MGEError, TracingError, TracingWarning, UnsupportedOpError
from mge_gpu.tracing import HANDLERS, register_handler

# ops without a handler


class Sorted(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.sort(x, dim=1).values


class WithSort(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 2, 3)
        self.inner = nn.Sequential(nn.ReLU(), Sorted())
        self.last = nn.Conv2d(2, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.inner(self.first(x)))


def test_unknown_op_names_op_layer_and_remedy() -> None:
    with pytest.raises(UnsupportedOpError) as caught:
        mge_gpu.trace(WithSort(), (1, 5, 5))
    message = str(caught.value)
    assert "aten.sort.default" in message and "'inner.1'" in message
    assert "mge_gpu.tracing.register_handler('aten.sort', handler)" in message
    assert "\n" not in message


def test_registered_handler_is_used() -> None:
    register_handler("aten.sort", lambda call: [call.value().stale(), None])
    try:
        graph = mge_gpu.encode(WithSort(), (1, 5, 5))
        assert graph.num_nodes == 25 + 18 + 9 and graph.num_edges == 18 * 9 + 18
    finally:
        del HANDLERS["aten.sort"]
    with pytest.raises(UnsupportedOpError):
        mge_gpu.trace(WithSort(), (1, 5, 5))


def test_handler_of_one_overload_and_of_in_place_ops() -> None:
    """The overload's own handler comes first; an in-place op falls back to its plain form."""
    seen = []

    def watch(call: mge_gpu.tracing.tracer.Call) -> object:  # type: ignore[name-defined]
        seen.append(call.op)
        return call.value()

    register_handler("aten.relu_.default", watch)
    try:
        mge_gpu.trace(nn.Sequential(nn.Linear(2, 2), nn.ReLU(inplace=True), nn.Hardtanh(inplace=True)), (2,))
    finally:
        del HANDLERS["aten.relu_.default"]
    assert seen == ["aten.relu_.default"]


def test_handler_of_a_wrong_shape() -> None:
    register_handler("aten.sort", lambda call: [mge_gpu.tracing.value.Value((1, 1)), None])
    register_handler("aten.relu.default", lambda call: mge_gpu.tracing.value.Value((1, 1)))
    try:
        with pytest.raises(TracingError, match=r"aten\.relu\.default in layer 'inner\.0'.*shape \(1, 1\)"):
            mge_gpu.trace(WithSort(), (1, 5, 5))
    finally:
        del HANDLERS["aten.sort"], HANDLERS["aten.relu.default"]


def test_weight_that_depends_on_the_input_is_an_error_that_names_the_layer() -> None:
    class Dynamic(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.kernel = nn.Linear(4, 36)

        def forward(self, x: Tensor) -> Tensor:
            kernel = self.kernel(x.mean((2, 3))).view(1, 4, 3, 3)
            return torch.nn.functional.conv2d(x, kernel)

    with pytest.raises(TracingError, match=r"aten\.conv2d.*depends on the network's input.*register"):
        mge_gpu.trace(Dynamic(), (4, 5, 5))


# layers that the trace does not reach


class WithSpare(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.used = nn.Linear(3, 2)
        self.heads = nn.ModuleDict({"auxiliary": nn.Linear(3, 4), "norm": nn.LayerNorm(3)})

    def forward(self, x: Tensor) -> Tensor:
        return self.used(x)


def test_unreached_layer_is_named() -> None:
    with pytest.warns(TracingWarning, match=r"'heads\.auxiliary' \(Linear\).*never reaches") as caught:
        program = mge_gpu.trace(WithSpare(), (3,))
    assert len(caught) == 1 and [x.name for x in program.layers] == ["used"]


def test_mask_of_an_unreached_layer_is_accepted() -> None:
    with pytest.warns(TracingWarning):
        graph = mge_gpu.encode(WithSpare(), (3,), {"heads.auxiliary.weight": torch.zeros(4, 3)})
    assert graph.num_edges == 6


def test_reached_layers_give_no_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mge_gpu.trace(mge_gpu.models.resnet20(), (3, 32, 32))


# inputs


@pytest.mark.parametrize("shape", [(), (0, 3), (3, -1), (3, 0, 8)])
def test_shape_without_positive_sizes(shape: tuple[int, ...]) -> None:
    with pytest.raises(TracingError, match=r"expected positive sizes"):
        mge_gpu.trace(nn.Linear(3, 2), shape)


@pytest.mark.parametrize("shape", [8, (3, 8.5, 8), "3x8x8", (3, None, 8), None])
def test_shape_that_is_none(shape: object) -> None:
    with pytest.raises(MGEError, match="input.shape"):
        mge_gpu.trace(nn.Conv2d(3, 2, 1), shape)  # type: ignore[arg-type]


def test_input_too_small_for_the_network() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 5), nn.MaxPool2d(2), nn.Conv2d(4, 4, 5))
    mge_gpu.trace(model, (3, 14, 14))
    with pytest.raises(TracingError, match=r"Sequential.*input of shape 3x8x8.*large enough"):
        mge_gpu.trace(model, (3, 8, 8))


def test_wrong_channel_count() -> None:
    with pytest.raises(TracingError, match=r"input of shape 1x8x8"):
        mge_gpu.encode(nn.Conv2d(3, 4, 3), (1, 8, 8))


@pytest.mark.parametrize("model", [None, "resnet20", nn.Conv2d, lambda x: x, {"weight": torch.ones(1)}])
def test_argument_that_is_no_module(model: object) -> None:
    with pytest.raises(TracingError, match=r"expected a torch\.nn\.Module"):
        mge_gpu.trace(model, (3, 8, 8))  # type: ignore[arg-type]


def test_model_that_returns_no_tensor_of_the_input() -> None:
    class Constant(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(3))

        def forward(self, x: Tensor) -> Tensor:
            return self.weight * 2

    program = mge_gpu.trace(Constant(), (3,))
    assert program.num_nodes == 3 and program.layers == () and program.output_partitions == ()
    assert mge_gpu.topometrics(program)["disconnected_nodes"] == 3


def test_branch_on_values() -> None:
    class Branch(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(2, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.a(x) if x.sum() > 0 else x

    with pytest.raises(TracingError, match=r"Branch raised.*no branch on tensor values"):
        mge_gpu.trace(Branch(), (2,))


def test_attribute_that_cannot_be_copied() -> None:
    model = nn.Sequential(nn.Linear(2, 2))
    model.stream = (x for x in range(3))  # type: ignore[assignment]
    with pytest.raises(TracingError, match=r"Sequential cannot be copied.*generators"):
        mge_gpu.trace(model, (2,))


# masks and weights


def _two_layers() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(18, 3))


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        ({"3.weight": torch.ones(18, 3)}, r"3\.weight.*\(18, 3\).*\(3, 18\)"),
        ({"linear.weight": torch.ones(3, 18)}, r"linear\.weight.*did you mean"),
        ({"3.bias": torch.ones(3)}, r"3\.bias.*no prunable weight"),
        ({"3.weight": torch.full((3, 18), 0.5)}, r"3\.weight.*neither 0 nor 1"),
        ({"0.weight": torch.full((2, 1, 3, 3), float("nan"))}, r"0\.weight.*NaN"),
    ],
)
def test_masks_that_do_not_fit(masks: dict[str, Tensor], message: str) -> None:
    with pytest.raises(MaskError, match=message):
        mge_gpu.encode(_two_layers(), (1, 5, 5), masks)
    program = mge_gpu.trace(_two_layers(), (1, 5, 5))
    with pytest.raises(MaskError, match=message):
        mge_gpu.encode(program, masks=masks)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_weight_that_is_not_finite(bad: float) -> None:
    model = _two_layers()
    with torch.no_grad():
        model[3].weight[1, 7] = bad
    program = mge_gpu.trace(model, (1, 5, 5))  # shapes only: nothing is read yet
    with pytest.raises(MaskError, match=r"3\.weight: 1 of 54 values are NaN or Inf"):
        mge_gpu.encode(program)
    with pytest.raises(MaskError, match=r"3\.weight"):  # also where the mask drops that very weight
        mge_gpu.encode(program, masks={"3.weight": torch.zeros(3, 18)})


def test_layer_of_zeros_is_a_valid_graph() -> None:
    model = _two_layers()
    nn.init.zeros_(model[0].weight)
    graph = mge_gpu.encode(model, (1, 5, 5))
    report = mge_gpu.topometrics(graph)
    assert (graph.num_nodes, graph.num_edges) == (25 + 18 + 3, 54)
    assert (report["source_nodes"], report["removable_in"], report["disconnected_nodes"]) == (18, 54, 25)


def test_network_of_zeros_is_a_valid_graph() -> None:
    graph = mge_gpu.encode(
        _two_layers(), (1, 5, 5), {"0.weight": torch.zeros(2, 1, 3, 3), "3.weight": torch.zeros(3, 18)}
    )
    assert graph.num_edges == 0 and [len(x) for x in graph.coo()] == [0, 0, 0]
    assert graph.to_scipy().nnz == 0


def test_errors_are_one_line_of_the_base_class() -> None:
    for attempt in (
        lambda: mge_gpu.trace(WithSort(), (1, 5, 5)),
        lambda: mge_gpu.trace(nn.Conv2d(1, 1, 9), (1, 5, 5)),
        lambda: mge_gpu.encode(_two_layers(), (1, 5, 5), {"3.weight": torch.ones(2)}),
    ):
        with pytest.raises(MGEError) as caught:
            attempt()
        assert not re.search(r"\n", str(caught.value)) and len(str(caught.value)) > 40


# what an export keeps apart, and what is written in place


def test_no_grad_and_autocast_are_looked_into() -> None:
    class Apart(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Tensor:
            with torch.no_grad():
                y = self.a(x)
                with torch.autocast("cpu", enabled=False):
                    y, z = self.b(y.relu()), y + 1
            return self.c(y) + self.c(z)

    graph = mge_gpu.encode(Apart(), (3,))
    assert [p.name for p in graph.partitions] == ["input", "a", "b", "c+c"]
    assert graph.num_edges == 9 + 9 + 6 + 6


def test_change_in_place_is_seen_by_later_readers() -> None:
    class InPlace(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Tensor:
            out = self.a(x)
            spare = out.sigmoid()
            out.mul_(self.b(x))
            return self.c(out) + self.c(spare)

    assert mge_gpu.encode(InPlace(), (3,)).num_edges == 9 + 9 + 6 + 6


def test_writing_into_a_part_is_refused() -> None:
    class Part(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Linear(4, 4), nn.Linear(4, 2), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            out = self.a(x)
            out[:, :2] += self.b(x)
            return self.c(out)

    with pytest.raises(TracingError, match="writes into a part of a tensor"):
        mge_gpu.trace(Part(), (4,))
