"""Studies by name, also of outsiders, and everything a study's module may get wrong."""

import json
import os
import subprocess
import sys

import pytest
from test_commands import ROOT, TINY, call

from experiments.registry import BUILT_IN, find_experiment, load_study
from prunejax.config import UserError, load_config
from prunejax.measures import load_measures


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_built_in_study_loads(name):
    experiments = load_study(name)
    assert len({experiment.name for experiment in experiments}) == len(experiments)


def test_the_criteria_differ_in_their_score_alone():
    experiments = {one.name: one for one in load_study("criteria")}
    for method in ("sup", "scl"):
        schedules = set()
        for criterion in ("gmp", "saliency", "random"):
            pruning = experiments[f"{method}_{criterion}"].pruning
            schedules.add((pruning.schedule, pruning.allocation))
        assert len(schedules) == 1
    scores = {one.pruning.score for one in experiments.values() if one.pruning}
    assert scores == {"magnitude", "saliency", "random"}


def test_an_experiment_that_a_study_lacks_is_refused_with_those_it_has():
    with pytest.raises(UserError, match="has no such one; it has: sup_dense, sup_gmp"):
        find_experiment(load_study("paper"), "sup", "paper")


DENSE = "Experiment('a')"
BAD = {
    "import nowhere": "ModuleNotFoundError: No module named 'nowhere'",
    "import ba": "ModuleNotFoundError: No module named 'ba'",  # as its own name begins
    "def study(:": "SyntaxError: ",
    "1 / 0": r"ZeroDivisionError: division by zero \(bad.py, line 2\)",
    "other = 1": "module 'bad' has no function 'study'",
    "def study(): raise ValueError('too\\nlate')": r"ValueError: too late \(bad.py, line 2\)",
    "def study(): return 3": "must return a list of prunejax.config.Experiment",
    "def study(): return []": "must return a list of prunejax.config.Experiment",
    f"def study(): return [{DENSE}, {DENSE}]": "two experiments are called 'a'",
    "def study(): return [Experiment('../a')]": "cannot be a directory",
    "def study(): return [Experiment('a', method=3)]": "ValidationError",
    "def study(): return [Experiment('a', pruning=Pruning(schedule='sup'))]": (
        "its dense_parent None is no dense experiment before it"
    ),
    f"def study(): return [{DENSE}, Experiment('b', method='supcon', dense_parent='a', "
    "pruning=Pruning(schedule='scl'))]": "no dense experiment before it that is trained by 'sup",
    f"def study(): return [{DENSE}, Experiment('b', dense_parent='a', baseline='a', "
    "pruning=Pruning(schedule='sup'))]": "baseline 'a' of experiment 'b' is no pruned experiment",
}


