"""Custom images and labels, from a NumPy file: `data.name=path/to/mine.npz`.

The file holds `train_images`, `train_labels`, `test_images` and `test_labels`: images uint8
`[examples, height, width, channels]`, or `[examples, height, width]` of one channel, and labels
`[examples]`, whole numbers from 0. It may hold `class_names`, text; classes are numbered otherwise.
`np.savez("mine.npz", train_images=..., ...)` writes such a file.
"""

import os
import zipfile
from pathlib import Path

import numpy as np
from jaxtyping import Int32, UInt8

from prunejax.config import UserError
from prunejax.config.errors import in_one_line
from prunejax.data.dataset import ARRAYS, Dataset
from prunejax.data.entry import SOURCES, Source

MOST_CLASSES = 2**16
"""Larger labels are identifiers of something, not classes that were counted from 0."""


def load_arrays(name: str, data_dir: str | None = None) -> Dataset:
    """The data set in a NumPy file.

    Args:
        name: the path of the file; `~` is the home directory.
        data_dir: where a file of this name is looked for if there is none at the path, as on
            another machine than the one that trained.

    Raises:
        UserError: if there is no such file, or what it holds is no image classification.
    """
    path = _find(name, data_dir)
    arrays = _read(path)
    missing = [array for array in ARRAYS if array not in arrays]
    if missing:
        raise UserError(f"{path} holds no {missing[0]}; it needs {', '.join(ARRAYS)}")
    train_images = _images(path, "train_images", arrays["train_images"])
    test_images = _images(path, "test_images", arrays["test_images"])
    if train_images.shape[1:] != test_images.shape[1:]:
        raise UserError(
            f"{path}: the images of train_images are {train_images.shape[1:]} and those of "
            f"test_images {test_images.shape[1:]}; make them of one height, width and channels"
        )
    train_labels = _labels(path, "train_labels", arrays["train_labels"], len(train_images))
    test_labels = _labels(path, "test_labels", arrays["test_labels"], len(test_images))
    classes = int(max(train_labels.max(), test_labels.max())) + 1
    class_names = _class_names(path, arrays.get("class_names"), classes)
    return Dataset(name, class_names, train_images, train_labels, test_images, test_labels)


def _find(name: str, data_dir: str | None) -> Path:
    """The path that `name` means, or one in `data_dir` if only that exists."""
    try:
        path = Path(name).expanduser()
    except RuntimeError as error:  # the home of an unknown user
        raise UserError(f"data.name is {name!r}: {error}") from None
    if data_dir is not None and not os.path.exists(path):
        elsewhere = Path(data_dir) / path.name
        if os.path.exists(elsewhere):
            return elsewhere
    return path


def _read(path: Path) -> dict[str, np.ndarray]:
    """Those arrays of the file that are needed; none is ever unpickled."""
    try:
        file = path.open("rb")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UserError(
            f"data.name is {str(path)!r}: {reason}; give the path of an npz file"
        ) from None
    arrays = {}
    with file:
        # NumPy would take any other file for a pickle, and say so.
        if not zipfile.is_zipfile(file):
            raise UserError(f"{path} is no npz file, or a truncated one; write it by np.savez")
        file.seek(0)
        try:
            with np.load(file, allow_pickle=False) as stored:
                for name in (*ARRAYS, "class_names"):
                    if name in stored.files:
                        arrays[name] = stored[name]
        except Exception as error:  # NumPy, zipfile and zlib raise their own classes
            raise UserError(
                f"{path}: its arrays cannot be read ({in_one_line(error)}); "
                "write it again by np.savez, of arrays of numbers and text"
            ) from None
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray):
            raise UserError(f"{path}: {name} is no array; write the file by np.savez")
    return arrays


def _images(
    path: Path, name: str, images: np.ndarray
) -> UInt8[np.ndarray, "examples height width channels"]:
    """The images, with an axis for the channels if they had none."""
    where = f"{path}: {name}"
    if images.dtype != np.uint8:
        raise UserError(f"{where} are {images.dtype}; make them uint8, from 0 to 255")
    if images.ndim not in (3, 4):
        raise UserError(
            f"{where} have shape {images.shape}; "
            "make it (examples, height, width, channels) or (examples, height, width)"
        )
    if 0 in images.shape:
        raise UserError(f"{where} are empty, of shape {images.shape}")
    if images.ndim == 3:
        images = images[..., None]
    # Channels in front, as PyTorch has them, would train, on stripes.
    if images.shape[1] in (1, 3) and images.shape[3] > 4:
        raise UserError(
            f"{where} have shape {images.shape}, channels first; "
            "put them last: images.transpose(0, 2, 3, 1)"
        )
    return images


def _labels(
    path: Path, name: str, labels: np.ndarray, examples: int
) -> Int32[np.ndarray, " examples"]:
    """The labels as int32."""
    where = f"{path}: {name}"
    if not np.issubdtype(labels.dtype, np.integer):
        raise UserError(f"{where} are {labels.dtype}; make them whole numbers, classes from 0")
    if labels.shape != (examples,):
        raise UserError(
            f"{where} have shape {labels.shape}; one label an image is needed: ({examples},)"
        )
    wrong = np.flatnonzero((labels < 0) | (labels >= MOST_CLASSES))
    if len(wrong):
        raise UserError(
            f"{where}: {len(wrong)} labels are no class, first that of example {wrong[0]}, "
            f"{labels[wrong[0]]}; number the classes from 0"
        )
    return labels.astype(np.int32)


def _class_names(path: Path, names: np.ndarray | None, classes: int) -> tuple[str, ...]:
    """One name a class; the numbers where there are no names."""
    if names is None:
        return tuple(str(label) for label in range(classes))
    where = f"{path}: class_names"
    if names.dtype.kind != "U":
        raise UserError(f"{where} are {names.dtype}; make them text: np.array(['cat', 'dog'])")
    if names.ndim != 1 or len(names) < classes:
        raise UserError(
            f"{where} have shape {names.shape}, but the labels go up to {classes - 1}; "
            f"give one name a class: ({classes},)"
        )
    return tuple(names.tolist())


def _handles(name: str) -> bool:
    return name.lower().endswith(".npz")


SOURCES.add(Source("arrays", _handles, load_arrays))
