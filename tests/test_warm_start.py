"""Runs that start from their dense parent's checkpoint equal, to the byte, those from step 0."""

import dataclasses
import re
import shutil

import jax
import numpy as np
import pytest
from conftest import EXPERIMENTS
from test_commands import TINY, call

from experiments.studies.when import SCL_WHEN, SUP_WHEN, when
from prunejax import load_population, runs
from prunejax.config import (
    Checkpoint,
    Execution,
    Pruning,
    Schedule,
    Sweep,
    UserError,
    expand,
    override,
)
from prunejax.training import population, programs
from prunejax.training.spec import make_specs

STARTS = (0, 4, 6, 11)
"""The first step, the border of two epochs, and two within one; of 16."""
DENSE = {"sup": "sup_dense", "scl": "scl_dense"}
SWEEPS = {"sup": SUP_WHEN, "scl": SCL_WHEN}
STEPS = 16
FROM_ZERO = Execution(warm_start=False)


@pytest.fixture(scope="session")
def make_run(make_config):
    """`make_run(experiment, start, **fields)`: four epochs of four steps, pruned over three."""

    def make(experiment, start=None, **fields):
        if isinstance(experiment, str):
            experiment = EXPERIMENTS[experiment]
        if start is not None:
            (experiment,) = expand([Sweep(experiment, (start,))])
        config = make_config("sup_dense")
        stages = {
            name: dataclasses.replace(getattr(config, name), epochs=4) for name in ("sup", "scl")
        }
        schedule = Schedule(1, 4, 1)
        schedules = {name: schedule for name in ("sup", "scl", "scl_delayed")}
        prune = dataclasses.replace(config.prune, **schedules)
        changes = {"experiment": experiment, "prune": prune, "sparsities": (0.9,), **stages}
        return dataclasses.replace(config, **(changes | fields))

    return make


def leaves(run_dir):
    return [bytes(leaf) for leaf in jax.tree.leaves(load_population(run_dir).state)]


@pytest.fixture(scope="module")
def dense(make_run, dataset, tmp_path_factory):
    """A work directory with both dense runs, which keep the checkpoints of all starts."""
    workdir = tmp_path_factory.mktemp("dense")
    for name in DENSE.values():
        config = make_run(name, checkpoint=Checkpoint(keep_at=STARTS[1:]))
        runs.run(config, dataset, workdir / name)
    return workdir


@pytest.fixture
def workdir(dense, tmp_path):
    """A copy of the dense runs."""
    return shutil.copytree(dense, tmp_path / "runs")


def run_at(config, dataset, workdir):
    """Trains a run to its end; returns its directory."""
    run_dir = workdir / config.experiment.name
    runs.run(config, dataset, run_dir)
    return run_dir


# --------------------------------------------------------------------------- the same bytes


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("method", DENSE)
def test_a_warm_start_is_the_same_as_training_from_the_first_step(
    make_run, dataset, workdir, tmp_path, method, start
):
    warm = runs.begin(make_run(SWEEPS[method], start), dataset, workdir / "warm")
    assert (warm.done, warm.resumed) == (start, False)
    runs.train(warm)
    cold = run_at(make_run(SWEEPS[method], start, execution=FROM_ZERO), dataset, tmp_path)
    assert leaves(workdir / "warm") == leaves(cold)


@pytest.mark.parametrize("name", ["sup_gmp", "scl_delayed_gmp"])
def test_the_papers_runs_start_warm_too(make_run, dataset, workdir, tmp_path, name):
    """Two sparsities, which are one model until pruning starts."""
    schedule = Schedule(6, 12, 2)
    prune = dataclasses.replace(
        make_run(name).prune, sup=schedule, scl=schedule, scl_delayed=schedule
    )
    config = make_run(name, sparsities=(0.5, 0.9), prune=prune)
    start = runs.begin(config, dataset, workdir / name)
    assert (start.done, start.resumed) == (6, False)
    runs.train(start)
    cold = run_at(dataclasses.replace(config, execution=FROM_ZERO), dataset, tmp_path)
    assert leaves(workdir / name) == leaves(cold)


