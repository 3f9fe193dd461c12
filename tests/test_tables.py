"""Tables against counting by hand."""

import dataclasses

import numpy as np
import pytest
from report_studies import BYO, OUTSIDERS, SUP, changed, make_run, make_study

from prunejax.config import Experiment, Pruning, Schedule
from prunejax.report import make_tables, statistics
from prunejax.report.hyperparameters import table_2
from prunejax.report.paper_tables import table_3
from prunejax.report.table import Cell, Table
from prunejax.report.tables import experiments_table, quality_tables, table_1, table_6


@pytest.fixture(scope="module")
def study():
    return make_study(np.arange(40) % 4, 4)


@pytest.fixture(scope="module")
def outsiders():
    return make_study(np.arange(40) % 4, 4, entries=OUTSIDERS)


def texts(table, row):
    return [cell.text for cell in table.rows[row]]


def column(table, name):
    place = list(table.header).index(name)
    return [row[place] for row in table.rows]


def by_name(tables):
    return {table.name: table for table in tables}


def test_table_1_counts_pies_and_accuracy_beside_the_noise_floor_and_the_published_numbers():
    dense = [[0, 1, 1, 0], [0, 1, 1, 0], [0, 1, 1, 1]]
    at_30 = [[0, 1, 1, 0]] * 3
    at_90 = [[1, 0, 1, 0], [1, 0, 1, 0], [0, 1, 1, 0]]
    study = {
        "sup_dense": make_run(dense, [0.0] * 3, "sup_dense"),
        "sup_gmp": make_run(at_30 + at_90, [0.3] * 3 + [0.9] * 3, "sup_gmp"),
    }
    published = {
        "Acc [%]": {"sup_gmp": {0.9: "80 ± 0.4"}},
        "PIE": {"sup_gmp": {0.9: "7"}, "scl_gmp": {0.9: "8"}, "hooker": {0.9: "5"}},
    }
    table = table_1(study, published)
    assert [texts(table, row) for row in range(3)] == [
        ["0", "-", "91.67 ± 11.79"],
        ["30", "0", "100.00 ± 0.00"],
        ["90", "2", "66.67 ± 23.57"],
    ]
    # Of the halves, one model each, those with the third model differ in one image.
    # From one model to three, by the square root.
    halves = np.asarray(statistics.noise_floor(study["sup_dense"].predictions, 2)).mean()
    floor = halves / 3**0.5
    assert table.rows[2][1].beside == f"floor {floor:.0f}; paper 7"
    assert table.rows[2][2].beside == "paper 80 ± 0.4"
    hooker = column(table_3(study, published), "Hooker et al. 2019 PIE")
    assert [cell.text for cell in hooker] == ["-", "-", "5"]


def test_a_sparsity_that_an_experiment_lacks_was_not_run(study):
    half = study["scl_one_shot"].at(0.5)
    lacking = study | {"scl_one_shot": dataclasses.replace(half, level=None)}
    cells = column(table_1(lacking), "SCL / One-Shot PIE")
    assert [cell.text for cell in cells[2:]] == ["not run"]
    without_dense = {name: run for name, run in study.items() if name != "scl_dense"}
    cells = column(table_1(without_dense), "SCL / GMP PIE")
    assert [cell.text for cell in cells] == [
        "not run",
        "SCL, dense: not run",
        "SCL, dense: not run",
    ]


def test_a_dense_run_alone_has_its_accuracy(study):
    table = table_1({"scl_dense": study["scl_dense"]})
    assert table.header == ["Sparsity [%]", "SCL, dense PIE", "SCL, dense Acc [%]"]
    accuracy = 100 * study["scl_dense"].accuracy
    assert texts(table, 0) == ["0", "-", f"{accuracy.mean():.2f} ± {accuracy.std():.2f}"]


def test_quality_tables_average_over_models_first_and_count_dead_representations():
    q = np.array([[1.0, 3, 0, 4], [3, 5, 0, 4]])
    run = make_run([[0, 1, 1, 0]] * 2, [0.9] * 2, q=q, z=q, l1=q)
    (table,) = quality_tables({"sup_gmp": run})
    assert table.name == "table_5"
    means = np.array([2.0, 4, 0, 4])
    expected = f"{means.mean():.2f} ± {means.std():.2f}"
    assert table.rows[0][1] == Cell(expected, means.mean(), "2 all-zero, of all models")
    assert table.note == "Mean over models, then mean ± std over images."


def test_quality_tables_say_of_how_many_models_they_are_if_of_fewer_than_there_are():
    q = np.array([[1.0, 3, 2, 4], [np.nan] * 4])
    run = make_run([[0, 1, 1, 0]] * 2, [0.9] * 2, q=q, z=q, l1=q)
    measured = dict.fromkeys(("q", "z", "l1"), np.array([True, False]))
    run = dataclasses.replace(run, measured=dict(run.measured) | measured)
    (table,) = quality_tables({"sup_gmp": run})
    assert table.rows[0][1].value == 2.5
    assert table.note.startswith("Mean over 1 model a cell, then")


