"""How much memory this process may use: the machine's, as far as its limits allow."""

import contextlib
import os
import resource
from pathlib import Path

GROUPS = Path("/sys/fs/cgroup")
"""Where Linux mounts the control groups, by which containers and Slurm limit memory."""
LIMITS = ("memory.max", "memory.high", "memory.limit_in_bytes")
"""Files of a control group of version 2 (the first two) and of version 1."""


def memory_bytes(groups: Path = GROUPS, own: Path = Path("/proc/self/cgroup")) -> int:
    """Returns how many bytes this process may use at most.

    The least of the machine's memory, the limits of its control groups and of those around them
    (`docker -m`, Slurm's `--mem`), and its own soft limits (`ulimit -v` and `-d`). What other
    processes happen to use does not count: a resumed run must be divided as before.

    Args:
        groups: where control groups are mounted.
        own: the file that names those of this process, a line `number:controllers:path` each.
    """
    bounds = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for kind in (resource.RLIMIT_AS, resource.RLIMIT_DATA):
        soft, _ = resource.getrlimit(kind)
        if soft != resource.RLIM_INFINITY:
            bounds.append(soft)
    for directory in _groups_of(groups, own):
        for name in LIMITS:
            # A group need not be limited: there is no such file, or it says `max`.
            with contextlib.suppress(OSError, ValueError):
                bounds.append(int((directory / name).read_text()))
    return min(bounds)


def _groups_of(groups: Path, own: Path) -> list[Path]:
    """The directories of the control groups that limit this process's memory."""
    try:
        lines = own.read_text().splitlines()
    except OSError:  # not on Linux
        return []
    directories = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):  # version 1
            top = groups / "memory"
        elif not controllers:  # version 2
            top = groups
        else:
            continue
        # Within a container the path may be the host's: then the container's group is the top.
        inner = Path(path.lstrip("/"))
        directories += [top / part for part in (inner, *inner.parents)]
    return directories
