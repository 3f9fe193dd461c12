"""Members that leave one dense trunk are to the byte those that are trained from step 0."""

import dataclasses
import re
import shutil

import jax
import numpy as np
import pytest
from conftest import EXPERIMENTS
from naive_pruning import equations, equations_in_branches
from test_commands import TINY, call
from test_pruner import ranks_weights

from experiments.studies.when import SCL_WHEN, SUP_WHEN, when
from prunejax import load_population, runs
from prunejax.config import Checkpoint, Execution, Pruning, Schedule, UserError, override
from prunejax.runs.checkpoint import newest
from prunejax.training import forks, population, programs
from prunejax.training.members import members_of
from prunejax.training.task import make_tasks

BEGINS = (0, 4, 6, 11)
"""The first step, the border of two epochs, and two within one; of 16."""
DENSE = {"sup_when": "sup_dense", "scl_when": "scl_dense"}
STEPS = 16


@pytest.fixture(scope="session")
def make_sweep(make_config):
    """`make_sweep(experiment, **fields)`: four epochs of four steps, pruned over three of them."""

    def make(experiment, begins=BEGINS, **fields):
        if isinstance(experiment, str):
            known = {one.name: one for one in when()} | EXPERIMENTS
            experiment = known[experiment]
        pruning = experiment.pruning
        if pruning is not None and pruning.begins:
            changed = dataclasses.replace(pruning, begins=begins)
            experiment = dataclasses.replace(experiment, pruning=changed)
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
def dense(make_sweep, dataset, tmp_path_factory):
    """A work directory with both dense runs, which keep what the begins need."""
    workdir = tmp_path_factory.mktemp("dense")
    for name in DENSE.values():
        config = make_sweep(name, checkpoint=Checkpoint(keep_at=(4, 6, 11)))
        runs.run(config, dataset, workdir / name)
    return workdir


@pytest.fixture(scope="module")
def alone(make_sweep, dataset, tmp_path_factory):
    """A work directory in which each member is trained from the first step."""
    workdir = tmp_path_factory.mktemp("alone")
    for name in DENSE:
        config = make_sweep(name, execution=Execution(fork=False))
        runs.run(config, dataset, workdir / name)
    return workdir


@pytest.fixture
def workdir(dense, tmp_path):
    """A copy of the dense runs."""
    return shutil.copytree(dense, tmp_path / "runs")


# --------------------------------------------------------------------------- the same bytes


@pytest.mark.parametrize("name", DENSE)
def test_forked_members_are_those_that_are_trained_from_the_first_step(
    make_sweep, dataset, alone, workdir, tmp_path, name
):
    """From a trunk within the run, and from the checkpoints of a dense one."""
    config = make_sweep(name)
    runs.run(config, dataset, tmp_path / name)
    runs.run(config, dataset, workdir / name)
    expected = leaves(alone / name)
    assert leaves(tmp_path / name) == expected
    assert leaves(workdir / name) == expected


@pytest.mark.parametrize("begin", [0, 11])
def test_a_begin_of_its_own_is_the_same_as_one_of_several(
    make_sweep, dataset, alone, tmp_path, begin
):
    config = make_sweep("sup_when", (begin,), execution=Execution(fork=False))
    runs.run(config, dataset, tmp_path)
    both = load_population(alone / "sup_when")
    chosen = both.begins == BEGINS.index(begin)
    ours = load_population(tmp_path)
    assert ours.sparsities.tolist() == both.sparsities[chosen].tolist()
    for leaf, other in zip(jax.tree.leaves(ours.state), jax.tree.leaves(both.state), strict=True):
        assert bytes(leaf) == bytes(other[chosen])


@pytest.mark.parametrize("name", ["sup_gmp", "scl_delayed_gmp"])
def test_the_papers_runs_are_forked_too(make_sweep, dataset, workdir, tmp_path, name):
    """Two sparsities, which are one model until pruning begins."""
    schedule = Schedule(6, 12, 2)
    prune = dataclasses.replace(make_sweep("sup_gmp").prune, sup=schedule, scl=schedule)
    prune = dataclasses.replace(prune, scl_delayed=schedule)
    config = make_sweep(name, sparsities=(0.5, 0.9), prune=prune)  # four models, two trunks
    start = runs.begin(config, dataset, workdir / name)
    assert (start.done, start.resumed) == (6, False)
    runs.train(start)
    unforked = dataclasses.replace(config, execution=Execution(fork=False))
    runs.run(unforked, dataset, tmp_path / name)
    assert leaves(workdir / name) == leaves(tmp_path / name)


