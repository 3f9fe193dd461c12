"""The losses against the equations written as loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prunejax.losses import cross_entropy, supcon


def naive_supcon(embeddings, labels, temperature, base_temperature):
    """Khosla et al. 2020, eq. 2, one anchor and one positive at a time."""
    views, batch, _ = embeddings.shape
    rows = embeddings.reshape(views * batch, -1).astype(np.float64)
    classes = np.tile(np.arange(batch) if labels is None else labels, views)
    total = 0.0
    for i in range(len(rows)):
        positives = [p for p in range(len(rows)) if p != i and classes[p] == classes[i]]
        denominator = sum(np.exp(rows[i] @ rows[a] / temperature) for a in range(len(rows)) if a != i)
        if positives:
            logs = [np.log(np.exp(rows[i] @ rows[p] / temperature) / denominator) for p in positives]
            total += -np.mean(logs)
    return temperature / base_temperature * total / len(rows)


def unit_rows(views, batch, dim, seed=0):
    rows = np.random.default_rng(seed).normal(size=(views, batch, dim)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


@settings(max_examples=30, deadline=None)
@given(
    views=st.integers(1, 3),
    labels=st.one_of(st.none(), st.lists(st.integers(0, 3), min_size=5, max_size=5)),
    temperature=st.floats(0.1, 1.0),
)
def test_supcon_is_the_published_equation(views, labels, temperature):
    embeddings = unit_rows(views, 5, 4)
    labels = labels if labels is None else np.array(labels)
    ours = supcon(embeddings, labels, temperature, 0.07)
    np.testing.assert_allclose(ours, naive_supcon(embeddings, labels, temperature, 0.07), rtol=2e-4, atol=1e-5)


def test_without_a_base_temperature_the_loss_is_not_rescaled():
    embeddings, labels = unit_rows(2, 6, 8), np.array([0, 1, 2, 0, 1, 2])
    np.testing.assert_allclose(supcon(embeddings, labels, 0.5), naive_supcon(embeddings, labels, 0.5, 0.5), rtol=1e-5)


def test_an_anchor_without_a_positive_contributes_zero_and_no_nan():
    embeddings = unit_rows(1, 3, 4)
    assert supcon(embeddings, np.array([0, 1, 2]), 0.5) == 0
    gradient = jax.grad(lambda e: supcon(e, np.array([0, 0, 2]), 0.5))(jnp.asarray(embeddings))
    assert np.isfinite(gradient).all()


def test_a_collapsed_encoder_sits_on_the_known_plateau():
    embeddings = jnp.zeros((2, 1024, 4)).at[..., 0].set(1.0)
    labels = jnp.arange(1024) % 10
    assert supcon(embeddings, labels, 0.5, 0.07) == pytest.approx(0.5 / 0.07 * np.log(2047), rel=1e-5)
    assert supcon(embeddings, labels, 0.5, 0.07) == pytest.approx(54.46, abs=0.005)


def test_supcon_is_the_same_under_jit_and_vmap():
    embeddings, labels = unit_rows(2, 6, 8), np.array([0, 1, 2, 0, 1, 2])
    both = np.stack([embeddings, embeddings[::-1]])
    mapped = jax.jit(jax.vmap(lambda e: supcon(e, labels, 0.5)))(both)
    np.testing.assert_allclose(mapped, [supcon(e, labels, 0.5) for e in both], rtol=1e-5)


def test_cross_entropy_is_the_mean_negative_log_probability():
    logits = np.random.default_rng(0).normal(size=(7, 5)).astype(np.float32) * 10
    labels = np.array([0, 1, 2, 3, 4, 0, 1])
    expected = -np.mean([np.log(np.exp(row[y]) / np.exp(row).sum()) for row, y in zip(logits, labels, strict=True)])
    np.testing.assert_allclose(cross_entropy(logits, labels), expected, rtol=1e-5)
