"""`launch.sh` with programs in place of Python and pip that only note how they were called."""

import os
import shutil
import signal
import subprocess
import time

import pytest
from signals import heeded_signals
from test_commands import ROOT, call

PYTHON = """#!/bin/bash
# Notes its process, its directory, its paths and its arguments, and ends as it is told.
{{
  printf '%s\\0' "$$" "$PWD" "${{PYTHONPATH:-}}" "${{GLIBC_TUNABLES:-}}" "${{JAX_SEEN:-}}" "$@"
  printf '\\n'
}} >>"{record}"
if [[ $* == *"-m pip"* ]]; then exit "${{PIP_ENDS:-0}}"; fi
if [[ -n ${{SLEEPS:-}} ]]; then exec sleep 60; fi
if [[ -n ${{SAVES:-}} ]]; then
  trap 'kill %1; exit 75' TERM
  sleep 60 &
  wait
fi
exit "${{ENDS:-0}}"
"""
NOT_HERE = "#!/bin/sh\nexit 1\n"
HERE = "#!/bin/sh\nexit 0\n"


class Checkout:
    """`launch.sh` in a directory of its own, and whence it is called."""

    def __init__(self, place):
        self.root = place / "check out"
        self.cwd = place / "else where"
        self.record = place / "record"
        for directory in (self.root / ".venv" / "bin", self.root / ".ci", self.cwd, place / "bin"):
            directory.mkdir(parents=True)
        for name in ("launch.sh", "pyproject.toml", ".ci/constraints.txt"):
            shutil.copy(ROOT / name, self.root / name)
        python = PYTHON.format(record=self.record)
        self.write(self.root / ".venv" / "bin" / "python", python)
        programs = {"nvidia-smi": NOT_HERE, "tfds": python}
        for name in ("chromium", "slurmctld", "mpirun", "ruff", "pyright"):
            programs[name] = HERE
        for name, text in programs.items():
            self.write(place / "bin" / name, text)
        self.environment = os.environ | {"PATH": f"{place / 'bin'}:{os.environ['PATH']}"}
        for name in ("PYTHONPATH", "GLIBC_TUNABLES"):
            self.environment.pop(name, None)

    def write(self, path, text):
        """A program."""
        path.write_text(text)
        path.chmod(0o755)

    def line(self, arguments):
        """For `subprocess`."""
        return [str(self.root / "launch.sh"), *map(str, arguments)]

    def launch(self, *arguments, script=None, **others):
        """Calls it; returns what `subprocess.run` does."""
        line = self.line(arguments)
        if script is not None:
            line[0] = str(script)
        environment = self.environment | {name: str(value) for name, value in others.items()}
        return subprocess.run(
            line, cwd=self.cwd, env=environment, capture_output=True, text=True, timeout=60
        )

    def start(self, *arguments, **others):
        """Calls it in the background, as a terminal would: its signals go to a group."""
        environment = self.environment | {name: str(value) for name, value in others.items()}
        line = self.line(arguments)
        with heeded_signals():
            return subprocess.Popen(line, cwd=self.cwd, env=environment, start_new_session=True)

    def wait_for(self, condition):
        """Until the processes that Python was called in are as they should be."""
        deadline = time.monotonic() + 60
        pids = []
        while not condition(pids):
            assert time.monotonic() < deadline
            time.sleep(0.02)
            if self.record.exists():
                lines = self.record.read_text().splitlines()
                pids = [line.split("\0")[0] for line in lines if "pip" not in line]

    def calls(self):
        """The calls of Python since the last time, those of pip apart: (fields, arguments)."""
        text = self.record.read_text() if self.record.exists() else ""
        self.record.unlink(missing_ok=True)
        pip, others = [], []
        for line in text.splitlines():
            *fields, _ = line.split("\0")
            call = dict(zip(("pid", "cwd", "path", "tunables", "jax"), fields, strict=False))
            call["arguments"] = fields[5:]
            (pip if "pip" in fields else others).append(call)
        return pip, others


@pytest.fixture
def checkout(tmp_path):
    return Checkout(tmp_path)


def extras_of(pip):
    """What was asked for in `.[a,b]`."""
    extras = set()
    for called in pip:
        extras |= set(called["arguments"][-1].strip(".[]").split(",")) - {""}
    return extras


# ------------------------------------------------------------------------------ commands

