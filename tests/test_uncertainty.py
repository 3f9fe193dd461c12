"""Intervals, comparisons, findings, overlap and recall against counting by hand."""

import dataclasses

import numpy as np
import pytest
from report_studies import OUTSIDERS, SUP, changed, make_run, make_study, with_measure

from prunejax.config import Experiment, Pruning
from prunejax.measures import Column
from prunejax.report import statistics
from prunejax.report.comparison import answer, comparison, overlap
from prunejax.report.intervals import intervals
from prunejax.report.opening import opening
from prunejax.report.paper_tables import findings, has_findings
from prunejax.report.recall import recall_change
from prunejax.report.resamples import Resamples
from prunejax.report.tables import table_1


@pytest.fixture(scope="module")
def study():
    return make_study(np.arange(40) % 4, 4)


@pytest.fixture(scope="module")
def outsiders():
    return make_study(np.arange(40) % 4, 4, entries=OUTSIDERS)


def find(table, *start):
    """The row that begins with these texts."""
    return next(row for row in table.rows if tuple(c.text for c in row[: len(start)]) == start)


def compared(table, first, sparsity):
    rows = (row for row in table.rows if row.first.text == first)
    return next(row for row in rows if row.sparsity.value == sparsity)


def accuracy_lost(study, dense, pruned):
    before = study[dense].at(0.0).accuracy.mean()
    return 100 * (before - study[pruned].at(0.9).accuracy.mean())


# ------------------------------------------------------------------ all cells


def test_intervals_hold_their_estimates(study):
    for row in intervals(study).rows:
        for cell in row[3:]:
            if cell.interval:
                assert cell.interval[0] <= cell.value <= cell.interval[1]


def test_the_table_of_cells_has_accuracy_pies_floor_and_then_what_measures_want_shown(study):
    table = intervals(study)
    assert list(table.header[3:]) == [
        "Accuracy [%]",
        "PIEs",
        "Noise floor [range]",
        "Q-Score",
        "Depth",
        "k-NN purity [%]",
    ]
    run = study["scl_gmp"].at(0.9)
    row = find(table, "SCL / GMP", "90")
    assert row[6].value == pytest.approx(run.values("q").mean())
    assert row[7].value == pytest.approx(run.values("depth").mean())
    assert row[8].value == pytest.approx(100 * run.values("purity").mean())
    assert row[8].text.split()[0] == f"{row[8].value:.1f}"


def test_an_outsiders_measure_has_its_column_without_anybody_editing_the_report(study):
    margin = Column("margin", "Margin [10⁻³]", scale=1000, digits=1)
    of_each = np.arange(6, dtype=np.float32) / 100
    known = np.array([True, True, False, True, False, False])
    run = with_measure(study["scl_gmp"], margin, of_each, measured=known)
    per_class = Column("confusion", "Confusion")
    counts = np.arange(6 * 4, dtype=np.int32).reshape(6, 4)
    run = with_measure(run, per_class, counts, ("models", "classes"))
    table = intervals(study | {"scl_gmp": run})
    assert list(table.header[-2:]) == ["Margin [10⁻³]", "Confusion"]
    first = find(table, "SCL / GMP", "50")
    assert first[-2].text.startswith("5.0 [")
    assert first[-1].value == pytest.approx(counts[:3].mean())
    assert find(table, "SCL / GMP", "90")[-2].text == "30.0"  # of one model
    assert find(table, "Sup / GMP", "90")[-2].text == "not measured"
    assert table.note.endswith("Margin: over 1 to 2 models a cell.")


def test_a_column_of_one_row_a_sparsity_is_not_a_models(study):
    shape = Column("umap", "UMAP")
    run = dataclasses.replace(study["scl_gmp"], columns=(shape,))
    assert "UMAP" not in intervals({"scl_gmp": run}).header


def test_a_value_that_is_not_finite_is_said_to_be(study):
    odd = Column("odd", "Odd")
    values = np.full(6, np.nan, np.float32)
    table = intervals({"scl_gmp": with_measure(study["scl_gmp"], odd, values)})
    assert table.rows[0][-1].text == "not finite"


def test_failed_models_are_counted(study):
    lossy = study | {"scl_gmp": changed(study["scl_gmp"], failed=np.arange(6) == 5)}
    row = find(intervals(lossy), "SCL / GMP", "90")
    assert row[2].all == "2 (of 3; the others diverged or collapsed)"


def test_sparsity_zero_in_a_pruned_run_is_not_taken_for_the_dense_run(study):
    with_zero = make_study(np.arange(40) % 4, 4, levels=(0.0, 0.9))
    with_zero |= {"sup_dense": study["sup_dense"]}
    rows = [(row[0].text, row[1].value) for row in intervals(with_zero).rows]
    assert ("Sup, dense", 0.0) in rows
    assert ("Sup / GMP", 0.0) not in rows


