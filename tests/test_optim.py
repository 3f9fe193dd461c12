"""Learning rates by hand, and SGD against PyTorch's formulas in loops."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from prunejax.config import LearningRate, Optim, Stage
from prunejax.training.optim import make_learning_rate, make_optimizer


def rates(config, epochs, steps_per_epoch=3):
    """The learning rate of every step of a stage."""
    learning_rate = make_learning_rate(config, epochs, steps_per_epoch)
    return [float(learning_rate(step)) for step in range(epochs * steps_per_epoch)]


def rates_of_epochs(config, epochs):
    return rates(config, epochs, steps_per_epoch=1)


# -------------------------------------------------------------- the learning rate


def test_without_milestones_and_cosine_the_learning_rate_is_the_initial_one():
    assert rates(LearningRate(0.25), epochs=4) == [0.25] * 12


@pytest.mark.parametrize(
    ("epoch", "expected"),
    [
        *[(0, 1.0), (4, 1.0), (5, 0.1), (29, 0.1), (30, 0.01), (49, 0.01)],
        *[(50, 1e-3), (79, 1e-3), (80, 1e-4), (204, 1e-4)],
    ],
)
def test_the_papers_milestones_divide_the_learning_rate_by_ten_from_that_epoch_on(epoch, expected):
    paper = LearningRate(1.0, milestone_epochs=(5, 30, 50, 80))
    learning_rate = make_learning_rate(paper, 205, 391)
    assert float(learning_rate(epoch * 391)) == pytest.approx(expected, rel=1e-6)
    assert float(learning_rate(epoch * 391 + 390)) == pytest.approx(expected, rel=1e-6)


def test_milestones_multiply_by_their_factor_in_any_order():
    halved = LearningRate(8.0, milestone_epochs=(3, 1), factor=0.5)
    assert rates_of_epochs(halved, 5) == [8, 4, 4, 2, 2]


def test_milestones_of_the_same_epoch_count_each_and_one_at_the_start_counts_at_once():
    halved = LearningRate(8.0, milestone_epochs=(0, 2, 2), factor=0.5)
    assert rates_of_epochs(halved, 4) == [4, 4, 1, 1]


def test_the_cosine_falls_from_the_initial_rate_towards_the_final_one():
    """At 0, 45, 90 and 135 degrees; the final rate would be that of the epoch after the last."""
    cosine = LearningRate(3.0, final=1.0)
    slope = math.sqrt(1 / 2)
    np.testing.assert_allclose(rates_of_epochs(cosine, 4), [3, 2 + slope, 2, 2 - slope], rtol=1e-6)
    beyond = make_learning_rate(cosine, 4, 1)(4)
    assert float(beyond) == pytest.approx(1)


def test_a_final_rate_of_zero_is_a_cosine_too():
    np.testing.assert_allclose(
        rates_of_epochs(LearningRate(2.0, final=0.0), 3), [2, 1.5, 0.5], rtol=1e-6
    )


def test_milestones_and_cosine_multiply():
    """As in the authors' code: x0.2 at 60, 75 and 90, stacked on a cosine."""
    both = LearningRate(0.1, milestone_epochs=(60, 75, 90), factor=0.2, final=1e-4)
    expected = []
    for epoch in range(100):
        rate = 1e-4 + (0.1 - 1e-4) * (1 + math.cos(math.pi * epoch / 100)) / 2
        for milestone in (60, 75, 90):
            if epoch >= milestone:
                rate *= 0.2
        expected.append(rate)
    np.testing.assert_allclose(rates_of_epochs(both, 100), expected, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize(
    "config",
    [
        LearningRate(0.05, final=5e-5),
        LearningRate(1.0, milestone_epochs=(1, 3)),
        LearningRate(1.0, milestone_epochs=(2,), final=0.1),
    ],
)
def test_the_learning_rate_is_constant_within_an_epoch(config):
    steps_per_epoch = 7
    by_step = np.reshape(rates(config, 5, steps_per_epoch), (5, steps_per_epoch))
    by_epoch = rates_of_epochs(config, 5)
    for step in range(steps_per_epoch):
        assert by_step[:, step].tolist() == by_epoch


def test_a_traced_step_gives_the_same_rate_from_one_program():
    config = LearningRate(1.0, milestone_epochs=(2,), final=0.1)
    traced = jax.jit(make_learning_rate(config, 4, 3))
    compiled = [float(traced(jnp.int32(step))) for step in range(12)]
    np.testing.assert_allclose(compiled, rates(config, 4, 3), rtol=1e-6)
    assert traced._cache_size() == 1


# ------------------------------------------------------------------ the optimizer

START = {"kernel": np.array([[1.0, -2.0], [0.5, 3.0]]), "bias": np.array([0.25, -1.5])}
LEARNING_RATES = [0.5, 0.5, 0.1, 0.1, 0.02]


def gradient(weights):
    """Of the sum of w**4 / 4 - w: no multiple of the weights, as the decay's is."""
    return weights**3 / 10 - 1


def torch_sgd(weights, momentum, weight_decay, nesterov):
    """What `torch.optim.SGD` does to an array of weights, as its documentation writes it."""
    velocity = np.zeros_like(weights)
    after_each_step = []
    for learning_rate in LEARNING_RATES:
        decayed = gradient(weights) + weight_decay * weights
        velocity = momentum * velocity + decayed
        update = decayed + momentum * velocity if nesterov else velocity
        weights = weights - learning_rate * update
        after_each_step.append(weights)
    return after_each_step


def our_sgd(momentum, weight_decay, nesterov):
    """The weights after each step, with the factor applied as the training step applies it."""
    stage = Stage(1, 1, LearningRate(0.5), weight_decay=weight_decay, nesterov=nesterov)
    optimizer = make_optimizer(stage, Optim(momentum))
    params = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), START)
    state = optimizer.init(params)
    after_each_step = []
    for learning_rate in LEARNING_RATES:
        gradients = jax.tree.map(gradient, params)
        updates, state = optimizer.update(gradients, state, params)
        moves = jax.tree.map(lambda update, rate=learning_rate: -rate * update, updates)
        params = optax.apply_updates(params, moves)
        after_each_step.append(params)
    return after_each_step


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("weight_decay", [0.0, 0.2])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_five_steps_are_those_of_pytorch(momentum, weight_decay, nesterov):
    ours = our_sgd(momentum, weight_decay, nesterov)
    for name, weights in START.items():
        expected = torch_sgd(weights, momentum, weight_decay, nesterov)
        for step, params in enumerate(ours):
            np.testing.assert_allclose(params[name], expected[step], rtol=1e-5, atol=1e-6)


