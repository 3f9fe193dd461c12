"""The command line that all scripts share: flags, and one-line errors with exit code 2."""

import os
import sys
import traceback
import warnings
from collections.abc import Callable
from dataclasses import replace
from logging import CRITICAL, getLogger
from typing import TYPE_CHECKING, NoReturn

from absl import app, flags, logging
from etils import epath
from pydantic import ValidationError

from experiments import process
from experiments.presets import PRESETS
from experiments.registry import BUILT_IN, find_experiment, load_study
from experiments.start import HOSTS, start_jax
from prunejax.config import Config, Data, Experiment, UserError, override
from prunejax.config.errors import explain

if TYPE_CHECKING:
    from prunejax.data import Dataset

FLAGS = flags.FLAGS
_TEXT, _TEXTS = flags.DEFINE_string, flags.DEFINE_multi_string
_INTEGER, _SWITCH = flags.DEFINE_integer, flags.DEFINE_bool
_DEFINITIONS: dict[str, tuple] = {
    "experiment": (_TEXT, None, "One experiment of the study, by its name: scl_gmp."),
    "study": (
        _TEXT,
        "paper",
        f"Which experiments: {', '.join(BUILT_IN)}, or your own, MODULE:FUNCTION. Commas join "
        "several: paper,when.",
    ),
    "preset": (flags.DEFINE_enum, None, list(PRESETS), "The settings to start from."),
    "workdir": (
        _TEXT,
        None,
        "Directory of the runs, each in its own. Default with --preset: runs/PRESET.",
    ),
    "parts": (flags.DEFINE_list, None, "Work directories whose runs are joined: runs/a,runs/b."),
    "data_dir": (_TEXT, None, "Directory of prepared TFDS data sets. Default: TFDS's own."),
    "models": (_INTEGER, None, "How many seeds. Default: the preset's."),
    "sparsities": (
        flags.DEFINE_list,
        None,
        "Fractions of weights to prune, for instance 0.5,0.9. Default: the preset's.",
    ),
    "starts": (
        flags.DEFINE_list,
        None,
        "The start steps of a sweep (--study=when): fractions of the first stage, with a point "
        "(0.25), or steps (100).",
    ),
    "seed": (_INTEGER, None, "The first seed; the others count up from it. Default: 0."),
    "set": (
        _TEXTS,
        [],
        "FIELD=VALUE overrides any configuration field: optim.momentum=0.8. Repeatable.",
    ),
    "dry_run": (
        _SWITCH,
        False,
        "Print members, steps, FLOPs, memory and, from a few steps, hours; train nothing.",
    ),
    "devices": (
        _INTEGER,
        None,
        "With --dry_run: extrapolate to so many devices like those here.",
        1,
    ),
    "deterministic": (
        _SWITCH,
        False,
        "On GPU: only operations that repeat bit for bit, as on CPU; slower.",
    ),
    "distributed": (
        _SWITCH,
        False,
        "This is one of several processes; Slurm, Open MPI or the TPU pod says which.",
    ),
    "coordinator_address": (
        _TEXT,
        None,
        "Without either: HOST:PORT of the first process. Needs the next two flags, too.",
    ),
    "num_processes": (
        _INTEGER,
        None,
        "How many processes there are, each with a host's devices.",
        1,
    ),
    "process_id": (_INTEGER, None, "Number of this process, from 0.", 0),
    "tensorboard": (_SWITCH, False, "Also write logs for TensorBoard."),
    "measure": (
        _SWITCH,
        False,
        "First measure what is missing or outdated, as experiments.evaluate does.",
    ),
}
"""For each flag: its absl function, default, help, and for a number the least value."""
RENAMED = {"begins": "starts"}
"""Flags of version 0.2.0, and what they are called now."""
REQUIRED = ("experiment", "preset")
PATHS = ("workdir", "data_dir")
"""Flags whose value is a path, in which `~` is the home directory."""
TRAINING = (
    "workdir",
    "data_dir",
    "dry_run",
    "devices",
    "study",
    "preset",
    "models",
    "sparsities",
    "starts",
    "seed",
    "set",
    "deterministic",
    "tensorboard",
    *HOSTS,
)
"""The flags of commands that train."""


class Stopped(Exception):
    """A signal stopped training, and all is saved; exit code 75 requests to be started again."""


def run(main: Callable[[], None], doc: str | None, example: str, names: tuple[str, ...]) -> None:
    """Defines the named flags, parses them and runs `main`.

    What the user can fix ends in one line and exit code 2. `--help` answers before anything slow
    is imported.
    """
    for name in names:
        define, *arguments = _DEFINITIONS[name]
        define(name, *arguments, required=name in REQUIRED)

    def parse(argv: list[str]) -> list[str]:
        if {"--help", "-h", "-help", "--helpfull"} & set(argv[1:]):
            _print_help(doc or "", example, names)
            sys.exit(0)
        try:
            rest = FLAGS(_with_values(argv))[1:]
            for name in set(PATHS) & set(names):
                path = FLAGS[name].value
                FLAGS[name].value = path and os.path.expanduser(str(path))
        except flags.UnrecognizedFlagError as error:
            if error.flagname in RENAMED:
                _fail(f"--{error.flagname} is called --{RENAMED[error.flagname]} now")
            _fail(str(error))
        except (flags.Error, UserError) as error:
            _fail(str(error))
        if rest:
            _fail(f"unknown argument {rest[0]!r}; flags are written --name=value, see --help")
        return argv[:1]

    def guarded(_: list[str]) -> None:
        computes = "distributed" in names or ("measure" in names and FLAGS.measure)
        try:
            if "workdir" in names:
                start_jax(names, computes)
            main()
        except UserError as error:
            _fail(str(error))
        except Stopped as stopped:
            print(stopped, file=sys.stderr)
            sys.exit(process.STOPPED)
        except OSError as error:
            _fail(f"{error.filename or 'input or output'}: {error.strerror or error}")
        except (RuntimeError, ValueError):  # what the transports raise when another process dies
            from prunejax.training import hosts

            if hosts.alone():
                raise
            traceback.print_exc()
            print(
                "error: this process or another has failed; start all of them again to go on",
                file=sys.stderr,
            )
            sys.stderr.flush()
            os._exit(1)  # the usual way out waits for the others

    process.begin()
    warnings.formatwarning = lambda message, *_, **__: f"warning: {message}\n"
    # Orbax logs each save, and each error several times, and raises it too.
    logging.set_verbosity(logging.FATAL)
    getLogger("asyncio").setLevel(CRITICAL)
    app.run(guarded, flags_parser=parse)


