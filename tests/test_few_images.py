"""A handful of test images: what cannot be measured of them fails alone, and says why."""

import dataclasses
import re

import numpy as np
import pytest

from prunejax.config import MeasureSettings, UserError, to_json
from prunejax.measures import evaluate, load_measures, store
from prunejax.measures.entry import Context, Features, ModelOutputs
from prunejax.measures.umap_embedding import measure_umap
from prunejax.runs.restored import RestoredPopulation
from prunejax.training import population
from prunejax.training.members import members_of
from prunejax.training.spec import make_specs


@pytest.fixture(scope="module")
def untrained(dataset, make_config):
    """Two seeds at one sparsity, as if trained."""
    config = make_config("sup_gmp", sparsities=(0.5,))
    members = members_of(config)
    return RestoredPopulation(
        config=config,
        seeds=members.seeds,
        sparsities=members.sparsities,
        state=population.init(make_specs(config, dataset)["sup"], members),
        step=8,
        total_steps=8,
        class_names=dataset.class_names,
        data_checksum=dataset.checksum,
    )


@pytest.fixture
def measured(untrained, dataset, tmp_path):
    """`measured(images, neighbors)`: the measures of so many test images, in `tmp_path`."""
    (tmp_path / "config.json").write_text(to_json(untrained.config))

    def measure(images, neighbors):
        few = dataclasses.replace(
            dataset,
            test_images=dataset.test_images[:images],
            test_labels=dataset.test_labels[:images],
        )
        settings = MeasureSettings(probe_models=1, neighbors=neighbors)
        trained = dataclasses.replace(untrained, data_checksum=few.checksum)
        return evaluate(trained, few, tmp_path, settings)

    return measure


def too_few_for_umap(images):
    return f"UMAP needs 4 test images at least; there are {images}"


def too_few_for_purity(images, neighbors):
    return f"measure.neighbors is {neighbors}; {images} test images have not that many neighbours"


def test_what_needs_more_images_fails_alone_and_the_rest_is_there(measured):
    found = measured(images=3, neighbors=3)
    assert found.failures == {"umap": too_few_for_umap(3), "purity": too_few_for_purity(3, 3)}
    for name in ("predictions", "q", "depth", "ece"):
        assert found.has(name)
    assert not found.has("umap")
    assert not found.has("purity")
    assert found.predictions.shape == (2, 3)
    assert np.isfinite(found.values("ece")).all()


def test_a_report_is_told_why_a_measure_is_missing(measured, tmp_path):
    """Not only that it is: to evaluate again would not help."""
    measured(images=3, neighbors=3)
    why = {"umap": too_few_for_umap(3), "purity": too_few_for_purity(3, 3)}
    assert load_measures(tmp_path).failures == why

    # What has been measured since then has no failure any more.
    measured(images=3, neighbors=2)
    assert load_measures(tmp_path).failures == {"umap": why["umap"]}


def test_measures_are_found_whatever_the_characters_of_the_path(untrained, dataset, tmp_path):
    run_dir = tmp_path / "lr[0.1]*?"
    run_dir.mkdir()
    (run_dir / "config.json").write_text(to_json(untrained.config))
    settings = MeasureSettings(probe_models=1, neighbors=3)
    evaluate(untrained, dataset, run_dir, settings)
    (run_dir / "measures" / ".q.npz").write_bytes(b"half-written")
    found = load_measures(run_dir)
    assert found.failures == {}
    for name in ("predictions", "q", "depth", "umap"):
        assert found.has(name)


@pytest.mark.parametrize("content", [None, b"", b"{", b"[1]", b"\xff"])
def test_a_note_of_failures_that_is_missing_or_damaged_is_no_loss(tmp_path, content):
    if content is not None:
        (tmp_path / "measures").mkdir()
        (tmp_path / "measures" / "failed.json").write_bytes(content)
    assert store.noted_failures(tmp_path) == {}
    store.note_failures(tmp_path, ["umap", "q"], {"umap": "too few", "depth": "not tried"})
    assert store.noted_failures(tmp_path) == {"umap": "too few"}


# ------------------------------------------------------------------------------ UMAP


def embedding_of(images):
    """UMAP's of so many representations."""
    representations = np.random.default_rng(0).normal(size=(images, 8)).astype(np.float32)
    features = Features(representations, np.zeros((images, 10), np.float32), probes=[])
    outputs = ModelOutputs(on_test=lambda: features, on_train=lambda: features)
    context = Context(
        test_labels=np.zeros(images, np.int32),
        train_labels=np.zeros(40, np.int32),
        num_classes=10,
        settings=MeasureSettings(),
    )
    return measure_umap(outputs, context)["umap"]


@pytest.mark.parametrize("images", [1, 2, 3])
def test_umap_refuses_what_it_cannot_place(images):
    with pytest.raises(UserError, match=re.escape(too_few_for_umap(images))):
        embedding_of(images)


@pytest.mark.parametrize("images", [4, 15, 16])
def test_few_images_have_a_map_without_a_warning(images):
    embedding = embedding_of(images)
    assert embedding.shape == (images, 2)
    assert np.isfinite(embedding).all()
