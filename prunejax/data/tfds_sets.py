"""Any image-classification set that TensorFlow Datasets prepared, read without TensorFlow."""

import difflib
import os
import shlex
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int32, UInt8

from prunejax.config import UserError
from prunejax.config.errors import in_one_line
from prunejax.data.dataset import Dataset
from prunejax.data.decoded import cached
from prunejax.data.entry import FALLBACK, SOURCES, Source, set_names
from prunejax.data.resize import averaged

UNLABELLED = -1
"""The label that TFDS gives where there is none."""


def load_tfds(name: str, data_dir: str | None = None, image_size: int | None = None) -> Dataset:
    """A set that TFDS knows or has prepared; its decoded arrays are kept in the user's cache.

    The test images are those of the test split, or of the validation split where there is no test
    split or it has no labels.

    Args:
        name: of the set, also `name/config` and `name:version`.
        data_dir: where it is prepared; None is TFDS' own default.
        image_size: height and width that its images, of whatever sizes, are averaged to; None:
            they are of one size, and left as they are.

    Raises:
        UserError: if there is no such set, it is not prepared, damaged, no classification of
            images of one size, or has images smaller than `image_size`.
    """
    builder = _find(name, data_dir)
    class_names = _class_names(name, builder.info.features)
    splits = [split for split in ("test", "validation") if split in builder.info.splits]
    if "train" not in builder.info.splits or not splits:
        there = ", ".join(builder.info.splits)
        raise UserError(f"{name} has the splits {there}; a train and a test split are needed")

    def decode() -> dict[str, np.ndarray]:
        train_images, train_labels = _decode(builder, ["train"], image_size)
        test_images, test_labels = _decode(builder, splits, image_size)
        return {
            "train_images": train_images,
            "train_labels": train_labels,
            "test_images": test_images,
            "test_labels": test_labels,
        }

    kept_as = f"{builder.name}-{image_size}x{image_size}" if image_size else builder.name
    arrays = cached(kept_as, Path(builder.data_path), decode)
    return Dataset(name, class_names, **arrays)


def _find(name: str, data_dir: str | None) -> Any:  # noqa: ANN401
    """TFDS' builder of a set that is prepared as array_record."""
    if data_dir is not None:
        try:
            os.listdir(data_dir)
        except OSError as error:
            raise UserError(f"--data_dir={data_dir}: {error.strerror}") from None
    import tensorflow_datasets as tfds

    where = data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    prepare = _prepare_command(name, data_dir)
    directory = _directory(name, where)
    try:
        builder = tfds.builder(name, data_dir=data_dir)
    except tfds.core.DatasetNotFoundError:
        raise UserError(_unknown(name, where)) from None
    except ImportError:  # building the generator's description needs more than reading does
        raise UserError(
            f"{name} is not prepared under {where}; prepare it with: {prepare}"
        ) from None
    except Exception as error:  # what protocol buffers and JSON make of damaged files
        if not directory.exists():  # so the name is wrong, and no file is damaged
            raise UserError(
                f"data.name is {name!r}: TFDS has no such configuration or version of the set"
                f"{_meant(_variants(name), name)} ({in_one_line(error)})"
            ) from None
        raise UserError(
            f"{name} under {where} cannot be read ({in_one_line(error)}); "
            f"prepare it again: {prepare}"
        ) from None
    record = tfds.core.FileFormat.ARRAY_RECORD
    if not builder.data_path.exists() or builder.info.file_format != record:
        raise UserError(
            f"{name} is not prepared as {record.value} under {where}; prepare it with: {prepare}"
        )
    return builder


def _prepare_command(name: str, data_dir: str | None) -> str:
    command = f"./launch.sh prepare {name}"
    if data_dir:
        command += f" --data_dir={shlex.quote(data_dir)}"
    return command


def _directory(name: str, where: str) -> Path:
    """Where the set would lie under `where`.

    Raises:
        UserError: if it is no name as TFDS writes them.
    """
    from tensorflow_datasets.core import naming

    try:
        parsed, settings = naming.parse_builder_name_kwargs(name)
    except ValueError:
        raise UserError(_unknown(name, where)) from None
    steps = [str(parsed), settings.get("config"), settings.get("version")]
    return Path(where).expanduser().joinpath(*[str(step) for step in steps if step])


