"""A damaged checkpoint costs at most itself: it is renamed, never deleted, and said in one line."""

import json
import random
import re
import shutil
import warnings

import jax
import numpy as np
import pytest
from test_checkpoint import assert_equal, files

from prunejax import runs
from prunejax.config import UserError, override, to_json
from prunejax.runs import checkpoint, manager, note

CANCELLED = (
    "ignore::pytest.PytestUnraisableExceptionWarning"  # Orbax's other reads, after one failed
)
SEED = random.randrange(10**6)


@pytest.fixture(scope="module")
def config(make_config):
    """One model of eight steps, whose last two checkpoints are kept."""
    config = make_config("sup_dense", models=1, log_every_steps=1)
    return override(config, ["checkpoint.every_steps=1"])


@pytest.fixture(scope="module")
def finished(config, dataset, tmp_path_factory):
    """A finished run that kept steps 7 and 8."""
    run_dir = tmp_path_factory.mktemp("finished") / "run"
    runs.run(config, dataset, run_dir)
    return run_dir


@pytest.fixture
def run_dir(finished, tmp_path):
    """A copy of it."""
    return shutil.copytree(finished, tmp_path / "run")


def load(run_dir):
    """The population, and the warnings of damage."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        restored = runs.load_population(run_dir)
    messages = [str(warning.message) for warning in caught]
    return restored, [message for message in messages if "damaged" in message]


def fell_back(run_dir, whole):
    """Whether checkpoint 7 is taken instead of 8; else the harm must not matter."""
    restored, warned = load(run_dir)
    if restored.step == 8:
        assert_equal(restored.state, whole.state)
        assert restored.damaged == ()
        return False
    assert (restored.step, restored.damaged) == (7, (8,))
    (message,) = warned
    assert "\n" not in message
    assert re.search(r"checkpoint 8 is damaged .*; checkpoint 7 is taken instead", message)
    return True


BITS = random.Random(SEED)


def harmed(content, harm, bits=BITS):
    content = bytearray(content)
    if harm == "truncated":
        return content[: len(content) // 2]
    if harm == "flipped":
        content[bits.randrange(len(content))] ^= 1 << bits.randrange(8)
        return content
    return b""


# ------------------------------------------------------------------------------ what is damage


@pytest.mark.filterwarnings(CANCELLED)
@pytest.mark.parametrize("harm", ["truncated", "emptied", "missing", "flipped"])
def test_harm_to_any_file_of_a_checkpoint_costs_at_most_that_checkpoint(finished, tmp_path, harm):
    print("seed of the bits:", SEED)
    whole, costly = runs.load_population(finished), set()
    names = [path.relative_to(finished) for path in files(finished / "checkpoints" / "8")]
    for index, name in enumerate(names):
        run_dir = shutil.copytree(finished, tmp_path / str(index))
        path = run_dir / name
        path.unlink() if harm == "missing" else path.write_bytes(harmed(path.read_bytes(), harm))
        if fell_back(run_dir, whole):
            costly.add("/".join(name.parts[2:4]))
    if harm != "flipped":  # a bit may lie where nothing reads it
        assert {"note/metadata", "state/_METADATA", "state/d", "state/manifest.ocdbt"} <= costly


@pytest.mark.filterwarnings(CANCELLED)
def test_a_flipped_bit_of_a_note_is_damage_and_an_edited_configuration_is_not(
    finished, run_dir, config
):
    print("seed of the bits:", SEED)
    whole, bits = runs.load_population(finished), random.Random(SEED)
    path = run_dir / "checkpoints" / "8" / "note" / "metadata"
    content = path.read_bytes()
    assert json.loads(content)["format"] == 4
    for _ in range(20):
        path.write_bytes(harmed(content, "flipped", bits))
        fell_back(run_dir, whole)
    changed = content.replace(b'\\"models\\": 1', b'\\"models\\": 3')
    assert changed != content
    path.write_bytes(changed)
    assert fell_back(run_dir, whole)

    path.write_bytes(content)
    (run_dir / "config.json").write_text(to_json(override(config, ["models=3"])))
    with pytest.raises(UserError, match=r"checkpoint 8 is of other settings than config\.json"):
        runs.load_population(run_dir)


@pytest.mark.filterwarnings(CANCELLED)
def test_training_renames_a_damaged_checkpoint_and_trains_its_steps_again(
    finished, run_dir, config, dataset
):
    whole = runs.load_population(finished)
    directory = run_dir / "checkpoints"
    for name in ("8.damaged", "8.damaged.again"):
        shutil.rmtree(directory / "8" / "state")
        before = files(directory / "8")
        load(run_dir)  # which changes nothing
        assert files(directory / "8") == before
        with pytest.warns(UserWarning, match=r"checkpoint 8 is damaged .* renamed <step>.damaged$"):
            assert runs.run(config, dataset, run_dir).finished
        assert (directory / name / "note").exists()
        assert_equal(runs.load_population(run_dir).state, whole.state)


@pytest.mark.filterwarnings(CANCELLED)
def test_without_a_checkpoint_that_can_be_restored_it_is_refused(run_dir):
    for step in ("7", "8"):
        shutil.rmtree(run_dir / "checkpoints" / step / "state")
    message = r"no checkpoint can be restored: checkpoint 8 \(.*; checkpoint 7 \("
    with pytest.raises(UserError, match=message):
        runs.load_population(run_dir)


# -------------------------------------------------------------------------- what is no damage


def unreadable(error):
    def read(reader, step):
        raise error

    return read


@pytest.mark.filterwarnings(CANCELLED)
@pytest.mark.parametrize(
    "error",
    [
        KeyError("AxisType.Auto"),
        ValueError("Unknown type: it was written by another version"),
        TypeError("missing argument"),
        MemoryError(),
    ],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("where", ["read_arrays", "read_note"])
def test_where_no_checkpoint_can_be_restored_nothing_is_renamed(
    config, dataset, run_dir, monkeypatch, error, where
):
    """As under another version of a library, or without memory."""
    monkeypatch.setattr(note, where, unreadable(error))
    before = files(run_dir)
    for call in (runs.load_population, lambda path: runs.run(config, dataset, path)):
        with pytest.raises(UserError) as caught:
            call(run_dir)
        message = str(caught.value)
        assert "\n" not in message
        if isinstance(error, MemoryError):
            assert message.endswith("checkpoint 8 cannot be read: out of memory")
        else:
            assert "no checkpoint can be restored: checkpoint 8 (" in message
            assert type(error).__name__ in message
    assert files(run_dir) == before


def test_a_file_that_the_disk_refuses_is_no_damage(run_dir, monkeypatch, config, dataset):
    """Root may read everything, so the refusal is put in place of the reading."""
    from etils import epath

    refused = run_dir / "checkpoints" / "8" / "state" / "_METADATA"
    read_bytes = epath.Path(refused).__class__.read_bytes

    def read(path):
        if path.name == refused.name:
            raise PermissionError(13, "Permission denied", str(path))
        return read_bytes(path)

    monkeypatch.setattr(note, "read_arrays", unreadable(ValueError("PERMISSION_DENIED")))
    monkeypatch.setattr(epath.Path(refused).__class__, "read_bytes", read)
    before = files(run_dir)
    with pytest.raises(UserError, match=r"checkpoint 8 cannot be read: Permission denied$"):
        runs.run(config, dataset, run_dir)
    monkeypatch.undo()
    assert files(run_dir) == before


def rewritten(run_dir, config, change):
    """A run whose checkpoint 8 was written by us, after a change of its state."""
    state = jax.tree.map(np.array, runs.load_population(run_dir).state)
    shutil.rmtree(run_dir / "checkpoints" / "8")
    with manager.open_manager(run_dir, config, resume_at=7) as writer:
        checkpoint.save(writer, config, 8, change(state))
    return run_dir


def test_arrays_of_another_dtype_or_shape_are_no_damage(run_dir, config):
    def widen(state):
        return state.replace(failed_at=state.failed_at.astype(np.int64))

    before = files(rewritten(run_dir, config, widen))
    message = r"has failed_at of int64 \[1\] where these settings make int32 \[1\]"
    with pytest.raises(UserError, match=message):
        runs.load_population(run_dir)
    assert files(run_dir) == before


def test_arrays_of_another_structure_are_no_damage(run_dir, config):
    def extend(state):
        return state.replace(params=state.params | {"second_head": {"bias": np.zeros((1, 3))}})

    before = files(rewritten(run_dir, config, extend))
    message = r"other arrays than these settings make \(params/second_head/bias\)"
    with pytest.raises(UserError, match=message):
        runs.load_population(run_dir)
    assert files(run_dir) == before


def test_what_training_removes_while_it_is_read_is_not_missed(run_dir, tmp_path, monkeypatch):
    """Checkpoint 7 goes and 8 comes in the moment in which 7 is being read."""
    directory = run_dir / "checkpoints"
    shutil.move(directory / "8", tmp_path / "8")

    def read(reader, step):
        if step == 7:
            shutil.rmtree(directory / "7")
            shutil.move(tmp_path / "8", directory / "8")
        return manager.read_arrays(reader, step)

    monkeypatch.setattr(note, "read_arrays", read)
    restored, warned = load(run_dir)
    assert (restored.step, restored.damaged, warned) == (8, (), [])


# --------------------------------------------------------- the first checkpoint is a trial


def test_the_first_checkpoint_is_read_back_before_anything_is_trained(
    config, dataset, tmp_path, monkeypatch
):
    monkeypatch.setattr(note, "read_arrays", unreadable(ValueError("other bytes")))
    reported = []
    start = runs.begin(config, dataset, tmp_path / "run")
    with pytest.raises(UserError, match="checkpoint 0 was written and cannot be read back"):
        runs.train(start, on_report=reported.append)
    assert not reported
