"""Rules about the source itself."""

import ast
from pathlib import Path

import numpy as np
import pytest

import prunejax
from prunejax.evaluate import Measures
from prunejax.report import Published, table_1

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


def measures(predictions, sparsities):
    predictions = np.array(predictions, np.int32)
    scores = np.zeros(predictions.shape, np.float32)
    seeds = np.arange(len(predictions), dtype=np.int32)
    return Measures(
        predictions,
        np.array([0, 1, 1, 0], np.int32),
        seeds,
        np.array(sparsities, np.float32),
        q=scores,
        z=scores,
        l1=scores,
        class_names=np.array(["a", "b"]),
        data_checksum=np.array("x"),
    )


def test_table_1_counts_pies_and_accuracy_beside_the_published_numbers():
    study = {
        "sup_dense": measures([[0, 1, 1, 0], [0, 1, 1, 0], [0, 1, 1, 1]], [0, 0, 0]),
        "sup_gmp": measures([[0, 1, 1, 0]] * 3 + [[1, 0, 1, 0], [1, 0, 1, 0], [0, 1, 1, 0]], [0.3] * 3 + [0.9] * 3),
    }
    published = Published(
        (0.0, 0.9), {m: [(90.0, 0.3), (80.0, 0.4)] for m in METHODS}, {m: [None, 7] for m in METHODS}, (None, 5)
    )
    table = table_1(study, published)
    assert [row[:3] for row in table.rows] == [
        ["0", "-", "91.67 ± 11.79 (90.0)"],
        ["30", "0", "100.00 ± 0.00"],
        ["90", "2 (7)", "66.67 ± 23.57 (80.0)"],
    ]
    assert table.rows[2][5:7] == ["not run (7)", "not run (80.0)"]
    assert table.markdown().count("\n| ") == 5
    assert {len(row) for row in table.rows} == {len(table.header)}


METHODS = ("sup_gmp", "sup_one_shot", "scl_gmp", "scl_delayed_gmp", "scl_one_shot")
