"""What the benchmarks share: medians, peak memory, and the machine they ran on."""

import json
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch


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
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def processor() -> str:
    """The processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(x.split(":", 1)[1].strip() for x in lines if x.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()


def machine() -> dict[str, Any]:
    """Processor, cores and versions, for beside the figures."""
    import numba
    import scipy

    from mge_gpu.backends.cpu.threads import num_threads

    return {
        "date": date.today().isoformat(),
        "processor": processor(),
        "threads": num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "numba": numba.__version__,
        "scipy": scipy.__version__,
        "command": " ".join(["python", *sys.argv]),
    }


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
    text = json.dumps(result, indent=2)
    print(text)
    if path:
        Path(path).write_text(text + "\n")
