"""The registry: entries are found by name, without a list of them."""

import importlib
import itertools
import subprocess
import sys
from typing import NamedTuple

import pytest

from prunejax.config import UserError
from prunejax.registry import Registry


class Colour(NamedTuple):
    """An entry."""

    name: str
    value: int


COUNTER = itertools.count()
"""Python imports a package of one name once."""
ENTRY = """
from typing import NamedTuple
from {room}.entry import COLOURS

class Colour(NamedTuple):
    name: str
    value: int

COLOURS.add(Colour({name!r}, {value}))
"""


@pytest.fixture
def make_package(tmp_path, monkeypatch):
    """`make_package({file: colour})`: the registry of a new package with an entry in each file."""
    monkeypatch.syspath_prepend(tmp_path)

    def make(colours):
        room = f"room_of_colours_{next(COUNTER)}"
        package = tmp_path / room
        package.mkdir()
        (package / "__init__.py").write_text("")
        (package / "entry.py").write_text(
            f"from prunejax.registry import Registry\nCOLOURS = Registry('colour', {room!r})\n"
        )
        for value, (file, name) in enumerate(colours.items()):
            text = ENTRY.format(room=room, name=name, value=value)
            (package / f"{file}.py").write_text(text)
        importlib.invalidate_caches()
        return importlib.import_module(f"{room}.entry").COLOURS

    return make


def test_entries_of_the_package_are_found_without_a_list(make_package):
    colours = make_package({"sea": "blue", "grass": "green"})
    assert colours["blue"].value == 0
    assert colours["green"].value == 1
    assert "blue" in colours
    assert "red" not in colours


def test_nothing_is_imported_before_the_first_look_up(make_package):
    colours = make_package({"sea": "blue"})
    module = f"{colours._package}.sea"
    assert module not in sys.modules
    assert list(colours) == ["blue"]
    assert module in sys.modules


def test_names_are_in_the_order_of_the_files_and_outsiders_come_last(make_package):
    colours = make_package({"b": "blue", "c": "amber", "a": "white"})
    added_before_the_look_up = colours.add(Colour("pink", 7))
    assert list(colours) == ["white", "blue", "amber", "pink"]
    colours.add(Colour("lilac", 8))
    assert list(colours) == ["white", "blue", "amber", "pink", "lilac"]
    assert [colour.value for colour in colours.values()] == [2, 0, 1, 7, 8]
    assert colours["pink"] is added_before_the_look_up


def test_an_unknown_name_is_answered_with_the_nearest_and_all(make_package):
    colours = make_package({"sea": "blue", "grass": "green"})
    with pytest.raises(UserError) as refused:
        colours["gren"]
    message = str(refused.value)
    assert message.startswith("no colour 'gren'; did you mean 'green'? There are: green, blue")
    assert "\n" not in message
    with pytest.raises(UserError, match="no colour 'xyz'; There are"):
        colours["xyz"]


def test_a_name_of_two_modules_is_refused_with_both(make_package):
    colours = make_package({"sea": "blue"})
    assert list(colours) == ["blue"]
    with pytest.raises(UserError) as refused:
        colours.add(Colour("blue", 5))
    message = str(refused.value)
    assert "colour 'blue' is registered twice" in message
    assert f"by {colours._package}.sea and by {__name__}" in message
    assert colours["blue"].value == 0


def test_two_files_of_the_package_cannot_share_a_name(make_package):
    colours = make_package({"sea": "blue", "sky": "blue"})
    with pytest.raises(UserError, match=r"\.sea and by .*\.sky"):
        list(colours)


def test_a_module_that_is_imported_again_replaces_its_entry():
    colours = Registry("colour", "prunejax.data")
    colours.add(Colour("blue", 1))
    colours.add(Colour("blue", 2))
    assert colours["blue"].value == 2


BUILT_IN = [
    ("prunejax.data", "SOURCES", {"arrays", "digits", "tfds"}),
    ("prunejax.nn", "ARCHITECTURES", {"resnet", "wide_resnet"}),
    ("prunejax.methods", "METHODS", {"cross_entropy", "simclr", "supcon"}),
    ("prunejax.pruning", "SCORES", {"magnitude", "random", "saliency"}),
    ("prunejax.pruning", "ALLOCATIONS", {"2:4", "erk", "global", "layerwise"}),
    (
        "prunejax.measures",
        "MEASURES",
        {"calibration", "depth", "mean_quality", "predictions", "purity", "quality", "umap"},
    ),
]


@pytest.mark.parametrize(("room", "registry", "names"), BUILT_IN)
def test_the_rooms_know_their_built_in_entries(room, registry, names):
    entries = getattr(importlib.import_module(room), registry)
    assert names <= set(entries)
    for name in entries:
        assert entries[name].name == name


SLOW = ("sklearn", "scipy", "matplotlib", "umap", "tensorflow_datasets")


def test_looking_up_a_data_source_imports_nothing_slow():
    script = (
        "import sys; from prunejax.data import SOURCES; list(SOURCES); "
        f"print(sorted(set({SLOW}) & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")
