"""The Jacobian oracle against torch.func.jacrev of real layers, a loop of vjps, and counts done by hand."""

from math import prod

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tests.oracles.jacobian import Edges, Reference, _Linearised, reference_graph
from tests.oracles.networks import Case
from tests.oracles.strategies import cases


@settings(max_examples=40)
@given(cases(kind="layer"))
def test_single_layer_is_its_jacobian(case: Case) -> None:
    """One layer, run by torch as it is: |jacrev| is the block, and its zeros are where no edge is."""
    module = next(s.module for s in case.steps if s.kind == "layer")
    x = torch.zeros(1, *case.input_shape)
    jacobian = torch.func.jacrev(module)(x).abs().reshape(-1, x.numel())  # (targets, sources)
    reference = reference_graph(case, pad_input=False)
    dense = torch.zeros_like(jacobian)
    for (source, target), weight in reference.edges.items():
        dense[target - x.numel(), source] = weight
    assert torch.equal(dense != 0, jacobian != 0)
    torch.testing.assert_close(dense, jacobian)


@settings(max_examples=20)
@given(cases())
def test_batched_gradients_equal_a_loop(case: Case) -> None:
    linear = _Linearised(case, pad_input=True, identity_skips=False)
    linear.run()
    value = linear.values[-1].reshape(-1)
    blocks = linear._jacobian(value)
    for row in range(len(value)):
        single = torch.autograd.grad(value[row], linear.leaves, retain_graph=True, allow_unused=True)
        for partition, gradient in enumerate(single):
            expected = (
                torch.zeros(linear.leaves[partition].numel()) if gradient is None else gradient.flatten()
            )
            found = blocks[partition][row] if partition in blocks else torch.zeros_like(expected)
            assert torch.equal(found.float(), expected.float())


@settings(max_examples=30)
@given(cases(), st.booleans())
def test_padding_of_the_input_adds_edges_from_the_frame_only(case: Case, identity_skips: bool) -> None:
    """Dropping the frame's nodes from the padded graph gives the plain one."""
    plain = reference_graph(case, pad_input=False, identity_skips=identity_skips)
    padded = reference_graph(case, pad_input=True, identity_skips=identity_skips)
    assert plain.shapes[1:] == padded.shapes[1:] and plain.shapes[0] == case.input_shape
    assert plain.outputs == padded.outputs
    linear = _Linearised(case, True, False)
    inside = torch.arange(prod(padded.shapes[0])).reshape(padded.shapes[0])
    for d, (before, _) in enumerate(linear.halo or ()):
        inside = inside.narrow(d + 1, before, case.input_shape[d + 1])
    number = {int(old): new for new, old in enumerate(inside.flatten())}
    shift = prod(case.input_shape) - prod(padded.shapes[0])
    number |= {old: old + shift for old in range(prod(padded.shapes[0]), padded.num_nodes)}
    kept: Edges = {(number[u], number[v]): w for (u, v), w in padded.edges.items() if u in number}
    assert kept == pytest.approx(plain.edges)


def _residual() -> tuple[Case, Reference, Reference]:
    """conv(1->2) -> conv(2->2) added to its input, on a map of 3 x 3."""
    case = Case((1, 3, 3))
    a = case.add("layer", nn.Conv2d(1, 2, 1), 0)
    b = case.add("layer", nn.Conv2d(2, 2, 1), a)
    case.outputs = (case.add("add", torch.add, a, b),)
    return case, reference_graph(case), reference_graph(case, identity_skips=True)


def test_identity_skip() -> None:
    _, plain, skips = _residual()
    assert plain.shapes == [(1, 3, 3), (2, 3, 3), (2, 3, 3)]
    assert len(plain.edges) == 9 * 2 + 9 * 4
    added = {e: w for e, w in skips.edges.items() if plain.edges.get(e) != w}
    # an element's skip edge runs beside the weight w[c, c] of the convolution: one edge, weights added
    assert len(skips.edges) == len(plain.edges) and len(added) == 18
    assert all(w == pytest.approx(plain.edges[e] + 1) for e, w in added.items())


def test_fresh_sum_is_one_partition() -> None:
    case = Case((2, 4, 4))
    a = case.add("pass", nn.BatchNorm2d(3), case.add("layer", nn.Conv2d(2, 3, 3, padding=1), 0))
    b = case.add("layer", nn.Conv2d(2, 3, 1), 0)
    case.outputs = (case.add("add", torch.add, a, b),)
    reference = reference_graph(case)
    assert reference.shapes == [(2, 6, 6), (3, 4, 4)] and reference.outputs == (1,)
    assert len(reference.edges) == 48 * 18  # the shortcut's edges lie under those of the 3 x 3 convolution


def test_overlapping_pool_links_to_nine_nodes_with_summed_weight() -> None:
    case = Case((1, 5, 5))
    pooled = case.add("pool", nn.MaxPool2d(3, 2, 1), case.add("layer", nn.Conv2d(1, 1, 1), 0))
    conv = nn.Conv2d(1, 1, 2, bias=False)
    with torch.no_grad():
        conv.weight.fill_(-2.0)
    case.outputs = (case.add("layer", conv, pooled),)
    edges = reference_graph(case).edges
    into_first = {u: w for (u, v), w in edges.items() if v == 50}
    # four windows of 2 x 2 and 2 x 3 and 3 x 2 and 3 x 3 pixels, overlapping in row 1 and column 1
    assert len(into_first) == 16 and sum(into_first.values()) == 2.0 * (4 + 6 + 6 + 9)