@pytest.mark.parametrize("text", BAD)
def test_a_study_that_cannot_be_is_one_line(tmp_path, monkeypatch, text):
    (tmp_path / "bad.py").write_text(f"from prunejax.config import Experiment, Pruning\n{text}\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    sys.modules.pop("bad", None)
    with pytest.raises(UserError, match=BAD[text]) as refused:
        load_study("bad:study")
    assert str(refused.value).startswith("--study=bad:study: ")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", ["papers", "no_module:study", "os.path:nothing"])
def test_a_study_that_is_not_there_is_one_line(name):
    with pytest.raises(UserError, match=r"no such study|has no function") as refused:
        load_study(name)
    assert "\n" not in str(refused.value)


REFUSED = {
    "unknown method": ("Experiment('a', method='sup')", "no method 'sup'; "),
    "unknown score": (
        "Experiment('b', dense_parent='a', pruning=Pruning(schedule='sup', score='magnitud'))",
        "no score 'magnitud'; did you mean 'magnitude'",
    ),
    "unknown allocation": (
        "Experiment('b', dense_parent='a', pruning=Pruning(schedule='sup', allocation='all'))",
        "no allocation 'all'",
    ),
    "unknown schedule": (
        "Experiment('b', dense_parent='a', pruning=Pruning(schedule='later'))",
        "prunes by the schedule 'later'; there are: sup, scl, scl_delayed",
    ),
    "a group the leaf does not divide into": (
        "Experiment('b', dense_parent='a', pruning=Pruning(schedule='sup', allocation='2:4'))",
        "allocation 2:4: encoder/stem/kernel has 1 input channels, which 4 does not divide",
    ),
    "a sparsity out of reach": (
        "Experiment('b', dense_parent='a', pruning=Pruning(schedule='sup', allocation='2:4'))",
        "reaches 0.5 and not the sparsity 0.9; use --sparsities=0.5",
    ),
    "a part that the network does not have": (
        "Experiment('b', dense_parent='a', pruning=Pruning(schedule='sup', exclude=('stemm',)))",
        "experiment 'b' excludes 'stemm', which is no part of the network; there are: encoder",
    ),
    "gradients where there are none": (
        "Experiment('b', dense_parent='a', pruning=Pruning(schedule=None, score='saliency'))",
        "needs the gradients of a training step, and one-shot pruning has none",
    ),
    "scores of another structure": (
        "Experiment('b', dense_parent='a', pruning=Pruning(schedule='sup', score='partly'))",
        "score 'partly' lacks the leaf",
    ),
    "a score that is registered twice": ("1/0", "score 'magnitude' is registered twice"),
}
OWN = """
from prunejax.config import Experiment, Pruning
from prunejax.pruning import SCORES, Score

SCORES.add(Score("partly", lambda params, gradients, key: {"encoder": params["encoder"]}))
"""


@pytest.mark.parametrize("case", REFUSED)
def test_entries_that_do_not_fit_are_one_line_and_nothing_on_disk(tmp_path, case):
    experiment, message = REFUSED[case]
    text = OWN
    if case == "a score that is registered twice":
        text += 'import prunejax.pruning.magnitude\nSCORES.add(Score("magnitude", None))\n'
    name = "a" if "'a', method" in experiment else "b"
    dense = "" if name == "a" else "Experiment('a'), "
    (tmp_path / "mine.py").write_text(f"{text}\ndef study(): return [{dense}{experiment}]\n")
    sparsities = "0.5,0.9" if "reach" in case else "0.5"
    command = [sys.executable, "-m", "experiments.train", *TINY, "--study=mine:study"]
    command += [f"--experiment={name}", "--workdir=runs", f"--sparsities={sparsities}"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert {path.name for path in tmp_path.iterdir()} - {"__pycache__"} == {"mine.py"}


def test_an_outsiders_criterion_method_and_measure_reach_the_report(tmp_path):
    """`experiments/example_own_entries.py`, copied to where a user works, and called from there."""
    example = ROOT / "experiments" / "example_own_entries.py"
    assert len(example.read_text().splitlines()) < 80
    (tmp_path / "mine.py").write_text(example.read_text())
    command = [sys.executable, "-m", "experiments.study", *TINY, "--study=mine:own"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [*command, "--workdir=runs"], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    runs = tmp_path / "runs"
    page = (runs / "report" / "report.html").read_text()
    for text in ("Smoothed / GMP", "Sup / own", "Dead features [%]"):
        assert text in page
    assert "not run" not in page
    measures = load_measures(runs / "smoothed_gmp")
    assert measures.has("dead")
    assert not measures.failures
    experiment = load_config(runs / "sup_own").experiment
    assert (experiment.label, experiment.pruning.score) == ("own", "distance_from_mean")
    # The report is made of what lies in the directory: it needs no module of the user's.
    again = call("report", f"--workdir={runs}")
    assert again.returncode == 0, again.stderr
    assert "Dead features [%]" in (runs / "report" / "report.html").read_text()


def test_a_study_of_simclr_ends_with_a_report_of_its_own_names(tmp_path):
    done = call("study", f"--workdir={tmp_path}", "--study=simclr", *TINY)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "report" / "report.html").read_text()
    assert "SimCLR / GMP" in page
    assert "not run" not in page
    assert "could not be made" not in page
    config = json.loads((tmp_path / "simclr_gmp" / "config.json").read_text())
    assert config["display"]["label"] == "SimCLR"
