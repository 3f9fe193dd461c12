"""The expected calibration error against a loop over its bins, and by hand."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prunejax.measures.calibration import expected_calibration_error


def logits_of(confidence, classes=2, predicted=0):
    """Logits of a softmax that gives `predicted` this much, and the other classes the rest."""
    rest = (1 - confidence) / (classes - 1)
    probabilities = np.full(classes, rest)
    probabilities[predicted] = confidence
    return np.log(probabilities)


def naive_error(logits, labels, bins):
    """Guo et al. 2017, eq. 3, with their bins `((m - 1) / M, m / M]`."""
    error = 0.0
    for m in range(1, bins + 1):
        confidences = []
        right = []
        for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
            exponents = [math.exp(value) for value in row]
            confidence = max(exponents) / sum(exponents)
            if (m - 1) / bins < confidence <= m / bins:
                confidences.append(confidence)
                right.append(row.index(max(row)) == label)
        if confidences:
            gap = abs(np.mean(right) - np.mean(confidences))
            error += len(right) / len(labels) * gap
    return error


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 40), st.integers(2, 5), st.integers(1, 20), st.integers(0, 2**31))
def test_it_is_the_weighted_gap_between_accuracy_and_confidence(examples, classes, bins, seed):
    rng = np.random.default_rng(seed)
    logits = (3 * rng.normal(size=(examples, classes))).astype(np.float32)
    labels = rng.integers(0, classes, examples)
    found = expected_calibration_error(logits, labels, bins)
    assert found == pytest.approx(naive_error(logits, labels, bins), abs=1e-12)


def test_a_model_that_is_right_as_often_as_it_is_confident_has_none():
    logits = np.tile(logits_of(0.75), (4, 1))
    assert expected_calibration_error(logits, np.array([0, 0, 0, 1])) == pytest.approx(0)


def test_a_model_that_is_certain_and_wrong_has_an_error_of_one():
    logits = np.array([[1000.0, 0.0], [1000.0, 0.0]])
    assert expected_calibration_error(logits, np.array([1, 1])) == 1
    assert expected_calibration_error(logits, np.array([0, 0])) == 0


def test_gaps_of_different_bins_do_not_cancel_and_those_of_one_do():
    # 0.9 and always wrong, 0.6 and always right: gaps of 0.9 and 0.4, of half the examples each.
    logits = np.stack([logits_of(0.9), logits_of(0.9), logits_of(0.6), logits_of(0.6)])
    labels = np.array([1, 1, 0, 0])
    assert expected_calibration_error(logits, labels) == pytest.approx((0.9 + 0.4) / 2)
    # In one bin they are half right, with a confidence of 0.75.
    assert expected_calibration_error(logits, labels, bins=1) == pytest.approx(0.25)


def test_of_equal_logits_the_lowest_class_is_predicted_with_the_confidence_of_chance():
    logits = np.zeros((3, 4), np.float32)
    assert expected_calibration_error(logits, np.array([0, 0, 0])) == pytest.approx(0.75)
    assert expected_calibration_error(logits, np.array([1, 1, 1])) == pytest.approx(0.25)
