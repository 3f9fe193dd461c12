"""A sweep over start steps of pruning, as a study writes it."""

from collections.abc import Iterable
from dataclasses import replace
from typing import NamedTuple

from pydantic import ValidationError

from prunejax.config.errors import UserError, explain
from prunejax.config.settings import Experiment, Start


class Sweep(NamedTuple):
    """One gradually pruned experiment at several start steps, each a separate experiment."""

    experiment: Experiment
    """What they share. A `baseline` that is another sweep: its experiment of the same start."""
    starts: tuple[Start, ...]


def expand(study: Iterable[Experiment | Sweep]) -> list[Experiment]:
    """Returns the experiments of a study, each sweep replaced by one experiment per start step.

    They are called `<name>_<start>`, for instance `sup_when_0.25`.

    Raises:
        UserError: if a sweep does not prune gradually, or has no start or one twice.
    """
    study = list(study)
    sweeps = {part.experiment.name: part for part in study if isinstance(part, Sweep)}
    experiments = []
    for part in study:
        if isinstance(part, Experiment):
            experiments.append(part)
            continue
        _check(part)
        for start in part.starts:
            experiments.append(_at(part.experiment, start, sweeps))
    return experiments


def _at(experiment: Experiment, start: Start, sweeps: dict[str, Sweep]) -> Experiment:
    baseline = experiment.baseline
    if baseline in sweeps:
        other = sweeps[baseline]
        baseline = f"{baseline}_{start}" if start in other.starts else None
    name = f"{experiment.name}_{start}"
    try:
        pruning = experiment.pruning and replace(experiment.pruning, start=start)
    except ValidationError as error:
        raise UserError(f"experiment {name!r}: {explain(error, 'pruning')}") from None
    return replace(experiment, name=name, pruning=pruning, baseline=baseline)


def _check(sweep: Sweep) -> None:
    name, starts = sweep.experiment.name, sweep.starts
    pruning = sweep.experiment.pruning
    if pruning is None or pruning.schedule is None:
        raise UserError(
            f"experiment {name!r} has start steps of pruning and no schedule; give it one"
        )
    if not starts or len(set(starts)) < len(starts):
        listed = ", ".join(str(start) for start in starts) or "none"
        raise UserError(f"start steps of pruning: {listed}; give at least one, and none twice")
