"""Every architecture keeps the contract; WideResNet is the paper's; what the heads return."""

import contextlib
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from lowered import convolutions, group_counts

from prunejax.config import Model, UserError
from prunejax.nn import ARCHITECTURES, make_networks
from prunejax.nn.heads import LinearHead, ProjectionHead
from prunejax.nn.wideresnet import WideResNet


def count(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def shapes(module, *shape):
    """What `module` returns for zeros of a shape, and its variables, as shapes and dtypes."""
    inputs = jnp.zeros(shape)
    return jax.eval_shape(lambda key: module.init_with_output(key, inputs), jax.random.key(0))


def random_images(*shape):
    return jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)


# --------------------------------------------- what every architecture promises


@pytest.fixture(params=list(ARCHITECTURES))
def model(request):
    """The settings of the smallest network of each architecture."""
    for depth in range(1, 100):
        smallest = Model(name=request.param, depth=depth, widen_factor=1)
        with contextlib.suppress(UserError):
            ARCHITECTURES[request.param].check(smallest)
            return smallest
    return pytest.fail(f"{request.param} has no network of fewer than 100 layers")


def make_encoder(model, dtype="float32"):
    return make_networks(model, 10, dtype, "unrolled")["encoder"]


@pytest.mark.parametrize("shape", [(2, 8, 8, 1), (3, 9, 9, 3), (1, 2, 3, 2)])
def test_an_encoder_returns_a_representation_and_probes_of_each_image(model, shape):
    (representation, probes), _ = shapes(make_encoder(model), *shape)
    assert representation.ndim == 2
    assert len(probes) > 2
    for features in (representation, *probes):
        assert features.ndim == 2
        assert len(features) == shape[0]
        assert features.dtype == jnp.float32


def test_training_moves_every_running_statistic_and_evaluation_none(model):
    encoder = make_encoder(model)
    images = random_images(4, 8, 8, 3)
    variables = jax.jit(encoder.init)(jax.random.key(0), images)

    @partial(jax.jit, static_argnames="train")
    def statistics(variables, train):
        _, updated = encoder.apply(variables, images, train=train, mutable=["batch_stats"])
        return jax.tree.leaves(updated["batch_stats"])

    before = jax.tree.leaves(variables["batch_stats"])
    assert before
    for old, new in zip(before, statistics(variables, train=True), strict=True):
        assert not np.array_equal(old, new)
    for old, same in zip(before, statistics(variables, train=False), strict=True):
        np.testing.assert_array_equal(old, same)


def test_a_population_computes_what_each_of_its_models_does_alone(model):
    encoder = make_encoder(model)
    images = random_images(3, 8, 8, 3)
    keys = jax.random.split(jax.random.key(0), 2)
    variables = jax.jit(jax.vmap(lambda key: encoder.init(key, images)))(keys)
    representations, probes = jax.jit(jax.vmap(lambda own: encoder.apply(own, images)))(variables)
    apply = jax.jit(encoder.apply)
    for index in range(2):
        own = jax.tree.map(lambda leaf, index=index: leaf[index], variables)
        representation, own_probes = apply(own, images)
        np.testing.assert_allclose(representations[index], representation, rtol=1e-4, atol=1e-5)
        for features, alone in zip(probes, own_probes, strict=True):
            np.testing.assert_allclose(features[index], alone, rtol=1e-4, atol=1e-5)


def test_vmapping_over_models_emits_no_grouped_convolution(model):
    encoder = make_encoder(model)
    images = jnp.zeros((3, 2, 8, 8, 3))
    keys = jax.random.split(jax.random.key(0), 3)
    variables = jax.eval_shape(jax.vmap(encoder.init), keys, images)

    def loss(params, batch_stats, images):
        (representation, _), _ = encoder.apply(
            {"params": params, "batch_stats": batch_stats},
            images,
            train=True,
            mutable=["batch_stats"],
        )
        return jnp.sum(representation**2)

    gradient = jax.jit(jax.vmap(jax.grad(loss)))
    text = gradient.lower(variables["params"], variables["batch_stats"], images).as_text()
    assert group_counts(text) == {1}


def test_bfloat16_computes_in_half_precision_but_keeps_float32_weights_and_statistics(model):
    encoder = make_encoder(model, "bfloat16")
    images = jnp.zeros((1, 8, 8, 1))
    (representation, _), variables = shapes(encoder, *images.shape)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    assert representation.dtype == jnp.float32
    found = convolutions(jax.jit(encoder.apply).lower(variables, images).as_text())
    assert found
    assert all("bf16" in line for line in found)


def test_no_convolution_has_a_bias_and_all_kernels_have_four_axes(model):
    """Pruning tells convolutions from other leaves by their path and rank."""
    _, variables = shapes(make_encoder(model), 1, 8, 8, 3)
    for layer in variables["params"].values():
        assert set(layer) in ({"kernel"}, {"scale", "bias"})
        if "kernel" in layer:
            assert layer["kernel"].ndim == 4


def test_an_unknown_architecture_is_refused_with_the_names_there_are():
    with pytest.raises(UserError, match=r"no architecture 'resent'; did you mean 'resnet'\?"):
        make_networks(Model(name="resent"), 10, "float32", "unrolled")


# ---------------------------------------------------------------- WideResNet


def test_the_papers_encoder_has_690384_parameters_and_its_head_1290():
    _, encoder = shapes(WideResNet(depth=16, widen_factor=2), 1, 32, 32, 3)
    _, head = shapes(LinearHead(10), 1, 128)
    _, projection = shapes(ProjectionHead(128), 1, 128)
    assert count(encoder["params"]) == 690_384
    assert count(head) == 1290
    assert count(projection) == 2 * (128 * 128 + 128)


