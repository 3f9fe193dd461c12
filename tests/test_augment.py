"""Image transformations against Python's colour conversion, naive resampling, and their limits."""

import colorsys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prunejax.config import Augment, Config, Data
from prunejax.methods import augment

IMAGE = np.random.default_rng(0).random((8, 8, 3)).astype(np.float32)
BYTES = (IMAGE * 255).astype(np.uint8)


# ------------------------------------------------------------------------- hue


def test_hue_is_turned_as_by_colorsys():
    for shift in (-0.1, 0.0, 0.37):
        ours = np.asarray(augment._shift_hue(IMAGE, jnp.float32(shift)))
        for row, column in ((0, 0), (3, 4), (7, 7)):
            hue, saturation, value = colorsys.rgb_to_hsv(*IMAGE[row, column].tolist())
            expected = colorsys.hsv_to_rgb((hue + shift) % 1, saturation, value)
            np.testing.assert_allclose(ours[row, column], expected, atol=1e-5)


def test_gray_pixels_keep_their_colour_under_a_hue_shift():
    gray = np.full((2, 2, 3), 0.4, np.float32)
    np.testing.assert_allclose(augment._shift_hue(gray, jnp.float32(0.3)), gray, atol=1e-6)


# ----------------------------------------------------------- crops, flips, padding


def test_resized_crop_of_the_whole_image_is_the_image():
    crop = augment.resized_crop(jax.random.key(0), IMAGE, scale=(1.0, 1.0), ratio=(1.0, 1.0))
    np.testing.assert_allclose(crop, IMAGE, atol=1e-6)


def test_resampling_is_bilinear_and_stops_at_the_edge_of_the_crop():
    matrix = np.asarray(augment._interpolation(jnp.float32(2), jnp.float32(4), 8))
    np.testing.assert_allclose(matrix.sum(1), 1, rtol=1e-6)
    # (i + 0.5) / 2 - 0.5 + 2, held within pixels 2 to 5.
    centres = [2, 2.25, 2.75, 3.25, 3.75, 4.25, 4.75, 5]
    np.testing.assert_allclose(matrix @ np.arange(8), centres, rtol=1e-6)
    assert (matrix[:, [0, 1, 6, 7]] == 0).all()


def test_crop_boxes_have_the_asked_area_and_ratio():
    """Each pixel of the image holds its row, so that a crop shows which rows it was cut from."""
    keys = jax.random.split(jax.random.key(0), 200)
    rows = np.arange(32, dtype=np.float32)
    ramp = np.broadcast_to(rows[:, None, None], (32, 32, 1))

    def crop(key):
        return augment.resized_crop(key, ramp, scale=(0.2, 1.0), ratio=(0.75, 4 / 3))

    crops = jax.vmap(crop)(keys)
    heights = np.asarray(crops[:, -1, 0, 0] - crops[:, 0, 0, 0]) + 1
    assert heights.min() >= np.floor(np.sqrt(0.2 * 1024 * 0.75))
    assert heights.max() <= 32
    assert np.std(heights) > 3


def test_the_largest_box_in_the_middle_is_taken_where_no_crop_fits():
    """As torchvision does; a box of the whole area fits only in an image of its own ratio."""
    rows, columns = np.mgrid[:16, :64].astype(np.float32)
    wide = np.stack([rows, columns], -1)

    def crop(image, ratio):
        key = jax.random.key(0)
        return np.asarray(augment.resized_crop(key, image, scale=(1.0, 1.0), ratio=ratio))

    np.testing.assert_allclose(crop(IMAGE, (0.75, 4 / 3)), IMAGE, atol=1e-6)
    # 16 x 21 of 16 x 64: the columns from 21 to 41.
    found = crop(wide, (0.75, 4 / 3))
    np.testing.assert_allclose(found[:, 0, 0], np.arange(16), atol=1e-5)
    assert (found[..., 1].min(), found[..., 1].max()) == pytest.approx((21, 41), abs=1e-5)
    found = crop(wide.swapaxes(0, 1), (0.75, 4 / 3))  # 21 x 16 of 64 x 16
    assert (found[..., 1].min(), found[..., 1].max()) == pytest.approx((21, 41), abs=1e-5)


