"""Data: the embedded set, subsets, TFDS with its refusals, and the cache of decoded arrays."""

import dataclasses
import importlib.util
import io
import json
import sys

import numpy as np
import pytest
from array_record.python.array_record_module import ArrayRecordWriter
from PIL import Image

from prunejax import data
from prunejax.config import Data, UserError
from prunejax.data.entry import source_of


def test_digits_are_a_fixed_stratified_split_of_all_1797_images():
    digits = data.load(Data("digits"))
    assert digits.train_images.shape == (1408, 8, 8, 1)
    assert digits.test_images.shape == (389, 8, 8, 1)
    assert (digits.train_images.dtype, digits.train_labels.dtype) == (np.uint8, np.int32)
    assert (digits.train_images.min(), digits.train_images.max()) == (0, 255)
    assert digits.class_names == tuple("0123456789")
    assert np.ptp(np.bincount(digits.test_labels)) <= 2
    assert digits.checksum == data.load(Data("digits")).checksum == "5fb0bc9d04dbe218"


def test_a_subset_is_balanced_fixed_by_its_seed_and_changes_the_checksum():
    few = Data("digits", train_examples=105, test_examples=20)
    one = data.load(few)
    same = data.load(few)
    other = data.load(dataclasses.replace(few, subset_seed=1))
    assert sorted(np.bincount(one.train_labels)) == [10] * 5 + [11] * 5
    assert one.checksum == same.checksum != other.checksum
    everything = data.load(Data("digits"))
    known = {image.tobytes() for image in everything.train_images}
    assert all(image.tobytes() in known for image in one.train_images)


def test_a_subset_takes_what_there_is_of_a_rare_class():
    labels = np.array([0] * 50 + [1] * 3, np.int32)
    chosen = data.balanced_subset(labels, 20, seed=0)
    assert len(set(chosen.tolist())) == 20
    assert np.bincount(labels[chosen]).tolist() == [17, 3]


def test_more_examples_than_there_are_is_refused():
    with pytest.raises(UserError, match=r"data\.test_examples is 400, but digits has 389"):
        data.load(Data("digits", test_examples=400))


def test_an_unknown_set_is_refused(tmp_path):
    with pytest.raises(UserError, match="'no_such_set'"):
        data.load(Data("no_such_set"), str(tmp_path))


def test_an_absent_data_directory_is_refused(tmp_path):
    with pytest.raises(UserError, match="No such file or directory"):
        data.load(Data("cifar10"), str(tmp_path / "absent"))
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="Not a directory"):
        data.load(Data("cifar10"), str(tmp_path / "file"))


def test_a_set_that_is_not_prepared_is_refused_with_the_command_that_prepares_it(tmp_path):
    command = f"./launch.sh prepare cifar10 --data_dir={tmp_path}"
    with pytest.raises(UserError) as refused:
        data.load(Data("cifar10"), str(tmp_path))
    assert command in str(refused.value)


def test_a_misspelt_set_is_answered_with_the_nearest_name(tmp_path):
    """Neither is called damaged, nor is it to be prepared."""
    (tmp_path / "toy").mkdir()
    misspelt = {
        "fashion-mnist": "fashion_mnist",
        "CIFAR-10": "cifar10",
        "digit": "digits",
        "toyy": "toy",
    }
    for name, meant in misspelt.items():
        with pytest.raises(UserError) as refused:
            data.load(Data(name), str(tmp_path))
        message = str(refused.value)
        assert message.startswith(
            f"data.name is {name!r}: no such data set, did you mean {meant!r}?"
        )
        assert "prepare" not in message


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cifar10_corrupted/brightnes_1", "did you mean 'cifar10_corrupted/brightness_1'"),
        ("cifar10:9.9.9", "did you mean 'cifar10:3.0.2'"),
    ],
)
def test_a_configuration_that_does_not_exist_is_not_called_damaged(tmp_path, name, message):
    with pytest.raises(UserError, match=message) as refused:
        data.load(Data(name), str(tmp_path))
    assert "prepare" not in str(refused.value)


def test_one_source_handles_a_name_and_tfds_all_others():
    assert source_of("digits").name == "digits"
    assert source_of("path/to/mine.npz").name == "arrays"
    assert source_of("cifar10").name == source_of("arrays").name == source_of("").name == "tfds"


