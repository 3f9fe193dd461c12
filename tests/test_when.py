"""When to prune: the table, the figure, the trend and the sentence, of studies made by hand."""

import dataclasses
import itertools
import re

import numpy as np
import pytest
from report_studies import SCL, SUP, make_study

from prunejax.config import Experiment, Pruning, Sweep, expand
from prunejax.report import page
from prunejax.report.all_tables import make_tables
from prunejax.report.figures.when import when_to_prune
from prunejax.report.opening import opening
from prunejax.report.statistics import trend
from prunejax.report.study import sweeps, without_sweeps
from prunejax.report.table import Table
from prunejax.report.when import points, trend_table, trends, when_sentence, when_table

STARTS = (0.5, 0.0, 10)
"""Not in order, and the last in steps, of 40."""
SEEDS = 4
CLASSES = 3
IMAGES = 30
LABELS = np.arange(IMAGES) % CLASSES


def sweep(name, method, dense_parent, baseline=None):
    pruning = Pruning("sup" if method == "cross_entropy" else "scl")
    return Sweep(Experiment(name, method, pruning, dense_parent, "GMP by start", baseline), STARTS)


EXPERIMENTS = expand(
    [
        Experiment("sup_dense"),
        sweep("late", "cross_entropy", "sup_dense"),
        Experiment("scl_dense", "supcon"),
        sweep("early", "supcon", "scl_dense", "late"),
    ]
)
DISPLAYS = {
    "cross_entropy": dataclasses.replace(SUP, first_stage_steps=40),
    "supcon": dataclasses.replace(SCL, first_stage_steps=40),
}
ENTRIES = tuple((one, DISPLAYS[one.method]) for one in EXPERIMENTS)


def wrong(count):
    """Predictions of which so many are wrong."""
    predictions = LABELS.copy()
    predictions[:count] = (predictions[:count] + 1) % CLASSES
    return predictions


LOST = {"late": {0.5: 12, 0.0: 3, 10: 6}, "early": {0.5: 3, 0.0: 12, 10: 6}}
"""Images that pruning loses, by start; the models of seed s lose s more."""
FRACTIONS = {0.0: 0.0, 0.25: 10, 0.5: 0.5}
"""Each start as a fraction, and as the experiment has it."""


def with_predictions(run, predictions):
    return dataclasses.replace(run, arrays={**run.arrays, "predictions": np.stack(predictions)})


@pytest.fixture
def study():
    """Sup loses more the later it is pruned, and SCL the earlier."""
    found = dict(make_study(LABELS, CLASSES, seeds=SEEDS, levels=(0.9,), entries=ENTRIES))
    for name, lost in LOST.items():
        for start, count in lost.items():
            one = f"{name}_{start}"
            predictions = [wrong(count + seed) for seed in range(SEEDS)]
            found[one] = with_predictions(found[one], predictions)
    for name in ("sup_dense", "scl_dense"):
        found[name] = with_predictions(found[name], [wrong(0)] * SEEDS)
    return found


def only(study, name):
    """The dense run and the sweep of one method."""
    dense = "sup_dense" if name == "late" else "scl_dense"
    return {one: run for one, run in study.items() if one == dense or one.startswith(name)}


def fail(study, name, failed):
    """Marks models of every start as failed."""
    for start in STARTS:
        one = f"{name}_{start}"
        study[one] = dataclasses.replace(study[one], failed=np.array(failed))


def test_starts_are_fractions_in_ascending_order(study):
    late, early = sweeps(study)
    assert late.runs == {0.0: "late_0.0", 0.25: "late_10", 0.5: "late_0.5"}
    assert (late.label, early.label) == ("Sup / GMP by start", "SCL / GMP by start")
    assert list(without_sweeps(study)) == ["sup_dense", "scl_dense"]
    found = [(point.experiment, point.start) for point in points(study)]
    expected = []
    for name in ("late", "early"):
        expected += [(f"{name}_{FRACTIONS[start]}", start) for start in (0.0, 0.25, 0.5)]
    assert found == expected


def test_runs_that_differ_in_more_than_the_start_are_no_sweep(study):
    run = study["late_10"]
    other = dataclasses.replace(run.config.prune, power=1)
    study["late_10"] = dataclasses.replace(run, config=dataclasses.replace(run.config, prune=other))
    late, other, _ = sweeps(study)
    assert list(late.runs) == [0.0, 0.5]
    assert list(other.runs) == [0.25]
    assert late.label == "Sup / GMP by start (late_0.0)"
    assert other.label == "Sup / GMP by start (late_10)"