def test_every_method_has_a_quality_table_of_its_experiments(study, outsiders):
    names = [table.name for table in quality_tables(study)]
    assert names == ["table_4", "table_5"]
    scl, sup = quality_tables(study)
    assert len(scl.header) == 1 + 3 * 3
    assert len(sup.header) == 1 + 2 * 3
    tables = quality_tables(outsiders)
    assert [table.name for table in tables] == ["table_5", "quality_mine", "quality_yours"]
    assert tables[1].title.startswith("Q-Score, Z-Score and l1 norm of Aux models'")
    odd = Experiment("odd", "a/b c")
    (table,) = quality_tables({"odd": make_run([[0, 1, 1, 0]], [0.0], (odd, BYO))})
    assert table.name == "quality_a_b_c"


def test_table_6_splits_depth_by_pies():
    dense = make_run([[0, 1, 1, 0]] * 2, [0.0] * 2, "sup_dense", depth=[[1, 2, 3, 4], [3, 2, 3, 4]])
    pruned = make_run([[0, 1, 0, 1]] * 2, [0.9] * 2, depth=[[5, 6, 7, 8], [0, 0, 0, 0]])
    table = table_6({"sup_dense": dense, "sup_gmp": pruned})
    assert texts(table, 0)[1:] == ["3.50 ± 0.50", "2.00 ± 0.00"]
    assert texts(table, 1)[1:] == ["7.50 ± 0.50", "5.50 ± 0.50"]  # of the one that was probed
    unprobed = changed(pruned, depth=np.zeros((2, 4), np.int32))
    assert texts(table_6({"sup_dense": dense, "sup_gmp": unprobed}), 1)[1:] == ["not probed"] * 2


def test_table_2_holds_what_was_configured(make_config):
    config = make_config("sup_gmp")
    study = make_study(np.arange(8) % 2, 2, config=config)
    table = table_2(study)
    assert table.header == ["Hyperparameter", "Sup", "SCL", "Linear head", "Fine-tuning"]
    rows = {row[0].text: [cell.text for cell in row[1:]] for row in table.rows}
    assert rows["Batch size"] == ["32", "32", "32", "32"]
    assert rows["Loss function"] == ["cross entropy", "supcon", "cross entropy", "cross entropy"]
    assert rows["Sparsity end step"] == ["6", "6", "-", "-"]
    assert rows["Momentum"][3] == "0.9 (Nesterov)"
    assert rows["Temperature"] == ["-", "0.5 (base 0.07)", "-", "-"]
    assert "Δ GMP start, end, frequency" not in rows  # it is the schedule of GMP

    later = dataclasses.replace(config.prune, scl_delayed=Schedule(3, 6, 2), head=Schedule(1, 2, 1))
    study = make_study(np.arange(8) % 2, 2, config=dataclasses.replace(config, prune=later))
    rows = {row[0].text: [cell.text for cell in row[1:]] for row in table_2(study).rows}
    assert rows["Δ GMP start, end, frequency"] == ["-", "3, 6, 2", "-", "-"]
    assert rows["Sparsity end step"] == ["6", "6", "2", "-"]


def test_table_2_has_the_stages_of_the_studys_methods_and_the_papers_columns_of_these():
    published = {"hyperparameters": {"Dropout": {"Sup": "none", "SCL": "nil"}}}
    simclr = Experiment("one", "simclr")
    study = {
        "sup_dense": make_run([[0, 1, 1, 0]], [0.0], "sup_dense"),
        "one": make_run([[0, 1, 1, 0]], [0.0], (simclr, BYO)),
    }
    table = table_2(study, published)
    assert table.header == ["Hyperparameter", "Sup", "simclr", "Linear head", "Paper Sup"]
    assert texts(table, -1) == ["Dropout", "not used", "not used", "not used", "none"]
    rows = {row[0].text: [cell.text for cell in row[1:]] for row in table.rows}
    assert rows["Data augment."][1].startswith("resized crop scale (0.2, 1.0)")
    assert rows["Network type"][2] == "Net"


def test_table_2_names_methods_whose_stages_are_unknown(outsiders):
    table = table_2(outsiders)
    assert table.header == ["Hyperparameter", "Sup"]
    assert table.note == "Left out: Aux, yours; the module of that method was not imported."


