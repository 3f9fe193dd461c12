"""What a study is asked, of studies whose names, labels and colours follow no pattern."""

import dataclasses

import numpy as np
import pytest
from report_studies import OUTSIDERS, SCL, SUP, make_run, make_study

from prunejax.config import Experiment, Pruning
from prunejax.report import study as questions
from prunejax.report.collect import in_order

PAPER_ORDER = [
    "sup_dense",
    "sup_gmp",
    "sup_one_shot",
    "scl_dense",
    "scl_gmp",
    "scl_delayed_gmp",
    "scl_one_shot",
]


@pytest.fixture(scope="module")
def paper():
    return make_study(np.arange(20) % 4, 4)


@pytest.fixture(scope="module")
def outsiders():
    return make_study(np.arange(20) % 4, 4, entries=OUTSIDERS)


def test_titles_come_from_labels(paper):
    assert [questions.title(paper, name) for name in paper] == [
        "Sup, dense",
        "Sup / GMP",
        "Sup / One-Shot",
        "SCL, dense",
        "SCL / GMP",
        "SCL / Δ GMP",
        "SCL / One-Shot",
    ]
    assert questions.cell_title(paper, "scl_gmp", 0.9) == "SCL / GMP, 90%"
    assert questions.cell_title(paper, "scl_gmp", 0.0) == "SCL, dense"


def test_where_a_label_is_missing_the_name_stands(outsiders):
    assert [questions.title(outsiders, name) for name in outsiders] == [
        "Sup, dense",
        "Sup / magnitude",
        "Sup / random",
        "Aux, dense",
        "Aux / later",
        "yours, dense",
        "yours / zz",
    ]


def test_equal_labels_are_told_apart():
    again = Experiment("again", "cross_entropy", Pruning("sup"), "sup_dense", "GMP")
    other = Experiment("other", "mine")
    study = {
        "sup_gmp": make_run([[0, 1, 1, 0]], [0.5], "sup_gmp"),
        "again": make_run([[0, 1, 1, 0]], [0.5], (again, SUP)),
        "other": make_run([[0, 1, 1, 0]], [0.0], (other, SUP)),
    }
    assert [questions.title(study, name) for name in study] == [
        "Sup (cross_entropy) / GMP (sup_gmp)",
        "Sup (cross_entropy) / GMP (again)",
        "Sup (mine), dense",
    ]


def test_sparsity_zero_of_a_pruned_experiment_is_its_dense_one(outsiders):
    assert questions.holder_of(outsiders, "oboe", 0.0) == "xylophone"
    models = questions.at(outsiders, "oboe", 0.0)
    np.testing.assert_array_equal(models.predictions, outsiders["xylophone"].predictions)
    parentless = Experiment("parentless", "mine", Pruning("scl"), None, "GMP")
    study = {"parentless": make_run([[0, 1, 1, 0]], [0.5], (parentless, SCL))}
    assert questions.at(study, "parentless", 0.0) is None
    assert questions.why_not(study, "parentless", 0.0) == "not run"


def test_dense_experiments_without_a_pruned_one_have_a_column(outsiders):
    alone = {name: run for name, run in outsiders.items() if name != "zz"}
    shown = questions.shown_experiments(alone)
    assert shown == ["quick", "lucky", "oboe", "7th"]


def test_the_question_names_the_methods_where_there_are_two(paper, outsiders):
    assert questions.question(paper) == "Does pruning hurt SCL more than Sup?"
    assert questions.question(outsiders) == "What does pruning destroy?"
    within = {name: outsiders[name] for name in ("plain", "quick", "lucky")}
    assert questions.question(within) == "What does pruning destroy?"


def test_partners_are_of_another_method_where_there_is_one(paper, outsiders):
    partners = {name: questions.partner(paper, name) for name in paper}
    assert partners == {
        "sup_dense": None,
        "sup_gmp": "scl_gmp",
        "sup_one_shot": "scl_one_shot",
        "scl_dense": None,
        "scl_gmp": "sup_gmp",
        "scl_delayed_gmp": "sup_gmp",
        "scl_one_shot": "sup_one_shot",
    }
    assert questions.partner(outsiders, "quick") == "oboe"
    within = {name: outsiders[name] for name in ("plain", "quick", "lucky")}
    assert questions.partner(within, "quick") == "lucky"
    assert questions.partner(outsiders, "zz") is None


@pytest.mark.parametrize(
    ("levels", "texts"),
    [
        ((0.9, 0.5), ["50", "90"]),
        ((0.9995, 0.9), ["90", "99.95"]),
        ((0.333333,), ["33.3"]),
        ((0.00001, 0.1), ["0.001", "10"]),
        ((0.9, 0.9001), ["90", "90.01"]),
        ((0.9, 0.9000001), ["90", "90.00001"]),
    ],
)
def test_sparsities_have_the_digits_that_tell_them_apart(levels, texts):
    study = {"sup_gmp": make_run([[0, 1, 1, 0]] * len(levels), list(levels))}
    assert [questions.percent(study, level) for level in questions.levels(study)] == texts


def test_runs_are_in_the_papers_order_however_they_come(paper):
    config = paper["sup_gmp"].config
    shuffled = {name: paper[name] for name in sorted(paper, reverse=True)}
    assert config.prune.scl.begin_step < config.prune.scl_delayed.begin_step
    assert list(in_order(shuffled)) == PAPER_ORDER


def test_of_a_kind_those_come_first_that_others_are_compared_with(outsiders):
    shuffled = {name: outsiders[name] for name in sorted(outsiders)}
    expected = ["plain", "quick", "lucky", "xylophone", "oboe", "7th", "zz"]
    assert list(in_order(shuffled)) == expected


def test_the_papers_experiments_are_found_by_what_they_are_and_not_by_name():
    from prunejax.report.published import find_papers, number, paper_key

    papers = make_run([[0, 1, 1, 0]], [0.9], "sup_gmp")
    random = dataclasses.replace(
        papers.config.experiment, pruning=Pruning("sup", score="random"), label="random"
    )
    namesake = make_run([[0, 1, 1, 0]], [0.9], (random, SUP))
    published = {"PIE": {"sup_gmp": {0.9: "7", 0.5: "-"}}}
    for name in ("sup_gmp", "mine"):
        assert paper_key({name: papers}, name) == "sup_gmp"
        assert find_papers({name: papers}, "sup_gmp") == name
        assert number(published, {name: papers}, "PIE", name, 0.9) == "7"
    assert number(published, {"sup_gmp": papers}, "PIE", "sup_gmp", 0.5) is None
    assert paper_key({"sup_gmp": namesake}, "sup_gmp") is None
    assert find_papers({"sup_gmp": namesake}, "sup_gmp") is None
    assert number(published, {"sup_gmp": namesake}, "PIE", "sup_gmp", 0.9) is None
