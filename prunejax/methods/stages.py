"""Which stages an experiment has, and what each of them minimises."""

from prunejax.config import Config, Experiment, Stage, UserError
from prunejax.methods.entry import METHODS, Objective
from prunejax.methods.sup import CLASSIFICATION

FINETUNING = "finetune"
"""The one stage of an experiment that prunes a trained dense parent at once."""


def is_one_shot(experiment: Experiment) -> bool:
    """Whether it prunes the final checkpoint of its dense parent at once."""
    return experiment.pruning is not None and experiment.pruning.schedule is None


def is_gradual(experiment: Experiment) -> bool:
    """Whether it prunes by a schedule, while it trains."""
    return experiment.pruning is not None and experiment.pruning.schedule is not None


def stages_of(config: Config) -> tuple[str, ...]:
    """The stages of a run in order, each the name of a field of `config`.

    Raises:
        UserError: if the method is unknown, or names a stage that there is not, or one twice.
    """
    method = METHODS[config.experiment.method]
    if is_one_shot(config.experiment):
        return (FINETUNING,)
    known = [name for name, value in vars(config).items() if isinstance(value, Stage)]
    for name in method.stages:
        if name not in known:
            raise UserError(
                f"method {method.name!r} has a stage {name!r}; there are: {', '.join(known)}"
            )
    if not method.stages or len(set(method.stages)) < len(method.stages):
        raise UserError(
            f"method {method.name!r} has the stages {method.stages}; it needs one, and none twice"
        )
    return method.stages


def stage_settings(config: Config, stage: str) -> Stage:
    """The settings of the stage of that name."""
    return getattr(config, stage)


def objective_of(config: Config, stage: str) -> Objective:
    """What a stage of this run minimises."""
    method = METHODS[config.experiment.method]
    trains_representation = stage == method.stages[0] and not is_one_shot(config.experiment)
    return method.objective if trains_representation else CLASSIFICATION