def test_another_criterion_is_forked_from_the_same_dense_run(
    make_sweep, dataset, workdir, tmp_path
):
    """Though its program is another: it has the gradients at hand where weights are ranked."""
    pruning = Pruning("sup", score="saliency", select="global", begins=(4, 11))
    experiment = dataclasses.replace(SUP_WHEN, name="own", pruning=pruning)
    config = make_sweep(experiment, (4, 11))
    runs.run(config, dataset, workdir / "own")
    unforked = dataclasses.replace(config, execution=Execution(fork=False))
    runs.run(unforked, dataset, tmp_path / "own")
    assert leaves(workdir / "own") == leaves(tmp_path / "own")


def test_models_that_failed_in_the_trunk_are_frozen_in_every_fork(make_sweep, dataset, tmp_path):
    changes = ["sup.learning_rate.initial=1e12"]
    for fork in (True, False):
        config = override(make_sweep("sup_when", execution=Execution(fork=fork)), changes)
        outcome = runs.run(config, dataset, tmp_path / str(fork))
        assert outcome.frozen.all()
    assert leaves(tmp_path / "True") == leaves(tmp_path / "False")


# ------------------------------------------------------------------------- how it is trained


def count_model_steps(monkeypatch):
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

    def make_counted(task, dataset):
        program = make(task, dataset)
        return lambda models, batch_size: Counted(program(models, batch_size), models)

    monkeypatch.setattr(population, "make_programs", make_counted)
    return calls


def test_the_steps_that_are_trained_are_the_trunk_and_what_is_left_from_each_begin(
    make_sweep, dataset, workdir, tmp_path, monkeypatch
):
    """Two seeds on two devices, so that no place is padding."""
    config = make_sweep("sup_when")
    branches = 2 * sum(STEPS - begin for begin in BEGINS)
    calls = count_model_steps(monkeypatch)
    start = runs.begin(config, dataset, tmp_path / "sup_when")
    runs.train(start)
    assert sum(calls) == 2 * max(BEGINS) + branches
    counts = forks.models_trained(start.tasks["sup"], start.members, np.zeros(8, int))
    assert forks.model_steps(counts) == sum(calls)

    calls.clear()
    runs.run(config, dataset, workdir / "sup_when")
    assert sum(calls) == branches


def test_begins_share_their_programs_and_pruning_stays_a_branch(make_sweep, dataset):
    """A predicate that differs between members would rank weights at every step."""
    config = make_sweep("sup_when")
    task = make_tasks(config, dataset)["sup"]
    members, stands_at = members_of(config), np.zeros(8, int)
    for step in range(STEPS):
        for branch in forks.branches_at(task, members, stands_at, step):
            assert np.ndim(branch.schedule.begin) == 0
            begun = members.begins[branch.trained]
            assert len(np.unique(begun)) == 1 or branch.schedule.end < 0
    step = programs.make_step(task)
    arguments = programs.argument_shapes(task, 100, 2)
    program = jax.make_jaxpr(lambda *given: step(*given, batch_size=32))(*arguments).jaxpr
    inside = sum(map(ranks_weights, equations_in_branches(program)))
    assert sum(map(ranks_weights, equations(program))) == inside > 0


def test_branches_by_hand(make_sweep, dataset):
    config = make_sweep("sup_when", (2, 5), models=2, sparsities=(0.5, 0.9))
    task = make_tasks(config, dataset)["sup"]
    members = members_of(config)
    assert members.begins.tolist() == [0] * 4 + [1] * 4
    assert members.seeds.tolist() == [0, 1] * 4

    def trained(step, stands_at):
        found = forks.branches_at(task, members, np.array(stands_at), step)
        return [(one.trained.tolist(), one.rows.tolist()) for one in found]

    everyone = list(range(8))
    nothing = [0] * 8
    assert trained(1, nothing) == [([0, 1], everyone)]
    assert trained(2, nothing) == [([0, 1, 2, 3], [0, 1, 2, 3]), ([4, 5], [4, 5, 6, 7])]
    assert trained(5, nothing) == [([0, 1, 2, 3],) * 2, ([4, 5, 6, 7],) * 2]
    waiting = [2] * 4 + [5] * 4
    assert trained(2, waiting) == [([0, 1, 2, 3],) * 2]
    assert trained(5, waiting) == trained(5, nothing)
    counts = forks.models_trained(task, members, np.array(waiting))
    assert counts == [(2, 4), (5, 8), (STEPS, 0)]
    assert forks.model_steps(counts) == 3 * 4 + 11 * 8


