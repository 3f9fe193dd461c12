"""Levels of sparsity: equal if their float32 are, and printed so that they are told apart."""

import dataclasses
import re

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from report_studies import make_run

from experiments.evaluate import _summary
from prunejax.config import Config, UserError, validate
from prunejax.config.levels import as_requested, fraction, percent
from prunejax.report import study

LARGEST = float(np.nextafter(np.float32(1), np.float32(0)))
LEVELS = st.floats(0, LARGEST, width=32)


def with_levels(*levels):
    return dataclasses.replace(Config(), sparsities=levels)


# ------------------------------------------------------------------------- printed


@pytest.mark.parametrize(
    ("level", "expected"),
    [
        (0.9, "0.9"),
        (np.float32(0.9), "0.9"),
        (float(np.float32(0.9)), "0.9"),
        (0.900000001, "0.9"),
        (0.0, "0"),
        (0.9995, "0.9995"),
        (1 / 3, "0.33333334"),
        (1e-7, "0.0000001"),
    ],
)
def test_a_level_is_printed_as_it_was_requested_for(level, expected):
    assert fraction(level) == expected
    assert as_requested(level) == float(expected)


@given(LEVELS)
@example(LARGEST)
@example(1e-45)
def test_what_is_printed_is_the_level_that_models_have(level):
    assert np.float32(fraction(level)) == np.float32(level)
    assert "e" not in fraction(level)


@pytest.mark.parametrize(
    ("level", "levels", "expected"),
    [
        (0.9, [0.5, 0.9], "90"),
        (0.0, [0.0, 0.9], "0"),
        (1 / 3, [1 / 3], "33.3"),
        (0.9995, [0.9995], "99.95"),  # not 100
        (0.00001, [0.00001], "0.001"),  # not 0
        (0.9, [0.9, 0.9001], "90"),
        (0.9001, [0.9, 0.9001], "90.01"),
        (0.90000004, [0.9, 0.90000004], "90.000004"),
        (LARGEST, [], "99.99999"),
        (np.float32(0.3), [0.3, np.float32(0.3)], "30"),  # the same level twice
    ],
)
def test_a_percentage_has_the_digits_that_tell_it_apart(level, levels, expected):
    assert percent(level, levels) == expected


@given(st.sets(LEVELS, min_size=1, max_size=6))
@example({0.0, 1e-45, 0.9, float(np.nextafter(np.float32(0.9), np.float32(1))), LARGEST})
def test_no_two_levels_are_printed_alike_nor_as_0_or_100(levels):
    shown = [percent(level, levels) for level in sorted(levels)]
    assert len({*shown, "100"}) == len(levels) + 1
    assert ("0" in shown) == (0 in levels)
    assert len({fraction(level) for level in levels}) == len(levels)


def test_a_studys_levels_are_told_apart_wherever_they_are_printed():
    levels = [0.9, 0.90000004, 0.9995]
    run = make_run([[0, 1, 1, 0]] * 3, levels, "sup_gmp")
    expected = ["90", "90.000004", "99.95"]
    assert [study.percent({"sup_gmp": run}, level) for level in run.levels] == expected
    lines = [_summary({"sup_gmp": run}, "sup_gmp", run, level) for level in run.levels]
    assert [re.findall(r"([\d.]+)% pruned", line) for line in lines] == [[e] for e in expected]


# -------------------------------------------------------------------------- refused


@given(st.lists(LEVELS, min_size=1, max_size=5))
def test_levels_are_equal_if_their_single_precision_is(levels):
    if len({np.float32(level) for level in levels}) == len(levels):
        validate(with_levels(*levels))
    else:
        with pytest.raises(UserError, match="none twice in single precision"):
            validate(with_levels(*levels))


@pytest.mark.parametrize(
    "levels", [(0.9, 0.900000001), (0.5, 0.9, 0.5), (0.0, 1e-50), (0.3, float(np.float32(0.3)))]
)
def test_levels_that_are_one_to_the_models_are_refused(levels):
    with pytest.raises(UserError, match="none twice"):
        validate(with_levels(*levels))


def test_neighbours_in_single_precision_are_two_levels():
    validate(with_levels(0.9, float(np.nextafter(np.float32(0.9), np.float32(1)))))


def test_a_level_that_leaves_no_weight_in_single_precision_is_refused():
    validate(with_levels(LARGEST))
    with pytest.raises(UserError, match=r"0\.99999999 is 1 in single precision"):
        validate(with_levels(0.5, 0.99999999))
