"""Tables against counting by hand, figures by their panels, and the page in a browser."""

import dataclasses
import itertools
import json
import shutil

import matplotlib as mpl
import numpy as np
import pytest
from test_commands import call

from prunejax import evaluate, figures, metrics, tables, uncertainty
from prunejax.config import Measure, to_json
from prunejax.evaluate import Measures
from prunejax.tables import Cell, Table

EXPERIMENTS = ("sup_dense", "sup_gmp", "sup_one_shot", "scl_dense", "scl_gmp", "scl_delayed_gmp", "scl_one_shot")


def make_measures(predictions, sparsities, labels=(0, 1, 1, 0), classes=2, **fields):
    predictions = np.array(predictions, np.int32)
    shape = predictions.shape
    arrays = {
        "seeds": np.concatenate([np.arange(sparsities.count(level)) for level in dict.fromkeys(sparsities)]),
        "depth": np.ones(shape),
        "purity": np.ones(shape[0]),
        "umap": np.zeros((len(set(sparsities)), shape[1], 2)),
        **dict.fromkeys(("q", "z", "l1"), np.ones(shape)),
        **fields,
    }
    kinds = {"i": np.int32, "f": np.float32}
    return Measures(
        predictions,
        np.array(labels, np.int32),
        sparsities=np.array(sparsities, np.float32),
        class_names=np.array([f"class {c}" for c in range(classes)]),
        data_checksum=np.array("x"),
        settings=np.array(json.dumps(dataclasses.asdict(Measure()))),
        **{name: np.asarray(array, kinds[evaluate.ARRAYS[name][0]]) for name, array in arrays.items()},
    )


def make_study(labels, classes, seeds=3, levels=(0.5, 0.9), without=()):
    """Predictions that are wrong the more often the sparser the models are, and for SCL more often than for Sup."""
    rng = np.random.default_rng(0)
    study = {}
    for name in EXPERIMENTS:
        sparsities = [level for level in ((0.0,) if "dense" in name else levels) for _ in range(seeds)]
        wrong = rng.random((len(sparsities), len(labels))) < np.array(sparsities)[:, None] * (
            0.8 if name.startswith("scl") else 0.3
        )
        predictions = np.where(wrong, rng.integers(0, classes, wrong.shape), labels)
        fields = {score: rng.random(wrong.shape) + 1 for score in ("q", "z", "l1")}
        fields |= {"depth": rng.integers(1, 9, wrong.shape), "purity": rng.random(len(sparsities))}
        fields["umap"] = rng.normal(size=(len(set(sparsities)), len(labels), 2))
        study[name] = make_measures(predictions, sparsities, labels, classes, **fields)
    return {name: run for name, run in study.items() if name not in without}


@pytest.fixture(scope="module")
def study():
    return make_study(np.arange(40) % 4, 4)


def texts(table, row):
    return [cell.text for cell in table.rows[row]]


def column(table, name):
    return [row[list(table.header).index(name)] for row in table.rows]


def test_table_1_counts_pies_and_accuracy_beside_the_noise_floor_and_the_published_numbers():
    study = {
        "sup_dense": make_measures([[0, 1, 1, 0], [0, 1, 1, 0], [0, 1, 1, 1]], [0.0] * 3),
        "sup_gmp": make_measures(
            [[0, 1, 1, 0]] * 3 + [[1, 0, 1, 0], [1, 0, 1, 0], [0, 1, 1, 0]], [0.3] * 3 + [0.9] * 3
        ),
    }
    published = {
        "Acc [%]": {"sup_gmp": {0.9: "80 ± 0.4"}},
        "PIE": {"sup_gmp": {0.9: "7"}, "scl_gmp": {0.9: "8"}, "hooker": {0.9: "5"}},
    }
    table = tables.table_1(study, published)
    assert [texts(table, row)[:3] for row in range(3)] == [
        ["0", "-", "91.67 ± 11.79"],
        ["30", "0", "100.00 ± 0.00"],
        ["90", "2", "66.67 ± 23.57"],
    ]
    # Of the halves, one model each, those with the third model differ in one image: two splits in three.
    floor = np.asarray(metrics.noise_floor(study["sup_dense"].predictions, 2)).mean()
    assert table.rows[2][1].beside == f"floor {floor:.0f}; paper 7"
    assert table.rows[2][2].beside == "paper 80 ± 0.4"
    assert (texts(table, 2)[5], table.rows[2][5].beside) == ("not run", "paper 8")
    hooker = column(tables.table_3(study, published), "Hooker et al. 2019 PIE")
    assert [cell.text for cell in hooker] == ["-", "-", "5"]