def test_one_model_a_cell_gives_tables_without_intervals():
    study = make_study(np.arange(8) % 2, 2, seeds=1)
    table = intervals(study)
    assert table.rows[0][3].beside == "an interval needs 2 models"
    assert "needs 2 dense models" in table.rows[2][5].text
    assert "floor needs 2 dense models" in table_1(study).rows[1][1].beside
    assert recall_change(study).rows[0][2].beside == "p needs 2 models"
    absent = make_study(np.zeros(8, int), 2, seeds=1)
    assert recall_change(absent).rows[1][2].text == "no such image"
    assert "undecided" in answer(study, comparison(study))[0]


# ----------------------------------------------------------------- resampling


def test_models_of_one_seed_are_resampled_together(study):
    dense = study["sup_dense"]
    same = {}
    for entry in study.values():
        name = entry.name
        if name in ("sup_dense", "sup_gmp", "scl_dense", "scl_gmp"):
            sparsity = 0.0 if "dense" in name else 0.9
            same[name] = dataclasses.replace(
                dense, config=entry.config, sparsities=np.full(3, sparsity, np.float32)
            )
    row = comparison(same).rows[0]
    assert row.lost_difference.text == "0.00 [0.00, 0.00]"
    assert row.pies_difference.text == "0 [0, 0]"


def test_what_few_seeds_were_measured_for_is_resampled_among_these():
    """Of draws among all seeds as many hit them as chance has it, which spreads more."""
    rng = np.random.default_rng(0)
    study = make_study(rng.integers(0, 4, 40), 4, seeds=12)
    values = rng.normal(size=12).astype(np.float32)
    run = study["sup_gmp"]
    kept = run.seeds < 5
    run = with_measure(run, Column("few", "Few"), values[run.seeds], measured=kept)
    resamples = Resamples({"sup_gmp": run})
    measured = run.at(0.9).only_measured("few")
    few = resamples.of_measured("few").mean(measured, measured.values("few"))
    weights = statistics.bootstrap_weights(5)
    np.testing.assert_allclose(few, weights @ values[:5] / 5, rtol=1e-5)
    among_all = resamples.mean(measured, measured.values("few"))
    assert np.nanstd(among_all) > 1.05 * np.std(few)
    assert resamples.of_measured("few") is resamples.of_measured("few")
    whole = resamples.of_measured("predictions")
    np.testing.assert_array_equal(whole.weights, resamples.weights)


def test_resamples_that_draw_none_of_a_cells_models_do_not_count(study):
    lost = np.isin(np.arange(6), (3, 4))
    lossy = study | {"scl_gmp": changed(study["scl_gmp"], failed=lost)}
    resamples = Resamples(lossy)
    dense = lossy["scl_dense"].at(0.0)
    pruned = lossy["scl_gmp"].at(0.9)
    counts = resamples.pies(dense, pruned)
    drawn = resamples.of(pruned).any(1)
    assert not drawn.all()
    np.testing.assert_array_equal(np.isnan(counts), ~drawn)
    np.testing.assert_array_equal(np.isnan(resamples.mean(pruned, pruned.accuracy)), ~drawn)


# ----------------------------------------------------------------- comparison


def test_the_comparison_is_the_difference_of_losses_and_answers_the_question(study):
    table = comparison(study)
    row = compared(table, "SCL / GMP", 0.9)
    sup = accuracy_lost(study, "sup_dense", "sup_gmp")
    scl = accuracy_lost(study, "scl_dense", "scl_gmp")
    assert row.first_lost.value == pytest.approx(scl)
    assert row.second_lost.value == pytest.approx(sup)
    assert row.lost_difference.value == pytest.approx(scl - sup)
    assert row.lost_difference.interval[0] > 0
    assert table.header[6] == "SCL − Sup: accuracy lost [95%]"
    sentences = answer(study, table)
    assert len(sentences) == 3
    assert sentences[0].startswith("GMP at 90%: yes. Accuracy lost: SCL ")
    assert row.lost_difference.text in sentences[0]
    assert sentences[1].startswith("Δ GMP against GMP at 90%: ")


def test_the_page_opens_with_a_sentence_that_says_who_is_hurt_more(study, outsiders):
    table = comparison(study)
    row = compared(table, "SCL / GMP", 0.9)
    plain, sentences = opening(study, table)
    assert plain == (
        "Pruning 90% of the weights (GMP) costs networks trained by SCL "
        f"{row.first_lost.value:.1f} points of test accuracy, and those trained by Sup "
        f"{row.second_lost.value:.1f}: it costs SCL more."
    )
    assert sentences == answer(study, table)
    # Of three methods there is no such sentence.
    assert opening(outsiders, comparison(outsiders))[0] == ""


