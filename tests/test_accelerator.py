"""The programs of an accelerator, where there is none: lowered for it, and its way taken on CPU."""

import dataclasses
import re

import jax
import numpy as np
import pytest
from conftest import EXPERIMENTS
from lowered import convolutions, group_counts

from experiments.presets import PRESETS
from prunejax.config import Execution, override
from prunejax.measures import neighbors
from prunejax.nn.target import Target, target, traced_for
from prunejax.training import population, programs
from prunejax.training.members import members_of
from prunejax.training.task import make_task

MODELS = 8
STEPS = 8
NUM_TRAIN = 256
PLATFORMS = ["cuda", "tpu"]
CASES = [(stage, dtype) for stage in ("sup", "scl") for dtype in ("float32", "bfloat16")]


def task_of(stage, dtype):
    """WideResNet-16-2 on images of 32x32, 2 steps an epoch, pruned gradually."""
    experiment = EXPERIMENTS[f"{stage}_gmp"]
    config = dataclasses.replace(
        PRESETS["cifar10"], experiment=experiment, compute_dtype=dtype, models=MODELS
    )
    config = override(config, [f"{stage}.batch_size=128"])
    return make_task(config, stage, (32, 32, 3), 10, 2)


def lowered_for(platform, task, models=MODELS):
    """The population's step as it would be compiled for a platform that is not here."""
    step = programs.make_step(task, devices=Target(platform))
    arguments = programs.argument_shapes(task, NUM_TRAIN, models)
    return step.trace(*arguments, batch_size=128).lower(lowering_platforms=(platform,))


@pytest.fixture(scope="module", params=CASES, ids=str)
def case(request):
    """A stage's task, and the text of its step by platform."""
    task = task_of(*request.param)
    return task, {name: lowered_for(name, task).as_text() for name in PLATFORMS}


def test_a_step_is_one_loop_of_plain_convolutions_and_one_branch(case):
    """No grouped convolution, no call back into Python, nothing of a CPU's."""
    task, texts = case
    each_model = 3 * len(kernels_of(task))  # forward, and the gradients of image and kernel
    for text in texts.values():
        assert len(convolutions(text)) == MODELS * each_model
        assert group_counts(text) == {1}
        assert text.count("stablehlo.while") >= 1
        assert len(re.findall(r"stablehlo\.case", text)) == 1
        assert "callback" not in text
        assert "onednn" not in text


def kernels_of(task):
    """The kernels of convolutions."""
    shapes = programs.state_shapes(task, 1).params["encoder"]
    return [leaf for leaf in jax.tree.leaves(shapes) if leaf.ndim == 5]


def test_all_of_the_state_is_donated(case):
    """A program writes over what it is given: of two states there would be no room."""
    task, texts = case
    leaves = len(jax.tree.leaves(programs.state_shapes(task, MODELS)))
    for text in texts.values():
        donated = text.count("tf.aliasing_output") + text.count("jax.buffer_donor")
        assert donated == leaves


def test_the_operations_are_those_of_the_single_models(case):
    """Counted in the products of convolutions and matrices, as XLA's analysis needs a device."""
    task, texts = case
    alone = lowered_for("cuda", task, models=1).as_text()
    assert multiplications(texts["cuda"]) == pytest.approx(
        MODELS * multiplications(alone), rel=0.02
    )


def multiplications(text):
    """Of all convolutions: the elements of the output times those that each is a sum of."""
    total = 0
    for line in convolutions(text):
        _, kernel, output = re.findall(r"tensor<([^>]*)>", line)
        dimensions = re.search(r"x\[([^\]]*)\]->", line)[1].split(", ")
        sizes = [int(size) for size in kernel.split("x")[:-1]]
        summed = [size for size, name in zip(sizes, dimensions, strict=True) if name != "o"]
        outputs = [int(size) for size in output.split("x")[:-1]]
        total += int(np.prod(summed) * np.prod(outputs))
    return total


def test_steps_of_a_call_are_many_unless_it_is_a_cpus():
    config = PRESETS["cifar10"]
    assert programs.steps_per_call(config, "cpu") == 1
    for platform in ("gpu", "tpu"):
        assert programs.steps_per_call(config, platform) == STEPS
    config = dataclasses.replace(config, execution=Execution(steps_per_call=3))
    assert programs.steps_per_call(config, "gpu") == 3


def test_a_program_is_traced_for_its_devices_and_not_for_those_before():
    assert target() == Target(jax.default_backend())
    with traced_for(Target("tpu")):
        with traced_for(Target("cuda", shares_batch=True)):
            assert target().shares_batch
        assert target() == Target("tpu")
    task = task_of("sup", "float32")
    first = lowered_for("cpu", task).as_text()
    assert lowered_for("cuda", task).as_text() != first
    assert lowered_for("cpu", task).as_text() == first


# ------------------------------------------------------------- the accelerator's way on CPU


def test_its_way_gives_a_cpus_results(make_config, dataset):
    """Several models a program, several steps a call, and no case made for a CPU."""
    # At a usual rate a difference of one rounding grows at every step.
    config = override(make_config("sup_gmp"), ["sup.learning_rate.initial=0.001"])
    ways = {}
    for name, execution, devices in (
        ("cpu", Execution(), Target("cpu")),
        ("gpu", Execution(models_per_program=4, steps_per_call=3), Target("cuda")),
    ):
        changed = dataclasses.replace(config, execution=execution)
        with traced_as(devices):
            *_, last = population.fit(changed, members_of(changed), dataset)
        ways[name] = last.state
    ours, theirs = ways["gpu"], ways["cpu"]
    for a, b in zip(
        jax.tree.leaves((ours.params, ours.batch_stats)),
        jax.tree.leaves((theirs.params, theirs.batch_stats)),
        strict=True,
    ):
        np.testing.assert_allclose(a, b, rtol=2e-3, atol=1e-4)
    for a, b in zip(jax.tree.leaves(ours.masks), jax.tree.leaves(theirs.masks), strict=True):
        assert np.mean(a != b) < 0.002


def traced_as(devices):
    """Programs are traced as for other devices than those of the mesh they are for."""
    patch = pytest.MonkeyPatch()
    patch.setattr(programs, "target_of", lambda mesh: devices)
    patch.setattr(population, "target_of", lambda mesh: devices)

    class Patched:
        def __enter__(self):
            return patch

        def __exit__(self, *_):
            patch.undo()

    return Patched()


def test_neighbours_by_matrix_products_are_those_of_scikit_learn():
    """Under `jit` they are found as on an accelerator."""
    rng = np.random.default_rng(0)
    train = rng.normal(size=(200, 16)).astype(np.float32)
    test = rng.normal(size=(50, 16)).astype(np.float32)
    labels = rng.integers(0, 10, 200).astype(np.int32)
    on_cpu = neighbors.knn_predict(train, labels, test, k=5)
    traced = jax.jit(neighbors.knn_predict, static_argnames="k")(train, labels, test, k=5)
    np.testing.assert_array_equal(on_cpu, traced)
