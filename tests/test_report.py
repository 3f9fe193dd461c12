"""The report as files and as a page, of what lies in a work directory."""

import dataclasses
import itertools
import json
import re
import shutil

import numpy as np
import pytest
from report_studies import BYO, OUTSIDERS, make_study, save, save_measures, with_measure
from test_commands import call

from prunejax.config import Experiment, MeasureSettings, Pruning, Schedule, UserError, to_json
from prunejax.measures import ArraySpec, Column, load_measures
from prunejax.measures.record import Record, Subject
from prunejax.measures.store import write as write_record
from prunejax.report import write
from prunejax.report.collect import collect, differing, run_directories
from prunejax.report.page import about, failure_notes

TABLES = (
    "comparison",
    "findings",
    *(f"table_{number}" for number in range(1, 7)),
    "intervals",
    "overlap",
    "recall",
    "experiments",
)
PICTURES = (
    "what_pruning_costs",
    "pies_and_noise",
    *(f"figure_{number}" for number in range(1, 8)),
    "training_curves",
)
HOSTILE = ("<script>alert(1)</script>", "$a^^$", *"23456789")


def make_workdir(root, dataset, config, entries=None):
    """Measured runs without checkpoints, whose class names are hostile."""
    more = {} if entries is None else {"entries": entries}
    study = make_study(dataset.test_labels, 10, config=config, **more)
    for name, run in study.items():
        save(dataclasses.replace(run, class_names=HOSTILE), root / name, dataset.checksum)
    return root


@pytest.fixture(scope="module")
def workdir(tmp_path_factory, make_config, dataset):
    root = tmp_path_factory.mktemp("runs")
    return make_workdir(root, dataset, make_config("sup_gmp", models=3))


def report_of(workdir, dataset, directory=None):
    found = collect(workdir, lambda data: dataset)
    return write(
        directory or workdir / "report",
        found.study,
        found.source,
        found.curves,
        found.notes,
        dataset=found.dataset,
    )


@pytest.fixture(scope="module")
def report(workdir, dataset):
    return report_of(workdir, dataset).parent


# ---------------------------------------------------------------------- files


