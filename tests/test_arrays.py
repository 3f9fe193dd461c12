"""One's own arrays: what was saved is what is loaded, and anything else is refused in one line."""

import io
import os
import zipfile

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from prunejax import data
from prunejax.config import Data, UserError

NAMES = ("train_images", "train_labels", "test_images", "test_labels")
FUZZ = {
    "deadline": None,
    "derandomize": True,
    "database": None,
    "suppress_health_check": list(HealthCheck),
}
UNMEASURED = {"mean": None, "std": None}


def make_arrays(**changes):
    """Six images of 4x5 with two channels to train on and three to test on, of three classes."""
    generator = np.random.default_rng(0)
    arrays = {
        "train_images": generator.integers(0, 256, (6, 4, 5, 2), np.uint8),
        "train_labels": np.array([0, 1, 0, 1, 0, 1]),
        "test_images": generator.integers(0, 256, (3, 4, 5, 2), np.uint8),
        "test_labels": np.array([2, 1, 0]),
    }
    return arrays | changes


@pytest.fixture
def path(tmp_path):
    return tmp_path / "mine.npz"


def load(path, **settings):
    return data.load(Data(str(path), **settings))


def refusal(path):
    """The one line with which a file is refused."""
    with pytest.raises(UserError) as refused:
        load(path)
    message = str(refused.value)
    assert "\n" not in message
    assert path.name in message
    return message


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_what_was_saved_is_loaded(path, save):
    arrays = make_arrays()
    save(path, **arrays)
    mine = load(path)
    for name in NAMES:
        np.testing.assert_array_equal(getattr(mine, name), arrays[name])
    assert mine.train_images.dtype == mine.test_images.dtype == np.uint8
    assert mine.train_labels.dtype == mine.test_labels.dtype == np.int32
    assert mine.shapes == ((4, 5, 2), 3)
    assert mine.class_names == ("0", "1", "2")
    assert mine.name == str(path)


def test_images_without_an_axis_for_channels_have_one_channel(path):
    one_channel = {name: make_arrays()[name][..., 0] for name in ("train_images", "test_images")}
    np.savez(path, **make_arrays(**one_channel))
    mine = load(path)
    assert mine.train_images.shape == (6, 4, 5, 1)
    np.testing.assert_array_equal(mine.test_images[..., 0], one_channel["test_images"])


def test_class_names_say_how_many_classes_there_are(path):
    np.savez(path, **make_arrays(), class_names=["cat", "dog", "bird", "none of them"])
    mine = load(path)
    assert mine.class_names == ("cat", "dog", "bird", "none of them")
    assert all(type(name) is str for name in mine.class_names)
    assert mine.num_classes == 4


@pytest.mark.parametrize("dtype", ["uint8", "int8", ">i4", "int64", "uint64"])
def test_labels_may_be_of_any_integer_type(path, dtype):
    arrays = make_arrays()
    labels = {name: arrays[name].astype(dtype) for name in ("train_labels", "test_labels")}
    np.savez(path, **arrays | labels)
    assert load(path).test_labels.tolist() == [2, 1, 0]


def test_arrays_of_other_names_do_not_matter(path):
    np.savez(path, **make_arrays(), ids=np.array(["a", {}], object))
    assert load(path).num_classes == 3


def test_a_subset_is_taken_as_of_any_data_set(path):
    np.savez(path, **make_arrays())
    few = load(path, train_examples=4)
    assert few.train_labels.tolist().count(0) == few.train_labels.tolist().count(1) == 2
    with pytest.raises(UserError, match=r"data\.test_examples is 4, but .*mine\.npz has 3 there"):
        load(path, test_examples=4)


def test_the_home_directory_may_be_written_as_a_tilde(path, monkeypatch):
    np.savez(path, **make_arrays())
    monkeypatch.setenv("HOME", str(path.parent))
    assert load("~/mine.npz").checksum == load(path).checksum