def test_what_is_undecided_says_how_many_seeds_would_decide_it(study):
    """Of SCL, which loses as much as Sup but for one model more."""
    same = study["sup_gmp"].predictions.copy()
    same[3, :4] = study["sup_gmp"].labels[:4]
    study = dict(study)
    study["scl_dense"] = changed(
        study["scl_dense"], predictions=study["sup_dense"].predictions.copy()
    )
    study["scl_gmp"] = changed(study["scl_gmp"], predictions=same)
    difference = compared(comparison(study), "SCL / GMP", 0.9).lost_difference
    low, high = difference.interval
    assert low <= 0 <= high
    seeds = statistics.seeds_to_decide(difference.value, (low, high), 3)
    power = (
        "less than 50% power with 1,000 seeds" if seeds is None else f"{seeds} seeds for 50% power"
    )
    assert difference.beside == f"undecided: {power}"
    assert difference.all in opening(study, comparison(study))[1][0]
    holds = find(findings(study), "GMP costs SCL more accuracy than Sup [points]")[2]
    assert (holds.text, holds.beside) == ("undecided", power)


def test_comparisons_within_a_method_and_between_several_read_well(outsiders):
    table = comparison(outsiders)
    assert list(table.header[:4]) == ["Pruning", "A", "B", "Sparsity [%]"]
    assert table.title == "What pruning costs A, against B"
    pairs = [tuple(cell.text for cell in row[:3]) for row in table.rows]
    assert pairs == [
        ("random", "Sup / random", "Sup / magnitude"),
        ("random", "Sup / random", "Sup / magnitude"),
        ("later", "Aux / later", "Sup / magnitude"),
        ("later", "Aux / later", "Sup / magnitude"),
    ]
    first, second = answer(outsiders, table)
    undecided = "At 90% it is undecided whether Sup / random or Sup / magnitude loses more."
    assert first.startswith(undecided)
    assert second.startswith("At 90% Aux / later loses more than Sup / magnitude. Accuracy")


def test_what_a_comparison_lacks_is_said(study):
    without = {name: run for name, run in study.items() if name != "sup_one_shot"}
    table = comparison(without)
    row = compared(table, "SCL / One-Shot", 0.9)
    assert row.second.text == "sup_one_shot"
    assert row.first_lost.text == "sup_one_shot: not run"
    assert len(answer(without, table)) == 2
    at_half = dataclasses.replace(study["sup_gmp"].at(0.5), level=None)
    table = comparison(study | {"sup_gmp": at_half})
    assert compared(table, "SCL / GMP", 0.9).first_lost.text == "Sup / GMP, 90%: not run"
    table = comparison({name: study[name] for name in ("sup_gmp", "scl_gmp")})
    assert table.rows[0].first_lost.text == "SCL, dense: not run; Sup, dense: not run"


def test_a_study_that_compares_nothing_says_so(study):
    dense = {"sup_dense": study["sup_dense"]}
    assert answer(dense, comparison(dense))[0].startswith("Nothing is pruned here")
    one = {name: study[name] for name in ("sup_dense", "sup_gmp")}
    assert answer(one, comparison(one))[0].startswith("Nothing is compared here")
    alone = {name: study[name] for name in ("scl_dense", "scl_gmp")}
    assert answer(alone, comparison(alone))[0].startswith("Not answered here")


def test_a_cell_without_models_gives_tables_that_say_so(study):
    none = changed(study["scl_gmp"], failed=np.ones(6, bool))
    lossy = study | {"scl_gmp": none}
    assert find(intervals(lossy), "SCL / GMP", "90")[3].text == "0 of 3 models"
    said = "SCL / GMP, 90%: 0 of 3 models"
    assert compared(comparison(lossy), "SCL / GMP", 0.9).first_lost.text == said
    assert find(overlap(lossy), "GMP", "SCL / GMP", "Sup / GMP", "90")[4].text == said
    assert recall_change(lossy).rows[0][4].text == "SCL / GMP, 50%: 0 of 3 models"


# ------------------------------------------------------------------- findings