def test_the_report_is_written_as_files(report):
    for name, suffix in itertools.product(TABLES, ("md", "csv", "tex")):
        assert (report / "tables" / f"{name}.{suffix}").stat().st_size
    for name in PICTURES:
        assert (report / "figures" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert "<svg" in (report / "figures" / f"{name}.svg").read_text()
    assert len(list(report.rglob("*.*"))) == 3 * len(TABLES) + 2 * len(PICTURES) + 1


def test_the_command_writes_what_the_library_does_byte_for_byte(report, workdir, tmp_path):
    root = tmp_path / "runs"
    shutil.copytree(workdir, root, ignore=shutil.ignore_patterns("report"))
    done = call("report", f"--workdir={root}")
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"report: {root / 'report' / 'report.html'}\n"
    for path in report.rglob("*.*"):
        again = root / "report" / path.relative_to(report)
        assert again.read_bytes() == path.read_bytes(), path.name


def test_the_page_of_the_papers_study_asks_and_answers_its_question(report):
    page = (report / "report.html").read_text()
    assert "<h1>Does pruning hurt SCL more than Sup?</h1>" in page
    assert "GMP at 90%: " in page
    assert "n = 3 seeds a cell, preset digits, commit 0123456789." in page
    assert "<script>alert" not in page


def test_the_contents_name_everything_in_the_order_of_the_page(report):
    page = (report / "report.html").read_text()
    contents = re.search("<nav.*?</nav>", page, re.DOTALL).group()
    linked = re.findall('href="#(\\w+)"', contents)
    assert set(linked) == {"found", *TABLES, *PICTURES}
    places = [page.index(f'id="{name}"') for name in linked]
    assert places == sorted(places)
    assert "PIEs and noise" in contents


def test_the_page_in_a_browser_has_everything_sorts_shows_images_and_asks_for_nothing(report):
    commands = ("chromium", "chromium-browser", "google-chrome")
    browser = next(filter(None, map(shutil.which, commands)), None)
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

        # Folded, until it is linked to.
        heading = page.locator("#intervals th:nth-child(4)")
        assert page.locator("#findings").is_visible()
        assert not heading.is_visible()
        page.locator("nav a[href='#intervals']").click()
        heading.wait_for(state="visible")
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
        image = page.locator("#thumb").evaluate("e => getComputedStyle(e).backgroundImage")
        assert image.startswith('url("data:image')
        assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
        assert said == []
        chromium.close()


# -------------------------------------------------------------- other studies


def test_a_study_of_three_methods_with_outsiders_names_has_its_report(
    tmp_path, dataset, make_config
):
    root = make_workdir(tmp_path / "runs", dataset, make_config("sup_gmp", models=3), OUTSIDERS)
    path = report_of(root, dataset)
    page = path.read_text()
    assert "<h1>What does pruning destroy?</h1>" in page
    for text in ("whether Sup / random or Sup / magnitude loses more", "Aux", "yours / zz"):
        assert text in page
    tables = {each.stem for each in (path.parent / "tables").iterdir()}
    assert {"quality_mine", "quality_yours", "table_5"} <= tables
    assert not {"findings", "table_3", "table_4"} & tables
    assert "not measured" not in page


@pytest.mark.parametrize("name", ["scl_dense", "scl_gmp", "sup_one_shot"])
def test_a_work_directory_with_a_single_experiment_has_its_report(workdir, tmp_path, dataset, name):
    shutil.copytree(workdir / name, tmp_path / name)
    path = report_of(tmp_path, dataset)
    page = path.read_text()
    assert "<h1>What does pruning destroy?</h1>" in page
    expected = "Nothing is pruned here" if name == "scl_dense" else "compar"
    assert expected in page


def test_an_outsiders_measure_is_shown_and_one_that_failed_is_a_note(workdir, tmp_path, dataset):
    root = tmp_path / "runs"
    for name in ("sup_dense", "sup_gmp"):
        shutil.copytree(workdir / name, root / name)
    run = load_measures(root / "sup_gmp")
    subject = Subject(
        seeds=run.seeds,
        sparsities=run.sparsities,
        failed=run.failed,
        labels=run.labels,
        class_names=np.array(run.class_names),
        data_checksum=np.array(run.data_checksum),
    )
    margins = np.linspace(0, 1, len(run.seeds), dtype=np.float32)
    record = Record(
        name="margin",
        version=3,
        settings={},
        specs={"margin": ArraySpec("f", ("models",))},
        columns=(Column("margin", "Mean margin <b>"),),
        subject=subject,
        arrays={"margin": margins},
        measured=np.ones(len(margins), bool),
    )
    write_record(record, root / "sup_gmp")
    (root / "sup_dense" / "measures" / "quality.npz").write_bytes(b"PK")
    for name in ("sup_dense", "sup_gmp"):
        (root / name / "measures" / "calibration.npz").unlink()
    page = report_of(root, dataset).read_text()
    assert "Mean margin &lt;b&gt;" in page
    assert f"{margins[:3].mean():.2f} [" in page
    assert "Not measured: quality of sup_dense. " in page
    assert "Not measured: calibration of any run. " in page


def test_failures_of_measures_become_notes_one_for_all_runs_or_of_those_that_lack_it():
    study = make_study(np.arange(8) % 2, 2)
    for name in ("sup_gmp", "scl_gmp"):
        study[name] = dataclasses.replace(study[name], failures={"umap": f"{name} is broken"})
    assert failure_notes(study) == ["Not measured: umap of sup_gmp, scl_gmp. sup_gmp is broken"]
    for name, run in study.items():
        study[name] = dataclasses.replace(run, failures={"mine": f"{name} failed"})
    assert failure_notes(study) == ["Not measured: mine of any run. sup_dense failed"]


def test_the_page_describes_what_was_trained(make_config):
    config = make_config("sup_gmp", models=3)
    study = make_study(np.arange(8) % 2, 2, config=config)
    assert about(study).startswith(
        "WideResNet-16-2 trained on 100 training images of digits and measured on 8 test images, "
        "3 seeds a cell. Prediction depth: "
    )
    bare = dataclasses.replace(study["sup_gmp"], arrays={"predictions": np.zeros((6, 8), np.int32)})
    assert about({"sup_gmp": bare}).endswith("3 seeds a cell.")


def test_without_the_images_there_is_no_gallery_and_the_tooltips_name_them(workdir, tmp_path):
    def refuse(data):
        raise UserError("no such images")

    for name in ("sup_dense", "sup_gmp"):
        shutil.copytree(workdir / name, tmp_path / name)
    found = collect(tmp_path, refuse)
    assert found.dataset is None
    assert found.notes == ["Not shown: the images, and so Figure 6. no such images"]
    report = tmp_path / "report"
    path = write(report, found.study, found.source, found.curves, found.notes)
    assert not (report / "figures" / "figure_6.png").exists()
    assert "hover over one to see its name" in path.read_text()


# ---------------------------------------------------------------- which runs


def test_runs_are_the_sub_directories_with_a_configuration(workdir, tmp_path):
    shutil.copytree(workdir / "sup_gmp", tmp_path / "sup_gmp")
    (tmp_path / "report").mkdir()
    (tmp_path / "notes.txt").write_text("x")
    assert [path.name for path in run_directories(tmp_path)] == ["sup_gmp"]
    assert run_directories(tmp_path / "nowhere") == []


def test_runs_that_are_damaged_or_different_are_named_and_the_others_shown(
    workdir, tmp_path, make_config, dataset
):
    root = tmp_path / "runs"
    shutil.copytree(workdir, root, ignore=shutil.ignore_patterns("report"))
    shutil.rmtree(root / "scl_one_shot")
    corrupt = root / "sup_gmp" / "measures" / "predictions.npz"
    corrupt.write_bytes(corrupt.read_bytes()[:1000])
    other = make_config("sup_dense", models=3, compute_dtype="bfloat16")
    (root / "sup_dense" / "config.json").write_text(to_json(other))
    (root / "scl_gmp" / "metrics.jsonl").unlink()
    (root / "sup_one_shot").rename(root / "copy")
    study = make_study(dataset.test_labels[:50], 10)
    shutil.rmtree(root / "scl_delayed_gmp" / "measures")
    save_measures(study["scl_delayed_gmp"], root / "scl_delayed_gmp", dataset.checksum)

    found = collect(root, lambda data: dataset)
    assert list(found.study) == ["scl_dense", "scl_gmp"]
    for start, reason in (
        ("Not shown: sup_gmp", str(corrupt)),
        ("Not shown: sup_dense", "(compute_dtype: bfloat16, not float32)"),
        ("Not shown: copy", "names the run sup_one_shot"),
        ("Not shown: scl_delayed_gmp", "test images: 50, not 60"),
        (f"{root / 'scl_gmp' / 'metrics.jsonl'}", "no readable training curve"),
    ):
        fits = [note for note in found.notes if note.startswith(start) and reason in note]
        assert len(fits) == 1, (start, found.notes)
    page = report_of(root, dataset).read_text()
    assert page.count("Not shown:") == 4
    assert "sup_gmp: not run" in page


def test_populations_that_training_lets_stand_together_are_shown_together(dataset, tmp_path):
    """More dense models than pruned ones, and ways of pruning with settings of their own."""
    study = make_study(np.arange(8) % 2, 2)

    def changed(name, **fields):
        run = study[name]
        return dataclasses.replace(run, config=dataclasses.replace(run.config, **fields))

    config = study["sup_dense"].config
    epochs = dataclasses.replace(config.finetune, epochs=config.finetune.epochs + 1)
    later = dataclasses.replace(config.prune, sup=Schedule(5, 50, 1))
    dense = changed("sup_dense", models=30, preset="mine")
    assert differing(dense, study["sup_gmp"]) == []
    assert differing(changed("sup_gmp", prune=later), dense) == []
    longer = changed("sup_one_shot", finetune=epochs)
    assert differing(longer, study["sup_gmp"]) == []
    # Of two that are fine-tuned it would be no comparison of what they are called.
    (told,) = differing(longer, study["scl_one_shot"])
    assert told.startswith("finetune.epochs: ")
    for name, run in (study | {"sup_one_shot": longer}).items():
        save(run, tmp_path / name, dataset.checksum)
    found = collect(tmp_path, lambda data: dataset)
    assert set(found.study) == set(study) - {"scl_one_shot"}
    start = "Not shown: scl_one_shot. It was made with other settings than sup_one_shot (finetune."
    assert [note for note in found.notes if note.startswith(start)]
    assert "30 seeds a cell" in about({"sup_dense": dense})
    both = {"sup_dense": changed("sup_dense", models=4), "sup_gmp": changed("sup_gmp", models=3)}
    assert "3 to 4 seeds a cell" in about(both)


def test_the_page_says_to_what_size_images_were_averaged():
    run = make_study(np.arange(8) % 2, 2)["sup_dense"]
    data = dataclasses.replace(run.config.data, image_size=16)
    small = dataclasses.replace(run, config=dataclasses.replace(run.config, data=data))
    assert "averaged to 16x16" in about({"sup_dense": small})
    assert "averaged" not in about({"sup_dense": run})


def test_runs_that_were_measured_otherwise_are_not_shown_together():
    study = make_study(np.arange(8) % 2, 2)
    run = study["sup_gmp"]
    assert differing(run, study["scl_gmp"]) == []
    settings = dataclasses.replace(run.config.measure, neighbors=7)
    config = dataclasses.replace(run.config, measure=settings)
    other = dataclasses.replace(run, config=config, data_checksum="y")
    # What no measure of both depends on makes no difference.
    assert differing(run, other) == ["data checksum: x, not y"]
    run = dataclasses.replace(run, decided_by=frozenset({"neighbors", "umap_seed"}))
    assert differing(run, other) == ["data checksum: x, not y"]
    other = dataclasses.replace(other, decided_by=frozenset({"neighbors"}))
    assert differing(run, other) == [
        "data checksum: x, not y",
        f"measure.neighbors: {MeasureSettings().neighbors}, not 7",
    ]


def test_a_work_directory_without_a_measured_run_is_refused(workdir, tmp_path, dataset):
    shutil.copytree(workdir / "scl_gmp", tmp_path / "scl_gmp")
    (tmp_path / "scl_gmp" / "measures" / "predictions.npz").write_bytes(b"PK")
    with pytest.raises(UserError, match="holds no measured run") as caught:
        collect(tmp_path, lambda data: dataset)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "report").exists()
    done = call("report", f"--workdir={tmp_path}")
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1