def test_a_source_of_ones_own_is_loaded_before_tfds(monkeypatch):
    monkeypatch.setattr(data.SOURCES, "_entries", dict(data.SOURCES._entries))
    monkeypatch.setattr(data.SOURCES, "_added_in", dict(data.SOURCES._added_in))
    digits = data.load(Data("digits"))

    def load_inverted(name, data_dir):
        assert (name, data_dir) == ("inverted", "somewhere")
        return dataclasses.replace(digits, name=name, train_images=255 - digits.train_images)

    data.SOURCES.add(data.Source("inverted", lambda name: name == "inverted", load_inverted))
    inverted = data.load(Data("inverted", train_examples=20), "somewhere")
    assert inverted.name == "inverted"
    assert inverted.train_images.shape == (20, 8, 8, 1)
    with pytest.raises(UserError, match="did you mean 'inverted'"):
        data.load(Data("inverte"))


def write_metadata(root, features, splits=("train", "test"), count=0):
    """The files that TFDS leaves beside a prepared set, without its records; their directory."""
    directory = root / "toy" / "1.0.0"
    directory.mkdir(parents=True)
    module = "tensorflow_datasets.core.features"
    written = {}
    for name, (python_class, settings) in features.items():
        written[name] = {"pythonClassName": f"{module}.{python_class}", **settings}
    features_json = {
        "pythonClassName": f"{module}.features_dict.FeaturesDict",
        "featuresDict": {"features": written},
    }
    (directory / "features.json").write_text(json.dumps(features_json))
    info = {
        "name": "toy",
        "version": "1.0.0",
        "fileFormat": "array_record",
        "moduleName": "toy",
        "splits": [],
    }
    for split in splits:
        info["splits"].append(
            {
                "name": split,
                "shardLengths": [str(count)],
                "numBytes": "0",
                "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
            }
        )
    (directory / "dataset_info.json").write_text(json.dumps(info))
    return directory


TEXT = ("text_feature.Text", {"text": {}})
IMAGE = (
    "image_feature.Image",
    {"image": {"shape": {"dimensions": ["2", "2", "3"]}, "dtype": "uint8"}},
)
LABEL = ("class_label_feature.ClassLabel", {"classLabel": {"numClasses": "2"}})


@pytest.mark.parametrize(
    ("features", "splits", "message"),
    [
        ({"text": TEXT, "label": LABEL}, ("train", "test"), "no 'image' and 'label'"),
        ({"image": IMAGE, "label": TEXT}, ("train", "test"), "no class label"),
        ({"image": IMAGE, "label": LABEL}, ("train",), "has the splits train"),
    ],
)
def test_a_set_that_is_no_image_classification_is_refused(tmp_path, features, splits, message):
    write_metadata(tmp_path, features, splits)
    with pytest.raises(UserError, match=message):
        data.load(Data("toy"), str(tmp_path))


def field(number, content):
    """A length-delimited field of a protocol buffer."""
    size = len(content)
    length = [size | 128, size >> 7] if size > 127 else [size]
    return bytes([number << 3 | 2, *length]) + content


def varint(number):
    """An integer of a protocol buffer: seven bits a byte, a negative one as 64 bits."""
    number %= 2**64
    groups = []
    while number > 127:
        groups.append(number & 127 | 128)
        number >>= 7
    return bytes([*groups, number])


