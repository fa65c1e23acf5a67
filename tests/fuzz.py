"""Random networks against their Jacobians and against metrics of the materialised graph.

    python -m tests.fuzz --networks 2000 --seed 0

Draws networks of every layer, route and sum that the oracle knows, with odd sizes and many branches. Each is
traced and encoded, half of them as if they were large; its edges are compared with its Jacobian, its
topometrics with igraph, SciPy and brute force on the edge list, and a copy made from what files hold with the
graph itself; or it is refused with an error of the package, counted by kind. Anything else is a failure: it
is printed with the network, and the exit status is 1.
"""

import argparse
import pickle
import sys
import time
import warnings
from collections import Counter
from contextlib import nullcontext

import numpy as np
import torch
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

import mge_gpu
from mge_gpu.errors import MGEError
from tests.as_large import as_large
from tests.oracles.jacobian import reference_graph
from tests.oracles.metrics import motifs_by_counts, reference_metrics
from tests.oracles.networks import Case
from tests.oracles.strategies import cases

LISTED = 3000  # edges up to which motifs are listed; of more, which takes igraph minutes, they are counted


def check(case: Case, pad_input: bool, identity_skips: bool) -> str:
    """What became of a network: "agrees", or the kind of error it is refused with; raises on a mismatch."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            graph = mge_gpu.encode(
                case.module(), case.input_shape, pad_input=pad_input, identity_skips=identity_skips
            )
    except MGEError as error:
        if "raised on an input" in str(error):  # the network itself is at fault
            raise
        return f"{type(error).__name__}: {_kind(error)}"
    compare_edges(graph, case, pad_input, identity_skips)
    compare_metrics(graph)
    compare_copy(graph)
    return "agrees"


def _kind(error: MGEError) -> str:
    """The message without names and numbers."""
    words = str(error).split("; ")[0].split("': ")[-1]
    return "".join(c for c in words if not c.isdigit())[:90]


def compare_edges(
    graph: mge_gpu.MultipartiteGraph, case: Case, pad_input: bool, identity_skips: bool
) -> None:
    """Partitions, edges and weights of the graph against the Jacobian."""
    reference = reference_graph(case, pad_input=pad_input, identity_skips=identity_skips)
    assert [tuple(p.shape) for p in graph.partitions] == reference.shapes, "partitions"
    assert tuple(graph.output_partitions) == reference.outputs, "output partitions"
    src, dst, weight = (x.tolist() for x in graph.coo())
    found = dict(zip(zip(src, dst, strict=True), weight, strict=True))
    assert len(found) == len(src) == graph.num_edges, "an edge is listed twice"
    missing, extra = reference.edges.keys() - found.keys(), found.keys() - reference.edges.keys()
    assert not missing and not extra, f"missing {sorted(missing)[:5]}, extra {sorted(extra)[:5]}"
    edges = sorted(found)
    np.testing.assert_allclose([found[e] for e in edges], [reference.edges[e] for e in edges], rtol=1e-5)


def compare_metrics(graph: mge_gpu.MultipartiteGraph) -> None:
    """All topometrics against the oracle on the edge list."""
    src, dst, weight = (x.numpy() for x in graph.coo())
    listed = len(src) <= LISTED
    sizes = [p.size for p in graph.partitions]
    expected = reference_metrics(
        graph.num_nodes, src, dst, weight, sizes, graph.output_partitions, motifs=listed
    )
    if not listed:
        expected["motifs"] = motifs_by_counts(graph.num_nodes, src, dst)
    if len(graph.input_partitions) != 1 or graph.input_partitions[0] != 0:
        return
    report = mge_gpu.topometrics(graph, metrics=sorted(expected), exact=True)
    for key, value in expected.items():
        tolerance = 1e-4 if key.startswith("spectral") else 1e-6
        np.testing.assert_allclose(report[key], value, rtol=tolerance, atol=1e-5, err_msg=key)


def compare_copy(graph: mge_gpu.MultipartiteGraph) -> None:
    """The graph of the compressed form, which files hold: the same edges, and the same flow."""
    copied = pickle.loads(pickle.dumps(graph))
    assert copied.partitions == graph.partitions, "partitions of a copy"
    for kept, edges in zip(copied.coo(), graph.coo(), strict=True):
        assert torch.equal(kept, edges), "edges of a copy"
    keys = ["log_effective_paths", "l1_path_norm"]
    assert dict(mge_gpu.topometrics(copied, metrics=keys)) == dict(mge_gpu.topometrics(graph, metrics=keys))


def run(networks: int, first_seed: int) -> tuple[Counter[str], list[tuple[str, str]]]:
    """Check so many networks; returns the count of each outcome and the failures with their networks."""
    outcomes: Counter[str] = Counter()
    failures: list[tuple[str, str]] = []

    @seed(first_seed)
    @settings(
        max_examples=networks,
        database=None,
        derandomize=False,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(cases(), st.booleans(), st.booleans(), st.booleans())
    def one(case: Case, pad_input: bool, identity_skips: bool, large: bool) -> None:
        try:
            with as_large() if large else nullcontext():
                outcome = check(case, pad_input, identity_skips)
        except Exception as error:
            outcome = "fails"
            lines = str(error).strip().splitlines()
            what = f"{type(error).__name__}: {' '.join(lines)[:500]}"
            network = f"{case!r}\npad_input={pad_input} identity_skips={identity_skips} large={large}"
            failures.append((what, network))
            print(f"--- {what}\n{network}\n", file=sys.stderr, flush=True)
        outcomes[outcome] += 1
        if sum(outcomes.values()) % 100 == 0:
            print(dict(outcomes), file=sys.stderr, flush=True)

    one()
    return outcomes, failures


def main() -> int:
    """Run and print the count of each outcome."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    begin = time.perf_counter()
    outcomes, failures = run(args.networks, args.seed)
    for what, network in failures[:20]:  # once more, since much may have been logged in between
        print(f"--- {what}\n{network}\n")
    print(f"{sum(outcomes.values())} networks in {time.perf_counter() - begin:.0f} s")
    for outcome, count in outcomes.most_common():
        print(f"{count:6} {outcome}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
