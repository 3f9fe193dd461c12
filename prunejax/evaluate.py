"""Checkpoint -> measures of every model on the test set, in one `measures.npz` per run."""

import contextlib
import dataclasses
import json
import tokenize
import zipfile
import zlib
from collections.abc import Callable
from contextlib import AbstractContextManager

import jax
import numpy as np

from prunejax import hosts, metrics, neighbors, population
from prunejax.checkpoint import Population
from prunejax.config import Measure, UserError
from prunejax.data import Dataset, balanced_subset
from prunejax.rundir import whole_file
from prunejax.types import Path


@dataclasses.dataclass(frozen=True, eq=False)
class Measures:
    """What one run's models do with the test images."""

    predictions: np.ndarray
    """int32 `[models, examples]`."""
    labels: np.ndarray
    """int32 `[examples]`."""
    seeds: np.ndarray
    """int32 `[models]`."""
    sparsities: np.ndarray
    """float32 `[models]`."""
    q: np.ndarray
    """float32 `[models, examples]`, as `z` and `l1`; see `metrics.q_score`. NaN for a model that is excluded."""
    z: np.ndarray
    l1: np.ndarray
    depth: np.ndarray
    """int32 `[models, examples]`: prediction depth, from 1; 0 for models that were not probed."""
    purity: np.ndarray
    """float32 `[models]`: k-NN purity of the representations; NaN for models that were not probed."""
    umap: np.ndarray
    """float32 `[levels, examples, 2]`: of the first model of each sparsity, ascending, that is not excluded."""
    class_names: np.ndarray
    """str `[classes]`."""
    data_checksum: np.ndarray
    """str []."""
    settings: np.ndarray
    """str []: the `config.Measure` behind it, as JSON."""

    @property
    def levels(self) -> list[float]:
        """The different sparsities, ascending, as they were asked for."""
        return [float(str(level)) for level in np.unique(self.sparsities)]

    @property
    def excluded(self) -> np.ndarray:
        """Which models diverged or collapsed in training, bool `[models]`."""
        return ~np.all(np.isfinite(self.l1), axis=1)

    @property
    def measure(self) -> Measure:
        """The settings behind it."""
        return Measure(**json.loads(str(self.settings)))

    def _only(self, kept: np.ndarray, **others: np.ndarray) -> "Measures":
        per_model = [name for name, (_, axes) in ARRAYS.items() if axes[:1] == ("models",)]
        return dataclasses.replace(self, **{name: getattr(self, name)[kept] for name in per_model}, **others)

    def at(self, sparsity: float) -> "Measures":
        """The measures of the models of one sparsity, without those that are excluded."""
        level = self.levels.index(sparsity)
        kept = (self.sparsities == np.float32(sparsity)) & ~self.excluded
        return self._only(kept, umap=self.umap[level : level + 1])

    def trained(self, sparsity: float) -> int:
        """How many models of one sparsity were trained, those that are excluded included."""
        return int(np.sum(self.sparsities == np.float32(sparsity)))

    @property
    def probed(self) -> "Measures":
        """The measures of the models whose depth and purity are known."""
        return self._only(self.depth.max(1, initial=0) > 0)

    @property
    def accuracy(self) -> np.ndarray:
        """Test accuracy, `[models]`, in [0, 1]."""
        return np.asarray(metrics.accuracy(self.predictions, self.labels))

    @property
    def modal_class(self) -> np.ndarray:
        """The class that most models predict, `[examples]`."""
        return np.asarray(metrics.modal_class(self.predictions, len(self.class_names)))

    def pies(self, dense: "Measures") -> np.ndarray:
        """Which test images are PIEs of these models against `dense` ones, bool `[examples]`."""
        classes = len(self.class_names)
        return np.asarray(metrics.pruning_identified_exemplars(dense.predictions, self.predictions, classes))


ARRAYS = {
    **dict.fromkeys(("predictions", "depth"), ("i", ("models", "examples"))),
    **dict.fromkeys(("q", "z", "l1"), ("f", ("models", "examples"))),
    **{"labels": ("i", ("examples",)), "seeds": ("i", ("models",)), "sparsities": ("f", ("models",))},
    **{"purity": ("f", ("models",)), "umap": ("f", ("levels", "examples", "two")), "class_names": ("U", ("classes",))},
    **{"data_checksum": ("U", ()), "settings": ("U", ())},
}
"""The kind of each array's dtype, and its axes."""


