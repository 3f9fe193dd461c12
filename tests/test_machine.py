"""What a process may have of the machine: its limits, in files as kernels write them, and set."""

import json
import os
import resource
import subprocess
import sys
import uuid

import pytest

from prunejax import machine
from prunejax.config import UserError, override
from prunejax.training import hosts, plan
from prunejax.training.programs import make_programs
from prunejax.training.spec import make_tasks

GIB = 2**30
V2 = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate"
V1_MEMORY = "35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory"
V1_CPU = "32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw shared:9 - cgroup cgroup rw,cpu,cpuacct"
OTHERS = "23 0 8:1 / / rw,relatime - ext4 /dev/root rw\n31 23 0:28 / /tmp rw - tmpfs tmpfs rw"


def system(root, groups, mounts, files):
    """A file system in which a process is in `groups`, and the groups have these `files`."""
    proc = root / "proc" / "self"
    proc.mkdir(parents=True)
    (proc / "cgroup").write_text("".join(f"{line}\n" for line in groups))
    (proc / "mountinfo").write_text("\n".join([OTHERS, *mounts]) + "\n")
    for name, content in files.items():
        path = root / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{content}\n")
    return root


# -------------------------------------------------------------------- control groups


def test_every_group_around_the_process_limits_it(tmp_path):
    """Version 2: the innermost has no limit, the one around it has; the root has no files."""
    root = system(
        tmp_path,
        ["0::/user.slice/job/step"],
        [V2],
        {
            "user.slice/memory.max": 8 * GIB,
            "user.slice/job/memory.max": 2 * GIB,
            "user.slice/job/step/memory.max": "max",
            "user.slice/other/memory.max": GIB,
            "user.slice/cpu.max": "max 100000",
            "user.slice/job/cpu.max": "150000 100000",
            "user.slice/job/step/cpu.max": "400000 100000",
        },
    )
    names = [group.name for group in machine.control_groups("memory", root)]
    assert names == ["step", "job", "user.slice", "cgroup"]
    assert machine.group_memory(root) == [2 * GIB, 8 * GIB]
    assert machine.group_cores(root) == [4, 1.5]


def test_what_is_in_use_does_not_count(tmp_path):
    files = {"job/memory.max": 2 * GIB, "job/memory.current": GIB, "job/memory.peak": GIB}
    root = system(tmp_path, ["0::/job"], [V2], files)
    assert machine.group_memory(root) == [2 * GIB]


def test_a_group_that_is_slowed_down_above_some_memory_is_limited_to_it(tmp_path):
    files = {"job/memory.max": 4 * GIB, "job/memory.high": 3 * GIB}
    root = system(tmp_path, ["0::/job"], [V2], files)
    assert min(machine.group_memory(root)) == 3 * GIB


def test_in_a_container_its_own_group_is_the_top(tmp_path):
    """As Docker has it with a namespace of control groups."""
    files = {"memory.max": GIB, "cpu.max": "50000 100000"}
    root = system(tmp_path, ["0::/"], [V2], files)
    assert machine.group_memory(root) == [GIB]
    assert machine.group_cores(root) == [0.5]


def test_each_controller_of_version_1_has_a_hierarchy_of_its_own(tmp_path):
    root = system(
        tmp_path,
        ["4:memory:/slurm/uid_7/job_1", "3:cpu,cpuacct:/slurm", "1:name=systemd:/", "0::/"],
        [V1_MEMORY, V1_CPU],
        {
            "memory/memory.limit_in_bytes": 9223372036854771712,
            "memory/slurm/memory.limit_in_bytes": 6 * GIB,
            "memory/slurm/uid_7/job_1/memory.limit_in_bytes": 3 * GIB,
            "cpu,cpuacct/slurm/cpu.cfs_quota_us": 250_000,
            "cpu,cpuacct/slurm/cpu.cfs_period_us": 100_000,
            "cpu,cpuacct/cpu.cfs_quota_us": -1,
            "cpu,cpuacct/cpu.cfs_period_us": 100_000,
        },
    )
    assert machine.group_memory(root) == [3 * GIB, 6 * GIB, 9223372036854771712]
    assert machine.group_cores(root) == [2.5]


