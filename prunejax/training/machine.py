"""What this process may have of the machine: memory and cores, as its limits allow.

A container, a Slurm job or a shell's `ulimit` may give a process less than there is. What others
happen to use does not count, so that the answer is the same when a run is resumed.
"""

import math
import os
import pathlib
import re
import resource
from collections.abc import Mapping
from typing import NamedTuple

ROOT = pathlib.Path("/")
"""Of the file system that has `/proc` and the control groups."""
MEBIBYTE = 2**20
"""In which Slurm counts memory."""


def memory_bytes() -> int:
    """Bytes that this process may come to use.

    The least of the machine's memory, the limits of its control groups (`docker -m`, Slurm's
    `--mem`) and of those around them, what Slurm allocates it on this node, and its own limits of
    address space and of data (`ulimit -v` and `-d`).
    """
    bounds = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    bounds += own_limits()
    bounds += group_memory()
    bounds += slurm_memory(os.environ)
    return min(bounds)


def cores() -> int:
    """Cores that this process may keep busy, at least 1.

    The least of those that it may be scheduled on, the quotas of its control groups (`docker
    --cpus`) and of those around them, rounded up, and what Slurm allocates it on this node.
    """
    if hasattr(os, "sched_getaffinity"):
        bounds = [len(os.sched_getaffinity(0))]
    else:
        bounds = [os.cpu_count() or 1]
    for quota in group_cores():
        bounds.append(math.ceil(quota))
    bounds += slurm_cores(os.environ)
    return max(1, min(bounds))


# ------------------------------------------------------------------ what sets a limit


def own_limits() -> list[int]:
    """Bytes of address space and of data that this process may have, where they are limited."""
    bounds = []
    for kind in (resource.RLIMIT_AS, resource.RLIMIT_DATA):
        # The soft limit is the one that counts.
        soft, _ = resource.getrlimit(kind)
        if soft != resource.RLIM_INFINITY:
            bounds.append(soft)
    return bounds


def slurm_memory(environment: Mapping[str, str]) -> list[int]:
    """Bytes of this node that Slurm gives the job, if the environment names them."""
    bounds = []
    of_node = _counted(environment, "SLURM_MEM_PER_NODE")
    if of_node:
        bounds.append(of_node * MEBIBYTE)
    of_core = _counted(environment, "SLURM_MEM_PER_CPU")
    count = _counted(environment, "SLURM_CPUS_ON_NODE")
    if of_core and count:
        bounds.append(of_core * count * MEBIBYTE)
    return bounds


def slurm_cores(environment: Mapping[str, str]) -> list[int]:
    """Cores that Slurm gives each task, and the job on this node, if the environment names them."""
    counts = [
        _counted(environment, "SLURM_CPUS_PER_TASK"),
        _counted(environment, "SLURM_CPUS_ON_NODE"),
    ]
    return [count for count in counts if count]


def group_memory(root: pathlib.Path = ROOT) -> list[int]:
    """Bytes that each of this process's control groups may use, where it is limited.

    Args:
        root: of the file system.
    """
    bounds = []
    for group in control_groups("memory", root):
        # Of version 2; above `high` a group is not killed, but slowed down until it is useless.
        for name in ("memory.max", "memory.high", "memory.limit_in_bytes"):
            limit = _number(group / name)
            if limit:
                bounds.append(limit)
    return bounds


def group_cores(root: pathlib.Path = ROOT) -> list[float]:
    """Cores' worth of time that each of this process's control groups may use, where limited.

    Args:
        root: of the file system.
    """
    bounds = []
    for group in control_groups("cpu", root):
        # Version 2 has `quota period` in one file, version 1 has two files.
        quota, period = None, None
        both = _read(group / "cpu.max").split()
        if len(both) == 2:
            quota, period = _as_number(both[0]), _as_number(both[1])
        else:
            quota = _number(group / "cpu.cfs_quota_us")
            period = _number(group / "cpu.cfs_period_us")
        if quota and period:
            bounds.append(quota / period)
    return bounds


# --------------------------------------------------------------------- control groups


class Mount(NamedTuple):
    """Where a hierarchy of control groups can be read."""

    controllers: frozenset[str]
    """Of version 1; none for version 2, whose hierarchy has all."""
    top: str
    """The group that the mount point is, `/` unless a container sees a part of the hierarchy."""
    point: str
    """The mount point."""


def control_groups(controller: str, root: pathlib.Path = ROOT) -> list[pathlib.Path]:
    """The directories of this process's control groups, each before the one around it.

    Args:
        controller: `memory` or `cpu`.
        root: of the file system.

    Returns:
        Those of version 1 and of version 2 that can be seen; none where there are none.
    """
    own = own_groups(_read(root / "proc/self/cgroup"))
    directories = []
    for mount in mounts(_read(root / "proc/self/mountinfo")):
        if mount.controllers and controller not in mount.controllers:
            continue
        path = own.get(controller if mount.controllers else "")
        if path is None:
            continue
        top = root / mount.point.lstrip("/")
        below = pathlib.PurePosixPath(".")
        if pathlib.PurePosixPath(path).is_relative_to(mount.top):
            below = pathlib.PurePosixPath(path).relative_to(mount.top)
        # A path outside of what is mounted is seen from within a container: its group is the top.
        for part in (below, *below.parents):
            if ".." not in part.parts and (top / part) not in directories:
                directories.append(top / part)
    return directories


def own_groups(text: str) -> dict[str, str]:
    """The path of a process's group by controller, that of version 2 under the empty name.

    Args:
        text: of `/proc/self/cgroup`, lines of `number:controllers:path`.
    """
    groups = {}
    for line in text.splitlines():
        parts = line.split(":", 2)
        if len(parts) == 3:
            for controller in parts[1].split(","):
                groups[controller] = parts[2]
    return groups


def mounts(text: str) -> list[Mount]:
    """The mounted hierarchies of control groups.

    Args:
        text: of `/proc/self/mountinfo`. A line is `id parent device top point options optional -
            type source options`, the last options of version 1 with its controllers.
    """
    found = []
    for line in text.splitlines():
        place, _, kind = line.partition(" - ")
        place, kind = place.split(), kind.split()
        if len(place) < 5 or len(kind) < 3:
            continue
        top, point = _unescaped(place[3]), _unescaped(place[4])
        if kind[0] == "cgroup2":
            found.append(Mount(frozenset(), top, point))
        elif kind[0] == "cgroup":
            found.append(Mount(frozenset(kind[2].split(",")), top, point))
    return found


def _unescaped(path: str) -> str:
    """As the kernel writes blanks: a backslash and three octal digits."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), path)


def _read(path: pathlib.Path) -> str:
    """The text of a small file; empty where there is none that can be read."""
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError):
        return ""


def _number(path: pathlib.Path) -> int | None:
    """The number in a file, if it is one that limits."""
    return _as_number(_read(path))


def _counted(environment: Mapping[str, str], name: str) -> int | None:
    return _as_number(environment.get(name, ""))


def _as_number(text: str) -> int | None:
    """A number above 0; None for `max`, for -1 and 0, which mean no limit, and for all else."""
    text = text.strip()
    return int(text) if re.fullmatch(r"\d+", text, re.ASCII) and int(text) > 0 else None
