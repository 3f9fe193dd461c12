"""ResNet against a naive forward pass in NumPy, and what it says of its settings."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prunejax.config import Model, UserError
from prunejax.nn import ARCHITECTURES
from prunejax.nn.heads import LinearHead
from prunejax.nn.resnet import ResNet

RESNET = ARCHITECTURES["resnet"]


# ---------------------------------------- the reference: He et al. 2016, sec. 4.2


def convolve(images, kernel, stride):
    """A 3x3 convolution, padded by one zero on all sides, position by position."""
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)))
    batch, height, width, _ = images.shape
    rows = math.ceil(height / stride)
    columns = math.ceil(width / stride)
    output = np.zeros((batch, rows, columns, kernel.shape[-1]))
    for i in range(rows):
        for j in range(columns):
            window = padded[:, stride * i : stride * i + 3, stride * j : stride * j + 3]
            output[:, i, j] = np.einsum("bhwc,hwcf->bf", window, kernel)
    return output


def reference(variables, images, depth, widen):
    """The representation and the probes of a ResNet in evaluation mode."""
    params, batch_stats = variables["params"], variables["batch_stats"]

    def normalise(x, name):
        mean, variance = batch_stats[name]["mean"], batch_stats[name]["var"]
        scale, bias = params[name]["scale"], params[name]["bias"]
        return (x - mean) / np.sqrt(variance + 1e-5) * scale + bias

    x = convolve(images, params["stem"]["kernel"], 1)
    x = np.maximum(normalise(x, "stem_norm"), 0)
    probes = [x.mean((1, 2))]
    for group in range(3):
        for index in range((depth - 2) // 6):
            name = f"group{group}_block{index}"
            stride = 2 if group > 0 and index == 0 else 1
            inner = convolve(x, params[f"{name}_conv0"]["kernel"], stride)
            inner = np.maximum(normalise(inner, f"{name}_norm0"), 0)
            outer = convolve(inner, params[f"{name}_conv1"]["kernel"], 1)
            outer = normalise(outer, f"{name}_norm1")
            # Option A: the identity at every other position, and zeros for the new channels.
            shortcut = np.zeros_like(outer)
            shortcut[..., : x.shape[-1]] = x[:, ::stride, ::stride]
            x = np.maximum(shortcut + outer, 0)
            probes.append(inner.mean((1, 2)))
            probes.append(x.mean((1, 2)))
    assert x.shape[-1] == 64 * widen
    return x.mean((1, 2)), probes


def randomised(variables, rng):
    """Variables of these shapes, none of which has the value that it would be initialised with."""

    def draw(path, leaf):
        kind = path[-1].key
        if kind == "kernel":
            fan_in = np.prod(leaf.shape[:-1])
            return rng.normal(0, np.sqrt(2 / fan_in), leaf.shape)
        if kind in ("var", "scale"):
            return rng.uniform(0.5, 2, leaf.shape)
        return rng.normal(0, 0.3, leaf.shape)

    return jax.tree_util.tree_map_with_path(draw, variables)


@pytest.mark.parametrize(
    ("depth", "widen", "height", "width"), [(8, 1, 9, 6), (14, 2, 6, 8), (20, 1, 8, 8)]
)
def test_it_computes_what_a_naive_loop_does(depth, widen, height, width):
    rng = np.random.default_rng(0)
    model = ResNet(depth, widen)
    images = rng.normal(size=(2, height, width, 3))
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros(images.shape))
    variables = randomised(shapes, rng)
    expected, expected_probes = reference(variables, images, depth, widen)
    single = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), (variables, images))
    representation, probes = jax.jit(model.apply)(*single)
    np.testing.assert_allclose(representation, expected, rtol=1e-4, atol=1e-4)
    assert len(probes) == len(expected_probes)
    for features, naive in zip(probes, expected_probes, strict=True):
        np.testing.assert_allclose(features, naive, rtol=1e-4, atol=1e-4)


# --------------------------------------------------------------- sizes and words


def parameters(module, *shape):
    variables = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros(shape))
    return sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))


def test_resnet_20_has_269722_parameters_with_its_classifier():
    """0.27 million in He et al. 2016, table 6."""
    assert parameters(ResNet(20), 1, 32, 32, 3) == 269_072
    assert parameters(ResNet(20), 1, 32, 32, 3) + parameters(LinearHead(10), 1, 64) == 269_722


@pytest.mark.parametrize(("depth", "millions"), [(32, 0.46), (44, 0.66), (56, 0.85), (110, 1.7)])
def test_deeper_ones_are_as_large_as_published(depth, millions):
    """Table 6 of He et al. 2016."""
    size = parameters(ResNet(depth), 1, 32, 32, 3) / 1e6
    assert size == pytest.approx(millions, abs=0.05 if millions > 1 else 0.01)


@pytest.mark.parametrize(("depth", "widen"), [(20, 1), (8, 3)])
def test_there_is_a_probe_of_the_stem_and_two_of_each_block(depth, widen):
    images = jnp.zeros((2, 16, 16, 3))
    model = ResNet(depth, widen)
    (representation, probes), _ = jax.eval_shape(
        lambda key: model.init_with_output(key, images), jax.random.key(0)
    )
    per_group = (depth - 2) // 6
    channels = [16 * widen]
    for width in (16, 32, 64):
        channels += [width * widen] * 2 * per_group
    assert [probe.shape for probe in probes] == [(2, width) for width in channels]
    assert representation.shape == (2, 64 * widen)


def test_the_entry_makes_the_network_of_its_settings():
    made = RESNET.make(Model(name="resnet", depth=32, widen_factor=2), "bfloat16", "im2col")
    assert made == ResNet(depth=32, widen_factor=2, dtype="bfloat16", conv="im2col")


def test_a_resnet_is_called_by_its_depth_and_by_its_width_where_that_is_not_he_s():
    assert RESNET.label(Model(name="resnet", depth=20, widen_factor=1)) == "ResNet-20"
    assert RESNET.label(Model(name="resnet", depth=56, widen_factor=2)) == "ResNet-56x2"


@pytest.mark.parametrize("depth", [8, 20, 32, 44, 56, 110])
def test_legal_depths_pass(depth):
    RESNET.check(Model(name="resnet", depth=depth))


@pytest.mark.parametrize("depth", [1, 2, 16, 18])
def test_other_depths_are_refused(depth):
    message = f"model.depth is {depth}; a ResNet has 6n+2 layers: 8, 14, 20, 26, ..."
    with pytest.raises(UserError) as refusal:
        RESNET.check(Model(name="resnet", depth=depth))
    assert str(refusal.value) == message
