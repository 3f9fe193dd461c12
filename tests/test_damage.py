"""Only what is proved to be damage is called so and thrown away; nothing else is."""

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
from prunejax.runs import checkpoint, damage, manager, note

CANCELLED = "ignore::pytest.PytestUnraisableExceptionWarning"  # of Orbax's reads, once one failed


@pytest.fixture(scope="module")
def config(make_config):
    """One model of eight steps, whose last two checkpoints are kept."""
    config = make_config("sup_dense", models=1, log_every_steps=1)
    return override(config, ["checkpoint.every_steps=1"])


@pytest.fixture(scope="module")
def recorded(config, dataset, tmp_path_factory):
    """A finished run that kept steps 7 and 8, each with a record of its files."""
    run_dir = tmp_path_factory.mktemp("recorded") / "run"
    runs.run(config, dataset, run_dir)
    return run_dir


@pytest.fixture(scope="module")
def unrecorded(recorded, tmp_path_factory):
    """The same as a killed process leaves it, or an older version: without the records."""
    run_dir = tmp_path_factory.mktemp("unrecorded") / "run"
    shutil.copytree(recorded, run_dir)
    for step in (7, 8):
        (run_dir / "checkpoints" / str(step) / damage.RECORD).unlink()
    return run_dir


def load(run_dir):
    """The population, and what was warned of damage."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        restored = runs.load_population(run_dir)
    told = [str(warning.message) for warning in caught]
    return restored, [message for message in told if "damaged" in message]


def assert_fell_back(run_dir, whole):
    """Or the harm does not matter. Returns whether it did fall back."""
    restored, warned = load(run_dir)
    if restored.step == 8:
        assert_equal(restored.state, whole.state)
        assert restored.damaged == ()
        return False
    assert (restored.step, restored.damaged) == (7, (8,))
    (message,) = warned
    assert re.search(r"checkpoint 8 is damaged .*; checkpoint 7 is taken instead", message)
    return True


def harmed(content, harm):
    content = bytearray(content)
    if harm == "truncated":
        return content[: len(content) // 2]
    if harm == "flipped":
        content[len(content) // 2] ^= 0xFF
        return content
    return b""


# ------------------------------------------------------------------------------ what is damage


def test_every_checkpoint_has_a_record_of_its_files(recorded):
    for step in ("7", "8"):
        step_dir = recorded / "checkpoints" / step
        names = {str(path.relative_to(step_dir)) for path in files(step_dir)}
        assert damage._read_record(step_dir).keys() == names - {damage.RECORD}
        assert {"note/metadata", "state/_METADATA", "state/manifest.ocdbt"} <= names


@pytest.mark.filterwarnings(CANCELLED)
@pytest.mark.parametrize("harm", ["truncated", "emptied", "missing", "flipped"])
def test_without_a_record_too_the_damage_of_every_file_is_seen(unrecorded, tmp_path, harm):
    whole, fell_back = runs.load_population(unrecorded), []
    names = [path.relative_to(unrecorded) for path in files(unrecorded / "checkpoints" / "8")]
    for index, name in enumerate(names):
        run_dir = tmp_path / str(index)
        shutil.copytree(unrecorded, run_dir)
        path = run_dir / name
        path.unlink() if harm == "missing" else path.write_bytes(harmed(path.read_bytes(), harm))
        if assert_fell_back(run_dir, whole):
            fell_back.append("/".join(name.parts[2:4]))
    assert {"note/metadata", "state/_METADATA", "state/d", "state/manifest.ocdbt"} <= {*fell_back}


@pytest.mark.filterwarnings(CANCELLED)
def test_a_flipped_bit_of_a_note_is_damage_and_an_edited_configuration_is_not(
    unrecorded, tmp_path, config
):
    whole, seed = runs.load_population(unrecorded), random.randrange(10**6)
    print("seed of the bits:", seed)
    bits = random.Random(seed)
    shutil.copytree(unrecorded, tmp_path / "run")
    path = tmp_path / "run" / "checkpoints" / "8" / "note" / "metadata"
    content = path.read_bytes()
    assert json.loads(content)["format"] == 4
    for _ in range(20):
        flipped = bytearray(content)
        flipped[bits.randrange(len(content))] ^= 1 << bits.randrange(8)
        path.write_bytes(flipped)
        assert_fell_back(tmp_path / "run", whole)
    changed = content.replace(b'\\"models\\": 1', b'\\"models\\": 3')
    assert changed != content
    path.write_bytes(changed)
    assert assert_fell_back(tmp_path / "run", whole)

    path.write_bytes(content)
    (tmp_path / "run" / "config.json").write_text(to_json(override(config, ["models=3"])))
    with pytest.raises(UserError, match=r"checkpoint 8 is of other settings than config\.json"):
        runs.load_population(tmp_path / "run")


@pytest.mark.filterwarnings(CANCELLED)
def test_a_damaged_record_loses_nothing(recorded, tmp_path):
    shutil.copytree(recorded, tmp_path / "run")
    whole = runs.load_population(recorded)
    step_dir = tmp_path / "run" / "checkpoints" / "8"
    path = step_dir / damage.RECORD
    content = path.read_text()
    for text in ("", content[:99], content.replace('"size": ', '"size": 1'), "[]", "null"):
        path.write_text(text)
        assert damage._read_record(step_dir) is None
        assert not assert_fell_back(tmp_path / "run", whole)
    (step_dir / "state" / "_METADATA").write_text("{")
    assert assert_fell_back(tmp_path / "run", whole)


# -------------------------------------------------------------------------- what is no damage


def unreadable(error):
    def read(reader, step):
        raise error

    return read


ERRORS = [
    MemoryError(),
    RuntimeError("RESOURCE_EXHAUSTED: Out of memory"),
    ImportError("no module of an extra"),
    KeyError("AxisType.Auto"),
    ValueError("Unknown type: it was written by another version"),
    TypeError("missing argument"),
    AssertionError(),
    FileNotFoundError(2, "No such file or directory"),
    PermissionError(13, "Permission denied"),
    OSError(5, "Input/output error"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("where", ["read_arrays", "read_note"])
def test_what_may_have_another_cause_is_not_called_damage_and_nothing_is_thrown_away(
    config, dataset, recorded, unrecorded, monkeypatch, error, where
):
    monkeypatch.setattr(note, where, unreadable(error))
    for run_dir in (recorded, unrecorded):
        before = files(run_dir)
        for call in (runs.load_population, lambda path: runs.run(config, dataset, path)):
            with pytest.raises(UserError, match="checkpoint 8 cannot be read") as caught:
                call(run_dir)
            message = str(caught.value)
            assert "is damaged (" not in message
            assert message.count("\n") == 0
            says_why = getattr(error, "strerror", None) or type(error).__name__
            assert says_why in message or "leave the directory as it is" in message
        assert files(run_dir) == before


@pytest.mark.filterwarnings(CANCELLED)
def test_an_error_that_looks_like_damage_is_none_where_every_file_is_as_it_was(
    recorded, monkeypatch
):
    error = ValueError("DATA_LOSS: Error decoding manifest")
    monkeypatch.setattr(note, "read_arrays", unreadable(error))
    with pytest.raises(UserError, match=r"cannot be read \(ValueError: DATA_LOSS.*leave the dir"):
        runs.load_population(recorded)


def rewritten(unrecorded, tmp_path, config, change):
    """A run whose checkpoint 8 was written whole, after a change of its state."""
    shutil.copytree(unrecorded, tmp_path / "run")
    state = jax.tree.map(np.array, runs.load_population(unrecorded).state)
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "8")
    with manager.open_manager(tmp_path / "run", config, resume_at=7) as writer:
        checkpoint.save(writer, config, 8, change(state))
    return tmp_path / "run"


def test_arrays_of_another_dtype_or_shape_are_no_damage(unrecorded, tmp_path, config):
    def widen(state):
        return state.replace(failed_at=state.failed_at.astype(np.int64))

    run_dir = rewritten(unrecorded, tmp_path, config, widen)
    before = files(run_dir)
    told = r"has failed_at of int64 \[1\] where these settings make int32 \[1\]"
    with pytest.raises(UserError, match=told):
        runs.load_population(run_dir)
    assert files(run_dir) == before


def test_arrays_of_another_structure_are_no_damage(unrecorded, tmp_path, config):
    def extend(state):
        return state.replace(params=state.params | {"second_head": {"bias": np.zeros((1, 3))}})

    run_dir = rewritten(unrecorded, tmp_path, config, extend)
    before = files(run_dir)
    told = r"not those of these settings: params/second_head/bias\), and nothing shows"
    with pytest.raises(UserError, match=told):
        runs.load_population(run_dir)
    assert files(run_dir) == before


@pytest.mark.filterwarnings(CANCELLED)
def test_parts_that_were_never_brought_together_are_no_damage(unrecorded, tmp_path):
    """As versions before left them where the path has a bracket: the numbers are all there."""
    shutil.copytree(unrecorded, tmp_path / "run")
    whole = runs.load_population(unrecorded)
    for step in ("7", "8"):
        state = tmp_path / "run" / "checkpoints" / step / "state"
        shutil.rmtree(state / "d")
        (state / "manifest.ocdbt").unlink()
    with pytest.raises(UserError, match=r"checkpoint 8 cannot be read .* nothing shows"):
        runs.load_population(tmp_path / "run")
    for step in ("7", "8"):
        state = tmp_path / "run" / "checkpoints" / step / "state"
        shutil.copytree(state / "ocdbt.process_0", state, dirs_exist_ok=True)
    assert_equal(runs.load_population(tmp_path / "run").state, whole.state)


def test_what_training_removes_while_it_is_read_is_not_missed(recorded, tmp_path, monkeypatch):
    """Checkpoint 7 goes and 8 comes in the moment in which 7 is being read."""
    shutil.copytree(recorded, tmp_path / "run")
    directory = tmp_path / "run" / "checkpoints"
    shutil.move(directory / "8", tmp_path / "8")

    def read(reader, step):
        if step == 7:
            shutil.rmtree(directory / "7")
            shutil.move(tmp_path / "8", directory / "8")
        return manager.read_arrays(reader, step)

    monkeypatch.setattr(note, "read_arrays", read)
    restored, warned = load(tmp_path / "run")
    assert (restored.step, restored.damaged, warned) == (8, (), [])
