"""A thousand bad inputs and more: each one line, exit code 2, no traceback, and nothing changed on disk."""

import contextlib
import dataclasses
import json
import math
import shutil
import subprocess
import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_checkpoint import files, run
from test_commands import ROOT

from experiments.presets import PRESETS
from prunejax.measures import evaluate

FUZZ = {"deadline": None, "derandomize": True, "database": None, "suppress_health_check": list(HealthCheck)}


@pytest.fixture(scope="module")
def ask():
    """`ask(script, *arguments) -> (exit code, stdout, stderr)`."""
    command = [sys.executable, ROOT / "tests" / "fork_server.py"]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:

        def ask(*arguments):
            print(json.dumps(list(map(str, arguments))), file=server.stdin, flush=True)
            return json.loads(server.stdout.readline())

        yield ask
        server.stdin.close()


def assert_refused(answer, what):
    code, out, err = answer
    assert code == 2, (what, answer)
    assert out == "", (what, answer)
    assert err.startswith("error: "), (what, answer)
    assert err.count("\n") == 1, (what, answer)


def fields(node, path=""):
    """Each field's path and value."""
    for name, value in node.items():
        if isinstance(value, dict):
            yield from fields(value, f"{path}{name}.")
        else:
            yield f"{path}{name}", value


FIELDS = {
    path: value
    for path, value in fields(dataclasses.asdict(PRESETS["digits"]))
    if not path.startswith("experiment.") and not isinstance(value, str)
}
WORD = st.text(st.characters(min_codepoint=33, max_codepoint=0x2FF), min_size=1, max_size=12)
NO_NUMBER = st.one_of(WORD.filter(lambda w: not is_number(w)), st.sampled_from(["nan", "inf", "1e999", "--1"]))


def is_number(word):
    with contextlib.suppress(ValueError):
        return math.isfinite(float(word))
    with contextlib.suppress(ValueError):
        return int(word, 0) is not None  # absl reads 0x10 too
    return False


def ill_typed(path):
    value = FIELDS[path]
    if isinstance(value, bool):
        return st.sampled_from(["2", "yes", "-1", "truely", "0.5"])
    if isinstance(value, int):
        return st.one_of(NO_NUMBER, st.sampled_from(["1.5", "1e3", "2.0"]))
    if value is None:
        return st.sampled_from(["nothing", "(", "a,b", "nan"])
    return NO_NUMBER.filter(lambda word: word.strip("()[]").replace(",", "").strip())


SETTINGS = st.one_of(
    st.sampled_from(sorted(FIELDS)).flatmap(lambda path: st.tuples(st.just(path), ill_typed(path))).map("=".join),
    st.tuples(WORD.filter(lambda w: w.split("=")[0].split(".")[0] not in vars(PRESETS["digits"])), WORD).map("=".join),
    st.tuples(st.sampled_from(sorted(FIELDS)), WORD.map(lambda w: w.replace("=", "")), st.just("1")).map(
        lambda parts: f"{parts[0]}.{parts[1]}={parts[2]}"
    ),
    st.sampled_from(sorted(FIELDS)),
    st.sampled_from(
        [
            *("models=0", "models=-1", "seed=-1", "seed=2147483647", "finetune.epochs=0", "finetune.batch_size=-5"),
            *("sparsities=", "sparsities=1", "sparsities=-0.1", "sparsities=0.5,0.5", "model.depth=11"),
            *("model.widen_factor=0", "optim.momentum=1.5", "optim.momentum=-1", "finetune.weight_decay=-1"),
            *("finetune.learning_rate.initial=-1", "sup_augment.resized_crop_scale=0,1", "data.std=0", "data.mean=1,2"),
            *("sup_augment.crop_padding=-1", "sup_augment.jitter=1,1,1,1", "sup_augment.grayscale_probability=2"),
            *("supcon.temperature=0", "checkpoint.keep=0", "log_every_steps=0", "data.train_examples=0"),
            *("data.train_examples=99999", "measure.neighbors=0", "preset=cifar10", "experiment.name=x"),
        ]
    ),
).map(lambda text: f"--set={text}")
FLAGS = st.one_of(
    SETTINGS,
    WORD.filter(lambda word: not word.startswith("-")),
    WORD.map(lambda word: f"--un{word.replace('=', '')}known=1"),
    st.tuples(
        st.sampled_from(["--models", "--seed", "--devices"]),
        st.one_of(NO_NUMBER, st.sampled_from(["1.5", "-1", "", "99999999999999999999"])),
    ).map("=".join),
    NO_NUMBER.map(lambda word: f"--sparsities={word}"),
    st.one_of(st.floats(max_value=-1e-9), st.floats(min_value=1)).map(lambda number: f"--sparsities=0.5,{number}"),
    st.tuples(st.sampled_from(["--preset=x", "--experiment=x"]), WORD).map("".join),
    st.tuples(st.sampled_from(["--dry_run=x", "--tensorboard=x"]), WORD).map("".join),
)