def test_a_file_that_is_not_at_its_path_is_taken_from_the_data_directory(path, tmp_path):
    """As on another machine than the one that trained."""
    np.savez(path, **make_arrays())
    absent = "/absent/mine.npz"
    assert data.load(Data(absent), str(tmp_path)).checksum == load(path).checksum
    with pytest.raises(UserError, match=r"'/absent/mine\.npz': No such file or directory"):
        data.load(Data(absent), str(tmp_path / "absent"))


# ------------------------------------------------------------------- bad input


def test_a_path_that_leads_to_no_file_is_refused(path):
    assert "No such file or directory" in refusal(path)
    path.mkdir()
    assert "Is a directory" in refusal(path)
    with pytest.raises(UserError, match="embedded null byte"):
        load("a\0.npz")
    with pytest.raises(UserError, match="home directory"):
        load("~nobody-of-this-name/mine.npz")


def test_what_is_no_npz_file_is_refused(path):
    np.savez(path, **make_arrays())
    whole = path.read_bytes()
    one_array = io.BytesIO()
    np.save(one_array, np.zeros(3))
    for content in (b"", b"some text", one_array.getvalue(), whole[:-1], whole[: len(whole) // 2]):
        path.write_bytes(content)
        assert "no npz file, or a truncated one" in refusal(path)


@pytest.mark.parametrize("absent", NAMES)
def test_a_file_without_one_of_the_arrays_is_refused(path, absent):
    arrays = make_arrays()
    del arrays[absent]
    np.savez(path, **arrays)
    assert f"holds no {absent}; it needs train_images, " in refusal(path)


EMPTY = {"test_images": np.zeros((0, 4, 5, 2), np.uint8), "test_labels": np.zeros(0, int)}
CHANNELS_FIRST = np.zeros((6, 3, 8, 8), np.uint8)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train_images": np.zeros((6, 4, 5, 2))}, "train_images are float64; make them uint8"),
        ({"test_images": np.zeros((3, 4, 5, 2), int)}, "test_images are int64; make them uint8"),
        ({"train_images": np.zeros((6, 40), np.uint8)}, "train_images have shape (6, 40); make"),
        ({"train_images": np.uint8(1)}, "train_images have shape (); make"),
        ({"train_images": CHANNELS_FIRST}, "(6, 3, 8, 8), channels first; put them last"),
        ({"test_images": np.zeros((3, 4, 4, 2), np.uint8)}, "(4, 5, 2) and those of test_images"),
        ({"test_images": np.zeros((3, 4, 5), np.uint8)}, "and those of test_images (4, 5, 1)"),
        (EMPTY, "test_images are empty, of shape (0, 4, 5, 2)"),
        ({"train_images": np.zeros((6, 0, 5, 2), np.uint8)}, "train_images are empty"),
        ({"train_labels": np.zeros(5, int)}, "train_labels have shape (5,); one label an image"),
        ({"test_labels": np.zeros((3, 1), int)}, "have shape (3, 1); one label an image is needed"),
        ({"train_labels": np.zeros(6)}, "train_labels are float64; make them whole numbers"),
        ({"test_labels": np.array(["a", "b", "c"])}, "test_labels are <U1; make them whole"),
        ({"test_labels": np.zeros(3, bool)}, "test_labels are bool; make them whole numbers"),
        (
            {"test_labels": np.array([0, -1, -2])},
            "2 labels are no class, first that of example 1, -1",
        ),
        (
            {"test_labels": np.array([0, 1, 2**40])},
            "1 labels are no class, first that of example 2",
        ),
        ({"class_names": ["a", "b"]}, "class_names have shape (2,), but the labels go up to 2"),
        ({"class_names": "abc"}, "class_names have shape (), but"),
        ({"class_names": [1, 2, 3]}, "class_names are int64; make them text"),
        ({"class_names": [b"a", b"b", b"c"]}, "class_names are |S1; make them text"),
    ],
)
def test_arrays_that_are_no_image_classification_are_refused(path, changes, message):
    np.savez(path, **make_arrays(**changes))
    assert message in refusal(path)