def test_quality_tables_average_over_models_first_and_count_dead_representations():
    q = np.array([[1.0, 3, 0, 4], [3, 5, 0, 4]])
    run = make_measures([[0, 1, 1, 0]] * 2, [0.9] * 2, q=q, z=q, l1=q)
    row = tables.table_5({"sup_gmp": run}).rows[0]
    means = np.array([2.0, 4, 0, 4])
    assert row[1] == Cell(f"{means.mean():.2f} ± {means.std():.2f}", means.mean(), "2 all-zero")
    assert row[4].text == "not run"


def test_table_6_splits_depth_by_pies():
    dense = make_measures([[0, 1, 1, 0]] * 2, [0.0] * 2, depth=[[1, 2, 3, 4], [3, 2, 3, 4]])
    pruned = make_measures([[0, 1, 0, 1]] * 2, [0.9] * 2, depth=[[5, 6, 7, 8], [0, 0, 0, 0]])
    table = tables.table_6({"sup_dense": dense, "sup_gmp": pruned})
    assert texts(table, 0)[1:3] == ["3.50 ± 0.50", "2.00 ± 0.00"]
    assert texts(table, 1)[1:3] == ["7.50 ± 0.50", "5.50 ± 0.50"]  # of the one model that was probed
    assert texts(table, 1)[3:5] == ["not run", "not run"]


def test_table_2_holds_what_was_configured(make_config):
    rows = {row[0].text: [cell.text for cell in row[1:]] for row in tables.table_2(make_config("sup_gmp")).rows}
    assert rows["Batch size"] == ["32", "32", "32", "32"]
    assert rows["Sparsity end step"] == ["6", "6", "-", "-"]
    assert rows["Momentum"][3] == "0.9 (Nesterov)"


def test_findings_are_effects_with_their_sign_and_the_papers(study):
    published = {
        "Acc [%]": {"scl_gmp": {0.0: "92 ± 1", 0.9: "85.5 ± 1"}, "sup_gmp": {0.0: "90 ± 1", 0.9: "89 ± 1"}},
        "depth of PIEs": {"scl_gmp": {0.9: "15 ± 1"}},
        "of non-PIEs": {"scl_gmp": {0.9: "10.5 ± 4"}},
    }
    later = study["scl_gmp"].predictions.copy()
    later[:, :20] = study["scl_gmp"].labels[:20]  # delayed, all models are right about half of the images
    study = study | {"scl_delayed_gmp": dataclasses.replace(study["scl_gmp"], predictions=later)}
    for name, less in (("scl_gmp", 1), ("sup_gmp", 3)):
        study[name] = dataclasses.replace(study[name], q=study[name].q - less)
    found = {row[0].text: row[1:] for row in uncertainty.findings(study, published).rows}
    scl, dense = study["scl_gmp"].at(0.9), study["scl_dense"].at(0.0)
    pies = scl.pies(dense)

    ours, holds, _, paper = found["GMP costs SCL more accuracy than Sup [points]"]
    same = next(row for row in uncertainty.comparison(study).rows if row[0].text == "GMP" and row[1].value == 0.9)
    assert (ours.value, ours.interval) == (same[4].value, same[4].interval)
    assert ours.interval[0] > 0
    assert (holds.text, paper.text) == ("yes", "5.50")
    ours, holds, floors, paper = found["Δ GMP gives SCL fewer PIEs than GMP"]
    delayed = study["scl_delayed_gmp"].at(0.9).pies(dense)
    assert ours.value == delayed.sum() - pies.sum() < 0
    floor = metrics.noise_floor(dense.predictions, 4)
    assert floors.text.split("; ") == [f"{floor.mean():.0f} [{floor.min()}, {floor.max()}]"] * 2
    assert paper.text == "-"
    ours, holds, *_ = found["GMP costs SCL Q-Score"]
    assert ours.value == pytest.approx(dense.q.mean() - scl.q.mean())
    assert holds.text == "yes"
    assert found["GMP costs SCL more Q-Score than Sup"][1].text == "no"
    ours, _, floors, paper = found["PIEs of SCL / GMP are deeper than other images [layers]"]
    assert ours.value == pytest.approx(scl.depth[:, pies].mean() - scl.depth[:, ~pies].mean())
    assert (floors.text, paper.text) == ("-", "4.50")


