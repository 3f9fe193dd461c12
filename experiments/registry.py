"""`--study`: from a name to the experiments of a study."""

import importlib
import os
import pkgutil
import re
import sys
import traceback
from collections.abc import Callable, Sequence

from experiments import studies
from prunejax.config import Experiment, Sweep, UserError, expand
from prunejax.config.settings import Start

BUILT_IN = sorted(module.name for module in pkgutil.iter_modules(studies.__path__))
"""The studies that need no `module:`."""


def load_study(name: str, starts: tuple[Start, ...] | None = None) -> list[Experiment]:
    """The experiments of a study, each dense parent before its children.

    Args:
        name: a module of `experiments.studies` with a function of the same name, or
            `module:function` of a module that is found from the current directory. Importing it
            may add plug-ins (methods, scores, measures, ...) to the registries of the package.
            Several, separated by commas, are one study: what two of them have is in it once.
        starts: the start steps of its sweeps; None leaves them as the study has them.

    Raises:
        UserError: if it cannot be imported, does not return experiments that fit together, or has
            no sweep that could take the `starts`.
    """
    joined: dict[str, Experiment] = {}
    has_sweep = False
    for part in name.split(","):
        where = f"--study={part}"
        study = []
        for one in _load(part, where):
            has_sweep |= isinstance(one, Sweep)
            if isinstance(one, Sweep) and starts is not None:
                one = one._replace(starts=starts)
            study.append(one)
        experiments = expand(study)
        _check(experiments, where)
        for experiment in experiments:
            if joined.setdefault(experiment.name, experiment) != experiment:
                raise UserError(
                    f"--study={name}: {part!r} has another experiment {experiment.name!r} than "
                    "those before it; rename one"
                )
    if starts is not None and not has_sweep:
        raise UserError(
            f"--starts: no experiment of --study={name} has several start steps; name a study that "
            "has, for instance --study=when"
        )
    return list(joined.values())


def _load(name: str, where: str) -> Sequence[Experiment | Sweep]:
    function = _find(name, where)
    try:
        experiments = function()
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{where}: {_message(error)}") from None
    sound = isinstance(experiments, list) and experiments
    if not sound or not all(isinstance(one, Experiment | Sweep) for one in experiments):
        raise UserError(
            f"{where}: the function must return a list of prunejax.config.Experiment or Sweep"
        )
    return experiments


def find_experiment(experiments: list[Experiment], name: str, study: str) -> Experiment:
    """The experiment called `name`.

    Raises:
        UserError: if the study has none of that name.
    """
    for experiment in experiments:
        if experiment.name == name:
            return experiment
    names = ", ".join(experiment.name for experiment in experiments)
    raise UserError(f"--experiment={name}: the study {study!r} has no such one; it has: {names}")


def _find(name: str, where: str) -> Callable[[], list[Experiment]]:
    module_name, colon, function_name = name.partition(":")
    if not colon:
        module_name, function_name = f"experiments.studies.{name}", name
    elif os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except UserError:
        raise
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise UserError(f"{where}: {_message(error)}") from None
        raise UserError(
            f"{where}: there is no such study; give {', '.join(BUILT_IN)}, or MODULE:FUNCTION of a "
            "file in the current directory"
        ) from None
    except Exception as error:
        raise UserError(f"{where}: {_message(error)}") from None
    function = getattr(module, function_name, None)
    if not callable(function):
        raise UserError(f"{where}: module {module_name!r} has no function {function_name!r}")
    return function  # pyright: ignore[reportReturnType]


def _message(error: Exception) -> str:
    """An exception of a study's own code in one line, with the line that raised it."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({os.path.basename(frames[-1].filename)}, line {frames[-1].lineno})"
    if isinstance(error, SyntaxError):
        where = f" ({os.path.basename(error.filename or '?')}, line {error.lineno})"
    text = " ".join(str(error.msg if isinstance(error, SyntaxError) else error).split())
    return f"{type(error).__name__}: {text}{where}"


def _check(experiments: list[Experiment], where: str) -> None:
    """Refuses experiments that do not fit together."""
    known: dict[str, Experiment] = {}
    for experiment in experiments:
        name = experiment.name
        if name in known:
            raise UserError(f"{where}: two experiments are called {name!r}")
        if not re.fullmatch(r"[^\W\d][\w.]*", name):
            raise UserError(
                f"{where}: {name!r} cannot be a directory; use letters, digits, _ and ."
            )
        known[name] = experiment
        if experiment.pruning is None:
            continue
        dense = known.get(experiment.dense_parent or "")
        if dense is None or dense.pruning is not None or dense.method != experiment.method:
            raise UserError(
                f"{where}: experiment {name!r} is pruned, and its dense_parent "
                f"{experiment.dense_parent!r} is no dense experiment before it that is trained by "
                f"{experiment.method!r} too"
            )
    for experiment in experiments:
        baseline = experiment.baseline
        if baseline is not None and (baseline not in known or known[baseline].pruning is None):
            raise UserError(
                f"{where}: the baseline {baseline!r} of experiment {experiment.name!r} is no "
                "pruned experiment of the study"
            )