def test_each_row_is_of_the_models_of_its_start(study):
    table = when_table(study)
    rows = {(row[0].text, row[2].value): row for row in table.rows}
    assert len(rows) == 6
    indices = {column: index for index, column in enumerate(table.header)}
    lost = indices["Accuracy lost [points]"]
    more = indices["SCL − Sup: lost [points]"]
    mean_seed = (SEEDS - 1) / 2
    for (title, fraction), row in rows.items():
        name = "late" if title.startswith("Sup") else "early"
        start = FRACTIONS[fraction]
        expected = 100 * (LOST[name][start] + mean_seed) / IMAGES
        assert row[lost].value == pytest.approx(expected)
        low, high = row[lost].interval
        assert low <= expected <= high
        assert row[indices["n"]].value == SEEDS
        models = study[f"{name}_{start}"]
        dense = study[models.config.experiment.dense_parent]
        assert row[indices["PIEs"]].value == models.pies(dense).sum()
        if name == "early":
            difference = LOST["early"][start] - LOST["late"][start]
            assert row[more].value == pytest.approx(100 * difference / IMAGES)
        else:
            assert row[more].text == "-"


def test_the_sweep_of_one_method_has_no_column_of_a_comparison(study):
    whole = when_table(study)
    alone = when_table(only(study, "late"))
    assert [*set(whole.header) - set(alone.header)] == ["SCL − Sup: lost [points]"]
    index = whole.header.index("SCL − Sup: lost [points]")
    of_late = [row for row in whole.rows if row[0].text.startswith("Sup")]
    assert [[cell.text for cell in row] for row in alone.rows] == [
        [cell.text for cell in row[:index] + row[index + 1 :]] for row in of_late
    ]

    fail(study, "late", [True] * SEEDS)
    alone = when_table(only(study, "late"))
    assert all(len(row) == len(alone.header) for row in alone.rows)


def test_the_trend_has_a_row_for_each_sweep(study):
    table = trend_table(study)
    told = [[cell.text for cell in row] for row in table.rows]
    assert told == [
        ["Sup / GMP by start", "90", "no", "< 0.001", "4", "0", "15.00"],
        ["SCL / GMP by start", "90", "yes", "< 0.001", "4", "50", "15.00"],
    ]


def test_the_sentence_says_which_way_the_trend_goes(study):
    late, early = trends(study)
    assert (late.found, early.found) == ("no", "yes")
    assert (late.seeds, late.starts) == (SEEDS, 3)
    plain, sentences = opening(study, Table("", ""))
    assert sentences[0].startswith("At 90% later pruning costs Sup more.")
    assert sentences[1].startswith("At 90% earlier pruning costs SCL more.")
    assert re.search(
        r"45.00 points if it starts at 0%, 15.00 points if it starts at 50% of the first stage; "
        r"Page's test over 3 starts by 4 seeds: p < 0.001\.$",
        sentences[1],
    )
    assert plain == (
        "Of the starting points tried, Sup loses least on average (15.0 points) if pruning starts "
        "at 0%, and SCL loses least on average (15.0 points) if pruning starts at 50% of the first "
        "training stage."
    )


def test_a_curve_that_falls_and_then_rises_is_told_so(study):
    late = trends(study)[0]._replace(lost={0.0: 9.0, 0.25: 6.0, 0.5: 28.0})
    assert when_sentence(study, late).startswith(
        "At 90% later pruning costs Sup more overall; the best start is 25%. "
        "Accuracy lost: 9.00 points if it starts at 0%, 6.00 points if it starts at 25%, "
    )
    undecided = late._replace(found="undecided")
    assert "overall" not in when_sentence(study, undecided)


def test_an_undecided_trend_says_how_many_seeds_would_decide_it(study):
    """Of values that rise in two seeds and fall in the others, by less."""
    lost = np.array([[0, 1, 2], [0, 2, 3], [2, 0, 1], [2, 1, 0]])
    for counts, start in zip(lost.T, FRACTIONS.values(), strict=True):
        one = f"late_{start}"
        study[one] = with_predictions(study[one], [wrong(count) for count in counts])
    found = trends(study)[0]
    assert found.found == "undecided"
    assert re.fullmatch(r"\d+ seeds for 50% power", found.power)
    assert found.power in opening(study, Table("", ""))[1][0]
    assert found.power == trend_table(study).rows[0][2].beside


def test_a_seed_that_lacks_a_start_is_no_block_of_the_test(study):
    failed = np.arange(SEEDS) == 0
    study["early_10"] = dataclasses.replace(study["early_10"], failed=failed)
    assert [one.seeds for one in trends(study)] == [SEEDS, SEEDS - 1]


def test_without_two_seeds_nothing_is_decided(study):
    fail(study, "early", np.arange(SEEDS) > 0)
    assert trends(study)[1].found == "undecided"
    assert opening(study, Table("", ""))[1][1].endswith(
        "a test of the trend needs 2 seeds and 3 starts."
    )
    fail(study, "early", [True] * SEEDS)
    assert opening(study, Table("", ""))[1][1].endswith("No seed has a model at every start.")
    assert "0 of 4 models" in when_table(study).rows[3][3].text


