"""Rules about the source itself."""

import ast
from pathlib import Path

import pytest

import prunejax

PACKAGE = Path(prunejax.__file__).parent


def imported_rooms(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "prunejax":
            names = [node.module.split(".")[1]] if "." in node.module else [alias.name for alias in node.names]
            yield from (name for name in names if name in prunejax.ROOMS)
        if isinstance(node, ast.Import):
            assert not any(alias.name.startswith("prunejax.") for alias in node.names)


@pytest.mark.parametrize("room", prunejax.ROOMS)
def test_imports_run_only_down_the_list_of_rooms(room):
    earlier = prunejax.ROOMS[: prunejax.ROOMS.index(room)]
    assert set(imported_rooms(PACKAGE / f"{room}.py")) <= set(earlier)


def test_every_module_is_a_room():
    assert {path.stem for path in PACKAGE.glob("*.py")} == {*prunejax.ROOMS, "__init__"}


def test_the_package_knows_nothing_of_the_scripts():
    for path in PACKAGE.glob("*.py"):
        assert "import experiments" not in path.read_text()
        assert "from experiments" not in path.read_text()