class Trap:
    """Unpickled, it would leave a directory."""

    def __reduce__(self):
        return os.mkdir, ("unpickled",)


@pytest.mark.parametrize("name", ["train_labels", "class_names"])
def test_pickled_arrays_are_refused_and_never_unpickled(path, name, monkeypatch):
    monkeypatch.chdir(path.parent)
    np.savez(path, **make_arrays(**{name: np.array([Trap()], object)}))
    assert "Object arrays cannot be loaded" in refusal(path)
    assert not (path.parent / "unpickled").exists()


def test_a_member_that_is_no_array_is_refused(path):
    np.savez(path, **make_arrays(train_labels=np.zeros(6, int)))
    with zipfile.ZipFile(path) as file:
        members = {name: file.read(name) for name in file.namelist()}
    with zipfile.ZipFile(path, "w") as file:
        for name, content in members.items():
            file.writestr(name, b"text" if name == "train_labels.npy" else content)
    assert "train_labels is no array" in refusal(path)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_damaged_file_is_refused_or_its_arrays_are_whole(tmp_path_factory, save):
    """Each member has a checksum, so that no damage passes for data."""
    path = tmp_path_factory.mktemp("damage") / "mine.npz"
    save(path, **make_arrays())
    whole = path.read_bytes()
    checksum = load(path).checksum
    refused = set()

    @settings(max_examples=300, **FUZZ)
    @given(place=st.integers(0, len(whole) - 1), flip=st.integers(1, 255), cut=st.booleans())
    def check(place, flip, cut):
        flipped = bytes([whole[place] ^ flip])
        path.write_bytes(whole[:place] if cut else whole[:place] + flipped + whole[place + 1 :])
        try:
            mine = load(path)
        except UserError as error:
            refused.add(str(error))
        else:
            assert mine.checksum == checksum

    check()
    assert len(refused) > 5
    assert not any("\n" in message for message in refused)


# ------------------------------------------------------------------ statistics


def test_statistics_are_those_of_the_training_images(path):
    np.savez(path, **make_arrays())
    mine = load(path)
    config = data.with_statistics(Data(str(path), **UNMEASURED), mine)
    brightness = mine.train_images / 255
    np.testing.assert_array_equal(config.mean, brightness.mean((0, 1, 2)).round(4))
    np.testing.assert_array_equal(config.std, brightness.std((0, 1, 2)).round(4))
    assert all(type(value) is float for value in (*config.mean, *config.std))


def test_statistics_of_two_grey_values_can_be_counted_by_hand(path):
    """A quarter of the pixels is white: the mean is 1/4, the deviation sqrt(3)/4."""
    images = np.zeros((8, 2, 2), np.uint8)
    images[:2] = 255
    labels = np.zeros(8, int)
    np.savez(path, train_images=images, train_labels=labels, test_images=images, test_labels=labels)
    config = data.with_statistics(Data(str(path), **UNMEASURED), load(path))
    assert config.mean == (0.25,)
    assert config.std == (0.433,)


def test_statistics_are_of_the_subset_that_trains(path):
    np.savez(path, **make_arrays())
    config = Data(str(path), train_examples=2, **UNMEASURED)
    few = data.load(config)
    measured = data.with_statistics(config, few)
    assert measured.mean == tuple((few.train_images / 255).mean((0, 1, 2)).round(4))
    assert measured.mean != data.with_statistics(config, load(path)).mean


@pytest.mark.parametrize("given", [{}, {"mean": None}, {"std": None}])
def test_statistics_that_are_given_stay(path, given):
    np.savez(path, **make_arrays())
    config = Data(str(path), **given)
    assert data.with_statistics(config, load(path)) == config


def test_a_constant_channel_has_no_statistics(path):
    arrays = make_arrays()
    arrays["train_images"][..., 1] = 7
    np.savez(path, **arrays)
    with pytest.raises(UserError, match="channel 1 of the training images is constant"):
        data.with_statistics(Data(str(path), **UNMEASURED), load(path))