def test_findings_are_effects_with_their_sign_and_the_papers(study):
    published = {
        "Acc [%]": {
            "scl_gmp": {0.0: "92 ± 1", 0.9: "85.5 ± 1"},
            "sup_gmp": {0.0: "90 ± 1", 0.9: "89 ± 1"},
        },
        "depth of PIEs": {"scl_gmp": {0.9: "15 ± 1"}},
        "of non-PIEs": {"scl_gmp": {0.9: "10.5 ± 4"}},
    }
    study = dict(study)
    # Delayed, all models are right about half of the images.
    later = study["scl_gmp"].predictions.copy()
    later[:, :20] = study["scl_gmp"].labels[:20]
    study["scl_delayed_gmp"] = changed(study["scl_delayed_gmp"], predictions=later)
    for name, less in (("scl_gmp", 1), ("sup_gmp", 3)):
        study[name] = changed(study[name], mean_q=study[name].values("mean_q") - np.float32(less))
    found = {row[0].text: row[1:] for row in findings(study, published).rows}
    scl, dense = study["scl_gmp"].at(0.9), study["scl_dense"].at(0.0)
    pies = scl.pies(dense)

    ours, holds, _, paper = found["GMP costs SCL more accuracy than Sup [points]"]
    same = compared(comparison(study), "SCL / GMP", 0.9).lost_difference
    assert (ours.value, ours.interval) == (same.value, same.interval)
    assert ours.interval[0] > 0
    assert (holds.text, paper.text) == ("yes", "5.50")

    ours, holds, floors, paper = found["Δ GMP gives SCL fewer PIEs than GMP"]
    delayed = study["scl_delayed_gmp"].at(0.9).pies(dense)
    assert ours.value == delayed.sum() - pies.sum() < 0
    half, models = len(dense.seeds) // 2, len(dense.seeds)
    floor = np.asarray(statistics.noise_floor(dense.predictions, 4)) * (half / models) ** 0.5
    told = f"{floor.mean():.0f} [{floor.min():.0f}, {floor.max():.0f}]"
    assert floors.text.split("; ") == [told] * 2
    assert paper.text == "-"

    ours, holds, *_ = found["GMP lowers SCL's Q-Score"]
    assert ours.value == pytest.approx(dense.values("mean_q").mean() - scl.values("mean_q").mean())
    assert holds.text == "yes"
    assert found["GMP lowers SCL's Q-Score more than Sup's"][1].text == "no"

    ours, _, floors, paper = found["PIEs of SCL / GMP are deeper than other images [layers]"]
    depth = scl.values("depth")
    assert ours.value == pytest.approx(depth[:, pies].mean() - depth[:, ~pies].mean())
    assert (floors.text, paper.text) == ("-", "4.50")


def test_findings_say_what_they_lack(study):
    without = {name: run for name, run in study.items() if "delay" not in name}
    row = find(findings(without), "Δ GMP gives SCL fewer PIEs than GMP")
    assert [cell.text for cell in row[1:]] == ["SCL / Δ GMP, 90%: not run", "-", "-"]
    dense = findings({"sup_dense": study["sup_dense"]})
    assert {row[1].text for row in dense.rows} == {"nothing is pruned"}
    nothing = np.zeros_like(study["sup_gmp"].values("depth"))
    unprobed = findings(study | {"sup_gmp": changed(study["sup_gmp"], depth=nothing)})
    texts = [cell.text for cell in unprobed.rows[-1][1:]]
    assert texts == ["not probed, or no PIEs", "undecided", "-"]


def test_findings_are_asked_of_the_papers_experiments_only(study, outsiders):
    assert has_findings(study)
    assert not has_findings(outsiders)
    assert not has_findings({name: study[name] for name in ("sup_dense", "sup_gmp")})
    random = Experiment(
        "scl_gmp", "supcon", Pruning("scl", score="random"), "scl_dense", "GMP", "sup_gmp"
    )
    namesake = make_run([[0, 1, 1, 0]], [0.9], (random, SUP))
    assert not has_findings({"sup_gmp": study["sup_gmp"], "scl_gmp": namesake})


def test_another_study_is_told_only_of_the_findings_that_it_has(study, outsiders):
    """Not that the rest of the paper is not run."""
    mixed = {name: study[name] for name in ("sup_dense", "sup_gmp", "scl_dense", "scl_gmp")}
    asked = [row[0].text for row in findings(mixed).rows]
    assert "Δ GMP gives SCL fewer PIEs than GMP" in asked
    asked = [row[0].text for row in findings(mixed | outsiders).rows]
    assert "GMP gives SCL more PIEs than Sup" in asked
    assert not any("One-Shot" in text or "Δ GMP" in text for text in asked)


# --------------------------------------------------------- overlap and recall


def test_overlap_counts_shared_pies(study):
    row = find(overlap(study), "GMP", "SCL / GMP", "Sup / GMP", "90")
    sup = study["sup_gmp"].at(0.9).pies(study["sup_dense"].at(0.0))
    scl = study["scl_gmp"].at(0.9).pies(study["scl_dense"].at(0.0))
    assert [cell.value for cell in row[4:7]] == [scl.sum(), sup.sum(), (sup & scl).sum()]
    shared = (sup & scl).sum() / (sup | scl).sum()
    assert row[7].value == pytest.approx(shared)


def test_recall_of_a_class_that_does_not_occur_is_said_to_be_none():
    study = make_study(np.arange(40) % 3, 4)
    absent = [row[2].text for row in recall_change(study).rows if row[1].text == "class 3"]
    assert set(absent) == {"no such image"}