Track = Callable[[str, int], AbstractContextManager[Callable[[float], object]]]
"""`track(unit, total)` is entered before a part of the work and gives what hears how many `unit` each step added."""


def _untracked(unit: str, total: int) -> AbstractContextManager[Callable[[float], object]]:
    return contextlib.nullcontext(lambda count: None)


def evaluate(
    trained: Population, dataset: Dataset, settings: Measure | None = None, track: Track = _untracked
) -> Measures:
    """Measures every model on the test set; several processes share the models among them.

    Args:
        trained: a finished run.
        dataset: what it was trained on.
        settings: of the probes; None takes the run's own.
        track: hears of the `images`, over all models, then of the probed `models`, the slower part, in fractions.

    Raises:
        UserError: if the run is unfinished, the data is not what it was trained on, or too small for the neighbours.
    """
    name, settings = trained.config.experiment.name, settings or trained.config.measure
    if trained.step < trained.total_steps:
        raise UserError(f"{name} stands at step {trained.step} of {trained.total_steps}; train it first")
    if trained.data_checksum != dataset.checksum:
        raise UserError(f"{name} was trained on data of checksum {trained.data_checksum}; this is {dataset.checksum}")
    fitted = len(dataset.train_labels) if settings.depth_examples is None else settings.depth_examples
    if fitted > len(dataset.train_labels):
        raise UserError(f"measure.depth_examples is {fitted}, but there are {len(dataset.train_labels)}")
    if settings.neighbors > min(fitted, len(dataset.test_labels) - 1):
        raise UserError(
            f"measure.neighbors is {settings.neighbors}; {fitted} training and {len(dataset.test_labels)} test "
            "images have not that many neighbours"
        )
    classified = _classify(trained, dataset, track)
    return Measures(
        **classified,
        **_probe(trained, dataset, classified["predictions"], settings, fitted, track),
        labels=dataset.test_labels,
        seeds=trained.seeds,
        sparsities=trained.sparsities,
        class_names=np.array(dataset.class_names),
        data_checksum=np.array(dataset.checksum),
        settings=np.array(json.dumps(dataclasses.asdict(settings))),
    )


def _classify(trained: Population, dataset: Dataset, track: Track) -> dict[str, np.ndarray]:
    """Every model's `predictions`, `q`, `z` and `l1`, streamed over the test set."""
    shape = (len(trained.seeds), len(dataset.test_labels))
    predictions = np.zeros(shape, np.int32)
    scores = {name: np.zeros(shape, np.float32) for name in ("q", "z", "l1")}
    owner = hosts.owners(len(trained.seeds))
    ours = np.flatnonzero(owner == jax.process_index())
    state = jax.tree.map(lambda leaf: leaf[ours], trained.state)
    with track("images", len(ours) * shape[1]) as advance:
        for models, examples, representations, logits, _ in population.apply_in_batches(
            trained.config, state, dataset.test_images
        ):
            predictions[ours[models], examples] = np.asarray(logits).argmax(-1)
            for array, values in zip(scores.values(), metrics.q_score(representations), strict=True):
                array[ours[models], examples] = values
            advance(logits[..., 0].size)
    for array in scores.values():
        array[trained.frozen] = np.nan
    return {name: hosts.merge(array, owner) for name, array in {"predictions": predictions, **scores}.items()}