def test_another_criterion_starts_from_the_same_dense_run(make_run, dataset, workdir, tmp_path):
    """Though its program is another: it has the gradients at hand where weights are ranked."""
    pruning = Pruning("sup", score="saliency", allocation="global")
    experiment = dataclasses.replace(SUP_WHEN, name="own", pruning=pruning)
    warm = run_at(make_run(experiment, 11), dataset, workdir)
    cold = run_at(make_run(experiment, 11, execution=FROM_ZERO), dataset, tmp_path)
    assert leaves(warm) == leaves(cold)


def test_models_that_failed_before_the_start_have_failed_in_the_pruned_run(
    make_run, dataset, tmp_path
):
    diverging = ["sup.learning_rate.initial=1e12"]
    dense = make_run("sup_dense", checkpoint=Checkpoint(keep_at=(4,)))
    run_at(override(dense, diverging), dataset, tmp_path)
    warm = run_at(override(make_run(SUP_WHEN, 4), diverging), dataset, tmp_path)
    cold_config = override(make_run(SUP_WHEN, 4, execution=FROM_ZERO), diverging)
    cold = run_at(cold_config, dataset, tmp_path / "cold")
    assert load_population(warm).failed.all()
    assert leaves(warm) == leaves(cold)


# ------------------------------------------------------------------------- what is trained


def count_member_steps(monkeypatch):
    """Returns the list to which each call of a program adds its models times its steps."""
    calls = []
    make = programs.make_programs

    class Counted:
        def __init__(self, compiled, models):
            self.compiled = compiled
            self.models = models

        def __getattr__(self, name):
            return getattr(self.compiled, name)

        def __call__(self, state, members, steps, shared):
            calls.append(self.models * int(steps.number))
            return self.compiled(state, members, steps, shared)

    def make_counted(spec, dataset):
        program = make(spec, dataset)
        return lambda models, batch_size: Counted(program(models, batch_size), models)

    monkeypatch.setattr(population, "make_programs", make_counted)
    return calls


def test_a_sweep_trains_only_what_follows_each_start(make_run, dataset, workdir, monkeypatch):
    """Two seeds on two devices, so that no model is padding."""
    calls = count_member_steps(monkeypatch)
    for start in STARTS:
        run_at(make_run(SUP_WHEN, start), dataset, workdir)
    assert sum(calls) == 2 * sum(STEPS - start for start in STARTS)


def test_all_starts_share_the_compiled_programs(make_run, dataset, monkeypatch):
    """And dense runs do not share those of pruned ones, whose plug-ins may differ."""

    def program_of(config):
        spec = make_specs(config, dataset)["sup"]
        return programs.make_programs(spec, dataset)(2, 32)

    first = program_of(make_run(SUP_WHEN, 4))
    assert program_of(make_run(SUP_WHEN, 0.5, models=3, seed=9)) is first
    other_score = dataclasses.replace(
        SUP_WHEN, pruning=dataclasses.replace(SUP_WHEN.pruning, score="random")
    )
    assert program_of(make_run(other_score, 4)) is not first
    assert program_of(override(make_run(SUP_WHEN, 4), ["optim.momentum=0.5"])) is not first


def test_a_dense_run_keeps_the_checkpoints_that_others_start_from(dense):
    steps = {int(path.name) for path in (dense / "sup_dense" / "checkpoints").iterdir()}
    assert steps == {4, 6, 11, STEPS}
    assert load_population(dense / "sup_dense").step == STEPS


def test_what_an_earlier_session_kept_is_kept_on(make_run, dataset, tmp_path):
    config = make_run("sup_dense", checkpoint=Checkpoint(every_steps=1, keep_at=(2,)))
    stop_after(config, dataset, tmp_path, 6)
    config = make_run("sup_dense", checkpoint=Checkpoint(every_steps=1, keep_at=(9,)))
    runs.run(config, dataset, tmp_path)
    steps = {int(path.name) for path in (tmp_path / "checkpoints").iterdir()}
    assert steps == {2, 9, STEPS - 1, STEPS}


# ---------------------------------------------------- resumed, without its parent, damaged


def stop_after(config, dataset, run_dir, step):
    """Trains until a report of this step or a later one."""
    reached = False

    def on_report(progress):
        nonlocal reached
        reached = progress.step >= step

    outcome = runs.train(
        runs.begin(config, dataset, run_dir), on_report=on_report, should_stop=lambda: reached
    )
    assert outcome.step >= step
    assert not outcome.finished


