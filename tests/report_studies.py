"""Studies made by hand, for the tests of reports."""

import dataclasses
import json

import numpy as np

from prunejax.config import Config, Display, Experiment, MeasureSettings, Pruning, to_json
from prunejax.measures import MEASURES, Column, RunMeasures, decisive_settings
from prunejax.measures.record import Record, Subject
from prunejax.measures.store import write

SUP = Display("Sup", "#0072B2", "WideResNet-16-2")
SCL = Display("SCL", "#D55E00", "WideResNet-16-2")
AT_ONCE = Pruning(None, allocation="global")
PAPER = (
    (Experiment("sup_dense"), SUP),
    (Experiment("sup_gmp", "cross_entropy", Pruning("sup"), "sup_dense", "GMP"), SUP),
    (Experiment("sup_one_shot", "cross_entropy", AT_ONCE, "sup_dense", "One-Shot"), SUP),
    (Experiment("scl_dense", "supcon"), SCL),
    (Experiment("scl_gmp", "supcon", Pruning("scl"), "scl_dense", "GMP", "sup_gmp"), SCL),
    (
        Experiment(
            "scl_delayed_gmp", "supcon", Pruning("scl_delayed"), "scl_dense", "Δ GMP", "sup_gmp"
        ),
        SCL,
    ),
    (
        Experiment("scl_one_shot", "supcon", AT_ONCE, "scl_dense", "One-Shot", "sup_one_shot"),
        SCL,
    ),
)
"""The paper's experiments."""

AUX = Display("Aux", "#0072B2", "Net")
BYO = Display("", "no colour", "Net")
OUTSIDERS = (
    (Experiment("plain"), SUP),
    (Experiment("quick", "cross_entropy", Pruning("sup"), "plain", "magnitude"), SUP),
    (
        Experiment(
            "lucky", "cross_entropy", Pruning("sup", score="random"), "plain", "random", "quick"
        ),
        SUP,
    ),
    (Experiment("xylophone", "mine"), AUX),
    (Experiment("oboe", "mine", Pruning("scl"), "xylophone", "later", "quick"), AUX),
    (Experiment("7th", "yours"), BYO),
    (Experiment("zz", "yours", Pruning("scl", allocation="mine_too"), "7th", "dense"), BYO),
)
"""Three methods, two of them in no registry; names, labels and colours that follow no pattern."""

DIMS = {
    "predictions": ("models", "examples"),
    "q": ("models", "examples"),
    "z": ("models", "examples"),
    "l1": ("models", "examples"),
    "depth": ("models", "examples"),
    "purity": ("models",),
    "mean_q": ("models",),
    "ece": ("models",),
    "umap": ("levels", "examples", 2),
}
INTEGERS = ("predictions", "depth")
COLUMNS = (
    Column("mean_q", "Q-Score", digits=3),
    Column("depth", "Depth", digits=2),
    Column("purity", "k-NN purity [%]", scale=100, digits=1),
)


def make_run(
    predictions,
    sparsities,
    experiment="sup_gmp",
    *,
    labels=(0, 1, 1, 0),
    classes=2,
    failed=None,
    config=None,
    **fields,
):
    """A run of one of the paper's experiments, or of `(experiment, display)`.

    Arrays that are not given are ones, or zeros for the embedding; one that is None is missing.
    """
    entry, display = experiment, SUP
    if isinstance(experiment, str):
        entry, display = next(each for each in PAPER if each[0].name == experiment)
    elif isinstance(experiment, tuple):
        entry, display = experiment
    predictions = np.array(predictions, np.int32)
    models, examples = predictions.shape
    failed = np.zeros(models, bool) if failed is None else np.array(failed)
    each_level = [np.arange(sparsities.count(level)) for level in dict.fromkeys(sparsities)]

    arrays = {name: np.ones((models, examples)) for name in ("q", "z", "l1", "depth")}
    arrays["purity"] = np.ones(models)
    arrays["ece"] = np.zeros(models)
    arrays["umap"] = np.zeros((len(set(sparsities)), examples, 2))
    arrays = {"predictions": predictions, **arrays, **fields}
    if arrays["q"] is not None:
        arrays.setdefault("mean_q", np.mean(arrays["q"], axis=1))
    measured = {}
    for name in list(arrays):
        if arrays[name] is None:
            del arrays[name]
            continue
        arrays[name] = np.asarray(arrays[name], np.int32 if name in INTEGERS else np.float32)
        measured[name] = ~failed
    if "depth" in arrays:
        measured["depth"] = arrays["depth"].max(1) > 0
        if "purity" in arrays:
            measured["purity"] = measured["depth"]
    if "umap" in arrays:
        measured["umap"] = np.isfinite(arrays["umap"]).all((1, 2))
    return RunMeasures(
        config=dataclasses.replace(config or Config(), experiment=entry, display=display),
        seeds=np.concatenate(each_level).astype(np.int32),
        sparsities=np.array(sparsities, np.float32),
        failed=failed,
        labels=np.array(labels, np.int32),
        class_names=tuple(f"class {number}" for number in range(classes)),
        data_checksum="x",
        arrays=arrays,
        dims={name: DIMS[name] for name in arrays},
        measured=measured,
        columns=tuple(column for column in COLUMNS if column.array in arrays),
    )


