"""Architecture: parameter counts, probes, PyTorch's padding; and the convolution under vmap."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from prunejax.config import Model
from prunejax.conv import convolution
from prunejax.models import LinearHead, ProjectionHead, WideResNet, make_networks


def count(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def init(model, *shape):
    return jax.eval_shape(model.init, jax.random.key(0), jnp.zeros(shape))


def test_the_papers_encoder_has_690384_parameters_and_its_head_1290():
    assert count(init(WideResNet(depth=16, widen_factor=2), 1, 32, 32, 3)["params"]) == 690_384
    assert count(init(LinearHead(10), 1, 128)) == 1290
    assert count(init(ProjectionHead(128), 1, 128)) == 2 * (128 * 128 + 128)


@pytest.mark.parametrize(
    ("depth", "widen", "size", "channels"), [(10, 1, 8, 1), (16, 2, 32, 3), (22, 4, 64, 3), (16, 1, 9, 1)]
)
def test_any_legal_size_gives_a_representation_and_probes(depth, widen, size, channels):
    model = WideResNet(depth, widen)
    shape = (2, size, size, channels)
    (representation, probes), _ = jax.eval_shape(
        lambda k: model.init_with_output(k, jnp.zeros(shape)), jax.random.key(0)
    )
    assert representation.shape == (2, 64 * widen)
    blocks = (depth - 4) // 6
    same_width = 3 * (blocks - 1) + (widen == 1)
    assert len(probes) == 1 + 2 * 3 * blocks + same_width
    assert [probe.shape[-1] for probe in probes][0 :: len(probes) - 1] == [16, 64 * widen]


def test_wrn_16_2_has_the_papers_16_probes():
    (_, probes), _ = jax.eval_shape(
        lambda k: WideResNet(16, 2).init_with_output(k, jnp.zeros((1, 32, 32, 3))), jax.random.key(0)
    )
    assert len(probes) == 16


def test_the_representation_is_the_mean_of_the_last_activation():
    model = WideResNet(10, 1)
    (representation, _), variables = model.init_with_output(jax.random.key(0), jnp.ones((2, 8, 8, 1)))
    assert (representation >= 0).all()
    _, state = model.apply(variables, jnp.ones((2, 8, 8, 1)), capture_intermediates=True, mutable=["intermediates"])
    last = jax.nn.relu(state["intermediates"]["final_norm"]["__call__"][0])
    np.testing.assert_allclose(representation, last.mean((1, 2)), rtol=1e-6)


def test_strided_convolutions_pad_one_on_both_sides_as_pytorch():
    """torch.nn.Conv2d(stride=2, padding=1) by definition: the window of output (i, j) starts at (2i - 1, 2j - 1)."""
    rng = np.random.default_rng(0)
    model = WideResNet(10, 1)
    images = rng.normal(size=(1, 8, 8, 1)).astype(np.float32)
    variables = model.init(jax.random.key(0), images)
    _, state = model.apply(variables, images, capture_intermediates=True, mutable=["intermediates"])
    inner = {name: value["__call__"][0] for name, value in state["intermediates"].items() if name != "__call__"}
    activated = np.pad(np.asarray(jax.nn.relu(inner["group1_block0_norm0"])), ((0, 0), (1, 1), (1, 1), (0, 0)))
    kernel = np.asarray(variables["params"]["group1_block0_conv0"]["kernel"])
    expected = np.array(
        [
            [np.einsum("hwc,hwcf->f", activated[0, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3], kernel) for j in range(4)]
            for i in range(4)
        ]
    )
    np.testing.assert_allclose(inner["group1_block0_conv0"][0], expected, rtol=1e-4, atol=1e-5)


def test_kernels_are_kaiming_normal_by_fan_out():
    kernel = WideResNet(16, 2).init(jax.random.key(1), jnp.zeros((1, 8, 8, 3)))["params"]["group2_block1_conv1"][
        "kernel"
    ]
    assert np.std(kernel) == pytest.approx(np.sqrt(2 / (9 * 128)), rel=0.02)


def test_the_projection_lies_on_the_unit_sphere_and_zero_stays_finite():
    model = ProjectionHead(8)
    rows = jnp.array([[1.0, -2.0, 3.0], [0.0, 0.0, 0.0]])
    variables = model.init(jax.random.key(0), rows)
    embeddings = model.apply(variables, rows)
    np.testing.assert_allclose(jnp.linalg.norm(embeddings, axis=1), [1, 0], rtol=1e-5)
    gradient = jax.grad(lambda x: model.apply(variables, x).sum())(rows)
    assert np.isfinite(gradient).all()


def test_bfloat16_computes_in_half_precision_but_keeps_float32_weights_and_statistics():
    model = make_networks(Model(10, 1), 10, "bfloat16", "unrolled")["encoder"]
    (representation, _), variables = model.init_with_output(jax.random.key(0), jnp.zeros((1, 8, 8, 1)))
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    assert representation.dtype == jnp.float32
    text = jax.jit(model.apply).lower(variables, jnp.zeros((1, 8, 8, 1))).as_text()
    convolutions = [line for line in text.splitlines() if "stablehlo.convolution" in line]
    assert convolutions
    assert all("bf16" in line for line in convolutions)


def population_gradient(strategy, strides):
    convolve = convolution(strategy)

    def loss(images, kernel):
        out = convolve(images, kernel, strides, ((1, 1), (1, 1)), dimension_numbers=("NHWC", "HWIO", "NHWC"))
        return jnp.sum(jnp.sin(out))

    return jax.vmap(jax.value_and_grad(loss, argnums=(0, 1)))


@pytest.mark.parametrize("strides", [(1, 1), (2, 2)])
@pytest.mark.parametrize("strategy", ["unrolled", "im2col"])
def test_every_convolution_strategy_computes_the_same(strategy, strides):
    rng = np.random.default_rng(0)
    images = jnp.asarray(rng.normal(size=(3, 2, 8, 8, 4)), jnp.float32)
    kernels = jnp.asarray(rng.normal(size=(3, 3, 3, 4, 5)), jnp.float32)
    ours = population_gradient(strategy, strides)(images, kernels)
    reference = population_gradient("grouped", strides)(images, kernels)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-4), ours, reference)


def test_only_the_grouped_strategy_makes_a_grouped_convolution():
    images, kernels = jnp.zeros((3, 2, 8, 8, 4)), jnp.zeros((3, 3, 3, 4, 5))
    for strategy, grouped in (("unrolled", False), ("im2col", False), ("grouped", True)):
        text = jax.jit(population_gradient(strategy, (1, 1))).lower(images, kernels).as_text()
        found = [g for g in ("feature", "batch") if any(f"{g}_group_count = {n}" in text for n in (3, 6, 12, 15))]
        assert bool(found) == grouped, strategy


def test_images_shared_by_the_population_are_not_copied_per_model():
    images, kernels = jnp.zeros((2, 8, 8, 4)), jnp.zeros((3, 3, 3, 4, 5))
    numbers = ("NHWC", "HWIO", "NHWC")
    mapped = jax.vmap(lambda k: convolution("unrolled")(images, k, (1, 1), ((1, 1), (1, 1)), dimension_numbers=numbers))
    plain = lax.conv_general_dilated(images, kernels[0], (1, 1), ((1, 1), (1, 1)), dimension_numbers=numbers)
    assert mapped(kernels).shape == (3, *plain.shape)