def test_labels_cannot_break_the_page(tmp_path, dataset):
    odd = dataclasses.replace(BYO, label="</script><b>&\"'")
    entries = (
        (Experiment("base", "m"), odd),
        (Experiment("cut", "m", Pruning("sup"), "base", "$x_1$ & <i>"), odd),
    )
    study = make_study(dataset.test_labels, 10, entries=entries)
    margin = Column("margin", "<u>")
    study["cut"] = with_measure(study["cut"], margin, np.zeros(6, np.float32))
    page = write(tmp_path, study, "source", {}, dataset=dataset).read_text()
    for text in ("<b>&", "<i>", "<u>"):
        assert text not in page
    assert page.count("</script>") == 1


def test_a_note_says_which_characters_no_font_has(tmp_path, monkeypatch):
    from prunejax.report.figures import style as styles

    monkeypatch.setattr(styles, "_regular_fonts", dict)
    study = make_study(np.arange(8) % 2, 2)
    page = write(tmp_path, {"sup_dense": study["sup_dense"]}, "source", {}).read_text()
    assert "No installed font has" not in page
    run = dataclasses.replace(study["sup_dense"], class_names=("\U0001f409", "b"))
    page = write(tmp_path, {"sup_dense": run}, "source", {}).read_text()
    assert "which figures lack: \U0001f409" in page