def test_findings_say_what_they_lack(study):
    rows = {row[0].text: row for row in uncertainty.findings({k: v for k, v in study.items() if "delay" not in k}).rows}
    assert [cell.text for cell in rows["Δ GMP gives SCL fewer PIEs than GMP"][1:]] == [
        "SCL / Δ GMP, 90%: not run",
        "-",
        "-",
    ]
    dense = uncertainty.findings({"sup_dense": study["sup_dense"]})
    assert {row[1].text for row in dense.rows} == {"nothing is pruned"}
    unprobed = dataclasses.replace(study["sup_gmp"], depth=np.zeros_like(study["sup_gmp"].depth))
    rows = uncertainty.findings(study | {"sup_gmp": unprobed}).rows
    assert [cell.text for cell in rows[-1][1:]] == ["not probed, or no PIEs", "undecided", "-"]


def test_models_that_diverged_are_left_out_and_said_to_be(study):
    lost = study["scl_gmp"].l1.copy()
    lost[5] = np.nan
    lossy = study | {"scl_gmp": dataclasses.replace(study["scl_gmp"], l1=lost)}
    accuracy = column(tables.table_1(lossy), "SCL / GMP Acc [%]")
    assert [cell.beside for cell in accuracy] == ["", "", "2 of 3 models"]
    assert accuracy[2].value == pytest.approx(100 * study["scl_gmp"].at(0.9).accuracy[:2].mean())
    row = next(r for r in uncertainty.intervals(lossy).rows if (r[0].text, r[1].value) == ("SCL / GMP", 0.9))
    assert row[2] == Cell("2", 2, "of 3; the others diverged or collapsed")
    none = lossy | {"scl_gmp": dataclasses.replace(study["scl_gmp"], l1=lost * np.nan)}
    assert column(tables.table_1(none), "SCL / GMP Acc [%]")[2].text == "0 of 3 models"
    for make in (uncertainty.intervals, uncertainty.comparison, uncertainty.overlap, uncertainty.recall_change):
        assert make(none).rows


def test_intervals_hold_their_estimates_and_the_comparison_is_the_difference_of_losses(study):
    for row in uncertainty.intervals(study).rows:
        for cell in row[3:]:
            if cell.interval:
                assert cell.interval[0] <= cell.value <= cell.interval[1]
    row = next(row for row in uncertainty.comparison(study).rows if row[0].text == "GMP" and row[1].value == 0.9)
    losses = [
        study[f"{k}_dense"].at(0.0).accuracy.mean() - study[f"{k}_gmp"].at(0.9).accuracy.mean() for k in ("sup", "scl")
    ]
    assert row[4].value == pytest.approx(100 * (losses[1] - losses[0]))
    assert row[4].interval[0] > 0
    first = uncertainty.answer(uncertainty.comparison(study))[0]
    assert first.startswith("GMP at 90%: yes. Accuracy lost: SCL ")
    assert row[4].text in first


def test_models_of_one_seed_are_resampled_together(study):
    dense = study["sup_dense"]
    same = {"sup_dense": dense, "sup_gmp": dataclasses.replace(dense, sparsities=np.full(3, 0.9, np.float32))}
    same |= {name.replace("sup", "scl"): run for name, run in same.items()}
    row = uncertainty.comparison(same).rows[0]
    assert row[4].text == "0.00 [0.00, 0.00]"
    assert row[7].text == "0 [0, 0]"