def example(image, label):
    """A `tf.train.Example`: features 1: map 1 of name 1 to value 2: bytes 1 or integers 3."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    values = {
        b"image": field(1, field(1, buffer.getvalue())),
        b"label": field(3, field(1, varint(label))),
    }
    pairs = [field(1, field(1, name) + field(2, value)) for name, value in values.items()]
    return field(1, b"".join(pairs))


def write_records(directory, records, splits=("train", "test")):
    for split in splits:
        path = directory / f"toy-{split}.array_record-00000-of-00001"
        writer = ArrayRecordWriter(str(path), "group_size:1")
        for record in records:
            writer.write(record)
        writer.close()


SQUARE = np.zeros((2, 2, 3), np.uint8)
WIDE = np.zeros((2, 3, 3), np.uint8)
ANY_SIZE = (
    "image_feature.Image",
    {"image": {"shape": {"dimensions": ["-1", "-1", "3"]}, "dtype": "uint8"}},
)
FLOAT = (
    "image_feature.Image",
    {"image": {"shape": {"dimensions": ["2", "2", "1"]}, "dtype": "float32"}},
)


@pytest.mark.parametrize(
    ("image", "records", "message"),
    [
        (
            IMAGE,
            [example(SQUARE, 0), example(SQUARE, 2)],
            "1 labels of train lie outside the 2 classes",
        ),
        (IMAGE, [example(SQUARE, 0), example(SQUARE, 1)[:-3]], "example 1 of train cannot be read"),
        (IMAGE, [b"", b""], "example 0 of train cannot be read"),
        (
            ANY_SIZE,
            [example(SQUARE, 0), example(WIDE, 1)],
            "needs images of one size and type uint8",
        ),
        (FLOAT, [example(SQUARE, 0), example(SQUARE, 1)], "train(: needs images| cannot be read)"),
        (IMAGE, [], "train(: needs images| cannot be read)"),
        (
            IMAGE,
            [example(SQUARE, 0), example(SQUARE, -1)],
            "1 labels of train lie outside the 2 classes, first example 1's, -1",
        ),
    ],
)
def test_records_that_cannot_be_classified_are_refused(
    tmp_path, monkeypatch, image, records, message
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    features = {"image": image, "label": LABEL}
    write_records(write_metadata(tmp_path, features, count=len(records)), records)
    with pytest.raises(UserError, match=message):
        data.load(Data("toy"), str(tmp_path))
    assert not (tmp_path / "cache").exists()


def test_whole_records_are_read_and_damaged_files_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    directory = write_metadata(tmp_path, {"image": IMAGE, "label": LABEL}, count=2)
    write_records(directory, [example(SQUARE, 0), example(SQUARE + 9, 1)])
    toy = data.load(Data("toy"), str(tmp_path))
    assert toy.test_images[:, 0, 0, 0].tolist() == [0, 9]
    assert toy.test_labels.tolist() == [0, 1]
    for path in sorted(directory.iterdir()):
        content = path.read_bytes()
        for harmed in (content[: len(content) // 2], b"", b"{}"):
            path.write_bytes(harmed)
            with pytest.raises(UserError):
                data.load(Data("toy"), str(tmp_path))
        path.write_bytes(content)


LABELLED = [example(SQUARE, 0), example(SQUARE + 9, 1)]
WITHOUT_LABELS = [example(SQUARE, -1), example(SQUARE, -1)]


def test_a_test_split_without_labels_is_replaced_by_the_validation_split(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    splits = ("train", "test", "validation")
    directory = write_metadata(tmp_path, {"image": IMAGE, "label": LABEL}, splits, count=2)
    write_records(directory, LABELLED, ("train",))
    write_records(directory, WITHOUT_LABELS, ("test",))
    write_records(directory, LABELLED[::-1], ("validation",))
    toy = data.load(Data("toy"), str(tmp_path))
    assert toy.test_labels.tolist() == [1, 0]
    assert toy.test_images[:, 0, 0, 0].tolist() == [9, 0]
    again = data.load(Data("toy"), str(tmp_path))
    assert again.checksum == toy.checksum


@pytest.mark.parametrize(
    ("unlabelled", "splits", "message"),
    [
        ("test", ("train", "test"), "toy has no labels in test"),
        ("train", ("train", "test"), "toy has no labels in train"),
        ("train", ("train", "validation"), "toy has no labels in train"),
    ],
)
def test_a_set_without_labels_is_refused_as_such(
    tmp_path, monkeypatch, unlabelled, splits, message
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    directory = write_metadata(tmp_path, {"image": IMAGE, "label": LABEL}, splits, count=2)
    for split in splits:
        write_records(directory, WITHOUT_LABELS if split == unlabelled else LABELLED, (split,))
    with pytest.raises(UserError, match=message) as refused:
        data.load(Data("toy"), str(tmp_path))
    assert "prepare" not in str(refused.value)


def test_cifar10_is_read_without_tensorflow(cifar10_dir, tmp_path, monkeypatch):
    """Also from the cache, and again from the records when the cache was damaged."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    if importlib.util.find_spec("tensorflow"):
        monkeypatch.setitem(sys.modules, "tensorflow", None)
    first = data.load(Data(), str(cifar10_dir))
    assert first.train_images.shape == (50000, 32, 32, 3)
    assert first.test_images.shape == (10000, 32, 32, 3)
    assert first.class_names[:3] == ("airplane", "automobile", "bird")
    assert np.bincount(first.train_labels).tolist() == [5000] * 10
    measured = data.with_statistics(Data(mean=None, std=None), first)
    np.testing.assert_allclose(measured.mean, Data().mean, atol=2e-4)
    np.testing.assert_allclose(measured.std, Data().std, atol=2e-4)
    (cached,) = (tmp_path / "prunejax" / "datasets").iterdir()
    assert data.load(Data(), str(cifar10_dir)).checksum == first.checksum
    path = cached / "test_labels.npy"
    labels = np.load(path)
    for damage in (lambda: np.save(path, labels[::-1]), lambda: path.write_bytes(b"")):
        damage()
        assert data.load(Data(), str(cifar10_dir)).checksum == first.checksum
        assert (np.load(path) == labels).all()


