"""The losses against the equations written as loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prunejax.methods import collapsed_supcon, cross_entropy, supcon

LABELS = np.array([0, 1, 2, 0, 1, 2])


def naive_supcon(embeddings, labels, temperature, base_temperature):
    """Khosla et al. 2020, eq. 2, one anchor and one positive at a time."""
    views, batch, _ = embeddings.shape
    rows = embeddings.reshape(views * batch, -1).astype(np.float64)
    classes = np.tile(np.arange(batch) if labels is None else labels, views)

    def similarity(anchor, other):
        return np.exp(rows[anchor] @ rows[other] / temperature)

    total = 0.0
    for anchor in range(len(rows)):
        others = [row for row in range(len(rows)) if row != anchor]
        positives = [row for row in others if classes[row] == classes[anchor]]
        denominator = sum(similarity(anchor, row) for row in others)
        if positives:
            logs = [np.log(similarity(anchor, row) / denominator) for row in positives]
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
    ours = jax.jit(supcon)(embeddings, labels, temperature, 0.07)
    expected = naive_supcon(embeddings, labels, temperature, 0.07)
    np.testing.assert_allclose(ours, expected, rtol=2e-4, atol=1e-5)


def test_without_a_base_temperature_the_loss_is_not_rescaled():
    embeddings = unit_rows(2, 6, 8)
    expected = naive_supcon(embeddings, LABELS, 0.5, 0.5)
    np.testing.assert_allclose(supcon(embeddings, LABELS, 0.5), expected, rtol=1e-5)


def test_an_anchor_without_a_positive_contributes_zero_and_no_nan():
    embeddings = unit_rows(1, 3, 4)
    assert supcon(embeddings, np.array([0, 1, 2]), 0.5) == 0
    gradient = jax.grad(lambda rows: supcon(rows, np.array([0, 0, 2]), 0.5))(
        jnp.asarray(embeddings)
    )
    assert np.isfinite(gradient).all()


def test_a_collapsed_encoder_sits_on_the_known_plateau():
    embeddings = jnp.zeros((2, 1024, 4)).at[..., 0].set(1.0)
    labels = jnp.arange(1024) % 10
    loss = supcon(embeddings, labels, 0.5, 0.07)
    assert loss == pytest.approx(0.5 / 0.07 * np.log(2047), rel=1e-5)
    assert loss == pytest.approx(54.46, abs=0.005)
    assert collapsed_supcon(2048, 0.5, 0.07) == pytest.approx(54.46, abs=0.005)


def test_supcon_is_the_same_under_jit_and_vmap():
    embeddings = unit_rows(2, 6, 8)
    both = np.stack([embeddings, embeddings[::-1]])
    mapped = jax.jit(jax.vmap(lambda rows: supcon(rows, LABELS, 0.5)))(both)
    alone = [supcon(rows, LABELS, 0.5) for rows in both]
    np.testing.assert_allclose(mapped, alone, rtol=1e-5)


def test_cross_entropy_is_the_mean_negative_log_probability():
    logits = np.random.default_rng(0).normal(size=(7, 5)).astype(np.float32) * 10
    labels = np.array([0, 1, 2, 3, 4, 0, 1])
    losses = []
    for row, label in zip(logits, labels, strict=True):
        probability = np.exp(row[label]) / np.exp(row).sum()
        losses.append(-np.log(probability))
    np.testing.assert_allclose(cross_entropy(logits, labels), np.mean(losses), rtol=1e-5)