def two_updates(stage, momentum=0.5):
    """The updates of a weight of 2 for the gradients 1 and 3, with the weight left as it is."""
    optimizer = make_optimizer(stage, Optim(momentum))
    weight = jnp.float32(2)
    state = optimizer.init(weight)
    first, state = optimizer.update(jnp.float32(1), state, weight)
    second, _ = optimizer.update(jnp.float32(3), state, weight)
    return float(first), float(second)


def test_momentum_keeps_a_part_of_the_last_update():
    """1, then 1/2 * 1 + 3."""
    assert two_updates(Stage(1, 1, LearningRate(0.1))) == (1, 3.5)


def test_weight_decay_stands_inside_the_momentum():
    """1/4 * 2 is added to each gradient: 1.5, then 1/2 * 1.5 + 3.5; outside it would be 4."""
    assert two_updates(Stage(1, 1, LearningRate(0.1), weight_decay=0.25)) == (1.5, 4.25)


def test_nesterov_looks_one_momentum_ahead():
    """1 + 1/2 * 1, then 3 + 1/2 * 3.5."""
    assert two_updates(Stage(1, 1, LearningRate(0.1), nesterov=True)) == (1.5, 4.75)


def test_nesterov_with_weight_decay_decays_both_terms():
    """1.5 + 1/2 * 1.5, then 3.5 + 1/2 * 4.25."""
    stage = Stage(1, 1, LearningRate(0.1), weight_decay=0.25, nesterov=True)
    assert two_updates(stage) == (2.25, 5.625)


def test_the_learning_rate_is_no_part_of_the_update():
    slow, fast = Stage(1, 1, LearningRate(0.1)), Stage(1, 1, LearningRate(10.0))
    assert two_updates(slow) == two_updates(fast)
