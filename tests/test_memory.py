"""What memory a process may use: its limits, in files as kernels write them, and really set."""

import functools
import os
import resource
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from prunejax import memory
from prunejax.config import UserError, override
from prunejax.memory import memory_bytes
from prunejax.training import hosts, plan
from prunejax.training.programs import make_programs
from prunejax.training.spec import make_specs

GIB = 2**30


def system(root, lines, files):
    """The arguments of `memory_bytes` for a process in the groups of these lines.

    The groups have these `files`.
    """
    own = root / "proc_self_cgroup"
    own.parent.mkdir(parents=True, exist_ok=True)
    own.write_text("".join(f"{line}\n" for line in lines))
    groups = root / "groups"
    for name, content in files.items():
        path = groups / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{content}\n")
    return groups, own


@pytest.fixture
def unlimited(monkeypatch):
    """A machine of 64 GiB, on which the process has no limits of its own."""
    pages = {"SC_PHYS_PAGES": 64 * GIB // 4096, "SC_PAGE_SIZE": 4096}
    monkeypatch.setattr(os, "sysconf", pages.__getitem__)
    none = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    monkeypatch.setattr(resource, "getrlimit", lambda kind: none)
    return monkeypatch


# -------------------------------------------------------------------- control groups


@pytest.mark.usefixtures("unlimited")
def test_every_group_around_the_process_limits_it(tmp_path):
    """Version 2: the innermost has no limit, those around it have; the root has no files."""
    lines = ["0::/user.slice/job/step"]
    files = {
        "user.slice/memory.max": 8 * GIB,
        "user.slice/job/memory.max": 2 * GIB,
        "user.slice/job/step/memory.max": "max",
        "user.slice/other/memory.max": GIB,
    }
    groups, own = system(tmp_path, lines, files)
    assert memory_bytes(groups, own) == 2 * GIB
    (groups / "user.slice/job/memory.max").write_text("max\n")
    assert memory_bytes(groups, own) == 8 * GIB
    (groups / "user.slice/job/step/memory.max").write_text(f"{GIB // 2}\n")
    assert memory_bytes(groups, own) == GIB // 2


@pytest.mark.usefixtures("unlimited")
def test_what_is_in_use_does_not_count(tmp_path):
    files = {"job/memory.max": 2 * GIB, "job/memory.current": GIB, "job/memory.peak": GIB}
    assert memory_bytes(*system(tmp_path, ["0::/job"], files)) == 2 * GIB


@pytest.mark.usefixtures("unlimited")
def test_a_group_that_is_slowed_down_above_some_memory_is_limited_to_it(tmp_path):
    files = {"job/memory.max": 4 * GIB, "job/memory.high": 3 * GIB}
    assert memory_bytes(*system(tmp_path, ["0::/job"], files)) == 3 * GIB


@pytest.mark.usefixtures("unlimited")
def test_in_a_container_its_own_group_is_the_top(tmp_path):
    """As Docker has it with a namespace of control groups."""
    assert memory_bytes(*system(tmp_path, ["0::/"], {"memory.max": GIB})) == GIB


@pytest.mark.usefixtures("unlimited")
@pytest.mark.parametrize("controllers", ["memory", "cpu,memory"])
def test_the_memory_controller_of_version_1_has_a_hierarchy_of_its_own(tmp_path, controllers):
    lines = [
        f"4:{controllers}:/slurm/uid_7/job_1",
        "3:cpu,cpuacct:/slurm/other",
        "1:name=systemd:/slurm/other",
        "0::/",
    ]
    files = {
        "memory/memory.limit_in_bytes": 9223372036854771712,  # as the kernel writes no limit
        "memory/slurm/memory.limit_in_bytes": 6 * GIB,
        "memory/slurm/uid_7/job_1/memory.limit_in_bytes": 3 * GIB,
        "memory/slurm/other/memory.limit_in_bytes": GIB,
    }
    groups, own = system(tmp_path, lines, files)
    assert memory_bytes(groups, own) == 3 * GIB
    (groups / "memory/slurm/uid_7/job_1/memory.limit_in_bytes").write_text("9223372036854771712\n")
    assert memory_bytes(groups, own) == 6 * GIB


@pytest.mark.usefixtures("unlimited")
@pytest.mark.parametrize("path", ["/docker/abc", "/elsewhere", "/../../elsewhere"])
def test_a_path_of_the_host_within_a_container_is_taken_for_the_top(tmp_path, path):
    """Its mount begins at its own group, whose path on the host leads nowhere there."""
    version_1 = {"memory/memory.limit_in_bytes": GIB}
    assert memory_bytes(*system(tmp_path / "1", [f"4:memory:{path}"], version_1)) == GIB
    version_2 = {"memory.max": GIB}
    assert memory_bytes(*system(tmp_path / "2", [f"0::{path}"], version_2)) == GIB


@pytest.mark.usefixtures("unlimited")
def test_both_versions_side_by_side_are_looked_at(tmp_path):
    lines = ["4:memory:/job", "0::/job"]
    files = {"memory/job/memory.limit_in_bytes": 2 * GIB, "job/memory.max": 3 * GIB}
    groups, own = system(tmp_path, lines, files)
    assert memory_bytes(groups, own) == 2 * GIB
    (groups / "job/memory.max").write_text(f"{GIB}\n")
    assert memory_bytes(groups, own) == GIB


@pytest.mark.usefixtures("unlimited")
def test_a_group_may_have_colons_and_blanks_in_its_name(tmp_path):
    """As systemd names units."""
    files = {"a:b.slice/my job/memory.max": GIB}
    assert memory_bytes(*system(tmp_path, ["0::/a:b.slice/my job"], files)) == GIB


@pytest.mark.usefixtures("unlimited")
@pytest.mark.parametrize("content", ["max", "", "many", "1.5", "²"])
def test_what_is_no_limit_limits_nothing(tmp_path, content):
    files = {"memory.max": content, "memory.high": content}
    assert memory_bytes(*system(tmp_path, ["0::/"], files)) == 64 * GIB


@pytest.mark.usefixtures("unlimited")
@pytest.mark.parametrize("lines", [[], ["0::/gone"], ["::"], ["2:cpu:/"]])
def test_where_there_are_no_groups_nothing_is_limited(tmp_path, lines):
    assert memory_bytes(tmp_path / "no groups", tmp_path / "not Linux") == 64 * GIB
    assert memory_bytes(*system(tmp_path, lines, {})) == 64 * GIB


# --------------------------------------------------------------------------- together


def test_the_least_limit_counts(unlimited, tmp_path):
    groups, own = system(tmp_path, ["0::/job"], {})
    assert memory_bytes(groups, own) == 64 * GIB
    system(tmp_path, ["0::/job"], {"memory.max": 2**63, "job/memory.max": 8 * GIB})
    assert memory_bytes(groups, own) == 8 * GIB

    soft = {resource.RLIMIT_AS: 6 * GIB, resource.RLIMIT_DATA: resource.RLIM_INFINITY}
    unlimited.setattr(resource, "getrlimit", lambda kind: (soft[kind], GIB))  # the soft one counts
    assert memory_bytes(groups, own) == 6 * GIB
    soft[resource.RLIMIT_DATA] = 5 * GIB
    assert memory_bytes(groups, own) == 5 * GIB

    system(tmp_path, ["0::/job"], {"job/memory.max": 2 * GIB})
    assert memory_bytes(groups, own) == 2 * GIB
    pages = {"SC_PHYS_PAGES": GIB // 4096, "SC_PAGE_SIZE": 4096}
    unlimited.setattr(os, "sysconf", pages.__getitem__)
    assert memory_bytes(groups, own) == GIB


@pytest.fixture
def limit(unlimited, tmp_path):
    """`limit(bytes)`: what the group of this process may use."""

    def set_limit(count):
        groups, own = system(tmp_path, ["0::/job"], {"job/memory.max": count})
        unlimited.setattr(plan, "memory_bytes", functools.partial(memory_bytes, groups, own))

    set_limit("max")
    return set_limit


def test_programs_on_the_cpu_may_use_half_of_what_the_process_has(limit):
    limit(8 * GIB)
    assert plan.available_memory(devices=2) == 4 * GIB


@pytest.mark.usefixtures("limit")
def test_processes_of_one_population_share_their_machines_memory(monkeypatch):
    here = plan.platform.node()
    monkeypatch.setattr(hosts, "gather_texts", lambda text: [text, "another", here])
    assert plan.available_memory(devices=2) == 16 * GIB


def test_a_population_is_cut_by_what_the_process_has(limit, make_config, dataset):
    """And where not even one model fits, that is one line."""
    config = override(make_config("sup_dense"), ["execution.models_per_program=2"])
    spec = make_specs(config, dataset)["sup"]
    programs = make_programs(spec, dataset)
    needed = plan.make_plan(spec, 2, dataset, programs).bytes
    limit(2 * needed + 2**20)
    assert plan.make_plan(spec, 2, dataset, programs).models_per_program == 2
    limit(needed)
    with pytest.raises(UserError, match=r"needs 0\.\d GiB, and 0\.0 GiB may be used; lower"):
        plan.make_plan(spec, 2, dataset, programs)


# ------------------------------------------------------------ limits that are really set


def found_by(preparation):
    """What a process of its own finds that has first run this line."""
    lines = [
        "import os, resource",
        preparation,
        "from prunejax.memory import memory_bytes",
        "print(memory_bytes())",
    ]
    process = subprocess.run(
        [sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, check=True
    )
    return int(process.stdout)


@pytest.mark.parametrize("kind", ["RLIMIT_AS", "RLIMIT_DATA"])
def test_a_limit_of_the_shell_is_seen(kind):
    """As `ulimit -v` and `ulimit -d` set it."""
    _, hard = resource.getrlimit(getattr(resource, kind))
    found = found_by(f"resource.setrlimit(resource.{kind}, ({3 * GIB}, {hard}))")
    assert found == min(3 * GIB, memory_bytes())


def test_the_limit_of_a_real_control_group_is_seen():
    """Where this process may make one below its own, which a process of the test then enters."""
    around = [
        path
        for path in memory._groups_of(memory.GROUPS, Path("/proc/self/cgroup"))
        if path.is_dir()
    ]
    if os.geteuid() != 0 or not around:
        pytest.skip("no right to make a control group")
    group = around[0] / f"prunejax-test-{uuid.uuid4().hex[:8]}"
    try:
        group.mkdir()
    except OSError as error:
        pytest.skip(f"no control group can be made here ({error.strerror})")
    try:
        version_1 = group / "memory.limit_in_bytes"
        (version_1 if version_1.exists() else group / "memory.max").write_text(str(GIB))
        procs = str(group / "cgroup.procs")
        found = found_by(f"open({procs!r}, 'w').write(str(os.getpid()))")
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"a control group of one's own cannot be used here ({error})")
    finally:
        group.rmdir()
    assert found == min(GIB, memory_bytes())
