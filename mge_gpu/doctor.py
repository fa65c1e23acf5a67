"""Is this installation sound? A graph with a known answer, what is installed, which device.

`run_checks` returns data; `mge-gpu doctor` prints it.
"""

import importlib
import importlib.metadata
import importlib.util
import math
import platform
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch

from mge_gpu.errors import GraphError, MGEError

Status = Literal["ok", "missing", "failed"]

REQUIRED = ("torch", "numpy", "scipy", "numba", "typer", "rich", "safetensors")

# module that is imported -> (distribution that brings it, extra of mge_gpu, what it is for)
OPTIONAL = {
    "lightgbm": ("lightgbm", "rank", "ranking pruning methods"),
    "pandas": ("pandas", "rank", "tables: rank, Report.to_frame"),
    "sklearn": ("scikit-learn", "rank", "the digits data for data-driven pruning"),
    "torchvision": ("torchvision", "vision", "torchvision models and data sets"),
    "torch_geometric": ("torch-geometric", "pyg", "graph.to_pyg"),
    "torch_sparse": ("torch-sparse", "torch-sparse", "graph.to_torch_sparse"),
    "igraph": ("igraph", "graphs", "graph.to_igraph"),
    "networkx": ("networkx", "graphs", "graph.to_networkx"),
    "matplotlib": ("matplotlib", "plots", "mge-gpu plot"),
    "lightning": ("lightning", "lightning", "training callbacks"),
}


@dataclass(frozen=True)
class Check:
    """One line of the examination.

    Args:
        name: what was looked at.
        status: ``ok``; ``missing`` for something optional that is not there; ``failed`` for what must work.
        detail: the version, the device, or what went wrong.
        hint: what to do about it, where there is something to do.
    """

    name: str
    status: Status
    detail: str
    hint: str = ""

    def to_dict(self) -> dict[str, str]:
        """The four fields as a dict.

        >>> Check("torch", "ok", "2.9.0").to_dict()["detail"]
        '2.9.0'
        """
        return asdict(self)


def run_checks() -> list[Check]:
    """Examine this installation, most important first; never raises.

    >>> {check.status for check in run_checks()} <= {"ok", "missing", "failed"}
    True
    """
    return list(_checks())


def healthy(checks: list[Check]) -> bool:
    """Whether nothing that must work has failed; what is merely missing does not count.

    >>> healthy([Check("cupy", "missing", "not installed")])
    True
    """
    return all(check.status != "failed" for check in checks)


def _checks() -> Iterator[Check]:
    yield Check("python", "ok", f"{platform.python_version()} on {platform.system()} {platform.machine()}")
    for name in REQUIRED:
        yield _required(name)
    yield _guarded("tiny graph", check_tiny_graph)
    yield _guarded("device", check_device)
    yield _guarded("cupy", check_cupy)
    for module, (distribution, extra, purpose) in OPTIONAL.items():
        yield _optional(module, distribution, extra, purpose)


def _guarded(name: str, check: Callable[[], Check]) -> Check:
    try:
        return check()
    except MGEError as error:
        return Check(name, "failed", str(error))
    except Exception as error:
        # Whatever is broken here, the rest of the examination is still wanted.
        return Check(name, "failed", f"{type(error).__name__}: {error}", "install mge_gpu anew")


def _required(distribution: str) -> Check:
    try:
        return Check(distribution, "ok", importlib.metadata.version(distribution))
    except importlib.metadata.PackageNotFoundError:
        return Check(distribution, "failed", "not installed", f"pip install {distribution}")


def _optional(module: str, distribution: str, extra: str, purpose: str) -> Check:
    if importlib.util.find_spec(module) is None:
        return Check(distribution, "missing", f"not installed: {purpose}", f"pip install 'mge_gpu[{extra}]'")
    try:
        return Check(distribution, "ok", importlib.metadata.version(distribution))
    except importlib.metadata.PackageNotFoundError:
        return Check(distribution, "ok", "version unknown")