FLAGS = ["--workdir=a b", "--set=data.name=x*.npz", "--models", "3"]
COMMANDS = {
    "study": ["experiments.study"],
    "train": ["experiments.train"],
    "evaluate": ["experiments.evaluate"],
    "join": ["experiments.join"],
    "report": ["experiments.report", "--measure"],
    "demo": [
        "experiments.study",
        "--preset=digits",
        "--study=paper,when",
        "--starts=0.0,0.25,0.5,0.75",
        "--workdir=runs/digits",
    ],
}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_is_called_where_it_was_requested_for_with_all_its_flags(checkout, command):
    done = checkout.launch(command, *FLAGS, ENDS=75)
    assert done.returncode == 75, done.stderr
    _, (called,) = checkout.calls()
    # `-P`, because a directory may have an `experiments` of its own.
    assert called["arguments"] == ["-P", "-m", *COMMANDS[command], *FLAGS]
    assert called["cwd"] == str(checkout.cwd)
    assert "glibc.malloc" in called["tunables"]


def test_tfds_prepares_data_sets(checkout):
    done = checkout.launch("prepare", "cifar10", "--data_dir=a b")
    assert done.returncode == 0, done.stderr
    pip, (called,) = checkout.calls()
    assert called["arguments"] == [
        "build",
        "--file_format=array_record",
        "cifar10",
        "--data_dir=a b",
    ]
    assert called["cwd"] == str(checkout.cwd)
    assert extras_of(pip) == {"prepare"}


def test_what_the_user_sets_of_malloc_wins(checkout):
    checkout.launch("study", GLIBC_TUNABLES="glibc.malloc.check=1")
    _, (called,) = checkout.calls()
    assert called["tunables"] == "glibc.malloc.check=1"


def test_the_benchmarks_are_found_and_write_into_the_checkout_unless_told_otherwise(checkout):
    checkout.launch("bench", "--suite=population", "--out=mine")
    pip, (called,) = checkout.calls()
    out = f"--out={checkout.root}/benchmarks/results/cpu"
    assert called["arguments"][:4] == ["-P", "-m", "benchmarks.run", out]
    assert called["arguments"][4:] == ["--suite=population", "--out=mine"]
    assert called["path"] == str(checkout.root)
    assert called["cwd"] == str(checkout.cwd)
    assert extras_of(pip) == {"bench"}


@pytest.mark.parametrize("command", ["test", "check"])
def test_tests_run_in_the_checkout_unless_a_path_from_here_is_named(checkout, command):
    checkout.launch(command, "-m", "quick", "tests/test_x.py")
    _, (called,) = checkout.calls()
    assert called["arguments"] == "-m pytest -n auto -m quick tests/test_x.py".split()
    assert called["cwd"] == str(checkout.root)

    (checkout.cwd / "test_y.py").touch()
    checkout.launch(command, "test_y.py::test_it")
    _, (called,) = checkout.calls()
    assert called["cwd"] == str(checkout.cwd)
    assert called["path"] == str(checkout.root)


def test_a_check_ends_where_a_part_of_it_fails(checkout):
    checkout.write(checkout.root.parent / "bin" / "ruff", NOT_HERE)
    assert checkout.launch("check").returncode != 0
    _, others = checkout.calls()
    assert others == []


@pytest.mark.parametrize("command", ["study", "report", "demo", "test", "bench"])
def test_a_signal_to_the_script_reaches_the_command(checkout, command):
    """Because it is the same process."""
    process = checkout.start(command, SLEEPS=1)
    checkout.wait_for(lambda pids: str(process.pid) in pids)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == -signal.SIGTERM


def test_every_command_is_named_in_the_help(checkout):
    shown = checkout.launch("--help")
    assert shown.returncode == 0
    for command in (*COMMANDS, "test", "check", "setup", "prepare", "bench"):
        assert command in shown.stdout
    assert checkout.launch().stdout == shown.stdout


# ----------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["stduy"], "unknown command 'stduy'"),
        (["setup", "--cuda"], "setup takes no arguments, and not '--cuda'"),
    ],
)
def test_what_cannot_be_is_one_line_before_anything_is_installed(checkout, arguments, message):
    done = checkout.launch(*arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert message in done.stderr
    assert checkout.calls() == ([], [])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--measure", "--set=measure.neighbors=20"], "holds no run; train one first"),
        (["--measure", "--sets=measure.neighbors=20"], "Unknown command line flag 'sets'"),
        (["--set=measure.neighbors=20"], "add --measure"),
    ],
)
def test_a_report_takes_the_flags_of_measuring_and_refuses_others_at_once(
    tmp_path, arguments, message
):
    done = call("report", f"--workdir={tmp_path / 'runs'}", *arguments)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert message in done.stderr
    assert not list(tmp_path.iterdir())


# -------------------------------------------------------------------------- what is installed