def test_a_dense_run_keeps_the_checkpoints_that_others_start_from(dense):
    steps = {int(path.name) for path in (dense / "sup_dense" / "checkpoints").iterdir()}
    assert steps == {4, 6, 11, STEPS}
    assert load_population(dense / "sup_dense").step == STEPS


def test_what_an_earlier_session_kept_is_kept_on(make_sweep, dataset, tmp_path):
    config = make_sweep("sup_dense", checkpoint=Checkpoint(every_steps=1, keep_at=(2,)))
    stop_after(config, dataset, tmp_path, 6)
    config = make_sweep("sup_dense", checkpoint=Checkpoint(every_steps=1, keep_at=(9,)))
    runs.run(config, dataset, tmp_path)
    steps = {int(path.name) for path in (tmp_path / "checkpoints").iterdir()}
    assert steps == {2, 9, STEPS - 1, STEPS}


# -------------------------------------------------------- resumed, without its trunk, damaged


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


@pytest.mark.parametrize(("from_dense", "resumed_with_forks"), [(True, True), (False, False)])
def test_a_run_that_was_stopped_between_begins_goes_on_to_the_same_bytes(
    make_sweep, dataset, alone, workdir, from_dense, resumed_with_forks
):
    """Though the dense run has gone meanwhile, and whatever `execution.fork` says then."""
    run_dir = workdir / "sup_when"
    if not from_dense:
        shutil.rmtree(workdir / "sup_dense")
    stop_after(make_sweep("sup_when"), dataset, run_dir, 5)  # at the first report from there on
    shutil.rmtree(workdir / "sup_dense", ignore_errors=True)
    between = newest(run_dir)
    assert between.step == 7
    waits = np.array(BEGINS)[between.begins]
    if from_dense:
        assert between.stands_at.tolist() == np.maximum(waits, 7).tolist()
    else:
        assert between.stands_at is None
    config = make_sweep("sup_when", execution=Execution(fork=resumed_with_forks))
    runs.run(config, dataset, run_dir)
    assert leaves(run_dir) == leaves(alone / "sup_when")


def test_what_begins_at_a_damaged_checkpoint_is_trained_from_the_one_before(
    make_sweep, dataset, alone, workdir
):
    shutil.rmtree(workdir / "sup_dense" / "checkpoints" / "6" / "state")
    with pytest.warns(UserWarning, match="checkpoint 6 is damaged .*from the one before"):
        start = runs.begin(make_sweep("sup_when"), dataset, workdir / "sup_when")
    assert start.stands_at.tolist() == [0, 0, 4, 4, 4, 4, 11, 11]
    runs.train(start)
    assert leaves(workdir / "sup_when") == leaves(alone / "sup_when")


def test_a_checkpoint_that_is_refused_is_not_said_to_be_unreadable(
    make_sweep, dataset, workdir, monkeypatch
):
    def refuse(*_):
        raise UserError("is of format 9")

    monkeypatch.setattr("prunejax.runs.forked.restore", refuse)
    with pytest.raises(UserError, match=r"sup_dense: checkpoint \d+ is of format 9$"):
        runs.begin(make_sweep("sup_when"), dataset, workdir / "sup_when")


def test_seeds_that_the_dense_run_lacks_have_a_trunk_within_the_run(
    make_sweep, dataset, workdir, tmp_path
):
    config = make_sweep("sup_when", (4, 11), models=3)
    start = runs.begin(config, dataset, workdir / "sup_when")
    assert start.stands_at.tolist() == [4, 4, 0, 11, 11, 0]
    runs.train(start)
    unforked = dataclasses.replace(config, execution=Execution(fork=False))
    runs.run(unforked, dataset, tmp_path / "sup_when")
    assert leaves(workdir / "sup_when") == leaves(tmp_path / "sup_when")


def test_a_dense_run_that_is_still_training_is_forked_as_far_as_it_is(
    make_sweep, dataset, alone, tmp_path
):
    config = make_sweep("sup_dense", checkpoint=Checkpoint(keep_at=(4, 6, 11)))
    stop_after(config, dataset, tmp_path / "sup_dense", 6)
    start = runs.begin(make_sweep("sup_when"), dataset, tmp_path / "sup_when")
    assert start.stands_at.tolist() == [0, 0, 4, 4, 6, 6, 6, 6]
    runs.train(start)
    assert leaves(tmp_path / "sup_when") == leaves(alone / "sup_when")


