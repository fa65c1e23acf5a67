"""Encoded graphs equal the Jacobians of randomly drawn layers and networks, edge by edge."""

import warnings
from math import prod

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import mge_gpu
from tests.oracles.jacobian import reference_graph
from tests.oracles.networks import Case
from tests.oracles.strategies import cases

LAYERS, NETWORKS = 100, 210  # examples a run: 300 and more are promised


def assert_equal_graphs(case: Case, pad_input: bool, identity_skips: bool) -> None:
    """Partitions, edge set, weights and output partitions of `mge_gpu.encode` against the oracle."""
    reference = reference_graph(case, pad_input=pad_input, identity_skips=identity_skips)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message="Using padding='same'")
        module = case.module()
        graph = mge_gpu.encode(module, case.input_shape, pad_input=pad_input, identity_skips=identity_skips)
    assert [tuple(p.shape) for p in graph.partitions] == reference.shapes
    assert [p.size for p in graph.partitions] == [prod(s) for s in reference.shapes]
    offsets = np.cumsum([0, *(prod(s) for s in reference.shapes)])
    assert [p.offset for p in graph.partitions] == offsets[:-1].tolist()
    assert graph.num_nodes == reference.num_nodes
    assert tuple(graph.output_partitions) == reference.outputs
    src, dst, weight = graph.coo()
    assert (src.dtype, dst.dtype, weight.dtype) == (torch.int64, torch.int64, torch.float32)
    assert graph.num_edges == len(src) == len(dst) == len(weight)
    found = dict(zip(zip(src.tolist(), dst.tolist(), strict=True), weight.tolist(), strict=True))
    assert len(found) == len(src), "an edge is listed twice"
    missing, extra = reference.edges.keys() - found.keys(), found.keys() - reference.edges.keys()
    assert not missing and not extra, f"missing {sorted(missing)[:5]}, extra {sorted(extra)[:5]}"
    edges = sorted(found)
    np.testing.assert_allclose([found[e] for e in edges], [reference.edges[e] for e in edges], rtol=1e-5)


def test_layers() -> None:
    compared = 0

    @settings(max_examples=LAYERS)
    @given(cases(kind="layer"), st.booleans())
    def compare(case: Case, pad_input: bool) -> None:
        nonlocal compared
        assert_equal_graphs(case, pad_input, identity_skips=False)
        compared += 1

    compare()
    assert compared >= LAYERS  # hypothesis may stop early when it thinks that it has seen everything


def test_networks() -> None:
    compared = 0

    @settings(max_examples=NETWORKS)
    @given(cases(), st.booleans(), st.booleans())
    def compare(case: Case, pad_input: bool, identity_skips: bool) -> None:
        nonlocal compared
        assert_equal_graphs(case, pad_input, identity_skips)
        compared += 1

    compare()
    assert compared >= NETWORKS
