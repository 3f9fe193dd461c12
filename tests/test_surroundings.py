"""What surrounds a command: displays, signals, environment variables, paths and permissions.

None of it loses work, changes a number, or ends in a traceback.
"""

import contextlib
import os
import re
import shutil
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from test_commands import ROOT, TINY, leaves

import prunejax
from experiments import process
from experiments.display import bar, training_bar
from prunejax import cache
from prunejax.data.dataset import ARRAYS
from prunejax.data.decoded import cached
from prunejax.measures import evaluate, load_measures

DENSE = ["--experiment=sup_dense", *TINY]
SWITCHES = {
    "JAX_ENABLE_X64": "1",
    "JAX_NUMPY_DTYPE_PROMOTION": "strict",
    "JAX_DEFAULT_PRNG_IMPL": "rbg",
    "JAX_ENABLE_CUSTOM_PRNG": "1",
    "JAX_THREEFRY_PARTITIONABLE": "0",
    "JAX_RANDOM_SEED_OFFSET": "3",
}
"""Of JAX, which would make other numbers, or none."""


def line(script, *arguments):
    """As `launch.sh` calls it: from a directory that may have an `experiments` of its own."""
    return [sys.executable, "-P", "-m", f"experiments.{script}", *map(str, arguments)]


def call(script, *arguments, cwd=ROOT, **environment):
    """Runs a command to its end; returns what `subprocess.run` does."""
    return subprocess.run(
        line(script, *arguments),
        cwd=cwd,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=500,
    )


def assert_refused(done, *messages):
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1, done.stderr
    for message in messages:
        assert message in done.stderr


@pytest.fixture(scope="module")
def calm(tmp_path_factory):
    """The work directory of a run that nothing disturbed."""
    workdir = tmp_path_factory.mktemp("calm") / "runs"
    done = call("train", f"--workdir={workdir}", *DENSE)
    assert done.returncode == 0, done.stderr
    return workdir


@pytest.fixture
def workdir(calm, tmp_path):
    """A copy of it."""
    return Path(shutil.copytree(calm, tmp_path / "runs"))


# ------------------------------------------------------------------------------- the display


def broken_pipe():
    """The writing end of a pipe whose reader went away."""
    reading, writing = os.pipe()
    os.close(reading)
    return writing


def test_no_display_no_switch_and_no_home_sign_changes_a_run(calm, tmp_path):
    """Standard output to a reader that went away, errors to a full disk, `~` left by the shell."""
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "__init__.py").write_text("raise ImportError")
    environment = os.environ | SWITCHES | {"HOME": str(tmp_path), "PYTHONIOENCODING": "ascii"}
    pipe = broken_pipe()
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            line("train", "--workdir=~/runs", *DENSE),
            cwd=tmp_path,
            env=environment,
            stdout=pipe,
            stderr=full,
        )
    os.close(pipe)
    assert done.returncode == 0
    ours = prunejax.load_population(tmp_path / "runs" / "sup_dense")
    theirs = prunejax.load_population(calm / "sup_dense")
    for leaf, other in zip(leaves(ours), leaves(theirs), strict=True):
        assert bytes(leaf) == bytes(other)
    assert not (tmp_path / "~").exists()


def test_measures_are_the_same_without_standard_files_and_under_other_switches(workdir, dataset):
    """Not even what a library writes to number 2 gets into a file of ours."""
    # The shell closes all three.
    command = f"{subprocess.list2cmdline(line('evaluate', f'--workdir={workdir}'))} <&- >&- 2>&-"
    done = subprocess.run(command, shell=True, cwd=ROOT, env=os.environ | SWITCHES)
    assert done.returncode == 0
    run_dir = workdir / "sup_dense"
    found = load_measures(run_dir)
    assert not found.failures

    shutil.rmtree(run_dir / "measures")
    trained = prunejax.load_population(run_dir)
    digits = prunejax.data.load(trained.config.data)
    expected = evaluate(trained, digits, run_dir, measures=["quality", "depth", "calibration"])
    for name, array in expected.arrays.items():
        np.testing.assert_array_equal(found.arrays[name], array)


