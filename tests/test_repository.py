"""Rules about the source itself."""

import ast
from pathlib import Path

import pytest

import prunejax

PACKAGE = Path(prunejax.__file__).parent
SOURCES = sorted(PACKAGE.rglob("*.py"))


def imported_modules(path):
    """Every module of the package that a file imports, at its top or within functions."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def room_of(module):
    """The room of `prunejax.room.module`, or None for other modules."""
    parts = module.split(".")
    return parts[1] if parts[0] == "prunejax" and len(parts) > 1 else None


def relative(path):
    return str(path.relative_to(PACKAGE))


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_imports_run_only_down_the_list_of_rooms(path):
    room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if room in ("__init__", *prunejax.PUBLIC):
        return
    allowed = prunejax.ROOMS[: prunejax.ROOMS.index(room) + 1]
    if room == "config":
        allowed = ("config",)
    if room == "registry":
        allowed = ("config", "registry")
    found = {room_of(module) for module in imported_modules(path)} & {*prunejax.ROOMS}
    assert found <= set(allowed)


def test_every_module_is_in_a_room():
    rooms = {path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in SOURCES}
    assert rooms == {*prunejax.ROOMS, *prunejax.PUBLIC, "__init__"}


@pytest.mark.parametrize("room", prunejax.ROOMS)
def test_every_room_says_what_it_is_for(room):
    path = PACKAGE / room / "__init__.py"
    if path.parent.is_dir():
        assert ast.get_docstring(ast.parse(path.read_text())).startswith(f"Room `{room}`")


def test_the_package_knows_nothing_of_the_scripts():
    for path in SOURCES:
        assert not any(module.startswith("experiments") for module in imported_modules(path))


ENTRIES = [
    "methods/simclr.py",
    "pruning/random_score.py",
    "pruning/saliency.py",
    "pruning/erk.py",
    "pruning/n_of_m.py",
    "data/arrays.py",
    "nn/resnet.py",
    "measures/calibration.py",
]
"""Each was added by this file and its test alone."""


@pytest.mark.parametrize("entry", ENTRIES)
def test_an_entry_is_one_file_that_no_other_knows(entry):
    module = "prunejax." + entry.removesuffix(".py").replace("/", ".")
    for path in SOURCES:
        if path != PACKAGE / entry:
            assert module not in imported_modules(path), path


def test_lines_and_files_stay_readable():
    """A file is one concept: 100 columns, and about 300 lines."""
    for path in [*SOURCES, *(PACKAGE.parent / "experiments").rglob("*.py")]:
        lines = [line.split("  # noqa")[0] for line in path.read_text().splitlines()]
        assert max(map(len, lines), default=0) <= 100, path
        assert len(lines) <= 400, path


PUBLIC = {
    "losses": ["cross_entropy", "supcon"],
    "prune": [
        "polynomial_schedule",
        "is_prune_step",
        "init_masks",
        "apply_masks",
        "sparsity",
        "layerwise_masks",
        "global_masks",
    ],
    "metrics": ["accuracy", "modal_class", "pruning_identified_exemplars", "q_score"],
    "neighbors": ["knn_predict", "prediction_depth"],
    "models": ["WideResNet"],
}


@pytest.mark.parametrize("module", PUBLIC)
def test_public_names_are_those_of_the_rooms(module):
    for name in PUBLIC[module]:
        public = getattr(getattr(prunejax, module), name)
        assert public.__module__.startswith("prunejax.")
        assert public.__module__ != f"prunejax.{module}"
    assert callable(prunejax.run)
    assert callable(prunejax.load_population)