def test_a_run_is_resumed_without_the_dense_run_that_it_started_from(
    make_run, dataset, workdir, tmp_path
):
    config = make_run(SUP_WHEN, 4)
    stop_after(config, dataset, workdir / "run", 7)
    shutil.rmtree(workdir / "sup_dense")
    start = runs.begin(config, dataset, workdir / "run")
    assert (start.done, start.resumed) == (7, True)
    runs.train(start)
    cold = run_at(make_run(SUP_WHEN, 4, execution=FROM_ZERO), dataset, tmp_path)
    assert leaves(workdir / "run") == leaves(cold)


def test_what_starts_at_a_damaged_checkpoint_is_trained_from_the_one_before(
    make_run, dataset, workdir, tmp_path
):
    shutil.rmtree(workdir / "sup_dense" / "checkpoints" / "6" / "state")
    with pytest.warns(UserWarning, match="checkpoint 6 is damaged .*checkpoint 4 is taken instead"):
        start = runs.begin(make_run(SUP_WHEN, 6), dataset, workdir / "run")
    assert start.done == 4
    runs.train(start)
    cold = run_at(make_run(SUP_WHEN, 6, execution=FROM_ZERO), dataset, tmp_path)
    assert leaves(workdir / "run") == leaves(cold)


def test_a_population_starts_at_step_0_if_the_dense_run_lacks_one_of_its_seeds(
    make_run, dataset, workdir
):
    start = runs.begin(make_run(SUP_WHEN, 4, models=3), dataset, workdir / "run")
    assert (start.done, start.state) == (0, None)


def test_a_dense_run_that_is_still_training_serves_as_far_as_it_is(make_run, dataset, tmp_path):
    config = make_run("sup_dense", checkpoint=Checkpoint(keep_at=STARTS[1:]))
    stop_after(config, dataset, tmp_path / "sup_dense", 6)
    for start, step in ((0, 0), (4, 4), (6, 6), (11, 6)):
        begun = runs.begin(make_run(SUP_WHEN, start), dataset, tmp_path / "run")
        assert begun.done == step


def test_a_sweep_alone_trains_the_dense_run_as_far_as_it_needs(tmp_path):
    """The dense run can then be trained on to its end, like any other."""
    tiny = ["--study=when", "--starts=0.0,0.25,2", *TINY, f"--workdir={tmp_path}"]
    done = call("train", "--experiment=sup_when_2", *tiny, "--dry_run")
    assert "sup_when_2: 2 models = 2 seeds x sparsities 0.5" in done.stdout
    assert list(tmp_path.iterdir()) == []

    done = call("train", "--experiment=sup_when_2", *tiny)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "sup_when_2: first its dense models, sup_dense, to step 2"
    assert "sup_dense: trained 2 models for 2 steps" in done.stdout
    assert "sup_when_2: warm start of 2 models from sup_dense at step 2" in done.stdout
    assert "sup_when_2: trained 2 models for 4 steps" in done.stdout
    kept = {path.name for path in (tmp_path / "sup_dense" / "checkpoints").iterdir()}
    assert kept == {"1", "2"}

    done = call("train", "--experiment=sup_dense", *tiny)
    assert "sup_dense: resuming at step 2 of 4" in done.stdout
    assert "sup_dense: trained 2 models for 4 steps" in done.stdout


# -------------------------------------------------------------------------------- bad input


def refusal(call, *arguments):
    with pytest.raises(UserError) as refused:
        call(*arguments)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_a_dense_run_of_other_settings_or_data_is_refused_by_name(make_run, dataset, workdir):
    other = override(make_run(SUP_WHEN, 4), ["optim.momentum=0.5"])
    before = sorted(workdir.rglob("*"))
    message = refusal(runs.begin, other, dataset, workdir / "run")
    assert "optim.momentum: 0.5, not 0.9" in message
    assert "use another --workdir" in message
    images = dataset.train_images.copy()
    images[0] ^= 1
    changed = dataclasses.replace(dataset, train_images=images)
    message = refusal(runs.begin, make_run(SUP_WHEN, 4), changed, workdir / "run")
    assert "data checksum: " in message
    assert sorted(workdir.rglob("*")) == before