def lossy(number, encoding="utf-8"):
    """A stream to a file's number, as a command has it."""
    stream = open(number, "w", encoding=encoding, closefd=False)
    return process._lossy(stream, number)


@pytest.mark.parametrize("device", ["/dev/full", "pipe"])
def test_what_cannot_be_shown_is_dropped(device):
    number = broken_pipe() if device == "pipe" else os.open(device, os.O_WRONLY)
    stream = lossy(number)
    for _ in range(3):
        print("x" * 100_000, file=stream, flush=True)
    stream.close()
    os.close(number)


def test_a_character_that_cannot_be_shown_is_replaced(tmp_path):
    number = os.open(tmp_path / "out", os.O_WRONLY | os.O_CREAT)
    print("88 ± 1%, Δ GMP", file=lossy(number, "ascii"), flush=True)
    os.close(number)
    assert (tmp_path / "out").read_text() == "88 \\xb1 1%, \\u0394 GMP\n"


def test_the_time_left_is_that_of_steps_without_what_was_compiled_before(monkeypatch, capsys):
    now = 0.0
    monkeypatch.setattr("tqdm.std.time", lambda: now)
    steps = 100
    start = SimpleNamespace(
        config=SimpleNamespace(experiment=SimpleNamespace(name="slow_to_compile")),
        stage_steps={"sup": steps},
        specs={"sup": SimpleNamespace(steps=steps, epoch_steps=1)},
        dataset=SimpleNamespace(train_labels=[0]),
        members=[0],
        done=0,
        resumed=False,
    )
    with training_bar(start) as on_step:
        now += 1000
        for step in range(1, steps + 1):
            on_step("sup", step)
            now += 1
    lines = capsys.readouterr().err.splitlines()
    # Off a terminal there is one every 20 seconds: after 20, 40, 60 and 80, and the last.
    assert [line.split("sup ")[1] for line in lines] == [f"{n}/100" for n in (21, 41, 61, 81, 100)]
    assert all(re.search(r"\| 1\.0\d images/s", line) for line in lines)
    assert "01:15 left" in lines[0]


def test_only_progress_prints_a_line_of_progress():
    # tqdm's thread prints again what stood there, unless it is told not to guess how often.
    with bar("", 1) as shown:
        assert not shown.dynamic_miniters


# ------------------------------------------------------------------------- how JAX is started


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("JAX_PLATFORMS", "nonsense", "nonsense"),
        ("JAX_PLATFORMS", "cuda", "JAX_PLATFORMS=cuda"),
        ("JAX_ENABLE_X64", "perhaps", "invalid truth value"),
        ("JAX_NUM_CPU_DEVICES", "two", 'Invalid value "two"'),
    ],
)
def test_jax_that_does_not_start_is_one_line_and_nothing_on_disk(tmp_path, name, value, message):
    if value == "cuda" and shutil.which("nvidia-smi"):
        pytest.skip("there may be a GPU here")
    done = call("train", "--workdir=runs", *DENSE, cwd=tmp_path, **{name: value})
    assert_refused(done, "JAX does not start (", message, "change or unset that")
    assert not list(tmp_path.iterdir())


PROBE = """
from experiments.start import start_jax
start_jax((), computes=True)
import jax
from experiments.display import bar
config = jax.config
print(jax.device_count(), config.jax_compilation_cache_dir)
print(config.jax_persistent_cache_min_compile_time_secs, config.jax_enable_compilation_cache)
shown = bar("", 1)
print(config.jax_enable_x64, shown.disable or shown.mininterval)
"""