def test_curves_are_read_from_the_log(workdir, dataset):
    found = collect(workdir, lambda data: dataset)
    (first, *_) = found.curves["sup_gmp"]
    assert (first["stage"], first["step"]) == ("sup", 1)
    line = json.loads((workdir / "sup_gmp" / "metrics.jsonl").read_text().splitlines()[0])
    np.testing.assert_array_equal(first["loss"][1:], line["loss"][1:])
    assert np.isnan(first["loss"][0])


def test_one_picture_or_table_that_fails_costs_a_note_and_no_other(
    workdir, dataset, tmp_path, monkeypatch
):
    def fail(*arguments):
        raise FloatingPointError("underflow\nin a corner")

    monkeypatch.setattr("prunejax.report.figures.all_figures.figure_3", fail)
    monkeypatch.setattr("prunejax.report.all_tables.intervals", fail)
    page = report_of(workdir, dataset, tmp_path).read_text()
    for title in ("Figure 3", "Intervals"):
        told = "could not be made (FloatingPointError: underflow in a corner)"
        assert f"Not shown: {title}, which {told}" in page
    drawn = {path.stem for path in (tmp_path / "figures").glob("*.png")}
    assert drawn == {*PICTURES} - {"figure_3"}
    written = {path.stem for path in (tmp_path / "tables").glob("*.csv")}
    assert written == {*TABLES} - {"intervals"}