@pytest.mark.parametrize(
    ("flags", "extras"),
    [
        ([], set()),
        (["--tensorboard"], {"tensorboard"}),
        (["-tensorboard"], {"tensorboard"}),
        (["--tensorboard=true"], {"tensorboard"}),
        (["--tensorboard", "true"], {"tensorboard"}),
        (["--tensorboard", "--models=2"], {"tensorboard"}),
        (["--tensorboard=false"], set()),
        (["--tensorboard", "false"], set()),
        (["--notensorboard"], set()),
        (["--workdir=gs://bucket/runs"], {"remote"}),
        (["--workdir", "s3://bucket/runs"], {"remote"}),
    ],
)
@pytest.mark.parametrize("command", ["study", "demo", "report"])
def test_flags_install_what_they_need(checkout, command, flags, extras):
    done = checkout.launch(command, *flags)
    assert done.returncode == 0, done.stderr
    pip, others = checkout.calls()
    assert extras_of(pip) == extras
    assert len(others) == 1


def test_with_a_gpu_in_sight_its_build_of_jax_is_installed(checkout):
    checkout.write(checkout.root.parent / "bin" / "nvidia-smi", HERE)
    checkout.launch("setup")
    pip, others = checkout.calls()
    assert extras_of(pip) == {"cuda"}
    assert others == []


def test_what_is_installed_is_not_installed_again_until_it_changes(checkout):
    for command in ("setup", "study", "train"):
        assert checkout.launch(command).returncode == 0
    pip, _ = checkout.calls()
    assert len(pip) == 1
    assert pip[0]["cwd"] == str(checkout.root)

    project = checkout.root / "pyproject.toml"
    project.write_text(project.read_text() + "\n")
    checkout.launch("study")
    pip, _ = checkout.calls()
    assert len(pip) == 1


def test_a_failed_installation_ends_it_and_is_tried_again(checkout):
    assert checkout.launch("study", PIP_ENDS=7).returncode == 7
    pip, others = checkout.calls()
    assert (len(pip), len(others)) == (1, 0)
    assert checkout.launch("study").returncode == 0
    pip, others = checkout.calls()
    assert (len(pip), len(others)) == (1, 1)


def test_the_named_interpreter_makes_the_environment(checkout):
    shutil.move(checkout.root / ".venv" / "bin" / "python", checkout.cwd / "python")
    shutil.rmtree(checkout.root / ".venv")
    checkout.launch("setup", PYTHON="./python")
    _, (called,) = checkout.calls()
    assert called["arguments"] == ["-m", "venv", str(checkout.root / ".venv")]


# ------------------------------------------------------------------------ where it is called


def test_it_finds_its_checkout_from_everywhere(checkout):
    link = checkout.cwd / "link"
    link.symlink_to(checkout.root / "launch.sh")
    relative = os.path.relpath(checkout.root / "launch.sh", checkout.cwd)
    checkout.cwd = checkout.root.parent
    # With CDPATH, `cd` may go elsewhere, and prints where.
    search = f"{checkout.root.parent}:/"
    for script in (link, f"else where/{relative}", "check out/launch.sh"):
        done = checkout.launch("setup", script=script, CDPATH=search)
        assert done.returncode == 0, done.stderr
    assert (checkout.root / ".venv" / "installed-").exists()


@pytest.mark.parametrize("device", ["/dev/full", "a reader that went away"])
def test_where_nothing_can_be_printed_it_goes_on(checkout, device):
    if device == "/dev/full":
        errors = open(device, "w")
    else:
        reading, writing = os.pipe()
        os.close(reading)
        errors = os.fdopen(writing, "w")
    with errors:
        done = subprocess.run(
            checkout.line(["study"]), cwd=checkout.cwd, env=checkout.environment, stderr=errors
        )
    assert done.returncode == 0
    pip, others = checkout.calls()
    assert (len(pip), len(others)) == (1, 1)


# ------------------------------------------------------------------------------- the script


def test_shellcheck_finds_nothing():
    if shutil.which("shellcheck") is None:
        pytest.skip("no shellcheck here")
    script = ROOT / "experiments" / "study.sbatch"
    line = ["shellcheck", ROOT / "launch.sh", script, ROOT / ".ci" / "run"]
    done = subprocess.run(line, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_the_documents_name_no_command_that_there_is_not(checkout):
    shown = checkout.launch("--help").stdout
    words = set()
    for name in ("README.md", ".github/CONTRIBUTING.md"):
        for part in (ROOT / name).read_text().split("./launch.sh ")[1:]:
            words.add(part.split()[0].strip("`.,"))
    assert words
    for word in words:
        assert word in shown