def test_resamples_that_draw_none_of_a_cells_models_do_not_count(study):
    lost = study["scl_gmp"].l1.copy()
    lost[3:5] = np.nan
    lossy = study | {"scl_gmp": dataclasses.replace(study["scl_gmp"], l1=lost)}
    resamples, dense, pruned = uncertainty.Resamples(lossy), lossy["scl_dense"].at(0.0), lossy["scl_gmp"].at(0.9)
    counts = resamples.pies(dense, pruned)
    drawn = resamples.of(pruned).any(1)
    assert not drawn.all()
    np.testing.assert_array_equal(np.isnan(counts), ~drawn)
    np.testing.assert_array_equal(np.isnan(resamples.mean(pruned, pruned.accuracy)), ~drawn)


def test_sparsity_zero_in_a_pruned_run_is_not_taken_for_the_dense_run(study):
    with_zero = make_study(np.arange(40) % 4, 4, levels=(0.0, 0.9)) | {"sup_dense": study["sup_dense"]}
    rows = [(row[0].text, row[1].value) for row in uncertainty.intervals(with_zero).rows]
    assert ("Sup, dense", 0.0) in rows
    assert ("Sup / GMP", 0.0) not in rows


def test_one_model_a_cell_gives_tables_without_intervals():
    study = make_study(np.arange(8) % 2, 2, seeds=1)
    assert uncertainty.intervals(study).rows[0][3].beside == "an interval needs 2 models"
    assert "needs 2 dense models" in uncertainty.intervals(study).rows[2][5].text
    assert "floor needs 2 dense models" in tables.table_1(study).rows[1][1].beside
    assert uncertainty.recall_change(study).rows[0][2].beside == "p needs 2 models"
    absent = make_study(np.zeros(8, int), 2, seeds=1)
    assert uncertainty.recall_change(absent).rows[1][2].text == "no such image"
    assert "undecided" in uncertainty.answer(uncertainty.comparison(study))[0]


def test_overlap_and_recall_of_a_study_with_a_class_that_does_not_occur():
    study = make_study(np.arange(40) % 3, 4)
    assert {row[2].text for row in uncertainty.recall_change(study).rows if row[1].text == "class 3"} == {
        "no such image"
    }
    row = next(row for row in uncertainty.overlap(study).rows if row[0].text == "GMP" and row[1].value == 0.9)
    sup, scl = (study[f"{k}_gmp"].at(0.9).pies(study[f"{k}_dense"].at(0.0)) for k in ("sup", "scl"))
    assert [cell.value for cell in row[2:5]] == [sup.sum(), scl.sum(), (sup & scl).sum()]


def test_a_table_is_escaped_for_each_format():
    table = Table("t", "A_b & 5%", ["x|y", "Δ <z>"], [[Cell("1 ± 2"), Cell("a_b", beside="paper 3")]])
    assert table.markdown().splitlines()[2:] == ["| x\\|y | Δ <z> |", "| --- | --- |", "| 1 ± 2 | a_b (paper 3) |"]
    assert table.csv() == "x|y,Δ <z>\n1 ± 2,a_b (paper 3)\n"
    latex = table.latex()
    assert "\\caption{A\\_b \\& 5\\%}" in latex
    assert "x|y & $\\Delta$ $<$z$>$ \\\\\n\\midrule\n1 $\\pm$ 2 & a\\_b (paper 3) \\\\" in latex


FIGURES = (figures.figure_1, figures.figure_2, figures.figure_3, figures.figure_4, figures.figure_5, figures.figure_7)


@pytest.mark.parametrize("make", FIGURES)
def test_figures_have_a_panel_per_cell_and_say_where_one_was_not_run(study, make):
    panels = [axis for axis in make(study).axes if axis.get_title()]
    assert len(panels) == {"figure_1": 6, "figure_4": 4}.get(make.__name__, len(panels))
    partly = {name: run for name, run in study.items() if name != "scl_one_shot"}
    said = [text.get_text() for axis in make(partly).axes for text in axis.texts]
    assert "not run" in said
    dense = make({"sup_dense": study["sup_dense"]})
    assert isinstance(dense, mpl.figure.Figure)