def test_pad_and_crop_moves_the_image_by_up_to_the_padding_and_fills_black():
    keys = jax.random.split(jax.random.key(0), 300)
    image = np.full((6, 6, 1), 255, np.uint8)
    crops = jax.vmap(lambda key: augment.pad_and_crop(key, image, padding=2))(keys)
    rows_with_image = np.asarray(crops)[..., 0].max(axis=2) > 0
    heights = rows_with_image.sum(axis=1)
    assert set(heights.tolist()) == {4, 5, 6}
    assert crops.dtype == np.uint8


def test_flip_happens_half_the_time():
    keys = jax.random.split(jax.random.key(0), 400)
    views = np.asarray(jax.vmap(lambda key: augment.flip(key, IMAGE, axis=1))(keys))
    flipped = [np.array_equal(view, IMAGE[:, ::-1]) for view in views]
    assert np.mean(flipped) == pytest.approx(0.5, abs=0.08)


# --------------------------------------------------------------------- colours


@pytest.mark.parametrize(
    ("strengths", "probability"),
    [((0.0, 0.0, 0.0, 0.0), 1.0), ((0.4, 0.4, 0.4, 0.1), 0.0)],
)
def test_jitter_without_strength_or_probability_is_the_identity(strengths, probability):
    view = augment.colour_jitter(
        jax.random.key(1), IMAGE, strengths=strengths, probability=probability
    )
    np.testing.assert_allclose(view, IMAGE, atol=1e-5)


@pytest.mark.parametrize("seed", range(5))
def test_jitter_applies_each_change_once_in_the_drawn_order(seed):
    key = jax.random.key(seed)
    ours = augment.colour_jitter(key, IMAGE, strengths=(0.4, 0.4, 0.4, 0.1), probability=1.0)

    # What it draws, from the same keys.
    keys = jax.random.split(key, 4)
    factors = jax.random.uniform(keys[0], (3,), minval=0.6, maxval=1.4)
    hue = jax.random.uniform(keys[1], minval=-0.1, maxval=0.1)
    order = jax.random.permutation(keys[2], 4).tolist()

    # Brightness, contrast and saturation are blends; the fourth change is the hue's.
    expected = IMAGE
    for kind in order:
        if kind == 3:
            expected = np.asarray(augment._shift_hue(expected, hue))
            continue
        gray = expected @ np.array([0.299, 0.587, 0.114], np.float32)
        bases = [np.zeros_like(gray), np.full_like(gray, gray.mean()), gray]
        base = bases[kind][..., None]
        expected = np.clip(factors[kind] * expected + (1 - factors[kind]) * base, 0, 1)
    np.testing.assert_allclose(ours, expected, atol=1e-4)


def test_grayscale_happens_with_its_probability_and_leaves_the_luma_in_all_channels():
    keys = jax.random.split(jax.random.key(0), 400)
    views = jax.vmap(lambda key: augment.random_grayscale(key, IMAGE, probability=0.2))(keys)
    luma = IMAGE @ np.array([0.299, 0.587, 0.114], np.float32)
    gray = np.stack([luma, luma, luma], axis=-1)
    is_gray = [np.allclose(view, gray, atol=1e-6) for view in np.asarray(views)]
    assert np.mean(is_gray) == pytest.approx(0.2, abs=0.06)
    for view, changed in zip(np.asarray(views), is_gray, strict=True):
        assert changed or np.array_equal(view, IMAGE)


# ------------------------------------------------------------------- all together


def test_views_are_a_function_of_the_key_in_the_unit_range():
    view = augment.make_augment(Config().scl_augment)
    first = view(jax.random.key(0), BYTES)
    again = view(jax.random.key(0), BYTES)
    other = view(jax.random.key(1), BYTES)
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, other)
    assert first.min() >= 0
    assert first.max() <= 1


def test_no_augmentation_is_the_image():
    view = augment.make_augment(Augment(horizontal_flip=False))
    np.testing.assert_allclose(view(jax.random.key(0), BYTES), BYTES / 255, rtol=1e-6)


def test_normalise_is_per_channel():
    statistics = Data(mean=(0.0, 0.5, 1.0), std=(1.0, 0.5, 2.0))
    images = jnp.full((2, 4, 4, 3), 2.0)
    normalised = augment.normalise(images, statistics)
    np.testing.assert_allclose(normalised[0, 0, 0], [2, 3, 0.5], rtol=1e-6)


def test_normalise_needs_statistics():
    with pytest.raises(ValueError, match="with_statistics"):
        augment.normalise(jnp.ones((2, 4, 4, 3)), Data(mean=None, std=None))