def _unknown(name: str, where: str) -> str:
    """What to say of a name that is no data set, with the nearest one that is."""
    import tensorflow_datasets as tfds

    ours = set_names()
    known = [*ours, *tfds.list_builders(with_community_datasets=False)]
    if os.path.isdir(where):
        known += sorted(os.listdir(where))
    quoted = ", ".join(repr(one) for one in ours)
    return (
        f"data.name is {name!r}: no such data set{_meant(known, name)} There are {quoted}, "
        "the sets that TFDS knows, and custom arrays: a path to *.npz"
    )


def _variants(name: str) -> list[str]:
    """The configurations and the version of a set, as they are written in `data.name`."""
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core import naming

    parsed, _ = naming.parse_builder_name_kwargs(name)
    try:
        builder_class = tfds.builder_cls(str(parsed))
    except (ValueError, ImportError):  # of a set that was prepared by code that is not here
        return []
    variants = [f"{parsed}/{config}" for config in builder_class.builder_configs]
    return [*variants, f"{parsed}:{builder_class.VERSION}"]


def _meant(known: list[str], name: str) -> str:
    """How a refusal of `name` goes on: with the one of `known` that is nearest, if one is near."""
    close = difflib.get_close_matches(name.lower(), known, n=1)
    return f", did you mean {close[0]!r}?" if close else "."


def _class_names(name: str, features: Any) -> tuple[str, ...]:  # noqa: ANN401
    """The names of the classes of a set that has images and class labels."""
    import tensorflow_datasets as tfds

    advice = "choose an image-classification set"
    is_dictionary = isinstance(features, tfds.features.FeaturesDict)
    if not is_dictionary or not {"image", "label"} <= set(features):
        raise UserError(f"{name} has no 'image' and 'label' to classify; {advice}")
    label: Any = features["label"]
    if not isinstance(label, tfds.features.ClassLabel):
        raise UserError(f"{name}: its 'label' is no class label; {advice}")
    return tuple(label.names)


def _decode(
    builder: Any,  # noqa: ANN401
    splits: list[str],
    image_size: int | None,
) -> tuple[UInt8[np.ndarray, "n h w c"], Int32[np.ndarray, " n"]]:
    """The images and labels of the first of `splits` that has labels."""
    for split in splits:
        images, labels = _read(builder, split, image_size)
        if set(labels) != {UNLABELLED}:
            return _checked(builder, split, images, labels)
    raise UserError(
        f"{builder.name} has no labels in {' or '.join(splits)} (all are {UNLABELLED}); "
        "choose a set that is labelled, to train and to test"
    )


def _read(
    builder: Any,  # noqa: ANN401
    split: str,
    image_size: int | None,
) -> tuple[list[Any], list[Any]]:
    """Every example of a split as TFDS decodes it, its image averaged if a size is requested."""
    images = []
    labels = []
    try:
        for example in builder.as_data_source(split=split):
            image = example["image"]
            if image_size is not None and image.dtype == np.uint8:
                image = averaged(image, image_size)
            images.append(image)
            labels.append(example["label"])
    except UserError as error:
        raise UserError(f"{builder.name}/{split}, example {len(images)}: {error}") from None
    except Exception as error:  # of protocol buffers, array_record, Pillow or TFDS
        raise UserError(
            f"{builder.data_path}: example {len(images)} of {split} cannot be read "
            f"({in_one_line(error)}); prepare it again"
        ) from None
    return images, labels


def _checked(
    builder: Any,  # noqa: ANN401
    split: str,
    images: list[Any],
    labels: list[Any],
) -> tuple[UInt8[np.ndarray, "n h w c"], Int32[np.ndarray, " n"]]:
    """The examples of a split in arrays, if they are images of one size with labels of classes."""
    sizes = {image.shape for image in images}
    if len(sizes) != 1 or images[0].dtype != np.uint8:
        raise UserError(
            f"{builder.name}/{split}: needs images of one size and type uint8; "
            "set data.image_size, or resize them when preparing"
        )
    classes = builder.info.features["label"].num_classes
    wrong = [index for index, label in enumerate(labels) if not 0 <= label < classes]
    if wrong:
        raise UserError(
            f"{builder.data_path}: {len(wrong)} labels of {split} lie outside the {classes} "
            f"classes, first example {wrong[0]}'s, {labels[wrong[0]]}; prepare it again"
        )
    return np.stack(images), np.array(labels, np.int32)


def _handles(name: str) -> bool:
    return True


SOURCES.add(Source(FALLBACK, _handles, load_tfds, load_tfds))
