"""How much memory this process has taken and may still take, as far as the system says."""

import sys
from pathlib import Path

ROOT = Path("/")


def available_memory(root: Path = ROOT) -> int | None:
    """Bytes that can be allocated without swapping or being killed; None where the system does not say.

    The least of what the machine has free (MemAvailable of /proc/meminfo) and of what is left in each control
    group, version 1 or 2, that this process is in. ``root`` is where /proc and /sys are found.
    """
    found = [x for x in (_machine(root), *_control_groups(root)) if x is not None]
    return max(0, min(found)) if found else None


def _machine(root: Path) -> int | None:
    for line in _text(root / "proc/meminfo").splitlines():
        name, _, amount = line.partition(":")
        if name == "MemAvailable":
            return int(amount.split()[0]) * 1024
    return None


def _control_groups(root: Path) -> list[int | None]:
    """Bytes left in the groups of this process and in those around them.

    Within a container the path may be that of the host: then the files lie at the mount's root.
    """
    left = []
    for line in _text(root / "proc/self/cgroup").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            mount, names = root / "sys/fs/cgroup", ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            mount = root / "sys/fs/cgroup/memory"
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        group = Path(path.lstrip("/"))
        for place in (group, *group.parents):
            left.append(_left(mount / place, *names))
    return left


def _left(group: Path, limit: str, usage: str, reclaimable: str) -> int | None:
    """Limit less usage, of which cached files count as free; None for a group without a limit."""
    most, used = _text(group / limit).strip(), _text(group / usage).strip()
    if not (most.isdigit() and used.isdigit()):  # "max", or no such file
        return None
    cached = [x.split() for x in _text(group / "memory.stat").splitlines()]
    files = sum(int(x[1]) for x in cached if len(x) == 2 and x[0] == reclaimable)
    return int(most) - int(used) + files


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError):
        return ""


def bytes_text(size: float) -> str:
    """A size as people read it, in decimal units.

    >>> bytes_text(1_500_000_000), bytes_text(512)
    ('1.5 GB', '512 bytes')
    """
    for unit, name in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if size >= unit:
            return f"{size / unit:.3g} {name}"
    return f"{size:.0f} bytes"


def peak_rss_bytes() -> int | None:
    """Largest resident set of this process so far, in bytes; None where the system does not say."""
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