def _with_values(argv: list[str]) -> list[str]:
    """The arguments, with `--switch true` as the `--switch=true` that absl reads."""
    joined = argv[:1]
    for word in argv[1:]:
        name = joined[-1].lstrip("-")
        switched = joined[-1].startswith("-") and name in FLAGS and FLAGS[name].boolean
        if switched and word.lower() in ("true", "false"):
            joined[-1] += f"={word}"
        else:
            joined.append(word)
    return joined


def _print_help(doc: str, example: str, names: tuple[str, ...]) -> None:
    from prunejax.cache import MOST_BYTES, cache_dir

    print(f"{doc.strip()}\n\nExample:\n  {example}\n\nFlags:")
    for name in names:
        flag = FLAGS[name]
        choices = ""
        if isinstance(flag.parser, flags.EnumParser):
            choices = "=" + "|".join(flag.parser.enum_values)
        # absl adds the choices, and how to repeat a flag.
        text = flag.help.split(">: ")[-1].split(";\n")[0]
        print(f"  --{name}{choices}\n      {text}")
    gibibytes = " and ".join(f"{most / 2**30:.3g}" for most in MOST_BYTES.values())
    print(
        f"\nDecoded data sets and compiled programs are kept in {cache_dir()},\n"
        f"up to {gibibytes} GiB; it may be deleted at any time."
    )


def _fail(message: str) -> NoReturn:
    print("error:", " ".join(message.split()), file=sys.stderr)
    sys.exit(2)


def study() -> list[Experiment]:
    """The experiments of the study that --study names."""
    texts = FLAGS.starts if "starts" in FLAGS else None
    return load_study(FLAGS.study, None if texts is None else _starts(texts))


def chosen_experiment() -> Experiment:
    """The one that --experiment names."""
    return find_experiment(study(), FLAGS.experiment, FLAGS.study)


def make_config(experiment: Experiment) -> Config:
    """The preset with the command line's overrides, for one experiment.

    Raises:
        UserError: if it cannot be trained, as far as that is known without the data.
    """
    from prunejax.training.spec import check

    try:
        config = replace(PRESETS[FLAGS.preset], experiment=experiment)
        if FLAGS.models is not None:
            config = replace(config, models=FLAGS.models)
        if FLAGS.seed is not None:
            config = replace(config, seed=FLAGS.seed)
        if FLAGS.sparsities is not None:
            config = replace(config, sparsities=_sparsities(FLAGS.sparsities))
        elif experiment.pruning is not None and experiment.pruning.sparsities:
            config = replace(config, sparsities=experiment.pruning.sparsities)
    except ValidationError as error:
        raise UserError(explain(error)) from None
    config = override(config, FLAGS.set)
    free = replace(experiment, prune_head=config.experiment.prune_head)
    if (config.preset, config.experiment) != (FLAGS.preset, free):
        raise UserError(
            "--set cannot change preset or experiment; --preset and --experiment choose them"
        )
    if config.display != PRESETS[FLAGS.preset].display:
        raise UserError("--set cannot change display, which method, model and data decide")
    check(config)
    # A dense run serves any --sparsities.
    return config if experiment.pruning else replace(config, sparsities=(0.0,))


def _starts(texts: list[str]) -> tuple[int | float, ...]:
    starts = []
    for text in texts:
        # What is written as a whole number is a step, and anything else a fraction.
        start = int(text) if text.strip().isdecimal() else _number(text)
        if start is None or not (isinstance(start, int) or 0 <= start < 1):
            raise UserError(
                f"--starts={','.join(texts)}: {text!r} is no start of pruning; give fractions of "
                "the first stage from 0 to below 1, as 0.25, or its steps as whole numbers"
            )
        starts.append(start)
    return tuple(starts)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _sparsities(texts: list[str]) -> tuple[float, ...]:
    try:
        return tuple(float(text) for text in texts)
    except ValueError:
        raise UserError(f"--sparsities={','.join(texts)}: numbers separated by commas") from None


def load_data(config: Data) -> "Dataset":
    """The data set, which each process reads for itself; all must have read the same."""
    from prunejax import data
    from prunejax.training import hosts

    dataset = hosts.on_all_processes(lambda: data.load(config, FLAGS.data_dir))
    hosts.require_same("the data checksum", dataset.checksum)
    return dataset


def workdir() -> epath.Path:
    """--workdir, or for a script that knows the preset where its runs go by default."""
    if not FLAGS.workdir and "preset" not in FLAGS:
        raise UserError("--workdir is missing: name the directory that holds the runs")
    return epath.Path(FLAGS.workdir or f"runs/{FLAGS.preset}")
