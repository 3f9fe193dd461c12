"""A custom criterion, method and measure, and a study of them, in one file outside the package.

    ./launch.sh study --preset=digits --study=experiments.example_own_entries:own --workdir=runs/own

Copy it, anywhere: `--study=my_file:own` finds `my_file.py` in the current directory.
"""

import jax
import jax.numpy as jnp
import numpy as np

from experiments.studies.paper import SUP_DENSE, SUP_GMP
from prunejax.config import Experiment, Pruning
from prunejax.measures import MEASURES, ArraySpec, Column, Measure
from prunejax.methods import METHODS, Method, Objective
from prunejax.pruning import SCORES, Score


def distance_from_mean(params, gradients, key):
    """A criterion: how far a weight is from the mean of its leaf."""
    return jax.tree.map(lambda leaf: jnp.abs(leaf - leaf.mean()), params)


SCORES.add(Score("distance_from_mean", distance_from_mean))


def make_smoothed_loss(config):
    """A method: cross-entropy with labels smoothed by a tenth. Source: Szegedy et al. 2016."""

    def loss(logits, labels):
        log_probabilities = jax.nn.log_softmax(logits)
        targets = 0.9 * jax.nn.one_hot(labels, logits.shape[-1]) + 0.1 / logits.shape[-1]
        return -jnp.mean(jnp.sum(targets * log_probabilities, axis=-1))

    return loss


METHODS.add(Method("smoothed", "Smoothed", "#CC79A7", Objective(make_smoothed_loss), ("sup",)))


def dead_features(outputs, context):
    """A measure: the share of a model's features that no test image activates."""
    return {"dead": np.float32(np.mean(np.all(outputs.representations == 0, axis=0)))}


MEASURES.add(
    Measure(
        name="dead_features",
        version=1,
        arrays={"dead": ArraySpec("f", ("models",), low=0, high=1)},
        function=dead_features,
        needs=frozenset({"representations"}),
        columns=(Column("dead", "Dead features [%]", scale=100, digits=1),),
    )
)

OWN_GMP = Pruning(schedule="sup", score="distance_from_mean")


def own() -> list[Experiment]:
    """Does the criterion matter, and does smoothing?"""
    return [
        SUP_DENSE,
        SUP_GMP,
        Experiment(
            "sup_own", pruning=OWN_GMP, dense_parent="sup_dense", label="own", baseline="sup_gmp"
        ),
        Experiment("smoothed_dense", method="smoothed"),
        Experiment(
            "smoothed_gmp",
            method="smoothed",
            pruning=Pruning(schedule="sup"),
            dense_parent="smoothed_dense",
            label="GMP",
            baseline="sup_gmp",
        ),
    ]
