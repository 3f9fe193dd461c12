"""Programs compiled before they are needed: all of a run's, and the same."""

import dataclasses
from concurrent.futures import wait
from functools import partial

import jax
import numpy as np
import pytest

from prunejax.config import Checkpoint, SupCon
from prunejax.runs import load_population, run
from prunejax.training import ahead, population, programs
from prunejax.training.task import make_tasks, resolve


@pytest.fixture
def compiled(monkeypatch):
    """The names of the functions that compile, as they are called."""
    called = []
    for name in ("_compile_step", "compile_init"):
        original = getattr(programs, name)

        def counted(*arguments, original=original, name=name):
            called.append(name)
            return original(*arguments)

        for module in (programs, population):
            if hasattr(module, name):
                monkeypatch.setattr(module, name, counted)
    return called


@pytest.mark.parametrize("experiment", ["sup_gmp", "scl_dense"])
def test_a_run_needs_no_other_programs_and_gives_the_same(
    experiment, make_config, dataset, tmp_path, compiled
):
    config = make_config(experiment)
    run(config, dataset, tmp_path / "alone")
    needed = sorted(compiled)
    compiled.clear()
    with ahead.in_background() as call:
        wait([call(partial(population.compile_ahead, config, dataset))])
        assert sorted(compiled) == needed
        compiled.clear()
        run(config, dataset, tmp_path / "ahead")
        assert compiled == []
    states = [load_population(tmp_path / name).state for name in ("alone", "ahead")]
    jax.tree.map(np.testing.assert_array_equal, *states)


def test_what_is_not_taken_is_dropped():
    with ahead.in_background() as call:
        wait([call(partial(ahead.made_ahead, "key", lambda: "made before"))])
    assert ahead.taken("key", lambda: "made now") == "made now"


def test_it_is_taken_once():
    with ahead.in_background() as call:
        wait([call(partial(ahead.made_ahead, "key", lambda: "made before"))])
        assert ahead.taken("key", lambda: "made now") == "made before"
        assert ahead.taken("key", lambda: "made now") == "made now"


def test_what_could_not_be_made_is_made_where_it_is_needed():
    def fail():
        raise MemoryError

    with ahead.in_background() as call:
        wait([call(partial(ahead.made_ahead, "key", fail))])
        wait([call(partial(ahead.made_ahead, "next", lambda: "made all the same"))])
        assert ahead.taken("key", lambda: "made now") == "made now"
        assert ahead.taken("next", lambda: "made now") == "made all the same"


def test_settings_tell_programs_apart_but_not_when_a_run_is_saved(make_config, dataset):
    def key(config):
        config = resolve(config, dataset)
        return ahead.key_of(make_tasks(config, dataset)["scl"], "step")

    config = make_config("scl_gmp")
    saved = dataclasses.replace(config, checkpoint=Checkpoint(keep_at=(3,)))
    colder = dataclasses.replace(config, supcon=SupCon(temperature=0.1))
    assert key(saved) == key(config)
    assert key(colder) != key(config)