def test_the_default_settings_make_the_papers_networks():
    networks = make_networks(Model(), 10, "float32", "unrolled")
    assert set(networks) == {"encoder", "projection", "head"}
    (representation, probes), encoder = shapes(networks["encoder"], 1, 32, 32, 3)
    assert count(encoder["params"]) == 690_384
    assert representation.shape == (1, 128)
    assert len(probes) == 16
    embeddings, _ = shapes(networks["projection"], 1, 128)
    logits, _ = shapes(networks["head"], 1, 128)
    assert embeddings.shape == (1, 128)
    assert logits.shape == (1, 10)


@pytest.mark.parametrize(
    ("depth", "widen", "size", "channels"),
    [(10, 1, 8, 1), (16, 2, 32, 3), (22, 4, 64, 3), (16, 1, 9, 1)],
)
def test_any_legal_size_of_wide_resnet_gives_a_representation_and_probes(
    depth, widen, size, channels
):
    (representation, probes), _ = shapes(WideResNet(depth, widen), 2, size, size, channels)
    assert representation.shape == (2, 64 * widen)
    blocks = (depth - 4) // 6
    same_width = 3 * (blocks - 1) + (widen == 1)
    assert len(probes) == 1 + 2 * 3 * blocks + same_width
    assert probes[0].shape[-1] == 16
    assert probes[-1].shape[-1] == 64 * widen


def features_inside(model, variables, images):
    """The output of every layer, by its name."""
    apply = partial(model.apply, capture_intermediates=True, mutable=["intermediates"])
    _, state = jax.jit(apply)(variables, images)
    inner = state["intermediates"]
    return {name: inner[name]["__call__"][0] for name in variables["params"]}


def test_the_representation_of_wide_resnet_is_the_mean_of_the_last_activation():
    model = WideResNet(10, 1)
    images = random_images(2, 8, 8, 1)
    init = jax.jit(model.init_with_output)
    (representation, _), variables = init(jax.random.key(0), images)
    assert (representation >= 0).all()
    last = jax.nn.relu(features_inside(model, variables, images)["final_norm"])
    # Two programs, whose convolutions add in different orders on some processors (by 1.4e-7).
    np.testing.assert_allclose(representation, last.mean((1, 2)), rtol=1e-6, atol=1e-6)


def test_strided_convolutions_pad_one_on_both_sides_as_pytorch():
    """torch.nn.Conv2d(stride=2, padding=1): the window of output (i, j) starts at (2i-1, 2j-1)."""
    model = WideResNet(10, 1)
    images = random_images(1, 8, 8, 1)
    variables = jax.jit(model.init)(jax.random.key(0), images)
    inner = features_inside(model, variables, images)
    normalised = inner["group1_block0_norm0"]
    convolved = inner["group1_block0_conv0"]
    kernel = np.asarray(variables["params"]["group1_block0_conv0"]["kernel"])
    activated = np.maximum(np.asarray(normalised), 0)
    padded = np.pad(activated, ((0, 0), (1, 1), (1, 1), (0, 0)))
    expected = np.zeros((4, 4, 32))
    for i in range(4):
        for j in range(4):
            window = padded[0, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3]
            expected[i, j] = np.einsum("hwc,hwcf->f", window, kernel)
    np.testing.assert_allclose(convolved[0], expected, rtol=1e-4, atol=1e-5)


def test_kernels_are_kaiming_normal_by_fan_out():
    init = jax.jit(WideResNet(16, 2).init)
    variables = init(jax.random.key(1), jnp.zeros((1, 8, 8, 3)))
    kernel = variables["params"]["group2_block1_conv1"]["kernel"]
    assert np.std(kernel) == pytest.approx(np.sqrt(2 / (9 * 128)), rel=0.02)


def test_a_wide_resnet_is_called_by_its_depth_and_width():
    assert ARCHITECTURES["wide_resnet"].label(Model(depth=16, widen_factor=2)) == "WideResNet-16-2"


@pytest.mark.parametrize("depth", [10, 16, 40])
def test_legal_depths_of_wide_resnet_pass(depth):
    ARCHITECTURES["wide_resnet"].check(Model(depth=depth))


@pytest.mark.parametrize("depth", [1, 4, 12, 20])
def test_other_depths_of_wide_resnet_are_refused(depth):
    message = f"model.depth is {depth}; a WideResNet has 6n+4 layers: 10, 16, 22, 28, ..."
    with pytest.raises(UserError) as refusal:
        ARCHITECTURES["wide_resnet"].check(Model(depth=depth))
    assert str(refusal.value) == message
    with pytest.raises(UserError):
        make_networks(Model(depth=depth), 10, "float32", "unrolled")


# --------------------------------------------------------------------- heads


def test_the_projection_lies_on_the_unit_sphere_and_zero_stays_finite():
    model = ProjectionHead(8)
    rows = jnp.array([[1.0, -2.0, 3.0], [0.0, 0.0, 0.0]])
    variables = model.init(jax.random.key(0), rows)
    embeddings = model.apply(variables, rows)
    np.testing.assert_allclose(jnp.linalg.norm(embeddings, axis=1), [1, 0], rtol=1e-5)
    gradient = jax.grad(lambda x: model.apply(variables, x).sum())(rows)
    assert np.isfinite(gradient).all()
