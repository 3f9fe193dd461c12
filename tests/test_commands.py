"""The command line as a user meets it, each command in a process of its own."""

import dataclasses
import json
import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from conftest import EXPERIMENTS

from experiments.presets import PRESETS
from prunejax.config import to_json
from prunejax.measures import load_measures

ROOT = Path(__file__).parents[1]
TINY = [
    "--preset=digits",
    "--models=2",
    "--sparsities=0.5",
    "--set=data.train_examples=128",
    "--set=data.test_examples=50",
    "--set=sup.epochs=2",
    "--set=sup.batch_size=64",
    "--set=scl.epochs=2",
    "--set=head.epochs=1",
    "--set=finetune.epochs=1",
    "--set=prune.sup.begin_step=1",
    "--set=prune.sup.end_step=3",
    "--set=log_every_steps=1",
    "--set=prune.scl.begin_step=0",
    "--set=prune.scl.end_step=1",
    "--set=prune.scl_delayed.begin_step=0",
    "--set=prune.scl_delayed.end_step=1",
]
"""Arguments of a run of seconds: 4 steps of Sup, 2 of SCL, 1 of each other stage."""


def command(script, *arguments):
    """A line for `subprocess`."""
    return [sys.executable, "-m", f"experiments.{script}", *map(str, arguments)]


def call(script, *arguments):
    """Runs a command to its end; returns what `subprocess.run` does."""
    line = command(script, *arguments)
    return subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=500)


def free_port():
    """A port of this machine that nothing listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def leaves(population):
    """Every array of a restored population's state."""
    return [np.ascontiguousarray(leaf) for leaf in jax.tree.leaves(population.state)]


# ------------------------------------------------------------------------ help and plans


@pytest.mark.parametrize("script", ["train", "evaluate", "report", "study", "join"])
def test_help_explains_every_flag_without_loading_jax(script):
    probe = (
        "import sys, runpy; sys.argv = ['x', '--help']\n"
        f"try: runpy.run_module('experiments.{script}', run_name='__main__')\n"
        "except SystemExit as e: assert e.code == 0\n"
        "assert 'jax' not in sys.modules"
    )
    line = [sys.executable, "-c", probe]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "Example:" in done.stdout
    assert "Flags:" in done.stdout


def test_a_dry_run_prints_the_plan_and_trains_nothing(tmp_path):
    workdir = f"--workdir={tmp_path / 'runs'}"
    done = call("train", workdir, "--experiment=sup_gmp", "--dry_run", "--devices=1", *TINY)
    assert done.returncode == 0, done.stderr
    expected = (
        "2 models = 2 seeds",
        "4 steps of batch 64",
        "PFLOP",
        "GiB",
        "hours on 1 such device",
    )
    for words in expected:
        assert words in done.stdout
    assert re.search(r" \d+ programs? a step of up to \d+ models?, ", done.stdout)
    rate = re.search(r"([\d,]+) images/s", done.stdout)[1]
    assert float(rate.replace(",", "")) > 0
    assert not list(tmp_path.iterdir())


# ----------------------------------------------------------------------- what is refused

REFUSED_BY_TRAIN = [
    (["--preset=digits"], "--experiment"),
    (["--preset=digits", "--experiment=supp"], "has no such one; it has: sup_dense"),
    (["--preset=mnist", "--experiment=sup_dense"], "value should be one of"),
    (["--preset=digits", "--experiment=sup_one_shot"], "is missing; train it first"),
    (
        ["--preset=cifar10", "--experiment=sup_dense", "--data_dir=absent"],
        "No such file or directory",
    ),
]
REFUSED_FLAGS = [
    ("sup_dense", "--modles=3", "Unknown command line flag"),
    ("sup_dense", "sup_gmp", "unknown argument 'sup_gmp'"),
    ("sup_dense", "--models=0", "models is 0; it must be above 0"),
    ("sup_dense", "--models=two", "--models"),
    ("sup_gmp", "--sparsities=0.5,1", "must be below 1"),
    ("sup_gmp", "--sparsities=half", "numbers separated by commas"),
    ("sup_dense", "--sparsities=1.5", "must be below 1"),
    ("sup_dense", "--set=optim.momentun=1", "did you mean 'momentum'"),
    ("sup_dense", "--set=experiment.name=../x", "--set cannot change"),
    ("sup_dense", "--set=experiment.method=supcon", "--set cannot change"),
    ("sup_gmp", "--set=display.label=Mine", "--set cannot change display"),
    ("sup_gmp", "--starts=0.5", "no experiment of --study=paper has several start steps"),
    ("sup_gmp", "--begins=0.5", "--begins is called --starts now"),
    ("sup_gmp", "--set=sup.epochs=1", "beyond stage 'sup'"),
]
"""An experiment, what is wrong with its command, and what the error says."""
REFUSED = [
    ("study", ["--preset=digits", "--set=prune.scl.begin_step=90"], "begin_step < end_step"),
    ("evaluate", [], "holds no run"),
    ("evaluate", ["--set=models=2"], "holds no run"),
    ("report", [], "holds no measured run"),
    ("study", ["--preset=digits", "--starts=0.5"], "--starts: no experiment of --study=paper"),
]
for arguments, message in REFUSED_BY_TRAIN:
    REFUSED.append(("train", arguments, message))