def _probe(
    trained: Population, dataset: Dataset, predictions: np.ndarray, settings: Measure, fitted: int, track: Track
) -> dict[str, np.ndarray]:
    """The `depth`, `purity` and `umap` of the first models of each sparsity, one model at a time."""
    depth, purity = np.zeros_like(predictions), np.full(len(predictions), np.nan, np.float32)
    levels, places = np.unique(trained.sparsities, return_inverse=True)
    umap = np.full((len(levels), predictions.shape[1], 2), np.nan, np.float32)
    chosen = balanced_subset(dataset.train_labels, fitted, seed=0)
    train_images, train_labels = dataset.train_images[chosen], dataset.train_labels[chosen]
    first = [
        np.flatnonzero((places == place) & ~trained.frozen)[: settings.probe_models] for place in range(len(levels))
    ]
    rows = np.concatenate(first)
    owner = np.zeros(len(depth), int)
    owner[rows] = hosts.owners(len(rows))
    ours = rows[owner[rows] == jax.process_index()].tolist()
    with track("models", len(ours)) as advance:
        for row in ours:
            representations, test_probes = _features(trained, row, dataset.test_images)
            _, train_probes = _features(trained, row, train_images)
            votes = []
            for fit, test in zip(train_probes, test_probes, strict=True):
                votes.append(neighbors.knn_predict(fit, train_labels, test, settings.neighbors))
                advance(1 / len(test_probes))
            target = dataset.test_labels if settings.depth_target == "label" else predictions[row]
            depth[row] = neighbors.prediction_depth(np.stack(votes), target)
            purity[row] = neighbors.knn_purity(representations, dataset.test_labels, settings.neighbors)
            if row == first[places[row]][0]:
                umap[places[row]] = _embed(representations, settings.umap_seed)
    embedded = np.array([owner[rows[0]] if len(rows) else 0 for rows in first])
    return {
        **{"depth": hosts.merge(depth, owner), "purity": hosts.merge(purity, owner)},
        "umap": hosts.merge(umap, embedded),
    }


def _features(trained: Population, row: int, images: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
    """One model's representations `[examples, dim]` and its probes, each `[examples, channels]`."""
    one = jax.tree.map(lambda leaf: leaf[row : row + 1], trained.state)
    batches = [
        jax.device_get((representations[0], [probe[0] for probe in probes]))
        for _, _, representations, _, probes in population.apply_in_batches(trained.config, one, images)
    ]
    return jax.tree.map(lambda *parts: np.concatenate(parts), *batches)


def _embed(representations: np.ndarray, seed: int) -> np.ndarray:
    import umap  # compiles for seconds when imported

    # One thread, without which a seed does not fix the result.
    return np.asarray(umap.UMAP(random_state=seed, n_jobs=1).fit_transform(representations))


def save(measures: Measures, path: Path) -> None:
    """Writes `measures.npz`, whole or not at all."""
    with whole_file(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **dataclasses.asdict(measures))  # pyright: ignore[reportArgumentType]


def load(path: Path) -> Measures:
    """Reads `measures.npz`; nothing is unpickled.

    Raises:
        UserError: if the file is missing, damaged, of the wrong shapes or of values that cannot be.
    """
    again = "delete it and run experiments.evaluate again"
    unreadable = (OSError, ValueError, KeyError, EOFError, RuntimeError, MemoryError)
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            measures = Measures(**{name: archive[name] for name in ARRAYS})
    except FileNotFoundError:
        raise UserError(f"{path} is missing; run experiments.evaluate first") from None
    except (*unreadable, zipfile.BadZipFile, zlib.error, tokenize.TokenError) as error:
        raise UserError(f"{path} cannot be read ({error}); {again}") from None
    sizes = {"two": 2, "levels": len(np.unique(measures.sparsities))}
    for name, (kind, axes) in ARRAYS.items():
        array = getattr(measures, name)
        fits = len(array.shape) == len(axes) and array.dtype.kind == kind
        if not fits or any(sizes.setdefault(a, n) != n for a, n in zip(axes, array.shape, strict=True)):
            raise UserError(
                f"{path}: {name} is {array.dtype} {list(array.shape)}, which does not fit the other arrays; {again}"
            )
    ranges = {"predictions": sizes["classes"], "labels": sizes["classes"], "sparsities": 1, "depth": 2**15}
    for name, end in ranges.items():
        array = getattr(measures, name)
        if not array.size or not (0 <= array.min() and array.max() < end):
            raise UserError(f"{path}: {name} holds values that cannot be; {again}")
    try:
        _ = measures.measure
    except (ValueError, TypeError) as error:
        raise UserError(f"{path}: settings are not those of this version ({error}); {again}") from None
    return measures