def test_flags(ask, tmp_path):
    """Were the flag no trouble, the missing parent would be, which nothing else here may be mistaken for."""
    refused = set()

    @settings(max_examples=1100, **FUZZ)
    @given(flag=FLAGS)
    def check(flag):
        answer = ask("train", f"--workdir={tmp_path / 'runs'}", "--preset=digits", "--experiment=sup_one_shot", flag)
        assert_refused(answer, flag)
        assert "is missing; train it first" not in answer[2], flag
        assert not list(tmp_path.iterdir())
        refused.add(flag)

    check()
    assert len(refused) > 900


@pytest.fixture(scope="module")
def study(make_config, dataset, tmp_path_factory):
    """A finished and measured run."""
    workdir = tmp_path_factory.mktemp("fuzz") / "runs"
    trained = run(make_config("sup_dense"), dataset, workdir)
    evaluate(trained, dataset, workdir / "sup_dense")
    (workdir / "sup_dense/metrics.jsonl").write_text('{"stage": "sup", "step": 8, "loss": [1.0, 1.0]}\n')
    return workdir


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=5,
)
HARMS = st.one_of(
    st.tuples(st.just("cut"), st.floats(0, 0.99)),
    st.tuples(st.just("flip"), st.floats(0, 1), st.integers(1, 255)),
    st.tuples(st.just("insert"), st.floats(0, 1), st.binary(min_size=1, max_size=8)),
    st.tuples(st.just("replace"), st.binary(max_size=60)),
    st.tuples(st.just("value"), st.floats(0, 1), JSON),
)


def harm(content, kind, *rest):
    if kind == "replace":
        return rest[0]
    where = min(int(rest[0] * len(content)), len(content) - 1)
    if kind == "cut":
        return content[:where]
    if kind == "flip":
        return content[:where] + bytes([content[where] ^ rest[1]]) + content[where + 1 :]
    if kind == "insert":
        return content[:where] + rest[1] + content[where:]
    try:
        tree = json.loads(content)
    except ValueError:
        return content[:where]
    places = list(all_places(tree))
    holder, key = places[min(int(rest[0] * len(places)), len(places) - 1)]
    holder[key] = rest[1]
    return json.dumps(tree).encode()


def all_places(node):
    for key in node if isinstance(node, dict) else range(len(node)):
        yield node, key
        if isinstance(node[key], (dict, list)):
            yield from all_places(node[key])


def test_files(ask, study):
    """What is harmed is refused, or did not matter; nothing is changed, and no traceback seen."""
    refused = set()

    @settings(max_examples=250, **FUZZ)
    @given(
        name=st.sampled_from(["config.json", "provenance.json", "measures/predictions.npz"]),
        harmed=HARMS,
        script=st.sampled_from(["evaluate", "report"]),
    )
    def check(name, harmed, script):
        path = study / "sup_dense" / name
        whole = path.read_bytes()
        try:
            path.write_bytes(harm(whole, *harmed))
            before = files(study)
            answer = ask(script, f"--workdir={study}")
            if answer[0] == 0:
                assert "Traceback" not in answer[2]
                shutil.rmtree(study / "report", ignore_errors=True)
            else:
                assert_refused(answer, (name, harmed))
                refused.add((script, name, path.read_bytes()))
            assert files(study) == before
        finally:
            path.write_bytes(whole)

    check()
    assert len(refused) > 100