for experiment, flag, message in REFUSED_FLAGS:
    arguments = ["--preset=digits", f"--experiment={experiment}", flag]
    REFUSED.append(("train", arguments, message))


@pytest.mark.parametrize(("script", "arguments", "message"), REFUSED)
def test_bad_input_is_one_line_exit_code_2_and_nothing_on_disk(
    tmp_path, script, arguments, message
):
    done = call(script, f"--workdir={tmp_path / 'runs'}", *arguments)
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert message in done.stderr
    assert not list(tmp_path.iterdir())


def test_a_work_directory_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    done = call("train", f"--workdir={tmp_path / 'file'}", "--experiment=sup_dense", *TINY)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "cannot write there: Not a directory" in done.stderr


def test_a_study_that_meets_another_run_starts_nothing(tmp_path):
    foreign = tmp_path / "scl_gmp"
    foreign.mkdir()
    config = dataclasses.replace(PRESETS["digits"], experiment=EXPERIMENTS["scl_gmp"])
    (foreign / "config.json").write_text(to_json(config))
    provenance = {
        "data_checksum": "x",
        "class_names": ["0"],
        "image_shape": [8, 8, 1],
        "stage_steps": {"scl": 1, "head": 1},
        "sessions": [{"commit": "x"}],
    }
    (foreign / "provenance.json").write_text(json.dumps(provenance))
    done = call("study", f"--workdir={tmp_path}", *TINY)
    assert done.returncode == 2
    assert "scl_gmp holds another run (data.test_examples: 50, not None" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["scl_gmp"]


# ------------------------------------------------------------------------- a whole study


def test_a_study_trains_measures_and_reports_everything_and_then_does_nothing(tmp_path):
    done = call("study", f"--workdir={tmp_path}", "--tensorboard", *TINY)
    assert done.returncode == 0, done.stderr
    assert f"report: {tmp_path / 'report' / 'report.html'}" in done.stdout
    page = (tmp_path / "report" / "report.html").read_text()
    assert "not run" not in page
    assert 'id="figure_6"' in page
    measures = load_measures(tmp_path / "scl_one_shot")
    assert measures.predictions.shape == (2, 50)
    assert measures.values("depth").all()
    assert not measures.failures
    assert list((tmp_path / "sup_dense" / "tensorboard").glob("events*"))

    again = call("study", f"--workdir={tmp_path}", *TINY)
    assert again.stdout.count("nothing to do") == 7
    assert_the_readmes_example_works(tmp_path)
    assert_a_changed_setting_is_measured_again(tmp_path)
    assert_a_run_that_cannot_be_measured_is_skipped(tmp_path)


def assert_the_readmes_example_works(workdir):
    """On the study in `workdir`, as if that were `runs/digits`."""
    readme = (ROOT / "README.md").read_text()
    example = readme.split("```python\n")[1].split("```")[0]
    (workdir / "runs").mkdir()
    (workdir / "runs" / "digits").symlink_to(workdir)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    line = [sys.executable, "-c", example]
    shown = subprocess.run(line, cwd=workdir, env=environment, capture_output=True, text=True)
    assert "Table 4. Q-Score" in shown.stdout, shown.stderr
    assert (workdir / "figure_2.png").exists()


def assert_a_changed_setting_is_measured_again(workdir):
    fewer = call("evaluate", f"--workdir={workdir}", "--set=measure.probe_models=1")
    assert fewer.returncode == 0, fewer.stderr
    depth = load_measures(workdir / "scl_one_shot").values("depth")
    assert depth.any(1).tolist() == [True, False]
    # What is measured is noted, so that what comes next does not undo it.
    again = call("report", f"--workdir={workdir}", "--measure")
    assert again.returncode == 0, again.stderr
    depth = load_measures(workdir / "scl_one_shot").values("depth")
    assert depth.any(1).tolist() == [True, False]


def assert_a_run_that_cannot_be_measured_is_skipped(workdir):
    checkpoints = workdir / "scl_gmp" / "checkpoints"
    shutil.rmtree(checkpoints)
    checkpoints.mkdir()
    shutil.rmtree(workdir / "scl_gmp" / "measures")
    partly = call("evaluate", f"--workdir={workdir}", "--set=measure.probe_models=1")
    assert partly.returncode == 0
    assert "skipped scl_gmp: " in partly.stderr
    assert "no checkpoint yet" in partly.stderr