def test_a_sweep_alone_trains_its_trunk_first_and_keeps_it(tmp_path):
    """The dense run can then be trained on to its end, as any other."""
    sweep = ["--study=when", "--experiment=sup_when", "--begins=0.0,0.25,2", *TINY]
    workdir = f"--workdir={tmp_path}"
    done = call("train", workdir, *sweep, "--dry_run")
    assert "6 models = 2 seeds x sparsities 0.5 x begins 0.0, 0.25, 2" in done.stdout
    assert "forks: 22 of 24 model steps of stage sup are trained, 8% saved" in done.stdout
    assert list(tmp_path.iterdir()) == []

    done = call("train", workdir, *sweep)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == "sup_when: first its dense models, sup_dense, to step 2"
    assert "sup_dense: trained 2 models for 2 steps" in done.stdout
    assert "sup_when: trained 6 models for 4 steps" in done.stdout
    kept = {path.name for path in (tmp_path / "sup_dense" / "checkpoints").iterdir()}
    assert kept == {"1", "2"}

    dense = ["--study=when", "--experiment=sup_dense", *TINY]
    done = call("train", workdir, *dense)
    assert "sup_dense: resuming at step 2 of 4" in done.stdout
    assert "sup_dense: trained 2 models for 4 steps" in done.stdout
    assert load_population(tmp_path / "sup_when").begins.tolist() == [0, 0, 1, 1, 2, 2]


# -------------------------------------------------------------------------------- bad input


def refusal(call, *arguments):
    with pytest.raises(UserError) as refused:
        call(*arguments)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_a_dense_run_of_other_settings_or_data_is_refused_by_name(make_sweep, dataset, workdir):
    other = override(make_sweep("sup_when"), ["optim.momentum=0.5"])
    before = sorted(workdir.rglob("*"))
    message = refusal(runs.begin, other, dataset, workdir / "sup_when")
    assert "optim.momentum: 0.5, not 0.9" in message
    assert "use another --workdir" in message
    images = dataset.train_images.copy()
    images[0] ^= 1
    changed = dataclasses.replace(dataset, train_images=images)
    message = refusal(runs.begin, make_sweep("sup_when"), changed, workdir / "sup_when")
    assert "data checksum: " in message
    assert sorted(workdir.rglob("*")) == before


REFUSED = {
    (4, 4): "begins of pruning 4, 4: give none twice",
    (0, 0.0): "begins of pruning 0, 0.0: give none twice",
    (0.25, 4): "begin of pruning 4, step 4 of the 16 of stage 'sup': begin 0.25 is the same step",
    (14,): "begin of pruning 14, step 14 of the 16 of stage 'sup': its span of 3 steps would end",
    (0.9,): "begin of pruning 0.9, step 14 of the 16 of stage 'sup': its span of 3 steps would end",
    (16,): "begin of pruning 16, step 16 of the 16 of stage 'sup': its span",
}


@pytest.mark.parametrize("begins", REFUSED)
def test_begins_that_cannot_be_are_refused_by_name(make_sweep, dataset, tmp_path, begins):
    pruning = dataclasses.replace(SUP_WHEN.pruning, shorten=False)
    experiment = dataclasses.replace(SUP_WHEN, pruning=pruning)
    config = make_sweep(experiment, begins)
    assert REFUSED[begins] in refusal(runs.run, config, dataset, tmp_path / "sup_when")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("begin", [-1, -0.1, 1.0, 1.5, float("nan"), True, "0.5"])
def test_a_begin_lies_in_the_stage(begin):
    with pytest.raises(ValueError, match="begins"):
        Pruning("sup", begins=(begin,))


def test_what_is_shortened_needs_a_step_to_prune_at(make_sweep, dataset, tmp_path):
    message = refusal(runs.run, make_sweep("sup_when", (15,)), dataset, tmp_path / "a")
    assert re.search(r"step 15 of the 16 .*: no step is left to prune at; begin earlier", message)


def test_pruning_at_once_has_no_begin(make_sweep, dataset, tmp_path):
    pruning = Pruning(None, begins=(4,))
    config = make_sweep(dataclasses.replace(SUP_WHEN, pruning=pruning), (4,))
    assert "prunes at once, and has begins" in refusal(runs.run, config, dataset, tmp_path / "a")


def test_the_last_begin_of_the_study_is_shortened_to_the_stages_end(make_sweep, dataset):
    for experiment, stage in ((SUP_WHEN, "sup"), (SCL_WHEN, "scl")):
        config = make_sweep(experiment, experiment.pruning.begins)
        prune = dataclasses.replace(config.prune, **{stage: Schedule(1, 5, 2)})
        task = make_tasks(dataclasses.replace(config, prune=prune), dataset)[stage]
        schedules = [(one.begin, one.end, one.every) for one in task.schedules]
        assert schedules == [(2 * n, min(2 * n + 4, STEPS - 1), 2) for n in range(8)]