def by_areas(image, size):
    """The means of whole blocks, rounded half up as Pillow does, for sizes that divide."""
    block = image.shape[0] // size
    blocks = image.reshape(size, block, size, block, -1).astype(np.float64)
    return np.floor(blocks.mean((1, 3)) + 0.5).astype(np.uint8)


@pytest.mark.parametrize("size", [1, 2, 4])
def test_images_are_averaged_over_areas(size):
    whole = data.load(Data("digits", train_examples=30, test_examples=20))
    small = data.load(Data("digits", train_examples=30, test_examples=20, image_size=size))
    assert small.train_images.shape == (30, size, size, 1)
    for before, after in zip(whole.test_images, small.test_images, strict=True):
        expected = by_areas(before, size)
        # Pillow averages along rows, rounds, and then along columns.
        assert np.abs(expected.astype(int) - after).max() <= 1
    np.testing.assert_array_equal(small.test_labels, whole.test_labels)
    assert small.checksum != whole.checksum


def test_the_size_that_images_have_leaves_them_as_they_are():
    whole = data.load(Data("digits", train_examples=30))
    assert data.load(Data("digits", train_examples=30, image_size=8)).checksum == whole.checksum


def test_images_are_not_made_larger():
    with pytest.raises(UserError, match=r"data\.image_size is 9, but an image is 8x8"):
        data.load(Data("digits", image_size=9))


def test_a_set_of_several_sizes_is_averaged_to_one_as_it_is_read(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    pixels = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    features = {"image": ANY_SIZE, "label": LABEL}
    directory = write_metadata(tmp_path, features, count=2)
    write_records(directory, [example(SQUARE + 7, 0), example(pixels, 1)])
    with pytest.raises(UserError, match=r"one size .* set data.image_size"):
        data.load(Data("toy"), str(tmp_path))
    small = data.load(Data("toy", image_size=2), str(tmp_path))
    assert small.train_images.shape == (2, 2, 2, 3)
    assert (small.train_images[0] == 7).all()
    expected = pixels.reshape(2, 2, 2, 3, 3).mean((1, 3))
    np.testing.assert_allclose(small.train_images[1], expected, atol=1)
    # What is cached is of its size.
    assert data.load(Data("toy", image_size=1), str(tmp_path)).train_images.shape == (2, 1, 1, 3)
    again = data.load(Data("toy", image_size=2), str(tmp_path))
    assert again.checksum == small.checksum
    with pytest.raises(
        UserError, match=r"toy/train, example 0: data.image_size is 3, but an image"
    ):
        data.load(Data("toy", image_size=3), str(tmp_path))


def test_the_checksum_covers_every_array():
    digits = data.load(Data("digits", train_examples=20, test_examples=20))
    for name in ("train_images", "train_labels", "test_images", "test_labels"):
        changed = getattr(digits, name).copy()
        changed.flat[0] += 1
        assert dataclasses.replace(digits, **{name: changed}).checksum != digits.checksum