@pytest.mark.parametrize("path", ["/docker/abc", "/docker/abc/inner"])
def test_a_container_of_version_1_sees_a_part_of_the_hierarchy(tmp_path, path):
    """Its paths are those of the host, its mount begins at its own group."""
    mount = V1_MEMORY.replace("0:32 / ", "0:32 /docker/abc ")
    files = {"memory/memory.limit_in_bytes": GIB, "memory/inner/memory.limit_in_bytes": GIB // 2}
    root = system(tmp_path, [f"4:memory:{path}"], [mount], files)
    expected = [GIB] if path == "/docker/abc" else [GIB // 2, GIB]
    assert machine.group_memory(root) == expected


def test_a_group_outside_of_what_is_mounted_is_taken_for_the_top(tmp_path):
    mount = V1_MEMORY.replace("0:32 / ", "0:32 /docker/abc ")
    for place, path in enumerate(["/elsewhere", "/../../elsewhere"]):
        files = {"memory/memory.limit_in_bytes": GIB}
        root = system(tmp_path / str(place), [f"4:memory:{path}"], [mount], files)
        assert machine.group_memory(root) == [GIB]


def test_both_versions_side_by_side_are_looked_at(tmp_path):
    mount = V2.replace("/sys/fs/cgroup ", "/sys/fs/cgroup/unified ")
    root = system(
        tmp_path,
        ["4:memory:/job", "0::/job"],
        [V1_MEMORY, mount],
        {"memory/job/memory.limit_in_bytes": 2 * GIB, "unified/job/memory.max": 3 * GIB},
    )
    assert machine.group_memory(root) == [2 * GIB, 3 * GIB]


def test_a_mount_point_with_a_blank_in_its_name_is_found(tmp_path):
    mount = V2.replace("/sys/fs/cgroup ", r"/sys/fs/cgroup/my\040groups ")
    root = system(tmp_path, ["0::/"], [mount], {"my groups/memory.max": GIB})
    assert machine.group_memory(root) == [GIB]


@pytest.mark.parametrize("content", ["max", "-1", "0", "", "many", "1.5", "²"])
def test_what_is_no_limit_limits_nothing(tmp_path, content):
    files = {"memory.max": content, "cpu.max": f"{content} 100000"}
    root = system(tmp_path, ["0::/"], [V2], files)
    assert machine.group_memory(root) == []
    assert machine.group_cores(root) == []


@pytest.mark.parametrize("lines", [[], ["nonsense"], ["0::/gone"], ["::"]])
def test_where_there_are_no_groups_nothing_is_limited(tmp_path, lines):
    assert machine.group_memory(tmp_path / "empty") == []
    root = system(tmp_path / "system", lines, ["1 2 3", "a b c d e - cgroup2"], {})
    assert machine.group_memory(root) == []
    assert machine.group_cores(root) == []


# ----------------------------------------------------------------------------- Slurm


@pytest.mark.parametrize(
    ("environment", "memory", "cores"),
    [
        ({}, [], []),
        ({"SLURM_MEM_PER_NODE": "4096"}, [4 * GIB], []),
        ({"SLURM_MEM_PER_NODE": "0"}, [], []),  # all there is
        ({"SLURM_MEM_PER_CPU": "1024"}, [], []),
        ({"SLURM_MEM_PER_CPU": "1024", "SLURM_CPUS_ON_NODE": "6"}, [6 * GIB], [6]),
        ({"SLURM_CPUS_PER_TASK": "3", "SLURM_CPUS_ON_NODE": "12"}, [], [3, 12]),
        ({"SLURM_CPUS_PER_TASK": "3(x2)"}, [], []),
    ],
)
def test_what_slurm_allocates_is_in_its_environment(environment, memory, cores):
    assert machine.slurm_memory(environment) == memory
    assert machine.slurm_cores(environment) == cores


# --------------------------------------------------------------------------- together


@pytest.fixture
def unlimited(monkeypatch):
    """A machine of 64 GiB and 16 cores on which nothing limits the process."""
    pages = {"SC_PHYS_PAGES": 64 * GIB // 4096, "SC_PAGE_SIZE": 4096}
    monkeypatch.setattr(os, "sysconf", pages.__getitem__)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(16)), raising=False)
    monkeypatch.setattr(machine, "own_limits", list)
    monkeypatch.setattr(machine, "group_memory", list)
    monkeypatch.setattr(machine, "group_cores", list)
    for name in ("SLURM_MEM_PER_NODE", "SLURM_MEM_PER_CPU"):
        monkeypatch.delenv(name, raising=False)
    for name in ("SLURM_CPUS_PER_TASK", "SLURM_CPUS_ON_NODE"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def test_the_least_limit_counts(unlimited):
    assert machine.memory_bytes() == 64 * GIB
    assert machine.cores() == 16

    unlimited.setattr(machine, "group_memory", lambda: [2**63, 8 * GIB])
    unlimited.setattr(machine, "group_cores", lambda: [4.0])
    assert machine.memory_bytes() == 8 * GIB
    assert machine.cores() == 4

    unlimited.setattr(machine, "own_limits", lambda: [6 * GIB])
    unlimited.setenv("SLURM_CPUS_PER_TASK", "3")
    assert machine.memory_bytes() == 6 * GIB
    assert machine.cores() == 3

    unlimited.setenv("SLURM_MEM_PER_NODE", "2048")
    unlimited.setattr(os, "sched_getaffinity", lambda process: {5})
    assert machine.memory_bytes() == 2 * GIB
    assert machine.cores() == 1


@pytest.mark.parametrize(("quota", "cores"), [(0.2, 1), (1.0, 1), (1.5, 2), (3.0, 3)])
def test_a_part_of_a_core_counts_as_one(unlimited, quota, cores):
    unlimited.setattr(machine, "group_cores", lambda: [quota])
    assert machine.cores() == cores


def test_where_a_system_has_no_affinity_all_its_cores_count(unlimited):
    unlimited.delattr(os, "sched_getaffinity")
    unlimited.setattr(os, "cpu_count", lambda: 12)
    assert machine.cores() == 12
    unlimited.setattr(os, "cpu_count", lambda: None)
    assert machine.cores() == 1


def test_programs_on_the_cpu_may_use_half_of_what_the_process_has(unlimited):
    unlimited.setattr(machine, "group_memory", lambda: [8 * GIB])
    assert plan.available_memory(devices=2) == 4 * GIB


def test_processes_of_one_population_share_their_machines_memory(unlimited):
    here = plan.platform.node()
    unlimited.setattr(hosts, "gather_texts", lambda text: [text, "another", here])
    assert plan.available_memory(devices=2) == 16 * GIB


def test_a_population_is_cut_by_what_the_process_has(unlimited, make_config, dataset):
    """And where not even one model fits, that is one line."""
    config = override(make_config("sup_dense"), ["execution.models_per_program=2"])
    task = make_tasks(config, dataset)["sup"]
    programs = make_programs(task, dataset)
    needed = plan.make_plan(task, 2, dataset, programs).bytes
    unlimited.setattr(machine, "group_memory", lambda: [2 * needed + 2**20])
    assert plan.make_plan(task, 2, dataset, programs).models_per_program == 2
    unlimited.setattr(machine, "group_memory", lambda: [needed])
    with pytest.raises(UserError, match=r"needs 0\.\d GiB, and 0\.0 GiB may be used; lower"):
        plan.make_plan(task, 2, dataset, programs)


# ------------------------------------------------------------ limits that are really set


def found_by(preparation):
    """What a process of its own finds that has first run these lines."""
    lines = [
        "import json, os, resource",
        *preparation,
        "from prunejax import machine",
        "found = [machine.memory_bytes(), machine.cores(), machine.group_cores()]",
        "print(json.dumps(found))",
    ]
    process = subprocess.run(
        [sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, check=True
    )
    return json.loads(process.stdout)


@pytest.mark.parametrize("kind", ["RLIMIT_AS", "RLIMIT_DATA"])
def test_a_limit_of_the_shell_is_seen(kind):
    """As `ulimit -v` and `ulimit -d` set it."""
    _, hard = resource.getrlimit(getattr(resource, kind))
    memory, _, _ = found_by([f"resource.setrlimit(resource.{kind}, ({3 * GIB}, {hard}))"])
    assert memory == min(3 * GIB, machine.memory_bytes())


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity here")
def test_cores_that_the_process_is_bound_to_are_seen():
    """As `taskset` and Slurm bind it."""
    _, cores, _ = found_by(["os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})"])
    assert cores == 1


def test_a_quota_of_a_real_control_group_is_seen():
    """Where this process may make one below its own, which a process of the test then enters."""
    groups = machine.control_groups("cpu")
    if os.geteuid() != 0 or not groups:
        pytest.skip("no right to make a control group")
    group = groups[0] / f"prunejax-test-{uuid.uuid4().hex[:8]}"
    try:
        group.mkdir()
    except OSError as error:
        pytest.skip(f"no control group can be made here ({error.strerror})")
    try:
        if (group / "cpu.cfs_quota_us").exists():
            (group / "cpu.cfs_quota_us").write_text("130000")
            (group / "cpu.cfs_period_us").write_text("100000")
        else:
            (group / "cpu.max").write_text("130000 100000")
        procs = str(group / "cgroup.procs")
        _, cores, quotas = found_by([f"open({procs!r}, 'w').write(str(os.getpid()))"])
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"a control group of one's own cannot be used here ({error})")
    finally:
        group.rmdir()
    assert quotas[0] == 1.3
    assert cores == min(2, machine.cores())
