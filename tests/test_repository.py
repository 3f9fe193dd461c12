"""Rules about the source itself."""

import ast
import importlib
import inspect
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


def package_of(module):
    """The package in `prunejax.package.module`, or None for other modules."""
    parts = module.split(".")
    return parts[1] if parts[0] == "prunejax" and len(parts) > 1 else None


def relative(path):
    return str(path.relative_to(PACKAGE))


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_imports_run_only_down_the_list_of_packages(path):
    package = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if package == "__init__":
        return
    allowed = prunejax.PACKAGES[: prunejax.PACKAGES.index(package) + 1]
    if package == "config":
        allowed = ("config",)
    if package == "registry":
        allowed = ("config", "registry")
    found = {package_of(module) for module in imported_modules(path)} & {*prunejax.PACKAGES}
    assert found <= set(allowed)


def test_every_module_is_in_a_package():
    packages = {path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in SOURCES}
    assert packages == {*prunejax.PACKAGES, "__init__"}


@pytest.mark.parametrize("package", prunejax.PACKAGES)
def test_every_package_says_what_it_is_for(package):
    path = PACKAGE / package / "__init__.py"
    if path.parent.is_dir():
        assert ast.get_docstring(ast.parse(path.read_text())).startswith(f"Package `{package}`")


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
    "methods": ["cross_entropy", "supcon"],
    "pruning": [
        "polynomial_schedule",
        "is_prune_step",
        "init_masks",
        "apply_masks",
        "sparsity",
        "layerwise_masks",
        "global_masks",
    ],
    "measures": [
        "accuracy",
        "modal_class",
        "pruning_identified_exemplars",
        "q_score",
        "knn_predict",
        "prediction_depth",
    ],
    "nn": ["WideResNet", "make_networks"],
}
"""Functions and classes by the package that they are imported from."""
REGISTRIES = {
    "data": ["SOURCES"],
    "nn": ["ARCHITECTURES"],
    "methods": ["METHODS"],
    "pruning": ["SCORES", "ALLOCATIONS"],
    "measures": ["MEASURES"],
}


def discover_all_registries():
    """Imports every module with an entry, which sets the module's name in its package."""
    for package, names in REGISTRIES.items():
        for name in names:
            assert list(getattr(getattr(prunejax, package), name))


@pytest.mark.parametrize("package", PUBLIC)
def test_public_names_are_functions_and_classes_of_their_packages(package):
    """And no modules of the same name, also after all entries were looked up."""
    module = importlib.import_module(f"prunejax.{package}")
    before = {name: getattr(module, name) for name in PUBLIC[package]}
    discover_all_registries()
    for name, public in before.items():
        assert inspect.isfunction(public) or inspect.isclass(public)
        assert public.__module__.startswith(f"prunejax.{package}.")
        assert getattr(module, name) is public
        assert name in module.__all__


def test_a_population_is_run_and_loaded_by_functions_of_prunejax():
    discover_all_registries()
    for name in ("run", "load_population"):
        public = getattr(prunejax, name)
        assert inspect.isfunction(public)
        assert public.__module__.startswith("prunejax.runs.")
        assert name in prunejax.__all__


@pytest.mark.parametrize("package", prunejax.PACKAGES)
def test_what_a_package_exports_is_there_and_no_module(package):
    module = importlib.import_module(f"prunejax.{package}")
    discover_all_registries()
    for name in getattr(module, "__all__", ()):
        assert not inspect.ismodule(getattr(module, name)), name
