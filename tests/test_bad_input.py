"""A thousand bad inputs and more.

Each is one line, exit code 2, no traceback, and nothing changed on disk.
"""

import contextlib
import dataclasses
import json
import math
import subprocess
import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_checkpoint import files, run
from test_commands import ROOT

from experiments.presets import PRESETS
from prunejax.measures import evaluate

FUZZ = settings(
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(scope="module")
def ask():
    """`ask(script, *arguments) -> (exit code, stdout, stderr)`."""
    command = [sys.executable, ROOT / "tests" / "fork_server.py"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, text=True) as server:

        def ask(*arguments):
            texts = [str(argument) for argument in arguments]
            print(json.dumps(texts), file=server.stdin, flush=True)
            return json.loads(server.stdout.readline())

        yield ask
        server.stdin.close()


def assert_refused(answer, what):
    code, out, err = answer
    assert code == 2, (what, answer)
    assert out == "", (what, answer)
    assert err.startswith("error: "), (what, answer)
    assert err.count("\n") == 1, (what, answer)


# ------------------------------------------------------------------- words and no numbers


def is_number(word):
    """Whether absl or a setting reads it as one; absl reads 0x10 too."""
    with contextlib.suppress(ValueError):
        return math.isfinite(float(word))
    with contextlib.suppress(ValueError):
        int(word, 0)
        return True
    return False


def says_something(word):
    """Whether it is more than an empty tuple."""
    return word.strip("()[]").replace(",", "").strip() != ""


CHARACTERS = st.characters(min_codepoint=33, max_codepoint=0x2FF)
WORD = st.text(CHARACTERS, min_size=1, max_size=12)
NO_NUMBER = st.one_of(
    WORD.filter(lambda word: not is_number(word)),
    st.sampled_from(["nan", "inf", "1e999", "--1"]),
)

# --------------------------------------------------------------------------------- --set


def fields(node, path=""):
    """Each field's path and value."""
    for name, value in node.items():
        if isinstance(value, dict):
            yield from fields(value, f"{path}{name}.")
        else:
            yield f"{path}{name}", value


DIGITS = PRESETS["digits"]
FIELDS = {}
"""Of every field but those that take any text, and those that --set must not change."""
for path, value in fields(dataclasses.asdict(DIGITS)):
    if not path.startswith("experiment.") and not isinstance(value, str):
        FIELDS[path] = value
PATH = st.sampled_from(sorted(FIELDS))


def ill_typed(path):
    """What the field does not take, by the value it has."""
    value = FIELDS[path]
    if isinstance(value, bool):
        return st.sampled_from(["2", "yes", "-1", "truely", "0.5"])
    if isinstance(value, int):
        return st.one_of(NO_NUMBER, st.sampled_from(["1.5", "1e3", "2.0"]))
    if value is None:
        return st.sampled_from(["nothing", "(", "a,b", "nan"])
    return NO_NUMBER.filter(says_something)


@st.composite
def values_of_another_type(draw):
    path = draw(PATH)
    return f"{path}={draw(ill_typed(path))}"


@st.composite
def fields_that_there_are_not(draw):
    def is_no_field(word):
        name = word.split("=")[0].split(".")[0]
        return name not in vars(DIGITS)

    return f"{draw(WORD.filter(is_no_field))}={draw(WORD)}"


@st.composite
def fields_of_a_value(draw):
    name = draw(WORD).replace("=", "")
    return f"{draw(PATH)}.{name}=1"


IMPOSSIBLE_VALUES = [
    "models=0",
    "models=-1",
    "seed=-1",
    "seed=2147483647",
    "finetune.epochs=0",
    "finetune.batch_size=-5",
    "finetune.weight_decay=-1",
    "finetune.learning_rate.initial=-1",
    "sparsities=",
    "sparsities=1",
    "sparsities=-0.1",
    "sparsities=0.5,0.5",
    "model.depth=11",
    "model.widen_factor=0",
    "optim.momentum=1.5",
    "optim.momentum=-1",
    "sup_augment.resized_crop_scale=0,1",
    "sup_augment.crop_padding=-1",
    "sup_augment.jitter=1,1,1,1",
    "sup_augment.grayscale_probability=2",
    "data.std=0",
    "data.mean=1,2",
    "data.train_examples=0",
    "data.train_examples=99999",
    "supcon.temperature=0",
    "checkpoint.keep=0",
    "log_every_steps=0",
    "measure.neighbors=0",
    "preset=cifar10",
    "experiment.name=x",
]
ASSIGNMENT = st.one_of(
    values_of_another_type(),
    fields_that_there_are_not(),
    fields_of_a_value(),
    PATH,  # without a value
    st.sampled_from(IMPOSSIBLE_VALUES),
)

# ------------------------------------------------------------------------------- flags


def option(name, value):
    """`value`, a strategy, as an argument."""
    return value.map(lambda text: f"--{name}={text}")


NO_COUNT = st.one_of(NO_NUMBER, st.sampled_from(["1.5", "-1", "", "99999999999999999999"]))
NO_SPARSITY = st.one_of(st.floats(max_value=-1e-9), st.floats(min_value=1))
NO_CHOICE = WORD.map(lambda word: f"x{word}")
FLAGS = st.one_of(
    option("set", ASSIGNMENT),
    WORD.filter(lambda word: not word.startswith("-")),
    WORD.map(lambda word: f"--un{word.replace('=', '')}known=1"),
    st.one_of(option("models", NO_COUNT), option("seed", NO_COUNT), option("devices", NO_COUNT)),
    option("sparsities", NO_NUMBER),
    option("starts", NO_NUMBER),
    option("starts", st.floats().filter(lambda number: not 0 <= number < 1)),
    option("sparsities", NO_SPARSITY.map(lambda number: f"0.5,{number}")),
    st.one_of(option("preset", NO_CHOICE), option("experiment", NO_CHOICE)),
    st.one_of(option("dry_run", NO_CHOICE), option("tensorboard", NO_CHOICE)),
)


def test_flags(ask, tmp_path):
    """Were the flag no trouble, the missing parent would be.

    Nothing else here may be mistaken for that.
    """
    command = [
        "train",
        f"--workdir={tmp_path / 'runs'}",
        "--preset=digits",
        "--experiment=sup_one_shot",
    ]
    refused = set()

    @settings(FUZZ, max_examples=700)
    @given(flag=FLAGS)
    def check(flag):
        answer = ask(*command, flag)
        assert_refused(answer, flag)
        assert "is missing; train it first" not in answer[2], flag
        assert not list(tmp_path.iterdir())
        refused.add(flag)

    check()
    assert len(refused) > 550


# ------------------------------------------------------------------------------- files


@pytest.fixture(scope="module")
def study(make_config, dataset, tmp_path_factory):
    """A finished and measured run."""
    workdir = tmp_path_factory.mktemp("fuzz") / "runs"
    trained = run(make_config("sup_dense"), dataset, workdir)
    evaluate(trained, dataset, workdir / "sup_dense")
    line = '{"stage": "sup", "step": 8, "loss": [1.0, 1.0]}\n'
    (workdir / "sup_dense" / "metrics.jsonl").write_text(line)
    return workdir


SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5))


