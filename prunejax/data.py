"""A data set as in-memory uint8 arrays: scikit-learn's embedded `digits`, or any TFDS image-classification set."""

import contextlib
import dataclasses
import functools
import hashlib
import json
import os
import shlex
import tokenize
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int32, UInt8

from prunejax.config import Data, UserError


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Images `[examples, height, width, channels]` uint8 with labels `[examples]` int32, all in memory."""

    name: str
    class_names: tuple[str, ...]
    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray

    @property
    def image_shape(self) -> tuple[int, ...]:
        """(height, width, channels)."""
        return self.train_images.shape[1:]

    @property
    def num_classes(self) -> int:
        """The number of classes, whether or not each occurs."""
        return len(self.class_names)

    @property
    def shapes(self) -> tuple[tuple[int, ...], int]:
        """(image_shape, num_classes), what a network needs to know."""
        return self.image_shape, self.num_classes

    @functools.cached_property
    def checksum(self) -> str:
        """Tells two data sets apart: the digest of every array and of the class names."""
        arrays = (self.train_images, self.train_labels, self.test_images, self.test_labels)
        return digest(*arrays, np.array(self.class_names))


def load(config: Data, data_dir: str | None = None) -> Dataset:
    """The data set that `config` names, cut to its subset.

    Args:
        config: the name, `digits` or one that TFDS knows, and the subset.
        data_dir: where TFDS sets are prepared; None is TFDS' own default.

    Raises:
        UserError: if it is not there, not prepared, or no image classification.
    """
    full = load_digits() if config.name == "digits" else _load_tfds(config.name, data_dir)
    splits = {}
    for split, count in (("train", config.train_examples), ("test", config.test_examples)):
        images, labels = getattr(full, f"{split}_images"), getattr(full, f"{split}_labels")
        if count is not None:
            if count > len(labels):
                raise UserError(f"data.{split}_examples is {count}, but {config.name} has {len(labels)} there")
            chosen = balanced_subset(labels, count, config.subset_seed)
            images, labels = images[chosen], labels[chosen]
        splits |= {f"{split}_images": images, f"{split}_labels": labels}
    return dataclasses.replace(full, **splits)


def balanced_subset(labels: Int32[np.ndarray, " examples"], count: int, seed: int) -> np.ndarray:
    """Indices `[count]`, ascending, of a random subset whose class counts differ by at most one where data allows."""
    order = np.random.default_rng(seed).permutation(len(labels))
    rank = np.empty(len(labels), np.int64)
    for label in np.unique(labels):
        members = order[labels[order] == label]
        rank[members] = np.arange(len(members))
    return np.sort(np.lexsort((labels, rank))[:count])


def load_digits() -> Dataset:
    """The 1,797 8x8 digits that come with scikit-learn: a fixed stratified split of 1,408 and 389."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits: Any = load_digits()
    images = np.rint(digits.images[..., None] * (255 / 16)).astype(np.uint8)
    labels = digits.target.astype(np.int32)
    train, test = train_test_split(np.arange(len(labels)), test_size=389, stratify=labels, random_state=0)
    return Dataset("digits", tuple(map(str, range(10))), images[train], labels[train], images[test], labels[test])