def test_the_points_of_a_panel_are_the_test_images_in_order(study):
    axis = figures.figure_2(study).axes[2]
    assert json.loads(axis.get_gid()) == [["scl_dense", 0.0], ["scl_gmp", 0.9]]
    points = [np.ma.filled(np.ma.asarray(c.get_offsets(), float), np.nan) for c in axis.collections]
    pies = study["scl_gmp"].at(0.9).pies(study["scl_dense"].at(0.0))
    assert (np.isfinite(points[1]).all(1) == pies).all()
    expected = np.stack([study["scl_dense"].q.mean(0), study["scl_gmp"].at(0.9).q.mean(0)], axis=1)
    np.testing.assert_allclose(np.where(pies[:, None], points[1], points[0]), expected, rtol=1e-6)


def test_figure_6_shows_the_most_certain_pies(study, dataset):
    axes = figures.figure_6(study, dataset.test_images[:40]).axes
    first = next(axis for axis in axes if axis.images)
    dense, pruned = study["sup_dense"].at(0.0), study["sup_gmp"].at(0.9)
    certain = np.where(pruned.pies(dense), figures.agreement(dense) + figures.agreement(pruned), -1)
    image = int(certain.argmax())
    np.testing.assert_array_equal(first.images[0].get_array(), dataset.test_images[image].squeeze())
    label, before, after = first.texts[0].get_text().splitlines()
    assert label == f"label: class {dense.labels[image]}"
    assert before == f"U: class {dense.modal_class[image]} {figures.agreement(dense)[image]}/3"
    assert after == f"S: class {pruned.modal_class[image]} {figures.agreement(pruned)[image]}/3"


def test_no_legend_is_cut_off():
    names = np.array(["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"])
    study = {
        name: dataclasses.replace(run, class_names=names) for name, run in make_study(np.arange(40) % 10, 10).items()
    }
    for draw in (figures.figure_1, figures.figure_2, figures.figure_4, figures.figure_5, figures.figure_7):
        figure = draw(study)
        figure.draw_without_rendering()
        legend = figure.legends[0].get_window_extent()
        assert 0 <= legend.x0 < legend.x1 <= figure.bbox.x1, draw.__name__