def make_study(labels, classes, seeds=3, levels=(0.5, 0.9), entries=PAPER, config=None):
    """Predictions that are wrong the more often the sparser the models are.

    Those of cross-entropy are so less often than those of other methods.
    """
    rng = np.random.default_rng(0)
    study = {}
    for entry in entries:
        experiment = entry[0]
        own_levels = levels if experiment.pruning else (0.0,)
        sparsities = [level for level in own_levels for _ in range(seeds)]
        often = 0.3 if experiment.method == "cross_entropy" else 0.8
        shape = (len(sparsities), len(labels))
        wrong = rng.random(shape) < np.array(sparsities)[:, None] * often
        predictions = np.where(wrong, rng.integers(0, classes, shape), labels)
        fields = {name: rng.random(shape) + 1 for name in ("q", "z", "l1")}
        fields["depth"] = rng.integers(1, 9, shape)
        fields["purity"] = rng.random(len(sparsities))
        fields["umap"] = rng.normal(size=(len(own_levels), len(labels), 2))
        study[experiment.name] = make_run(
            predictions,
            sparsities,
            entry,
            labels=labels,
            classes=classes,
            config=config,
            **fields,
        )
    return study


def changed(run, failed=None, **arrays):
    """A run with other arrays, or other models failed."""
    measured = dict(run.measured)
    if failed is not None:
        for name in measured:
            if run.dims[name][0] == "models":
                measured[name] = measured[name] & ~failed
    if "depth" in arrays:
        measured["depth"] = arrays["depth"].max(1) > 0
    return dataclasses.replace(
        run,
        arrays=run.arrays | arrays,
        measured=measured,
        failed=run.failed if failed is None else failed,
    )


def with_measure(run, column, array, dims=("models",), measured=None):
    """A run that was also measured by an outsider's measure."""
    known = np.ones(len(array), bool) if measured is None else measured
    return dataclasses.replace(
        run,
        arrays=run.arrays | {column.array: array},
        dims=run.dims | {column.array: dims},
        measured=run.measured | {column.array: known},
        columns=(*run.columns, column),
    )


def save(run, run_dir, checksum, commit="0123456789abcdef"):
    """Writes a run directory without checkpoints that holds these measures."""
    run_dir.mkdir(parents=True)
    config = dataclasses.replace(run.config, measure=MeasureSettings())
    (run_dir / "config.json").write_text(to_json(config))
    provenance = {
        "data_checksum": checksum,
        "class_names": [],
        "image_shape": [8, 8, 1],
        "stage_steps": {},
        "sessions": [{"commit": commit}],
    }
    (run_dir / "provenance.json").write_text(json.dumps(provenance))
    lines = []
    for step in (1, 2, 3):
        losses = [None] + [1.0 / step] * (len(run.seeds) - 1)
        lines.append(json.dumps({"stage": "sup", "step": step, "loss": losses}) + "\n")
    (run_dir / "metrics.jsonl").write_text("".join(lines))
    save_measures(run, run_dir, checksum)


def save_measures(run, run_dir, checksum):
    """Writes the files of the measures that the run has all arrays of."""
    subject = Subject(
        seeds=run.seeds,
        sparsities=run.sparsities,
        failed=run.failed,
        labels=run.labels,
        class_names=np.array(run.class_names),
        data_checksum=np.array(checksum),
    )
    for measure in MEASURES.values():
        if not all(run.has(name) for name in measure.arrays):
            continue
        record = Record(
            name=measure.name,
            version=measure.version,
            settings=decisive_settings(measure, MeasureSettings()),
            specs=measure.arrays,
            columns=measure.columns,
            subject=subject,
            arrays={name: run.values(name) for name in measure.arrays},
            measured=run.measured[next(iter(measure.arrays))],
        )
        write(record, run_dir)
