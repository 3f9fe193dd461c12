"""The benchmarks' own machinery; what they measure is in `benchmarks/results`."""

import dataclasses
import itertools
import json
import subprocess
import sys
from pathlib import Path

import flax.linen as nn
import jax
import numpy as np
import pytest

from benchmarks import accelerator, suites
from benchmarks.contestants import find
from benchmarks.duel import Contestant, duel
from benchmarks.profiled import Event, operation_scopes, part_milliseconds
from benchmarks.spec import Spec
from benchmarks.steps import make_plain, rehearse
from prunejax.nn import norm, wideresnet

ROOT = Path(__file__).parents[1]
TINY = Spec(depth=10, widen=1, size=8, batch=4)


def tiny_options(networks):
    """What the flags would say of one and two models, four images a step."""
    return suites.Options(
        models=(1, 2),
        networks=networks,
        contestants="",
        batch=4,
        dtype="float32",
        repeats=1,
        limit_s=1.0,
    )


def test_a_suite_writes_its_rows_as_json_and_markdown(tmp_path):
    command = [sys.executable, "-m", "benchmarks.run", "--suite=prune", "--repeats=2"]
    command.append(f"--out={tmp_path}")
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "prune.json").read_text())
    ours, by_sorting, pytorch = result["rows"]
    assert [len(row["seconds"]) for row in (ours, by_sorting)] == [2, 2]
    assert ours["to ours"] == "1.00x"
    assert pytorch["seconds"] or pytorch["models/s"] == "not installed"
    assert (tmp_path / "prune.md").read_text().count("\n| ") == 4


def test_a_contestant_that_fails_or_takes_too_long_is_out_and_named():
    good = Contestant("good", [Spec("parts.knn")])
    unknown = Contestant("unknown", [Spec("parts.nobody")])
    slow = Contestant("slow", [Spec("parts.knn", steps=10**6)])
    duel([good, unknown], repeats=2, limit=200)
    duel([slow], repeats=2, limit=2)
    assert len(good.seconds) == 2
    assert good.peak_bytes > 2**20
    assert "nobody" in unknown.trouble
    assert slow.trouble == "not done in 6 s"
    for contestant in (good, unknown, slow):
        assert all(process.poll() is not None for process in contestant.processes)


def test_every_suite_names_contestants_that_there_are(monkeypatch):
    specs = []

    def pretend(contestants, repeats, limit):
        for contestant in contestants:
            contestant.seconds.append(1.0)
            specs.extend(contestant.specs)

    monkeypatch.setattr(suites, "duel", pretend)
    options = tiny_options("8x8")
    for name, suite in suites.SUITES.items():
        if name != "step":  # which has no contestants
            assert list(itertools.chain(*suite(options)))
    for spec in specs:
        assert Spec.from_json(spec.to_json()) == spec
    for contestant in {spec.contestant for spec in specs}:
        if suites.has_pytorch() or not contestant.startswith("pytorch."):
            assert callable(find(contestant))


def test_the_accelerators_suite_times_each_strategy_dtype_and_length_of_a_call():
    settings = accelerator.settings_of(dataclasses.replace(tiny_options("8x8"), models=(1, 8, 30)))
    for of, values in {
        "convolution": {"unrolled", "grouped", "im2col"},
        "models": {1, 8, 30},
        "dtype": {"float32", "bfloat16"},
        "steps_per_call": {1, 8, 32},
        "stage": {"sup", "scl"},
    }.items():
        assert {getattr(spec, of) for spec in settings.values()} == values
    assert len(set(settings.values())) == len(settings)


def test_the_accelerators_suite_leaves_nothing_out_at_a_tiny_size(monkeypatch):
    """In this process, on a CPU; what it measures of a device is in its table."""
    monkeypatch.setitem(suites.NETWORKS, "tiny", TINY)
    options = tiny_options("tiny")
    settings = dict(itertools.islice(accelerator.settings_of(options).items(), 2))
    monkeypatch.setattr(accelerator, "settings_of", lambda options: settings)
    monkeypatch.setattr(accelerator, "ROUND_S", 0.01)
    monkeypatch.setattr(accelerator, "MINUTES", 1e3)  # a slow machine leaves nothing out either
    monkeypatch.setattr(accelerator, "has_pytorch", lambda: False)
    rows = list(itertools.chain(*accelerator.accelerator(options)))
    assert [row["part"] for row in rows] == [
        "device",
        "step",
        "PyTorch",
        "PyTorch",
        "determinism",
        "population",
        "step",
    ]
    for row in (rows[1], rows[-1]):
        assert row["images/s"] > 0, row
        assert row["of the roofline"].endswith("%")
    assert rows[4]["what"] == "the same bits twice"
    assert rows[5]["images/s"] > 0

    monkeypatch.setattr(accelerator, "MINUTES", 0)
    late = list(itertools.chain(*accelerator.accelerator(options)))
    assert [row["part"] for row in late] == [row["part"] for row in rows]
    assert {row["images/s"] for row in late if row["part"] == "step"} == {"not reached"}
    assert [row["what"] for row in late[4:6]] == ["not reached", "not reached"]


@pytest.fixture
def make_plain_once(monkeypatch):
    """As `make_plain`; the normalisation that it replaces is put back after the test."""
    monkeypatch.setattr(wideresnet, "BatchNorm", wideresnet.BatchNorm)
    return make_plain


def test_a_plain_step_has_nothing_of_ours(make_plain_once):
    plain = make_plain_once(TINY)
    modules = set()

    def remember(function, args, kwargs, context):
        modules.add(type(context.module))
        return function(*args, **kwargs)

    with nn.intercept_methods(remember):
        state = jax.eval_shape(plain.init, 0)
        jaxpr = jax.make_jaxpr(plain.step)(state, 0, plain.data)
    assert nn.BatchNorm in modules
    assert norm.BatchNorm not in modules
    assert "custom_vmap" not in str(jaxpr)


@pytest.mark.parametrize("stage", ["sup", "scl"])
def test_a_plain_step_computes_what_ours_does(make_plain_once, stage):
    spec = dataclasses.replace(TINY, stage=stage)
    calls = rehearse(spec).calls
    ours = [next(calls)["loss"][0], next(calls)["loss"][0]]

    plain = make_plain_once(spec)
    step = jax.jit(plain.step)
    state, first = step(jax.jit(plain.init)(0), 0, plain.data)
    state, second = step(state, 0, plain.data)
    np.testing.assert_allclose([first["loss"], second["loss"]], ours, rtol=1e-4)


def test_an_operation_without_a_scope_has_that_of_its_user():
    text = """
      %x = f32[2]{0} parameter(0)
      %copy.1 = f32[2]{0} copy(%x)
      ROOT %conv.1 = f32[2]{0} convolution(%copy.1, %x), metadata={op_name="jit(f)/gradient/conv"}
    """
    scopes = operation_scopes(text)
    assert scopes["copy.1"] == scopes["conv.1"] == "jit(f)/gradient/conv"


def test_the_time_of_an_operation_is_of_the_first_part_that_its_name_or_scope_has():
    scopes = {"fusion.1": "jit(f)/update_masks/cond", "add.2": "jit(f)/add"}
    events = [Event("fusion.1", 1.0), Event("fusion.1", 2.0), Event("add.2", 4.0)]
    events.append(Event("of another program", 8.0))
    assert part_milliseconds(events, scopes) == {
        "mask update": 3.0,
        "other: residual sums, pooling, head, loss": 4.0,
    }