def test_the_table_of_experiments_says_how_each_was_pruned(outsiders):
    rows = {row[1].text: [cell.text for cell in row] for row in experiments_table(outsiders).rows}
    begin = outsiders["quick"].config.prune.sup.begin_step
    assert rows["plain"][2:9] == ["cross_entropy", "-", "-", "-", "-", "-", "-"]
    assert rows["lucky"][3].startswith(f"{begin} to ")
    assert rows["lucky"][4:9] == ["random", "layerwise", "-", "plain", "quick"]
    assert rows["zz"][5] == "mine_too"
    assert rows["zz"][9:] == ["50, 90", "6"]


def test_models_that_diverged_are_left_out_and_said_to_be(study):
    lost = np.arange(6) == 5
    lossy = study | {"scl_gmp": changed(study["scl_gmp"], failed=lost)}
    accuracy = column(table_1(lossy), "SCL / GMP Acc [%]")
    assert [cell.beside for cell in accuracy] == ["", "", "2 of 3 models"]
    expected = 100 * study["scl_gmp"].at(0.9).accuracy[:2].mean()
    assert accuracy[2].value == pytest.approx(expected)
    none = study | {"scl_gmp": changed(study["scl_gmp"], failed=np.arange(6) >= 3)}
    assert column(table_1(none), "SCL / GMP Acc [%]")[2].text == "0 of 3 models"
    assert all(table.rows for table in make_tables(none))


def test_the_papers_study_has_the_papers_tables_and_another_has_not(study, outsiders):
    names = [table.name for table in make_tables(study)]
    papers = ["table_1", "table_2", "table_3", "table_4", "table_5", "table_6"]
    rest = ["intervals", "overlap", "recall", "experiments"]
    assert names == ["comparison", "findings", *papers, *rest]
    names = [table.name for table in make_tables(outsiders)]
    qualities = ["table_5", "quality_mine", "quality_yours"]
    assert names == ["comparison", "table_1", "table_2", *qualities, "table_6", *rest]


def test_a_study_of_dense_runs_has_the_tables_of_these(study):
    dense = {name: study[name] for name in ("sup_dense", "scl_dense")}
    tables = by_name(make_tables(dense))
    expected = ["table_1", "table_2", "table_4", "table_5", "intervals", "experiments"]
    assert list(tables) == expected
    assert column(tables["table_1"], "Sup, dense PIE")[0].text == "-"


@pytest.mark.parametrize("name", ["sup_dense", "scl_gmp"])
def test_a_study_of_one_experiment_has_tables(study, name):
    tables = make_tables({name: study[name]})
    assert all(table.rows for table in tables)


def test_tables_of_measures_that_no_run_has_are_left_out(study):
    bare = {
        name: dataclasses.replace(
            run,
            arrays={"predictions": run.predictions},
            dims={"predictions": run.dims["predictions"]},
            measured={"predictions": run.measured["predictions"]},
            columns=(),
            failures={"quality": "gone"},
        )
        for name, run in study.items()
    }
    tables = by_name(make_tables(bare))
    assert not {"table_4", "table_5", "table_6"} & tables.keys()
    assert tables["intervals"].header[-1] == "Noise floor [range]"
    partly = by_name(make_tables(study | {"scl_gmp": bare["scl_gmp"]}))
    assert column(partly["table_4"], "SCL / GMP Q")[1].text == "not measured"
    assert column(partly["table_6"], "SCL / GMP of non-PIEs")[1].text == "not probed"
    row = next(row for row in partly["intervals"].rows if row[0].text == "SCL / GMP")
    assert [cell.text for cell in row[-3:]] == ["not measured"] * 3


def test_a_way_of_pruning_without_a_label_is_called_by_its_experiment():
    nameless = Experiment("nameless", "cross_entropy", Pruning("sup"), "sup_dense")
    table = table_1({"nameless": make_run([[0, 1, 1, 0]], [0.5], (nameless, SUP))})
    assert table.header[1] == "Sup / nameless PIE"


def test_a_table_is_escaped_for_each_format():
    rows = [[Cell("1 ± 2"), Cell("a_b", 3.0, beside="paper 3")]]
    table = Table("t", "A_b & 5%", ["x|y", "Δ <z>"], rows, "See $.")
    assert table.markdown().splitlines() == [
        "**A_b & 5%.** See $.",
        "",
        "| x\\|y | Δ <z> |",
        "| --- | --- |",
        "| 1 ± 2 | a_b (paper 3) |",
    ]
    assert table.csv() == "x|y,Δ <z>\n1 ± 2,a_b (paper 3)\n"
    latex = table.latex()
    assert "\\caption{A\\_b \\& 5\\%. See \\$.}" in latex
    assert "\\begin{tabular}{lr}" in latex  # the first column is text
    assert (
        "x|y & $\\Delta$ $<$z$>$ \\\\\n\\midrule\n1 $\\pm$ 2 & a\\_b (paper 3) \\\\\n\\bottomrule"
    ) in latex
