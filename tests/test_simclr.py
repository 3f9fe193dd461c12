"""SimCLR: SCL without labels, on the same views of the same batches."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prunejax.config import Experiment, LearningRate, Pruning, SupCon
from prunejax.methods import METHODS, objective_of, supcon
from prunejax.training import population
from prunejax.training.members import members_of
from prunejax.training.spec import make_batch, make_spec

SIMCLR, SCL = METHODS["simclr"], METHODS["supcon"]


@pytest.fixture(scope="session")
def make_contrastive_config(make_config):
    """`make_contrastive_config(method)`: eight steps on half of the images, at one sparsity."""

    def make(method):
        pruning = Pruning(schedule="scl")
        experiment = Experiment(
            "contrastive", method=method, pruning=pruning, dense_parent="dense", prune_head=False
        )
        config = make_config("scl_gmp", log_every_steps=1, sparsities=(0.5,))
        # At its usual rate the loss amplifies a difference of one rounding.
        rate = LearningRate(1e-3)
        scl = dataclasses.replace(config.scl, epochs=4, batch_size=50, learning_rate=rate)
        return dataclasses.replace(config, experiment=experiment, scl=scl)

    return make


def unit_rows(views, batch, dim, seed=0):
    rows = np.random.default_rng(seed).normal(size=(views, batch, dim)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def naive_nt_xent(embeddings, temperature):
    """Chen et al. 2020, eq. 1: each of 2 N rows finds its other view among 2 N - 1."""
    first, second = embeddings.astype(np.float64)
    rows = np.concatenate([first, second])
    batch = len(first)
    losses = []
    for anchor in range(2 * batch):
        partner = (anchor + batch) % (2 * batch)
        similarities = np.exp(rows @ rows[anchor] / temperature)
        others = similarities.sum() - similarities[anchor]
        losses.append(-np.log(similarities[partner] / others))
    return np.mean(losses)


# ------------------------------------------------------------------- the loss


def test_the_loss_is_that_of_the_paper_times_the_ratio_of_temperatures(make_contrastive_config):
    config = make_contrastive_config("simclr")
    loss = SIMCLR.objective.make_loss(config)
    embeddings = unit_rows(2, 7, 5)
    expected = 0.5 / 0.07 * naive_nt_xent(embeddings, 0.5)
    np.testing.assert_allclose(loss(embeddings, np.arange(7)), expected, rtol=1e-5)


def test_the_loss_is_supcon_without_labels_at_the_configured_temperatures(
    make_contrastive_config,
):
    config = make_contrastive_config("simclr")
    settings = SupCon(temperature=0.2, base_temperature=0.4)
    config = dataclasses.replace(config, supcon=settings)
    loss = SIMCLR.objective.make_loss(config)
    embeddings = unit_rows(2, 7, 5)
    assert loss(embeddings, np.zeros(7, np.int32)) == supcon(embeddings, None, 0.2, 0.4)


def test_the_loss_does_not_look_at_labels(make_contrastive_config):
    loss = SIMCLR.objective.make_loss(make_contrastive_config("simclr"))
    embeddings = unit_rows(2, 6, 5)
    without = loss(embeddings, None)
    assert loss(embeddings, np.array([0, 0, 0, 1, 1, 1])) == without
    assert loss(embeddings, np.zeros(6, np.int32)) == without


def test_the_collapsed_loss_is_that_of_embeddings_that_coincide(make_contrastive_config):
    config = make_contrastive_config("simclr")
    embeddings = jnp.zeros((2, 50, 4)).at[..., 0].set(1.0)
    loss = SIMCLR.objective.make_loss(config)(embeddings, None)
    collapsed = SIMCLR.objective.collapsed_loss(config, 100)
    assert collapsed == pytest.approx(0.5 / 0.07 * np.log(99))
    assert loss == pytest.approx(collapsed, rel=1e-5)


# -------------------------------------------------------------- beside SCL


def test_it_differs_from_scl_in_the_loss_alone():
    def but_for_the_loss(method):
        return method.objective._replace(make_loss=None, collapsed_loss=None)

    assert but_for_the_loss(SIMCLR) == but_for_the_loss(SCL)
    assert SIMCLR.stages == SCL.stages == ("scl", "head")
    assert (SIMCLR.label, SCL.label) == ("SimCLR", "SCL")
    assert SIMCLR.colour != SCL.colour


def test_its_collapse_is_watched_in_its_first_stage_only(make_contrastive_config):
    config = make_contrastive_config("simclr")
    stages = {stage: make_spec(config, stage, (8, 8, 1), 10, 2) for stage in ("scl", "head")}
    assert stages["scl"].objective.collapsed_loss is not None
    assert stages["head"].objective.collapsed_loss is None


def test_its_views_are_those_of_scl(make_contrastive_config, dataset):
    images = dataset.train_images[:8]
    key = jax.random.key(3)
    views = []
    for method in ("simclr", "supcon"):
        config = make_contrastive_config(method)
        draw = make_batch(config, objective_of(config, "scl"))
        views.append(draw(key, images))
    assert views[0].shape == (16, 8, 8, 1)
    np.testing.assert_array_equal(*views)
    assert (views[0][:8] != views[0][8:]).any(axis=(1, 2, 3)).all()  # two views of each image


def test_it_is_scl_on_images_of_which_no_two_have_one_label(make_contrastive_config, dataset):
    """So it has the initial weights, batches and views of SCL, and makes no use of labels."""
    distinct = np.arange(100, dtype=np.int32)
    unlike = dataclasses.replace(dataset, train_labels=distinct)
    ours = contrastive_stage(make_contrastive_config("simclr"), dataset)
    theirs = contrastive_stage(make_contrastive_config("supcon"), unlike)
    for name in ("loss", "sparsity"):
        values = [report.metrics[name] for report in ours]
        expected = [report.metrics[name] for report in theirs]
        assert np.isfinite(expected).all()
        np.testing.assert_allclose(values, expected, rtol=1e-4)


def contrastive_stage(config, dataset):
    """The progress after each step of the first stage."""
    reports = []
    for progress in population.fit(config, members_of(config), dataset):
        reports.append(progress)
        if progress.ends_stage:
            break
    assert [report.step for report in reports] == list(range(1, 9))
    return reports