def containers(inner):
    """Lists and objects of what `inner` draws."""
    lists = st.lists(inner, max_size=3)
    return st.one_of(lists, st.dictionaries(st.text(max_size=5), inner, max_size=3))


JSON = st.recursive(SCALARS, containers, max_leaves=5)
PLACE = st.floats(0, 1)
"""In a file, as a fraction of it."""
HARMS = st.one_of(
    st.tuples(st.just("cut"), st.floats(0, 0.99), st.none()),
    st.tuples(st.just("flip"), PLACE, st.integers(1, 255)),
    st.tuples(st.just("insert"), PLACE, st.binary(min_size=1, max_size=8)),
    st.tuples(st.just("replace"), PLACE, st.binary(max_size=60)),
    st.tuples(st.just("value"), PLACE, JSON),
)


def harm(content, kind, place, what):
    """The bytes of a file after a harm: its kind, where, and with what."""
    if kind == "replace":
        return what
    where = chosen(place, len(content))
    before, after = content[:where], content[where:]
    if kind == "cut":
        return before
    if kind == "flip":
        return before + bytes([after[0] ^ what]) + after[1:]
    if kind == "insert":
        return before + what + after
    try:
        tree = json.loads(content)
    except ValueError:  # no JSON
        return before
    places = list(all_places(tree))
    holder, key = places[chosen(place, len(places))]
    holder[key] = what
    return json.dumps(tree).encode()


def chosen(fraction, count):
    """An index below `count`."""
    return min(int(fraction * count), count - 1)


def all_places(node):
    """Every value of a JSON tree, as what holds it and its key there."""
    keys = node if isinstance(node, dict) else range(len(node))
    for key in keys:
        yield node, key
        if isinstance(node[key], (dict, list)):
            yield from all_places(node[key])


def restore(workdir, whole):
    """Makes the files under `workdir` those of `whole` again."""
    for path in files(workdir):
        if path not in whole:
            path.unlink()
    for path, content in whole.items():
        if not path.exists() or path.read_bytes() != content:
            path.write_bytes(content)


def without(contents, top):
    """`contents`, as `files` returns them, but for those under `top`."""
    return {path: content for path, content in contents.items() if top not in path.parents}


def test_files(ask, study):
    """What is harmed is refused, measured again, or did not matter.

    Nothing else is changed, and no traceback seen.
    """
    whole = files(study)
    refused, measured_again = set(), set()
    measures = study / "sup_dense" / "measures"

    @settings(FUZZ, max_examples=250)
    @given(
        name=st.sampled_from(["config.json", "provenance.json", "measures/predictions.npz"]),
        harmed=HARMS,
        script=st.sampled_from(["evaluate", "report"]),
    )
    def check(name, harmed, script):
        path = study / "sup_dense" / name
        try:
            path.write_bytes(harm(whole[path], *harmed))
            before = files(study)
            answer = ask(script, f"--workdir={study}")
            after = files(study)
            if answer[0] != 0:
                assert_refused(answer, (name, harmed))
                assert after == before
                refused.add((script, name, before[path]))
                return

            assert "Traceback" not in answer[2]
            if script == "report":
                assert without(after, study / "report") == before
                return
            # Which measures are outdated depends on settings, which may be what was harmed.
            assert without(after, measures) == without(before, measures)
            if after != before and path.parent == measures:
                assert after == whole
                measured_again.add(before[path])
        finally:
            restore(study, whole)

    check()
    assert len(refused) > 100
    assert len(measured_again) > 10