@pytest.fixture(scope="module")
def workdir(tmp_path_factory, make_config, dataset):
    """Seven measured runs without checkpoints, whose class names are hostile."""
    root = tmp_path_factory.mktemp("runs")
    names = np.array(["<script>alert(1)</script>", "$a^^$", *"23456789"])
    for name, run in make_study(dataset.test_labels, 10).items():
        run_dir = root / name
        run_dir.mkdir()
        run = dataclasses.replace(run, class_names=names, data_checksum=np.array(dataset.checksum))
        evaluate.save(run, run_dir / "measures.npz")
        (run_dir / "config.json").write_text(to_json(make_config(name, models=3)))
        provenance = {"data_checksum": dataset.checksum, "class_names": [], "image_shape": [8, 8, 1], "stage_steps": {}}
        (run_dir / "provenance.json").write_text(
            json.dumps(provenance | {"sessions": [{"commit": "0123456789abcdef"}]})
        )
        lines = (
            {"stage": "sup", "step": step, "loss": [None] + [1.0 / step] * (len(run.seeds) - 1)} for step in (1, 2, 3)
        )
        (run_dir / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return root


@pytest.fixture(scope="module")
def report(workdir):
    done = call("report", f"--workdir={workdir}")
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"report: {workdir / 'report' / 'report.html'}\n"
    return workdir / "report"


TABLES = ("comparison", "findings", *(f"table_{n}" for n in range(1, 7)), "intervals", "overlap", "recall")
PICTURES = (*(f"figure_{n}" for n in range(1, 8)), "training_curves")


def test_the_report_is_written_as_files_and_again_byte_for_byte(report, workdir):
    for name, suffix in itertools.product(TABLES, ("md", "csv", "tex")):
        assert (report / "tables" / f"{name}.{suffix}").stat().st_size
    for name in PICTURES:
        assert (report / "figures" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert "<svg" in (report / "figures" / f"{name}.svg").read_text()
    files = {path: path.read_bytes() for path in report.rglob("*.*")}
    assert call("report", f"--workdir={workdir}").returncode == 0
    assert {path: path.read_bytes() for path in report.rglob("*.*")} == files


def test_the_page_in_a_browser_has_everything_sorts_shows_images_and_asks_for_nothing(report):
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        pytest.skip("no Chromium here; ./launch.sh test installs it where it may")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        page = chromium.new_page(viewport={"width": 1280, "height": 2000})
        said, asked = [], []
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("dialog", lambda dialog: said.append(dialog.message))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(f"file://{report / 'report.html'}")
        assert page.locator(".answer p").count() == 3
        for name in TABLES:
            assert page.locator(f"#{name} tbody tr").count() > 0
        for name in PICTURES:
            assert page.evaluate(f"document.getElementById('{name}').naturalWidth") > 300
            assert page.locator(f"#{name}").get_attribute("alt")

        def accuracies():
            cells = page.locator("#intervals tbody td:nth-child(4)").all()
            return [float(cell.get_attribute("data-value")) for cell in cells]

        heading = page.locator("#intervals th:nth-child(4)")
        heading.locator("button").click()
        assert accuracies() == sorted(accuracies())
        assert heading.get_attribute("aria-sort") == "ascending"
        heading.locator("button").click()
        assert accuracies() == sorted(accuracies(), reverse=True)

        picture = page.locator("#figure_6")
        picture.scroll_into_view_if_needed()
        box = picture.bounding_box()
        assert not page.locator("#tip").is_visible()
        x, y = page.evaluate("[hover.panels.figure_6[0].x[0], hover.panels.figure_6[0].y[0]]")
        page.mouse.move(box["x"] + x / 1e4 * box["width"], box["y"] + y / 1e4 * box["height"])
        assert page.locator("#tip").is_visible()
        assert "Sup / GMP, 90%" in page.locator("#words").inner_text()
        assert page.locator("#thumb").evaluate("e => getComputedStyle(e).backgroundImage").startswith('url("data:image')
        assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
        assert said == []
        chromium.close()


def test_runs_that_are_missing_corrupt_or_different_are_named_and_the_others_shown(workdir, tmp_path, make_config):
    root = tmp_path / "runs"
    shutil.copytree(workdir, root, ignore=shutil.ignore_patterns("report"))
    shutil.rmtree(root / "scl_one_shot")
    corrupt = root / "sup_gmp" / "measures.npz"
    corrupt.write_bytes(corrupt.read_bytes()[:1000])
    (root / "sup_dense" / "config.json").write_text(to_json(make_config("sup_dense", models=2)))
    (root / "scl_gmp" / "metrics.jsonl").unlink()
    run = evaluate.load(root / "scl_delayed_gmp" / "measures.npz")
    per_image = ("predictions", "q", "z", "l1", "depth")
    fewer = {name: getattr(run, name)[:, :50] for name in per_image} | {
        "labels": run.labels[:50],
        "umap": run.umap[:, :50],
    }
    evaluate.save(dataclasses.replace(run, **fewer), root / "scl_delayed_gmp" / "measures.npz")

    done = call("report", f"--workdir={root}")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    for start, reason in (
        ("Not shown: scl_one_shot", "no readable configuration"),
        ("Not shown: sup_gmp", f"{corrupt} cannot be read"),
        ("Not shown: sup_dense", "(models: 2, not 3)"),
        ("Not shown: scl_delayed_gmp", "test images: 50, not 60"),
        (f"{root / 'scl_gmp' / 'metrics.jsonl'}", "no readable training curve"),
    ):
        assert any(line.startswith(start) and reason in line for line in lines), (start, lines)
    page = (root / "report" / "report.html").read_text()
    assert page.count("Not shown:") == 4
    assert "not run" in page
    assert "no dense run" in page


def test_a_study_with_nothing_to_compare_is_refused(workdir, tmp_path):
    shutil.copytree(workdir / "scl_gmp", tmp_path / "scl_gmp")
    (tmp_path / "scl_gmp" / "measures.npz").write_bytes(b"PK")
    done = call("report", f"--workdir={tmp_path}")
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "report").exists()
