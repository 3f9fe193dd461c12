"""The same bits whatever JAX's global switches of dtypes and random numbers are."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prunejax import cache, data, runs
from prunejax.config import from_json, to_json
from prunejax.measures import evaluate
from prunejax.training import inference
from prunejax.training.state import key_for, own_switches, under_own_switches

SWITCHES = {
    "JAX_ENABLE_X64": "1",
    "JAX_DEFAULT_PRNG_IMPL": "rbg",
    "JAX_THREEFRY_PARTITIONABLE": "0",
    "JAX_NUMPY_DTYPE_PROMOTION": "strict",
    "JAX_RANDOM_SEED_OFFSET": "5",
    "JAX_NUM_CPU_DEVICES": "2",
}


@pytest.fixture(scope="module")
def config(make_config):
    """A contrastive run with a head, pruned in a step, measured on few images."""
    return make_config("scl_gmp", models=1, sparsities=(0.9,))


def outcome(run_dir, config, dataset):
    """Digests of all that the library makes of a run: trains it, restores it and measures it."""
    reports = []
    runs.train(runs.begin(config, dataset, run_dir), on_report=reports.append)
    restored = runs.load_population(run_dir)
    measured = evaluate(restored, dataset, run_dir, measures=["predictions", "quality", "depth"])
    made = {"state": [np.asarray(leaf) for leaf in jax.tree.leaves(restored.state)]}
    made["predictions"] = [restored.predict(dataset.test_images)]
    made["representations"] = [restored.representations(dataset.test_images)]
    made["loss"] = [progress.metrics["loss"] for progress in reports]
    for name, array in measured.arrays.items():
        made[name] = [np.asarray(array)]
    return {name: data.digest(*arrays) for name, arrays in made.items()}


def test_a_process_under_other_switches_trains_restores_and_measures_the_same_bits(
    config, dataset, tmp_path
):
    ours = outcome(tmp_path / "ours", config, dataset)
    assert {"state", "predictions", "q", "depth"} <= ours.keys()
    (tmp_path / "config.json").write_text(to_json(config))
    compiled = {
        "JAX_COMPILATION_CACHE_DIR": str(cache.cache_dir() / "xla"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.5",
    }
    done = subprocess.run(
        [sys.executable, __file__, str(tmp_path)],
        env=os.environ | SWITCHES | compiled,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    theirs, of_ours = json.loads(done.stdout)
    assert theirs == ours

    # Each restores what the other has trained.
    assert of_ours == ours["state"]
    restored = runs.load_population(tmp_path / "theirs")
    assert data.digest(*jax.tree.leaves(restored.state)) == ours["state"]


def main(top):
    """The same in this process; prints it, and the digest of a run of the other's."""
    assert jnp.zeros(1).dtype == np.float64
    config = from_json((top / "config.json").read_text(), "")
    dataset = data.load(config.data)
    theirs = outcome(top / "theirs", config, dataset)
    assert jnp.zeros(1).dtype == np.float64
    restored = runs.load_population(top / "ours")
    print(json.dumps([theirs, data.digest(*jax.tree.leaves(restored.state))]))


# ------------------------------------------------------------------------------ the decorator


@under_own_switches
def dtype():
    return jnp.zeros(1).dtype


@under_own_switches
def dtypes(count):
    for _ in range(count):
        yield jnp.zeros(1).dtype


def test_a_function_and_a_generator_are_under_our_switches_and_their_caller_is_not():
    with jax.enable_x64(True):
        assert dtype() == np.float32
        found = []
        for ours in dtypes(3):
            found.append((ours, jnp.zeros(1).dtype))
        assert found == [(np.float32, np.float64)] * 3
        unfinished = dtypes(3)
        next(unfinished)
        unfinished.close()
        assert jnp.zeros(1).dtype == np.float64
        with pytest.raises(TypeError):
            list(dtypes("three"))
        assert jnp.zeros(1).dtype == np.float64


def test_outputs_are_streamed_without_leaking_a_switch(dataset, tmp_path, make_config):
    config = make_config("sup_dense", models=1)
    runs.run(config, dataset, tmp_path / "run")
    trained = runs.load_population(tmp_path / "run")
    with jax.enable_x64(True):
        for batch in inference.apply_in_batches(config, trained.state, dataset.test_images, 25):
            assert batch.logits.dtype == np.float32
            assert jnp.zeros(1).dtype == np.float64


def test_our_switches_are_what_jax_has_by_itself():
    """So that nothing changes, and nothing is compiled twice, where nobody has set any."""
    traced = []

    @jax.jit
    def double(x):
        traced.append(x)
        return 2 * x

    double(jnp.ones(3))
    with own_switches():
        double(jnp.ones(3))
    assert len(traced) == 1


def test_keys_do_not_follow_the_default_generator():
    ours = jax.random.key_data(key_for(3, "order", 5))
    with jax.default_prng_impl("rbg"):
        other = jax.random.key_data(key_for(3, "order", 5))
    np.testing.assert_array_equal(ours, other)


@pytest.mark.parametrize("seed", [0, 3, 2**31 - 1])
def test_keys_do_not_follow_an_offset_of_all_seeds(seed):
    def draw(seed):
        return jax.random.key_data(key_for(seed, "order", 5))

    ours = draw(seed)
    before = jax.config.jax_random_seed_offset
    jax.config.update("jax_random_seed_offset", 5)
    try:
        np.testing.assert_array_equal(draw(seed), ours)
        np.testing.assert_array_equal(jax.jit(draw)(np.int32(seed)), ours)
    finally:
        jax.config.update("jax_random_seed_offset", before)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
