"""What the benchmarks share: medians, peak memory, and the machine they ran on."""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from mge_gpu import bench
from mge_gpu._memory import peak_rss_bytes

SHAPES = {"mge": (3, 32, 32), "torchvision": (3, 224, 224)}
"""Input of the networks of each library."""


def classifier(name: str) -> tuple[torch.nn.Module, tuple[int, int, int]]:
    """torchvision's classifier with random weights, and the input that its default weights are made for."""
    import torchvision

    options: dict[str, Any] = {"init_weights": True} if name in ("googlenet", "inception_v3") else {}
    side = torchvision.models.get_model_weights(name).DEFAULT.transforms.keywords["crop_size"]
    if name.startswith("vit"):
        options["image_size"] = side
    return torchvision.models.get_model(name, weights=None, **options), (3, side, side)


def median_seconds(call: Callable[[], Any], repeats: int = 5, warm_up: int = 1) -> float:
    """Median wall-clock seconds of a call, after some calls that do not count."""
    for _ in range(warm_up):
        call()
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        call()
        times.append(time.perf_counter() - begin)
    return statistics.median(times)


def peak_rss() -> int:
    """Largest resident memory of this process so far, bytes."""
    return peak_rss_bytes() or 0


def machine(device: str = "cpu") -> dict[str, Any]:
    """Processor or GPU, versions and the command, for beside the figures."""
    return {**bench.machine(torch.device(device)), "command": " ".join(["python", *sys.argv])}


def beside(call: Callable[[], Any], reference: Callable[[], Any], repeats: int = 9) -> dict[str, float]:
    """Median seconds of two calls made in turn, and the median over the pairs of reference / call.

    In turn, since the speed of a shared machine drifts: the ratio of each pair does not.
    """
    call(), reference()
    pairs = []
    for _ in range(repeats):
        begin = time.perf_counter()
        call()
        middle = time.perf_counter()
        reference()
        pairs.append((middle - begin, time.perf_counter() - middle))
    return {
        "seconds": statistics.median(a for a, _ in pairs),
        "reference_seconds": statistics.median(b for _, b in pairs),
        "share": statistics.median(b / a for a, b in pairs),
        "smallest_share": min(b / a for a, b in pairs),
    }


def write(result: dict[str, Any], path: str | None) -> None:
    """Print a result as JSON, and write it to a file if one is given."""
    print(json.dumps(result, indent=2))
    save(result, path)


def save(result: dict[str, Any], path: str | None) -> None:
    """Write a result to a file if one is given: after each row, for a run that may be stopped."""
    if path:
        Path(path).write_text(json.dumps(result, indent=2) + "\n")


def difference(found: Mapping[str, float], expected: Mapping[str, float]) -> dict[str, float]:
    """Relative difference of each value that both have, where there is one; JSON has null for infinity."""
    both = {key: (found[key], expected[key]) for key in found if expected.get(key) is not None}
    return {k: abs(a - b) / max(abs(a), abs(b)) for k, (a, b) in both.items() if a != b}


def command(
    benchmark: str,
    text: str,
    one: Callable[[str, float, str, int], dict[str, Any]],
    networks: str,
    sparsities: str,
    repeats: int,
) -> None:
    """Read the command line, measure each network at each sparsity, print; these are the defaults."""
    parser = argparse.ArgumentParser(description=text.splitlines()[0])
    parser.add_argument("--networks", default=networks)
    parser.add_argument("--sparsities", default=sparsities)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--repeats", type=int, default=repeats)
    parser.add_argument("--out", help="write the JSON here, too")
    args = parser.parse_args()
    result = {"benchmark": benchmark, "rows": list[Any](), "machine": machine(args.device)}
    for name in args.networks.split(","):
        for sparsity in map(float, args.sparsities.split(",")):
            result["rows"].append(one(name, sparsity, args.device, args.repeats))
            save(result, args.out)
    write(result, args.out)