@pytest.mark.parametrize("starts", [(), (4, 4), (0, 0.0)])
def test_a_sweep_needs_a_start_and_none_twice(starts):
    message = refusal(expand, [Sweep(SUP_WHEN, starts)])
    assert re.search(r"start steps of pruning: .*; give at least one, and none twice", message)


def test_a_sweep_needs_a_schedule():
    at_once = dataclasses.replace(SUP_WHEN, pruning=Pruning(None, allocation="global"))
    assert "start steps of pruning and no schedule" in refusal(expand, [Sweep(at_once, (4,))])


REFUSED = {
    14: "start of pruning 14, step 14 of the 16 of stage 'sup': its span of 3 steps would end",
    0.9: "start of pruning 0.9, step 14 of the 16 of stage 'sup': its span of 3 steps would end",
    16: "start of pruning 16, step 16 of the 16 of stage 'sup': its span",
}


@pytest.mark.parametrize("start", REFUSED)
def test_a_start_whose_span_ends_after_its_stage_is_refused(make_run, dataset, tmp_path, start):
    pruning = dataclasses.replace(SUP_WHEN.pruning, shorten=False)
    config = make_run(dataclasses.replace(SUP_WHEN, pruning=pruning), start)
    assert REFUSED[start] in refusal(runs.run, config, dataset, tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("start", [-1, -0.1, 1.0, 1.5, float("nan"), True, "0.5"])
def test_a_start_lies_in_the_stage(start):
    with pytest.raises(ValueError, match="start"):
        Pruning("sup", start=start)


@pytest.mark.parametrize("start", [-1, -0.1, 1.0, 1.5, float("nan"), True])
def test_a_start_of_a_sweep_lies_in_the_stage(start):
    assert "start" in refusal(expand, [Sweep(SUP_WHEN, (start,))])


def test_what_is_shortened_needs_a_step_to_prune_at(make_run, dataset, tmp_path):
    message = refusal(runs.run, make_run(SUP_WHEN, 15), dataset, tmp_path / "run")
    assert re.search(r"step 15 of the 16 .*: no step is left to prune at; start earlier", message)


def test_one_shot_pruning_has_no_start(make_run, dataset, tmp_path):
    experiment = dataclasses.replace(SUP_WHEN, pruning=Pruning(None, start=4))
    message = refusal(runs.run, make_run(experiment), dataset, tmp_path / "run")
    assert "prunes in one shot, and has a start step" in message


def test_the_last_start_of_the_study_is_shortened_to_the_stages_end(make_run, dataset):
    experiments = [one for one in expand(when()) if one.pruning]
    assert [one.name for one in experiments[:2]] == ["sup_when_0.0", "sup_when_0.125"]
    assert experiments[9].baseline == "sup_when_0.125"
    for number, experiment in enumerate(experiments):
        config = make_run(experiment)
        stage = "sup" if experiment.method == "cross_entropy" else "scl"
        prune = dataclasses.replace(config.prune, **{stage: Schedule(1, 5, 2)})
        schedule = make_specs(dataclasses.replace(config, prune=prune), dataset)[stage].schedule
        first = 2 * (number % 8)
        assert schedule == (first, min(first + 4, STEPS - 1), 2)


def test_the_baseline_of_a_start_is_the_same_start_of_the_other_sweep():
    sweeps = [Sweep(SUP_WHEN, (0.25, 3)), Sweep(SCL_WHEN, (0.25, 0.5, 3))]
    baselines = {one.name: one.baseline for one in expand(sweeps)}
    assert baselines == {
        "sup_when_0.25": None,
        "sup_when_3": None,
        "scl_when_0.25": "sup_when_0.25",
        "scl_when_0.5": None,
        "scl_when_3": "sup_when_3",
    }


def test_a_member_of_a_sweep_has_the_seeds_and_sparsities_of_its_run(make_run, dataset, workdir):
    run_dir = run_at(make_run(SUP_WHEN, 11, sparsities=(0.5, 0.9)), dataset, workdir)
    restored = load_population(run_dir)
    assert restored.seeds.tolist() == [0, 1, 0, 1]
    np.testing.assert_allclose(restored.sparsities, [0.5, 0.5, 0.9, 0.9])
