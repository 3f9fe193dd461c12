"""The second process that measures: the same files, and nothing is lost when it fails."""

import os
import shutil
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from experiments import beside
from experiments import evaluate as evaluation
from experiments.beside import Beside
from prunejax.config import Config, MeasureSettings
from prunejax.measures import load_measures
from prunejax.measures.evaluation import evaluate as measure
from prunejax.runs import load_population, run
from prunejax.training import machine


@pytest.fixture(scope="module")
def trained(make_config, dataset, tmp_path_factory):
    """Two runs, not measured."""
    workdir = tmp_path_factory.mktemp("runs")
    for name in ("sup_dense", "sup_gmp"):
        run(make_config(name), dataset, workdir / name)
    return workdir


def evaluate(workdir, **environment):
    command = [sys.executable, "-m", "experiments.evaluate", f"--workdir={workdir}"]
    command.append("--set=measure.probe_models=1")
    return subprocess.run(
        command, capture_output=True, text=True, env=os.environ | environment, check=True
    )


@pytest.mark.skipif(machine.cores() < 2, reason="a second process needs a second core")
def test_two_processes_measure_what_one_does(trained, dataset, tmp_path):
    for name in ("alone", "beside"):
        shutil.copytree(trained, tmp_path / name)
    settings = MeasureSettings(probe_models=1)
    for name in ("sup_dense", "sup_gmp"):
        directory = tmp_path / "alone" / name
        measure(load_population(directory), dataset, directory, settings)
    done = evaluate(tmp_path / "beside", JAX_NUM_CPU_DEVICES="2")
    # Its own bars are of the runs that were left to it.
    assert done.stderr.count("sup_dense") == 0 or done.stderr.count("sup_gmp") == 0
    for name in ("sup_dense", "sup_gmp"):
        alone, both = (load_measures(tmp_path / way / name) for way in ("alone", "beside"))
        assert set(alone.arrays) == set(both.arrays)
        for array, values in alone.arrays.items():
            np.testing.assert_array_equal(values, both.arrays[array])


@pytest.fixture
def second_process(monkeypatch):
    """`second_process(code)`: has Python code stand in for it."""

    def become(code):
        def start(errors):
            return subprocess.Popen(
                [sys.executable, "-c", code],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )

        monkeypatch.setattr(beside, "_serves", lambda: True)
        monkeypatch.setattr(beside, "_start", start)

    return become


ECHO = "import sys\nfor line in sys.stdin: print('something else'); print(line, end='', flush=True)"


def test_each_run_is_measured_once(second_process, tmp_path):
    second_process(ECHO)
    runs = [tmp_path / str(number) for number in range(20)]
    with beside.beside() as measuring:
        for run_dir in (*runs, *runs):
            measuring.add(run_dir)
        taken = []
        while (run_dir := measuring.take()) is not None:
            taken.append(run_dir)
        measuring.wait()
    assert len(set(taken)) == len(taken)
    assert set(taken) <= set(runs)


def test_where_none_serves_all_is_done_here_in_order(monkeypatch, tmp_path):
    monkeypatch.setattr(beside, "_serves", lambda: False)
    measuring = Beside()
    runs = [tmp_path / name for name in "cab"]
    for run_dir in runs:
        measuring.add(run_dir)
    assert [measuring.take() for _ in range(4)] == [*runs, None]
    measuring.wait()


def test_that_it_fails_is_told(second_process, tmp_path, capsys):
    second_process("import sys; sys.stdin.readline(); sys.exit('no memory')")
    measuring = Beside()
    measuring.add(tmp_path)
    measuring._feeder.join(60)
    assert not measuring._feeder.is_alive()
    assert "exit code 1 (no memory)" in capsys.readouterr().err
    measuring.wait()


def test_it_ends_with_the_block(second_process, tmp_path):
    second_process("import time; time.sleep(600)")
    with beside.beside() as measuring:
        measuring.add(tmp_path)
        while measuring._process is None:
            pass
        process = measuring._process
    assert process.poll() is not None


def test_the_process_ends_with_its_pipe(tmp_path):
    command = [sys.executable, "-m", "experiments.beside"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=120)
    assert done.returncode == 0


@pytest.mark.parametrize("runs", [1, 3])
def test_only_what_can_be_shared_starts_a_second_process(
    runs, second_process, monkeypatch, tmp_path
):
    second_process(ECHO)
    measured = []

    def note(run_dir, load):
        measured.append(run_dir.name)
        return SimpleNamespace(levels=[], failures={})

    pending = evaluation.Plan(Config(), ["quality"], [])
    monkeypatch.setattr(evaluation, "_plan", lambda run_dir: pending)
    monkeypatch.setattr(evaluation, "_measure", note)
    with beside.beside() as measuring:
        evaluation.evaluate([tmp_path / str(number) for number in range(runs)], measuring)
        assert (measuring._feeder is not None) == (runs > 1)
    # What the second process has measured is read here, by the same function.
    assert sorted(measured) == [str(number) for number in range(runs)]