def _load_tfds(name: str, data_dir: str | None) -> Dataset:
    if data_dir is not None:
        try:
            os.listdir(data_dir)
        except OSError as error:
            raise UserError(f"--data_dir={data_dir}: {error.strerror}") from None
    import tensorflow_datasets as tfds

    where = data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    prepare = f"pip install -e '.[prepare]' && python -m experiments.prepare --dataset={name}"
    prepare += f" --data_dir={shlex.quote(data_dir)}" if data_dir else ""
    try:
        builder = tfds.builder(name, data_dir=data_dir)
    except tfds.core.DatasetNotFoundError:
        raise UserError(f"data.name is {name!r}: neither 'digits' nor a data set that TFDS knows") from None
    except ImportError:  # building the generator's description needs more than reading does
        raise UserError(f"{name} is not prepared under {where}; prepare it with: {prepare}") from None
    except Exception as error:  # what protocol buffers and JSON make of damaged files beside the records
        raise UserError(f"{name} under {where} cannot be read ({_said(error)}); prepare it again: {prepare}") from None
    record = tfds.core.FileFormat.ARRAY_RECORD
    if not builder.data_path.exists() or builder.info.file_format != record:
        raise UserError(f"{name} is not prepared as {record.value} under {where}; prepare it with: {prepare}")
    features: Any = builder.info.features
    if not isinstance(features, tfds.features.FeaturesDict) or not {"image", "label"} <= set(features):
        raise UserError(f"{name} has no 'image' and 'label' to classify; choose an image-classification set")
    if not isinstance(features["label"], tfds.features.ClassLabel):
        raise UserError(f"{name}: its 'label' is no class label; choose an image-classification set")
    test = "test" if "test" in builder.info.splits else "validation"
    if not {"train", test} <= set(builder.info.splits):
        raise UserError(f"{name} has the splits {', '.join(builder.info.splits)}; a train and a test split are needed")
    names = features["label"].names  # pyright: ignore[reportAttributeAccessIssue]
    return Dataset(name, tuple(names), **_cached(builder, test))


def _cached(builder: Any, test: str) -> dict[str, np.ndarray]:  # noqa: ANN401
    """The decoded arrays, from the user's cache if they are there unharmed: decoding takes seconds."""
    files = sorted((f.name, f.stat().st_size, f.stat().st_mtime_ns) for f in map(Path, builder.data_path.iterdir()))
    key = hashlib.sha256(json.dumps([str(builder.data_path), files]).encode()).hexdigest()[:16]
    path = cache_dir() / "datasets" / f"{builder.name}-{key}"
    names = ("train_images", "train_labels", "test_images", "test_labels")
    with contextlib.suppress(OSError, ValueError, EOFError, MemoryError, tokenize.TokenError):  # absent or damaged
        arrays = {name: np.load(path / f"{name}.npy", allow_pickle=False) for name in names}
        if (path / "sha256").read_text() == digest(*arrays.values()):
            return arrays
    arrays = {}
    for split, source in (("train", "train"), ("test", test)):
        images, labels = _decode(builder, source)
        arrays |= {f"{split}_images": images, f"{split}_labels": labels}
    with contextlib.suppress(OSError):  # a full or read-only home costs time at the next start, nothing else
        _write_cache(path, arrays)
    return arrays


def _write_cache(path: Path, arrays: dict[str, np.ndarray]) -> None:
    path.mkdir(parents=True, exist_ok=True)
    for name, array in arrays.items():
        np.save(path / f"{name}.npy", array)
    (path / "sha256").write_text(digest(*arrays.values()))


def _decode(builder: Any, split: str) -> tuple[UInt8[np.ndarray, "n h w c"], Int32[np.ndarray, " n"]]:  # noqa: ANN401
    images, labels = [], []
    try:
        for example in builder.as_data_source(split=split):
            images.append(example["image"])
            labels.append(example["label"])
    except Exception as error:  # of protocol buffers, array_record, Pillow or TFDS, each with classes of its own
        raise UserError(
            f"{builder.data_path}: example {len(images)} of {split} cannot be read ({_said(error)}); prepare it again"
        ) from None
    if not images or len({image.shape for image in images}) > 1 or images[0].dtype != np.uint8:
        raise UserError(f"{builder.name}/{split}: needs images of one size and type uint8; resize them when preparing")
    classes = builder.info.features["label"].num_classes
    if wrong := [index for index, label in enumerate(labels) if not 0 <= label < classes]:
        raise UserError(
            f"{builder.data_path}: {len(wrong)} labels of {split} lie outside the {classes} classes, first example "
            f"{wrong[0]}'s, {labels[wrong[0]]}; prepare it again"
        )
    return np.stack(images), np.array(labels, np.int32)


def _said(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]


def cache_dir() -> Path:
    """Where decoded data sets and compiled programs are kept between runs, never results."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "prunejax"


def digest(*arrays: np.ndarray) -> str:
    """The first 16 hexadecimal digits of a SHA-256 over the arrays' shapes, dtypes and bytes."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(repr((array.shape, array.dtype.str)).encode())
        digest.update(np.ascontiguousarray(array).view(np.uint8).data)
    return digest.hexdigest()[:16]
