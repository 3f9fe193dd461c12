"""The programs of an accelerator, where there is none: lowered for it, and its way taken on CPU."""

import dataclasses
import re

import jax
import numpy as np
import pytest
from conftest import EXPERIMENTS
from lowered import convolutions, group_counts

from experiments.presets import PRESETS
from prunejax.config import Execution, UserError, override
from prunejax.measures import neighbors
from prunejax.nn.target import Target, target, traced_for
from prunejax.training import plan, population, programs, progress
from prunejax.training.members import members_of
from prunejax.training.spec import make_spec, make_specs

MODELS = 8
STEPS = 8
NUM_TRAIN = 256
PLATFORMS = ["cuda", "tpu"]
CASES = [("sup", "float32"), ("sup", "bfloat16"), ("scl", "bfloat16")]


def task_of(stage, dtype):
    """WideResNet-16-2 on images of 32x32, 2 steps an epoch, pruned gradually."""
    experiment = EXPERIMENTS[f"{stage}_gmp"]
    config = dataclasses.replace(
        PRESETS["cifar10"], experiment=experiment, compute_dtype=dtype, models=MODELS
    )
    config = override(config, [f"{stage}.batch_size=128"])
    return make_spec(config, stage, (32, 32, 3), 10, 2)


def lowered_for(platform, spec, models=MODELS):
    """The population's step as it would be compiled for a platform that is not here."""
    step = programs.make_step(spec, devices=Target(platform))
    arguments = programs.argument_shapes(spec, NUM_TRAIN, models)
    return step.trace(*arguments, batch_size=128).lower(lowering_platforms=(platform,))


@pytest.fixture(scope="module", params=CASES, ids=str)
def case(request):
    """A stage's spec, and the text of its step by platform."""
    spec = task_of(*request.param)
    return spec, {name: lowered_for(name, spec).as_text() for name in PLATFORMS}


def test_every_matrix_product_is_in_full_precision(case):
    """Heads, losses and crops; convolutions alone are in what the accelerator takes by default."""
    _, texts = case
    for text in texts.values():
        products = [line for line in text.splitlines() if "stablehlo.dot_general" in line]
        assert products
        assert all("precision = [HIGHEST, HIGHEST]" in line for line in products)


def test_a_step_is_one_loop_of_plain_convolutions_and_one_branch(case):
    """No grouped convolution, no call back into Python, nothing of a CPU's."""
    spec, texts = case
    each_model = 3 * len(kernels_of(spec))  # forward, and the gradients of image and kernel
    for text in texts.values():
        assert len(convolutions(text)) == MODELS * each_model
        assert group_counts(text) == {1}
        assert text.count("stablehlo.while") >= 1
        assert len(re.findall(r"stablehlo\.case", text)) == 1
        assert "callback" not in text
        assert "onednn" not in text


def kernels_of(spec):
    """The kernels of convolutions."""
    shapes = programs.state_shapes(spec, 1).params["encoder"]
    return [leaf for leaf in jax.tree.leaves(shapes) if leaf.ndim == 5]


def test_all_of_the_state_is_donated(case):
    """A program writes over what it is given: of two states there would be no room."""
    spec, texts = case
    leaves = len(jax.tree.leaves(programs.state_shapes(spec, MODELS)))
    for text in texts.values():
        donated = text.count("tf.aliasing_output") + text.count("jax.buffer_donor")
        assert donated == leaves


def test_the_operations_are_those_of_the_single_models(case):
    """Counted in the products of convolutions and matrices, as XLA's analysis needs a device."""
    spec, texts = case
    alone = lowered_for("cuda", spec, models=1).as_text()
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
    spec = task_of("sup", "float32")
    first = lowered_for("cpu", spec).as_text()
    assert lowered_for("cuda", spec).as_text() != first
    assert lowered_for("cpu", spec).as_text() == first


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


def test_neighbours_are_compiled_once():
    """In a grid of models, layers and sparsities they are looked for thousands of times."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 10, 200).astype(np.int32)
    neighbors._nearest_by_products.clear_cache()
    found = []
    with traced_for(Target("cuda")):
        for _ in range(3):
            train, test = rng.normal(size=(200, 16)), rng.normal(size=(50, 16))
            found.append(neighbors.knn_predict(train, labels, test, k=5))
            neighbors.knn_purity(train, labels, k=5)
    assert len(found) == 3
    assert neighbors._nearest_by_products._cache_size() == 2  # of one shape each


def test_neighbours_by_matrix_products_are_those_of_scikit_learn():
    """Under `jit` they are found as on an accelerator."""
    rng = np.random.default_rng(0)
    train = rng.normal(size=(200, 16)).astype(np.float32)
    test = rng.normal(size=(50, 16)).astype(np.float32)
    labels = rng.integers(0, 10, 200).astype(np.int32)
    on_cpu = neighbors.knn_predict(train, labels, test, k=5)
    traced = jax.jit(neighbors.knn_predict, static_argnames="k")(train, labels, test, k=5)
    np.testing.assert_array_equal(on_cpu, traced)


# ------------------------------------------------------------------------- its memory


@pytest.mark.parametrize(("platform", "copies"), [("cpu", 2), ("cuda", 1)])
def test_the_memory_that_is_planned_holds_all_models_and_a_copy_that_is_saved(
    make_config, dataset, monkeypatch, platform, copies
):
    """Of 12 models, 2 of which are in a program; an accelerator's copy is in NumPy."""
    config = make_config("sup_dense", execution=Execution(models_per_program=2))
    spec = make_specs(config, dataset)["sup"]
    program = programs.make_programs(spec, dataset)
    monkeypatch.setattr(plan, "target_of", lambda mesh: Target(platform))
    alone = plan.make_plan(spec, 2, dataset, program).bytes
    many = plan.make_plan(spec, 12, dataset, program).bytes
    shapes = jax.tree.leaves(programs.state_shapes(spec, 1))
    each = sum(leaf.size * leaf.dtype.itemsize for leaf in shapes)
    assert many - alone == copies * 10 * each


def test_a_population_that_fits_in_no_memory_says_how_many_models_it_is(
    make_config, dataset, monkeypatch
):
    config = make_config("sup_dense")
    spec = make_specs(config, dataset)["sup"]
    program = programs.make_programs(spec, dataset)
    needed = plan.make_plan(spec, 2, dataset, program).bytes
    monkeypatch.setattr(plan, "available_memory", lambda local: 2.0 * needed)
    assert plan.make_plan(spec, 2, dataset, program).models_per_program == 2
    with pytest.raises(UserError, match=r"among 1000 in all, needs .* GiB .*lower models"):
        plan.make_plan(spec, 1000, dataset, program)


def test_a_state_is_taken_chunk_by_chunk(make_config, dataset, monkeypatch):
    """Joined on the devices it would be there twice."""
    monkeypatch.setattr(progress, "join", refuse_states(progress.join))
    config = make_config("sup_gmp", models=3)
    for report in population.fit(config, members_of(config), dataset):
        leaves = jax.tree.leaves(report.arrays)
        assert all(isinstance(leaf, np.ndarray) and len(leaf) == 6 for leaf in leaves)


def refuse_states(join):
    """`join`, which may only be asked for metrics."""

    def checked(parts, mesh):
        assert set(parts[0]) >= {"loss"}
        return join(parts, mesh)

    return checked