def check_device() -> Check:
    """Which device there is. Computing happens on the CPU unless a device is asked for."""
    cpu = f"CPU, {torch.get_num_threads()} threads"
    if not torch.cuda.is_available():
        return Check("device", "ok", f"{cpu}; no CUDA device")
    return Check("device", "ok", f"{cpu}; {torch.cuda.get_device_name()}, used with device='cuda'")


def check_cupy() -> Check:
    """CuPy, which CUDA kernels need, and the kernels, where there is a GPU: the tiny graph by them."""
    cuda = str(torch.version.cuda or "")
    if cuda.startswith("12"):
        hint = "pip install -U 'cupy-cuda12x>=14.2'  (this torch was built for CUDA 12)"
    else:
        hint = "pip install -U 'mge_gpu[cuda]'"
    if importlib.util.find_spec("cupy") is None:
        return Check("cupy", "missing", "not installed; only device='cuda' needs it", hint)
    try:
        version = importlib.import_module("cupy").__version__
    except Exception as error:  # it makes a folder for its kernels, say
        return Check("cupy", "missing", f"cannot be imported: {type(error).__name__}: {error}", hint)
    if not torch.cuda.is_available():
        return Check("cupy", "ok", version)
    try:
        found = check_tiny_graph("cuda")
    except GraphError as error:
        return Check("cupy", "missing", str(error), hint)  # everything works without it
    return Check("cupy", found.status, f"{version}; {found.detail}", found.hint)


def tiny_network() -> torch.nn.Module:
    """3 inputs, 2 hidden units, 1 output, and four weights that are not zero.

    Written as node: neighbours, with i inputs, h hidden, o the output, the graph is h0: i0 (weight 1),
    i2 (weight 2), o (weight 4) and h1: i2 (weight 3). i1 is cut off; h1 leads nowhere.
    """
    from torch.nn.utils import skip_init

    hidden, last = (skip_init(torch.nn.Linear, *sizes, bias=False) for sizes in ((3, 2), (2, 1)))
    with torch.no_grad():
        hidden.weight.copy_(torch.tensor([[1.0, 0.0, -2.0], [0.0, 0.0, 3.0]]))
        last.weight.copy_(torch.tensor([[-4.0, 0.0]]))
    return torch.nn.Sequential(hidden, torch.nn.ReLU(), last)


# Worked out by hand. The tree h1 - i2 - h0 - o with the leaf i0 at h0, and i1 alone: every edge is a bridge,
# i2 and h0 are cut nodes, and taking away any one of the three leaves gives a connected set of four nodes.
TINY_ANSWERS: dict[str, float] = {
    "nodes": 6,
    "edges": 4,
    "sink_nodes": 1,
    "source_nodes": 0,
    "disconnected_nodes": 1,
    "removable_out": 1,
    "removable_in": 0,
    "one_hop": 10 / 6,
    "two_hop": 12 / 6,
    "motifs": 3,
    "strength": 20 / 6,
    "k_core": 5 / 6,
    "components": 2,
    "component_size": 3,
    "cut_edges": 4,
    "cut_nodes": 2,
    # The two halves of the tree's spectrum mirror each other, so the first and third largest absolute values
    # are the singular values of [[1, 2, 4], [0, 3, 0]]; their squares solve s² − 30 s + 153 = 0.
    "spectral_gap": math.sqrt(15 + math.sqrt(72)) - math.sqrt(15 - math.sqrt(72)),
    # The largest root of x⁴ − 20 x³ + 120 x² − 224 x + 120, a factor of the Laplacian's polynomial.
    "spectral_radius": 10.498192633206,
}


def check_tiny_graph(device: str = "cpu") -> Check:
    """Encode `tiny_network` and compare every topometric with `TINY_ANSWERS`."""
    import mge_gpu

    report: Any = mge_gpu.topometrics(tiny_network(), (3,), device=device)
    for key, expected in TINY_ANSWERS.items():
        if not math.isclose(report[key], expected, rel_tol=1e-4, abs_tol=1e-9):
            return Check(
                "tiny graph", "failed", f"{key} is {report[key]}; expected {expected}", "install mge_gpu anew"
            )
    return Check("tiny graph", "ok", f"{len(TINY_ANSWERS)} topometrics as expected")