def probe(**environment):
    """What a command sets up, line by line."""
    without = {name: value for name, value in os.environ.items() if "JAX_" not in name}
    done = subprocess.run(
        [sys.executable, "-c", PROBE],
        env=without | environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_defaults_are_ours_where_the_user_has_set_nothing(tmp_path):
    cores = len(os.sched_getaffinity(0))
    devices, settings, shown = probe(XDG_CACHE_HOME=str(tmp_path))
    count, directory = devices.split()
    assert 1 <= int(count) <= cores
    assert directory == str(tmp_path / "prunejax" / "xla")
    assert settings == "0.5 True"
    assert shown == "False 20"


@pytest.mark.parametrize(
    "devices",
    [{"XLA_FLAGS": "--xla_force_host_platform_device_count=3"}, {"JAX_NUM_CPU_DEVICES": "3"}],
)
def test_what_the_user_sets_wins(tmp_path, devices):
    found = probe(
        **devices,
        JAX_COMPILATION_CACHE_DIR=str(tmp_path),
        JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS="7",
        JAX_ENABLE_COMPILATION_CACHE="0",
        TQDM_MININTERVAL="3",
    )
    assert found == [f"3 {tmp_path}", "7.0 False", "False 3.0"]
    assert probe(TQDM_DISABLE="1")[-1] == "False True"


# ----------------------------------------------------------------------------------- paths


def test_the_home_directory_of_a_path_is_expanded(tmp_path):
    """A switch also takes its value as a word of its own."""
    done = call(
        "train",
        "--preset=cifar10",
        "--experiment=sup_dense",
        "--data_dir=~/tfds",
        "--dry_run",
        "true",
        HOME=str(tmp_path),
    )
    assert_refused(done, f"--data_dir={tmp_path}/tfds: No such file or directory")


# ------------------------------------------------------------------------------ permissions


@contextlib.contextmanager
def read_only(path):
    """The directory, mounted so that nothing can be written."""
    bind = subprocess.run(["mount", "--bind", path, path], capture_output=True)
    if bind.returncode != 0:
        pytest.skip("no right to mount")
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", path], check=True)
        yield
    finally:
        subprocess.run(["umount", "-l", path], check=True)


def test_what_cannot_be_written_is_one_line(workdir):
    (workdir / "sup_dense" / "measures").touch()  # where a directory is needed
    done = call("evaluate", f"--workdir={workdir}", "--set=measure.umap_seed=5")
    assert done.returncode == 2
    assert "cannot write there: " in done.stderr.splitlines()[-1]
    (workdir / "sup_dense" / "measures").unlink()

    (workdir / "report").touch()
    done = call("report", "--measure", f"--workdir={workdir}")
    assert done.returncode == 2
    assert "report" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_a_study_that_is_done_needs_no_room_to_write_but_for_its_report(workdir, tmp_path):
    study = "from experiments.studies.paper import paper\ndef dense(): return paper()[:1]\n"
    (tmp_path / "only.py").write_text(study)
    run_dir = workdir / "sup_dense"
    arguments = ["--study=only:dense", f"--workdir={workdir}", *TINY]
    with read_only(run_dir):
        done = call("study", *arguments, cwd=tmp_path)
        assert done.returncode == 2
        assert "cannot write there: Read-only file system" in done.stderr
        assert not (workdir / "report").exists()
    trained = prunejax.load_population(run_dir)
    evaluate(trained, prunejax.data.load(trained.config.data), run_dir)
    with read_only(run_dir):
        done = call("study", *arguments, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert "nothing to do" in done.stdout
        assert (workdir / "report" / "report.html").exists()


# ------------------------------------------------------------------------------- the cache


def arrays_of(value):
    return {name: np.full(1000, value, np.int32) for name in ARRAYS}


def test_the_cache_keeps_within_its_bound_what_was_used_last(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    size = sum(array.nbytes + 128 for array in arrays_of(0).values()) + 64
    monkeypatch.setitem(cache.MOST_BYTES, "datasets", 2 * size + 100)
    decoded = []

    def load(name):
        (tmp_path / name).mkdir(exist_ok=True)

        def decode():
            decoded.append(name)
            return arrays_of(3)

        cached(name, tmp_path / name, decode)
        time.sleep(0.02)  # so that no two are of one time

    for name in ("a", "b", "a", "c"):  # of three, `b` was used longest ago
        load(name)
    for name in ("a", "c"):
        load(name)
    assert decoded == ["a", "b", "c"]
    load("b")
    assert decoded == ["a", "b", "c", "b"]
    kept = {path.name.split("-")[0] for path in (tmp_path / "cache/prunejax/datasets").iterdir()}
    assert kept == {"b", "c"}

    # The newest stays, however large.
    monkeypatch.setitem(cache.MOST_BYTES, "datasets", 1)
    load("a")
    load("a")
    assert decoded == ["a", "b", "c", "b", "a"]


def test_compiled_programs_are_bounded_too_and_other_files_let_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setitem(cache.MOST_BYTES, "xla", 2500)
    directory = tmp_path / "prunejax" / "xla"
    directory.mkdir(parents=True)
    for age in range(5):
        path = directory / f"{age}-cache"
        path.write_bytes(bytes(1000))
        os.utime(path, (1e9 - age, 1e9 - age))
    (tmp_path / "prunejax" / "mine").write_bytes(bytes(9999))
    cache.trim("xla")
    assert sorted(path.name for path in directory.iterdir()) == ["0-cache", "1-cache"]
    assert (tmp_path / "prunejax" / "mine").exists()


def test_the_cache_is_where_the_xdg_specification_has_it(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    for named in ("", "relative", "~/cache"):
        monkeypatch.setenv("XDG_CACHE_HOME", named)
        assert cache.cache_dir() == tmp_path / ".cache" / "prunejax"
    monkeypatch.setenv("XDG_CACHE_HOME", "/named")
    assert cache.cache_dir() == Path("/named/prunejax")

    def without_home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", without_home)
    assert cache.cache_dir().name == f"prunejax-{os.getuid()}"


# ----------------------------------------------------------- what the step cannot be traced with


def test_images_without_colour_are_not_given_others_and_nothing_is_written(tmp_path):
    random = np.random.default_rng(0)
    arrays = {}
    for part, count in (("train", 128), ("test", 50)):
        arrays[f"{part}_images"] = random.integers(0, 255, (count, 8, 8, 4), np.uint8)
        arrays[f"{part}_labels"] = np.arange(count) % 10
    np.savez(tmp_path / "four.npz", **arrays)
    flags = ["--set=data.name=four.npz", "--set=data.mean=none", "--set=data.std=none"]
    flags += ["--set=scl_augment.jitter=0.4,0.4,0.4,0.1"]
    done = call("train", "--experiment=scl_dense", *TINY, *flags, "--workdir=runs", cwd=tmp_path)
    assert_refused(done, "images of 4 channels have no colour to change", "scl_augment.jitter=none")
    assert [path.name for path in tmp_path.iterdir()] == ["four.npz"]


BRANCHES = """
import jax
from experiments.studies.paper import paper
from prunejax.config import Experiment, Pruning
from prunejax.pruning import SCORES, Score

def score(params, gradients, key):
    return jax.tree.map(lambda leaf: leaf if leaf.sum() > 0 else -leaf, params)

def study():
    dense = paper()[0]
    pruning = Pruning(schedule="sup", score="branches")
    return [dense, Experiment("mine", dense.method, pruning, dense.name)]

SCORES.add(Score("branches", score))
"""
"""A score that asks for the value of what is only known when it is computed."""


def test_an_entry_that_jax_cannot_trace_is_one_line_with_its_experiment_and_stage(tmp_path):
    (tmp_path / "own.py").write_text(textwrap.dedent(BRANCHES))
    flags = ["--study=own:study", "--experiment=mine", "--workdir=runs", *TINY]
    done = call("train", *flags, cwd=tmp_path)
    assert_refused(done, "mine", "sup", "TracerBoolConversionError", "own.py, line 8")
    assert {path.name for path in tmp_path.iterdir()} <= {"own.py", "__pycache__"}