def test_the_trend_is_that_of_all_permutations():
    """Page's L of every way to order each block, against scipy."""
    rng = np.random.default_rng(0)
    for blocks, treatments in ((2, 3), (3, 3), (2, 4)):
        values = rng.random((blocks, treatments))
        weights = np.arange(1, treatments + 1)

        def statistic(ranks, weights=weights):
            return sum(np.dot(weights, row) for row in ranks)

        found = statistic(values.argsort(1).argsort(1) + 1)
        orders = list(itertools.permutations(weights))
        known = [statistic(ranks) for ranks in itertools.product(orders, repeat=blocks)]
        rises = np.mean(np.array(known) >= found)
        falls = np.mean(np.array(known) <= found)
        assert trend(values) == pytest.approx((rises, falls))


def test_a_trend_needs_two_blocks_and_three_treatments():
    for shape in ((1, 5), (5, 2), (0, 4)):
        assert np.isnan(trend(np.zeros(shape))).all()


def test_the_figure_has_a_panel_for_each_quantity_and_marks_the_paper(study):
    from experiments.paper import PUBLISHED

    plain = when_to_prune(study)
    marked = when_to_prune(study, PUBLISHED)
    for figure, stars in ((plain, 0), (marked, 3)):
        labels = [axis.get_ylabel() for axis in figure.axes]
        assert labels == [
            "accuracy lost [points]",
            "PIEs",
            "Q-Score",
            "depth of PIEs [layers]",
        ]
        found = [line for line in figure.axes[0].lines if line.get_marker() == "*"]
        assert len(found) == stars
    # Depth and Q-Score are compared with those of the same network only.
    assert [line for line in marked.axes[3].lines if line.get_marker() == "*"]
    for name, run in study.items():
        display = dataclasses.replace(run.config.display, architecture="WideResNet-10-1")
        config = dataclasses.replace(run.config, display=display)
        study[name] = dataclasses.replace(run, config=config)
    of_another = when_to_prune(study, PUBLISHED)
    for axis, stars in zip(of_another.axes, (3, 3, 0, 0), strict=True):
        assert len([line for line in axis.lines if line.get_marker() == "*"]) == stars
    # Table 1 at 90%: what GMP of Sup and SCL, and delayed GMP, lose.
    heights = sorted(float(line.get_ydata()[0]) for line in found)
    assert heights == pytest.approx([90.58 - 89.47, 92.06 - 87.76, 92.06 - 85.56])


def test_the_table_of_experiments_says_from_where_a_sweep_is_pruned(study):
    tables = {table.name: table for table in make_tables(study)}
    pruned = {row[1].text: row[3].text for row in tables["experiments"].rows}
    assert pruned["sup_dense"] == "-"
    assert pruned["late_0.5"].startswith("from 50% of the first stage, for ")
    assert pruned["late_10"].startswith("from 25% of the first stage, for ")


def test_a_sweep_is_told_at_its_own_sparsity_and_not_at_0(study):
    """Of a study whose other experiments were pruned to 95%."""
    assert {point.sparsity for point in points(study)} == {0.9}
    other = (Experiment("sup_other", pruning=Pruning("sup"), dense_parent="sup_dense"), SUP)
    pruned = make_study(LABELS, CLASSES, seeds=SEEDS, levels=(0.9 + 0.005,), entries=(other,))
    sentences = opening(study | pruned, Table("", ""))[1]
    assert any(" earlier pruning costs SCL more." in sentence for sentence in sentences)


def test_two_sweeps_of_one_method_are_told_apart(study):
    for start in STARTS:
        late = study[f"late_{start}"]
        entry = dataclasses.replace(
            late.config.experiment, name=f"again_{start}", label="other GMP"
        )
        config = dataclasses.replace(late.config, experiment=entry)
        study[entry.name] = dataclasses.replace(late, config=config)
    plain, sentences = opening(study, Table("", ""))
    labels = ["Sup / GMP by start", "SCL", "Sup / other GMP"]
    for label, sentence in zip(labels, sentences, strict=True):
        assert f" pruning costs {label} more." in sentence
        assert f"{label} loses least" in plain
    legend = when_to_prune(study).legends[0]
    assert [text.get_text() for text in legend.get_texts()] == labels
    looks = [(line.get_color(), line.get_marker()) for line in legend.get_lines()]
    assert len(set(looks)) == 3


def test_other_tables_and_figures_leave_sweeps_out(study, tmp_path):
    tables = {table.name: table for table in make_tables(study)}
    assert "when" in tables
    assert "comparison" not in tables
    titles = [row[0].text for row in tables["intervals"].rows]
    assert titles == ["Sup, dense", "SCL, dense"]
    path = page.write(tmp_path, study, "source", {})
    text = path.read_text()
    assert "At 90% earlier pruning costs SCL more." in text
    assert "Nothing is pruned here" not in text
    assert (tmp_path / "figures" / "when_to_prune.png").exists()
