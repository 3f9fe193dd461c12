"""When masks are updated and to what sparsity: against the formula, and step by step."""

from functools import partial

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from naive_pruning import naive_updates

from prunejax import pruning
from prunejax.pruning.schedules import NEVER, ScheduleSteps, gradual_updates, last_update


def due_steps(updates, steps):
    """The steps below `steps` at which masks are updated."""
    due = jax.vmap(updates.due)(np.arange(steps))
    return np.flatnonzero(due).tolist()


def test_schedule_golden_value():
    assert pruning.polynomial_schedule(0.9, 1000, 20000)(10500) == pytest.approx(0.7875)


def test_schedule_is_zero_before_and_final_after():
    schedule = pruning.polynomial_schedule(0.9, 1000, 20000)
    values = [schedule(step) for step in (0, 1000, 20000, 99999)]
    np.testing.assert_allclose(values, [0, 0, 0.9, 0.9], rtol=1e-6)


def test_schedule_power_one_is_linear():
    schedule = pruning.polynomial_schedule(0.8, 10, 20, power=1)
    values = [schedule(step) for step in range(10, 21)]
    np.testing.assert_allclose(values, 0.8 * np.arange(11) / 10, rtol=1e-5)


def test_schedule_of_one_step_goes_to_the_target_at_once():
    schedule = pruning.polynomial_schedule(0.9, 10, 10)
    values = [schedule(step) for step in (9, 10, 11)]
    np.testing.assert_allclose(values, [0, 0.9, 0.9], rtol=1e-6)


@pytest.mark.parametrize(
    ("begin", "end", "every", "updates"),
    [(1000, 20000, 500, 39), (125, 2476, 62, 39), (0, 5, 9, 2)],
)
def test_masks_are_updated_at_begin_every_and_end(begin, end, every, updates):
    steps = np.arange(end + 3 * every)
    due = jax.vmap(lambda step: pruning.is_prune_step(step, begin, end, every))(steps)
    expected = {*range(begin, end + 1, every), end}
    assert set(np.flatnonzero(due)) == expected
    assert len(expected) == updates


@settings(max_examples=100, deadline=None)
@given(
    begin=st.integers(0, 30),
    length=st.integers(1, 40),
    every=st.integers(1, 12),
    power=st.integers(1, 4),
    at_multiples=st.booleans(),
)
def test_gradual_updates_are_those_of_a_loop_over_the_steps(
    begin, length, every, power, at_multiples
):
    """With traced steps, as in the compiled step, where other schedules share the program."""
    end = begin + length
    expected = naive_updates(begin, end, every, 0.9, at_multiples, power)
    steps = ScheduleSteps(begin, end, every)
    due, targets = traced_updates(steps, 0.9, power, at_multiples=at_multiples)
    assert np.flatnonzero(due).tolist() == list(expected)
    targets = [targets[step] for step in expected]
    np.testing.assert_allclose(targets, list(expected.values()), rtol=1e-5, atol=1e-6)


@partial(jax.jit, static_argnames="at_multiples")
def traced_updates(steps, final, power, *, at_multiples):
    """Whether masks are updated at each of the steps below 100, and each step's target."""
    updates = gradual_updates(steps, final, power, at_multiples)
    counts = np.arange(100)
    return jax.vmap(updates.due)(counts), jax.vmap(updates.target)(counts)


@pytest.mark.parametrize("at_multiples", [False, True])
def test_the_newest_update_is_that_of_a_loop_over_the_steps(at_multiples):
    for begin, end, every in [(1, 6, 2), (3, 30, 4), (4, 30, 4), (0, 5, 9)]:
        steps = ScheduleSteps(begin, end, every)
        updates = gradual_updates(steps, 0.9, 3, at_multiples)
        due = naive_updates(begin, end, every, 0.9, at_multiples)
        newest = None
        for step in range(end + 2 * every):
            newest = step if step in due else newest
            assert last_update(updates, step) == newest, (begin, end, every, step)


def test_updates_at_multiples_of_the_paper_come_late_and_end_short():
    """FIDELITY: with begin 125 at 186, 248, ..., 2418, with 37 of 38 targets, ending at 0.8999."""
    updates = gradual_updates(ScheduleSteps(125, 2476, 62), 0.9, 3, at_multiples=True)
    assert due_steps(updates, 3000) == list(range(186, 2419, 62))
    assert updates.target(186) == 0
    assert updates.target(2418) == pytest.approx(0.8999, abs=1e-4)


def test_a_multiple_at_begin_makes_no_update_late():
    steps = ScheduleSteps(1000, 20000, 500)
    in_time = gradual_updates(steps, 0.9, 3, at_multiples=False)
    at_multiples = gradual_updates(steps, 0.9, 3, at_multiples=True)
    assert due_steps(at_multiples, 20600) == due_steps(in_time, 20600)
    for step in (1000, 10500, 20000):
        assert at_multiples.target(step) == in_time.target(step)


@pytest.mark.parametrize("at_multiples", [False, True])
def test_a_schedule_that_never_comes_has_no_update(at_multiples):
    updates = gradual_updates(NEVER, 0.9, 3, at_multiples)
    assert due_steps(updates, 100) == []


@pytest.mark.parametrize("at_multiples", [False, True])
def test_plain_numbers_make_the_same_updates_as_traced_ones(at_multiples):
    steps = ScheduleSteps(3, 17, 4)
    updates = gradual_updates(steps, 0.9, 3, at_multiples)
    due, targets = traced_updates(steps, 0.9, 3, at_multiples=at_multiples)
    assert due_steps(updates, 100) == np.flatnonzero(due).tolist()
    for step in np.flatnonzero(due).tolist():
        assert updates.target(step) == pytest.approx(float(targets[step]), abs=1e-6)
