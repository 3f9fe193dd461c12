"""The command line as a user meets it, each command in a process of its own."""

import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import EXPERIMENTS

from experiments.presets import PRESETS
from prunejax.measures import load_measures
from prunejax.config import to_json

ROOT = Path(__file__).parents[1]
TINY = [
    "--preset=digits",
    "--models=2",
    "--sparsities=0.5",
    *(
        f"--set={a}"
        for a in (
            "data.train_examples=128",
            "data.test_examples=50",
            "sup.epochs=2",
            "sup.batch_size=64",
            "scl.epochs=2",
            "head.epochs=1",
            "finetune.epochs=1",
            "prune.sup.begin_step=1",
            "prune.sup.end_step=3",
            "log_every_steps=1",
            "prune.scl.begin_step=0",
            "prune.scl.end_step=1",
            "prune.scl_delayed.begin_step=0",
            "prune.scl_delayed.end_step=1",
        )
    ),
]


def command(script, *arguments):
    return [sys.executable, "-m", f"experiments.{script}", *map(str, arguments)]


def call(script, *arguments):
    return subprocess.run(command(script, *arguments), cwd=ROOT, capture_output=True, text=True, timeout=500)


@pytest.mark.parametrize("script", ["train", "evaluate", "report", "study", "prepare"])
def test_help_explains_every_flag_without_loading_jax(script):
    probe = (
        "import sys, runpy; sys.argv = ['x', '--help']\n"
        f"try: runpy.run_module('experiments.{script}', run_name='__main__')\n"
        "except SystemExit as e: assert e.code == 0\n"
        "assert 'jax' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", probe], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "Example:" in done.stdout
    assert "Flags:" in done.stdout


@pytest.mark.parametrize(
    ("script", "arguments", "message"),
    [
        ("train", ["--preset=digits", "--experiment=supp"], "has no such one; it has: sup_dense"),
        ("train", ["--preset=mnist", "--experiment=sup_dense"], "value should be one of"),
        ("train", ["--preset=digits"], "--experiment"),
        ("train", ["--preset=digits", "--experiment=sup_dense", "--modles=3"], "Unknown command line flag"),
        ("train", ["--preset=digits", "--experiment=sup_dense", "sup_gmp"], "unknown argument 'sup_gmp'"),
        ("train", ["--preset=digits", "--experiment=sup_dense", "--set=optim.momentun=1"], "did you mean 'momentum'"),
        ("train", ["--preset=digits", "--experiment=sup_dense", "--models=0"], "models is 0; it must be above 0"),
        ("train", ["--preset=digits", "--experiment=sup_dense", "--models=two"], "--models"),
        ("train", ["--preset=digits", "--experiment=sup_gmp", "--sparsities=0.5,1"], "must be below 1"),
        ("train", ["--preset=digits", "--experiment=sup_gmp", "--sparsities=half"], "numbers separated by commas"),
        ("train", ["--preset=digits", "--experiment=sup_dense", "--sparsities=1.5"], "must be below 1"),
        ("train", ["--preset=digits", "--experiment=sup_dense", "--set=experiment.name=../x"], "--set cannot change"),
        ("train", ["--preset=digits", "--experiment=sup_dense", "--set=experiment.method=supcon"], "--set cannot change"),
        ("train", ["--preset=digits", "--experiment=sup_gmp", "--set=sup.epochs=1"], "beyond stage 'sup'"),
        ("train", ["--preset=digits", "--experiment=sup_one_shot"], "is missing; train it first"),
        ("train", ["--preset=cifar10", "--experiment=sup_dense", "--data_dir=absent"], "No such file or directory"),
        ("study", ["--preset=digits", "--set=prune.scl.begin_step=90"], "begin_step < end_step"),
        ("evaluate", [], "holds no run"),
        ("evaluate", ["--set=models=2"], "holds no run"),
        ("report", [], "holds no measured run"),
    ],
)
def test_bad_input_is_one_line_exit_code_2_and_nothing_on_disk(tmp_path, script, arguments, message):
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
    (foreign / "provenance.json").write_text(
        json.dumps(
            {
                "data_checksum": "x",
                "class_names": ["0"],
                "image_shape": [8, 8, 1],
                "stage_steps": {"scl": 1, "head": 1},
                "sessions": [{"commit": "x"}],
            }
        )
    )
    done = call("study", f"--workdir={tmp_path}", *TINY)
    assert done.returncode == 2
    assert "scl_gmp holds another run (data.test_examples: 50, not None" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["scl_gmp"]


def test_a_dry_run_prints_the_plan_and_trains_nothing(tmp_path):
    done = call("train", f"--workdir={tmp_path / 'runs'}", "--experiment=sup_gmp", "--dry_run", "--devices=1", *TINY)
    assert done.returncode == 0, done.stderr
    for word in ("2 models = 2 seeds", "4 steps of batch 64", "PFLOP", "program(s)", "GiB", "hours on 1 such devices"):
        assert word in done.stdout
    assert float(re.search(r"([\d,]+) images/s", done.stdout)[1].replace(",", "")) > 0
    assert not list(tmp_path.iterdir())


def leaves(population):
    import jax

    return [np.ascontiguousarray(leaf) for leaf in jax.tree.leaves(population.state)]


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
    example = (ROOT / "README.md").read_text().split("```python\n")[1].split("```")[0]
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "digits").symlink_to(tmp_path)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    shown = subprocess.run(
        [sys.executable, "-c", example], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert "Table 4. Q-Score" in shown.stdout, shown.stderr
    assert (tmp_path / "figure_2.png").exists()

    fewer = call("evaluate", f"--workdir={tmp_path}", "--set=measure.probe_models=1")
    assert fewer.returncode == 0, fewer.stderr
    assert load_measures(tmp_path / "scl_one_shot").values("depth").any(1).tolist() == [True, False]
    shutil.rmtree(tmp_path / "scl_gmp" / "checkpoints")
    (tmp_path / "scl_gmp" / "checkpoints").mkdir()
    shutil.rmtree(tmp_path / "scl_gmp" / "measures")
    partly = call("evaluate", f"--workdir={tmp_path}", "--set=measure.probe_models=1")
    assert partly.returncode == 0
    assert "skipped scl_gmp: " in partly.stderr
    assert "no checkpoint yet" in partly.stderr
