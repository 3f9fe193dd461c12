"""Figures by their panels: of any number of methods, experiments and classes."""

import dataclasses
import itertools
import json
import string

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure
from report_studies import OUTSIDERS, PAPER, SUP, changed, make_run, make_study

from prunejax.config import Experiment, Pruning
from prunejax.report.comparison import effect
from prunejax.report.figures import (
    agreement,
    figure_1,
    figure_2,
    figure_3,
    figure_4,
    figure_5,
    figure_6,
    figure_7,
    make_figures,
    training_curves,
)
from prunejax.report.figures import style as styles
from prunejax.report.figures.costs import what_pruning_costs
from prunejax.report.figures.noise import pies_and_noise
from prunejax.report.noise import floors_of
from prunejax.report.resamples import Resamples
from prunejax.report.study import dense_and_pruned, pruned_experiments, title

FIGURES = (figure_1, figure_2, figure_3, figure_4, figure_5, figure_7)


@pytest.fixture(scope="module")
def study():
    return make_study(np.arange(40) % 4, 4)


@pytest.fixture(scope="module")
def outsiders():
    return make_study(np.arange(40) % 4, 4, entries=OUTSIDERS)


def panels(figure):
    return [axis for axis in figure.axes if axis.get_visible() and axis.get_title()]


def titles(figure):
    return [" ".join(axis.get_title().split()) for axis in panels(figure)]


def said(figure):
    axes = [part for axis in figure.axes for part in (axis, *axis.child_axes)]
    return [text.get_text() for axis in axes for text in axis.texts]


def panel(figure, title):
    return next(axis for axis in figure.axes if axis.get_title() == title)


def make_many(count):
    """One method pruned in so many ways."""
    entries = [(Experiment("dense_one"), SUP)]
    for place in range(count):
        name = f"way_{string.ascii_lowercase[place]}"
        pruning = Pruning("sup", score=name)
        entries.append((Experiment(name, "cross_entropy", pruning, "dense_one", name), SUP))
    return make_study(np.arange(20) % 4, 4, entries=entries)


@pytest.mark.parametrize("make", FIGURES, ids=lambda make: make.__name__)
def test_figures_have_a_panel_per_cell_and_say_where_one_was_not_run(study, make):
    counts = {"figure_1": 6, "figure_2": 5, "figure_3": 5, "figure_4": 4}
    assert len(panels(make(study))) == counts.get(make.__name__, 10)
    half = dataclasses.replace(study["scl_one_shot"].at(0.5), level=None)
    told = said(make(study | {"scl_one_shot": half}))
    assert any(text.endswith("not run") for text in told)
    assert isinstance(make({"sup_dense": study["sup_dense"]}), Figure)


@pytest.mark.parametrize("make", [figure_2, figure_3, figure_7], ids=lambda make: make.__name__)
def test_panels_whose_dense_run_is_missing_say_so(study, make):
    without = {name: run for name, run in study.items() if name != "scl_dense"}
    assert "SCL, dense: not run" in said(make(without))


def test_every_method_has_its_row_and_every_experiment_its_column(outsiders):
    assert titles(figure_1(outsiders)) == [
        f"{title} purity {100 * purity:.0f}%"
        for title, purity in [
            (
                title,
                outsiders[name].at(level).values("purity").mean(),
            )
            for title, name, level in [
                ("Sup, dense", "plain", 0.0),
                ("Sup / magnitude, 90%", "quick", 0.9),
                ("Aux, dense", "xylophone", 0.0),
                ("Aux / later, 90%", "oboe", 0.9),
                ("yours, dense", "7th", 0.0),
                ("yours / zz, 90%", "zz", 0.9),
            ]
        ]
    ]
    found = " ".join(titles(figure_7(outsiders)))
    for name in ("Sup / magnitude, 90%", "Sup / random, 50%", "Aux / later", "yours / zz"):
        assert name in found
    within = {name: outsiders[name] for name in ("xylophone", "oboe")}
    assert "figure_4" not in make_figures(outsiders, {})  # nothing is pruned at once
    assert len(panels(figure_5(within))) == 2


@pytest.mark.parametrize("count", [5, 6, 11])
@pytest.mark.parametrize("make", [figure_2, figure_5, figure_7], ids=lambda make: make.__name__)
def test_many_experiments_are_wrapped_over_rows_and_none_is_lost(count, make):
    study = make_many(count)
    figure = make(study)
    columns = figure.axes[0].get_gridspec().ncols
    assert columns == {5: 5, 6: 3, 11: 4}[count]
    found = " ".join(titles(figure))
    for name in study:
        if name != "dense_one":
            assert f"Sup / {name}, 90%" in found
    assert figure.get_figwidth() < 16


def test_methods_have_their_own_colours_or_free_ones(study, outsiders):
    assert styles.colours(study) == {"cross_entropy": "#0072b2", "supcon": "#d55e00"}
    found = styles.colours(outsiders)
    assert found["cross_entropy"] == "#0072b2"
    assert len(set(found.values())) == 3
    bars = {bar.get_facecolor()[:3] for axis in figure_7(outsiders).axes for bar in axis.patches}
    assert bars == {mpl.colors.to_rgb(colour) for colour in found.values()}


def test_strong_bars_are_pies_of_both_and_light_ones_of_one_alone(study):
    axis = next(axis for axis in panels(figure_7(study)) if "SCL / GMP, 90%" in axis.get_title())
    scl = study["scl_gmp"].at(0.9).pies(study["scl_dense"].at(0.0))
    sup = study["sup_gmp"].at(0.9).pies(study["sup_dense"].at(0.0))
    labels = study["scl_gmp"].labels
    heights = [bar.get_height() for bar in axis.patches]
    assert heights[:4] == np.bincount(labels[scl & sup], minlength=4).tolist()
    assert heights[4:] == np.bincount(labels[scl & ~sup], minlength=4).tolist()


@pytest.mark.parametrize("make", [figure_4, figure_7], ids=lambda make: make.__name__)
def test_no_bar_is_cut_off(study, make):
    reversed_study = dict(reversed(study.items()))
    for drawn in (make(study), make(reversed_study)):
        for axis in panels(drawn):
            tops = [bar.get_y() + bar.get_height() for bar in axis.patches]
            assert max(tops) <= axis.get_ylim()[1]
            assert axis.get_ylim()[0] == 0


def test_bars_say_whose_pies_they_share_where_it_is_not_plain(outsiders):
    found = " ".join(titles(figure_7(outsiders)))
    assert "Sup / random, 90%" in found
    assert "(opaque: also of Sup / magnitude)" in found


def test_of_many_classes_those_with_most_pies_are_shown_and_the_rest_counted():
    labels = np.arange(300) % 100
    long_names = tuple(f"a rather long name of class {place}" for place in range(100))
    study = {
        name: dataclasses.replace(run, class_names=long_names)
        for name, run in make_study(labels, 100, seeds=2).items()
    }
    figure = figure_7(study)
    axis = panels(figure)[-1]
    shown = [label.get_text() for label in axis.get_xticklabels()]
    assert len(shown) == 20
    assert max(len(name) for name in shown) <= styles.LONGEST_NAME
    assert axis.get_xlabel() == "true class (20 with the most PIEs)"
    pies = study["scl_one_shot"].at(0.9).pies(study["scl_dense"].at(0.0))
    bars = sum(bar.get_height() for bar in axis.patches)
    assert f"({pies.sum() - bars:.0f} in 80 other classes)" in axis.get_title()
    figure.draw_without_rendering()
    assert axis.get_window_extent().height > 50  # the layout has not collapsed


def test_the_points_of_a_panel_are_the_test_images_in_order(study):
    axis = figure_2(study).axes[2]
    assert json.loads(axis.get_gid()) == [["scl_dense", 0.0], ["scl_gmp", 0.9]]
    points = []
    for collection in axis.collections:
        offsets = np.ma.asarray(collection.get_offsets(), float)
        points.append(np.ma.filled(offsets, np.nan))
    dense, pruned = study["scl_dense"], study["scl_gmp"].at(0.9)
    pies = pruned.pies(dense.at(0.0))
    assert (np.isfinite(points[1]).all(1) == pies).all()
    expected = np.stack([dense.values("q").mean(0), pruned.values("q").mean(0)], axis=1)
    found = np.where(pies[:, None], points[1], points[0])
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_depths_are_spread_by_a_tenth_of_a_layer_at_most(study):
    axis = figure_3(study).axes[2]
    points = np.asarray(axis.collections[0].get_offsets(), float)[:, 0]
    depth = study["scl_dense"].values("depth").mean(0)
    assert 0 < np.abs(points - depth).max() <= 0.1


def test_models_that_were_not_measured_are_said_to_be_not(study):
    bare = dataclasses.replace(
        study["scl_gmp"], arrays={"predictions": study["scl_gmp"].predictions}
    )
    unprobed = changed(study["sup_gmp"], depth=np.zeros((6, 40), np.int32))
    lacking = study | {"scl_gmp": bare, "sup_gmp": unprobed}
    assert said(figure_2(lacking)).count("not measured") == 1
    assert said(figure_3(lacking)).count("not measured") == 2
    assert said(figure_5(lacking)).count("not measured") == 1
    none = {
        name: dataclasses.replace(run, arrays={"predictions": run.predictions})
        for name, run in study.items()
    }
    assert set(make_figures(none, {})) == {
        "what_pruning_costs",
        "pies_and_noise",
        "figure_4",
        "figure_7",
        "training_curves",
    }


def test_figure_6_shows_the_most_certain_pies(study, dataset):
    axes = figure_6(study, dataset.test_images[:40]).axes
    first = next(axis for axis in axes if axis.images)
    dense, pruned = study["sup_dense"].at(0.0), study["sup_gmp"].at(0.9)
    certain = np.where(pruned.pies(dense), agreement(dense) + agreement(pruned), -1)
    image = int(certain.argmax())
    shown = first.images[0].get_array()
    np.testing.assert_array_equal(shown, dataset.test_images[image].squeeze())
    label, before, after = first.texts[0].get_text().splitlines()
    assert label == f"label: class {dense.labels[image]}"
    assert before == f"U: class {dense.modal_class[image]} {agreement(dense)[image]}/3"
    assert after == f"S: class {pruned.modal_class[image]} {agreement(pruned)[image]}/3"


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5])
def test_images_of_any_number_of_channels_are_shown(study, channels):
    images = np.full((40, 4, 4, channels), 100, np.uint8)
    figure = figure_6(study, images)
    figure.draw_without_rendering()
    assert any(axis.images for axis in figure.axes)


def test_no_legend_is_cut_off():
    names = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship")
    study = {}
    for name, run in make_study(np.arange(40) % 10, 10).items():
        study[name] = dataclasses.replace(run, class_names=(*names, "truck"))
    for draw in (figure_1, figure_2, figure_4, figure_5, figure_7):
        figure = draw(study)
        figure.draw_without_rendering()
        legend = figure.legends[0].get_window_extent()
        assert 0 <= legend.x0 < legend.x1 <= figure.bbox.x1, draw.__name__


def test_titles_of_neighbours_do_not_overlap(outsiders):
    long = {}
    for name, run in outsiders.items():
        display = dataclasses.replace(run.config.display, label="A training method's label")
        config = dataclasses.replace(run.config, display=display)
        long[name] = dataclasses.replace(run, config=config)
    for draw in (figure_2, figure_5, figure_7):
        figure = draw(long)
        figure.draw_without_rendering()
        for axis in panels(figure):
            width = axis.title.get_window_extent().width
            assert width < figure.bbox.width / axis.get_gridspec().ncols, axis.get_title()


def test_points_of_one_place_stand_side_by_side_and_nearer_to_it_than_to_the_next():
    assert styles.side_by_side([50.0, 90.0], 1) == [0]
    assert styles.side_by_side([90.0, 50.0, 50.0], 3) == pytest.approx([-0.6, 0, 0.6])
    crowded = styles.side_by_side([10.0, 11.0], 20)
    assert np.ptp(crowded) < 0.5
    assert sum(crowded) == pytest.approx(0)
    assert len(set(crowded)) == 20


def test_curves_name_the_stages_and_draw_each_sparsity(study, outsiders):
    def lines(stages):
        step = 0
        for stage in stages:
            for _ in range(3):
                step += 1
                yield {"stage": stage, "step": step, "loss": np.full(6, 1.0 / step)}

    curves = {
        "sup_gmp": list(lines(["sup"])),
        "scl_gmp": list(lines(["scl", "head"])),
        "scl_one_shot": list(lines(["finetune"])),
    }
    figure = training_curves(study, curves)
    found = said(figure)
    assert found.count("no curve") == 4
    assert [text for text in found if text != "no curve"] == [
        "Sup",
        "SCL",
        "linear head",
        "fine-tuning",
    ]
    parts = panel(figure, "SCL / GMP").child_axes
    assert [len(part.lines) for part in parts] == [2, 2]  # two sparsities in two stages
    assert [text.get_text() for text in parts[0].get_legend().get_texts()] == [
        "50% pruned",
        "90% pruned",
    ]
    assert parts[1].get_legend() is None
    found = said(training_curves(outsiders, {"oboe": list(lines(["warm", "cool_down"]))}))
    assert [text for text in found if text != "no curve"] == ["Aux", "cool down"]


def test_each_stage_has_axes_of_its_own_beside_the_others(study):
    """Also one that is only the last hundredth."""
    lines = [
        {"stage": stage, "step": step, "loss": np.full(6, 1.0)}
        for stage, steps in (("scl", (1, 990)), ("head", (991, 1000)))
        for step in steps
    ]
    figure = training_curves(study, {"scl_gmp": lines, "sup_gmp": []})
    figure.draw_without_rendering()
    whole = panel(figure, "SCL / GMP")
    first, second = whole.child_axes
    assert whole.bbox.x0 <= first.bbox.x0 < first.bbox.x1 < second.bbox.x0
    assert second.bbox.x1 == pytest.approx(whole.bbox.x1)
    assert first.bbox.width > 2 * second.bbox.width > first.bbox.width / 3
    for axis, heading in ((first, "SCL"), (second, "linear head")):
        (text,) = axis.texts
        assert text.get_text() == heading
        assert axis.bbox.x0 <= text.get_window_extent().x0
        assert text.get_window_extent().x1 <= axis.bbox.x1
        numbers = [label.get_window_extent() for label in axis.get_xticklabels()]
        assert all(left.x1 < right.x0 for left, right in itertools.pairwise(numbers))
    # A curve without a line is none.
    assert said(figure).count("no curve") == len(study) - 1


def test_the_short_last_line_of_an_epoch_is_part_of_the_one_before(study):
    """The mean of both by their steps; short ones of which there are no longer ones stay."""
    by_step = {50: 4.0, 63: 0.5, 100: 3.0, 150: 2.0, 200: 2.0, 213: 1.0}
    lines = [
        {"stage": "scl", "step": step, "loss": np.full(6, loss)} for step, loss in by_step.items()
    ]
    axis = panel(training_curves(study, {"scl_gmp": lines}), "SCL / GMP")
    steps, losses = axis.lines[0].get_data()
    assert list(steps) == [63, 100, 150, 213]
    expected = [(50 * 4 + 13 * 0.5) / 63, 3, 2, (50 * 2 + 13) / 63]
    np.testing.assert_allclose(losses, expected)

    even = [{"stage": "scl", "step": step, "loss": np.full(6, 1.0)} for step in (5, 10, 15)]
    axis = panel(training_curves(study, {"scl_gmp": even}), "SCL / GMP")
    assert list(axis.lines[0].get_xdata()) == [5, 10, 15]


def test_losses_that_are_negative_or_nan_have_curves(study):
    lines = [
        {"stage": "scl", "step": step, "loss": np.array([np.nan, *[float(-step)] * 5])}
        for step in (1, 20)
    ]
    nothing = [{"stage": "sup", "step": step, "loss": np.full(3, np.nan)} for step in (1, 2)]
    figure = training_curves(study, {"scl_gmp": lines, "sup_dense": nothing})
    figure.draw_without_rendering()
    axis = panel(figure, "SCL / GMP")
    assert axis.get_yscale() == "linear"


def test_failed_models_have_no_curve(study):
    losses = np.array([1.0, 1, 1, 2, 4, 100])
    lines = [{"stage": "scl", "step": step, "loss": losses} for step in (1, 2)]
    lossy = study | {"scl_gmp": changed(study["scl_gmp"], failed=losses == 100)}
    figure = training_curves(lossy, {"scl_gmp": lines})
    axis = panel(figure, "SCL / GMP")
    assert [line.get_ydata()[0] for line in axis.lines] == [1, 3]


def pixels(make, study):
    figure = make(study)
    with styles.in_style(study):
        canvas = figure.canvas
        canvas.draw()
        return np.asarray(canvas.buffer_rgba()).copy()


@pytest.mark.parametrize("make", [figure_2, figure_7], ids=lambda make: make.__name__)
def test_figures_do_not_depend_on_the_users_matplotlibrc(study, make):
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    def draw(one):
        figure = make(one)
        FigureCanvasAgg(figure)
        return figure

    plain = pixels(draw, study)
    users = {
        "font.size": 30,
        "font.family": ["serif"],
        "text.usetex": True,
        "axes.facecolor": "black",
        "axes.grid": True,
        "figure.dpi": 50,
        "lines.linewidth": 9,
        "figure.constrained_layout.use": False,
    }
    with mpl.rc_context(users):
        theirs = pixels(draw, study)
        assert mpl.rcParams["font.size"] == 30  # and theirs are left as they are
        assert mpl.rcParams["text.usetex"]
    np.testing.assert_array_equal(plain, theirs)


def test_fonts_are_sought_for_the_characters_that_the_usual_one_lacks(monkeypatch):
    assert styles.font_families(["plain", "Δ"]) == [styles.FONT]
    assert styles.missing_characters(["a", "\U0001f409"], [styles.FONT]) == {0x1F409}
    known = {"a": {1}, "b": {ord("猫")}, styles.FONT: {ord("x")}}
    monkeypatch.setattr(styles, "_regular_fonts", lambda: dict.fromkeys("ab", ""))
    monkeypatch.setattr(styles, "_characters", known.__getitem__)
    assert styles.font_families(["x猫"]) == [styles.FONT, "b"]
    assert styles.font_families(["x犬"]) == [styles.FONT]


@pytest.mark.parametrize("entry", PAPER, ids=lambda entry: entry[0].name)
def test_a_study_of_a_single_experiment_has_figures(study, entry):
    made = make_figures({entry[0].name: study[entry[0].name]}, {})
    assert {"figure_1", "training_curves"} <= made.keys()
    for picture in made.values():
        picture.figure.draw_without_rendering()


def test_a_run_of_one_image_and_one_model_has_figures():
    study = {
        "sup_dense": make_run([[0]], [0.0], "sup_dense", labels=(0,)),
        "sup_gmp": make_run([[1]], [0.9], "sup_gmp", labels=(0,)),
    }
    for picture in make_figures(study, {}).values():
        picture.figure.draw_without_rendering()


# ------------------------------------------------------------- costs and noise


def bars_of(axis):
    """The points of each line with bars, and the lower and upper ends."""
    found = []
    for container in axis.containers:
        line, _, (ends,) = container.lines
        low, high = np.array(ends.get_segments())[:, :, 1].T
        x, y = (np.asarray(line.get_data()[place], float) for place in (0, 1))
        found.append((x, y, low, high))
    return found


def test_what_pruning_costs_has_a_line_for_each_experiment_and_a_band_for_each_method(study):
    # Dense models that disagree, so that there is noise.
    dense = study["scl_dense"].predictions.copy()
    dense[0, :9] = (dense[0, :9] + 1) % 4
    study = study | {"scl_dense": changed(study["scl_dense"], predictions=dense)}
    figure = what_pruning_costs(study)
    lost, pies = figure.axes
    names = pruned_experiments(study)
    for axis, name in ((lost, "accuracy"), (pies, "pies")):
        for experiment, (x, y, low, high) in zip(names, bars_of(axis), strict=True):
            levels = [0.5, 0.9]
            np.testing.assert_allclose(x, [100 * level for level in levels], atol=2)
            for level, value, bottom, top in zip(levels, y, low, high, strict=True):
                models = dense_and_pruned(study, experiment, level)
                assert value == pytest.approx(effect(name, Resamples(study), models)[0])
                assert bottom <= value <= top
    bands = [patch for patch in pies.patches if patch.get_alpha() == 0.15]
    ends = sorted((band.get_y(), band.get_y() + band.get_height()) for band in bands)
    floors = [floors_of(study)[name] for name in ("sup_gmp", "scl_gmp")]
    np.testing.assert_allclose(ends, sorted((floor.low, floor.high) for floor in floors))
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert texts == [title(study, name) for name in names] + [
        "Sup: noise floor",
        "SCL: noise floor",
    ]


def test_populations_of_other_sizes_have_a_band_of_their_own(study):
    """Fewer pruned models than dense ones have more noise."""
    dense = study["sup_dense"].predictions.copy()
    dense[0, :9] = (dense[0, :9] + 1) % 4
    study = study | {"sup_dense": changed(study["sup_dense"], predictions=dense)}
    models = len(study["sup_dense"].seeds)
    for name, run in study.items():
        few = dataclasses.replace(run.config, models=models // 3 if name == "sup_gmp" else models)
        study[name] = dataclasses.replace(run, config=few)
    gmp, one_shot = (floors_of(study)[name] for name in ("sup_gmp", "sup_one_shot"))
    assert gmp.mean == pytest.approx(one_shot.mean * np.sqrt(2))  # of 3 and 1: as of 1.5
    figure = what_pruning_costs(study)
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert texts[-3:-1] == ["Sup / GMP: noise floor", "Sup / One-Shot: noise floor"]
    bands = [patch for patch in figure.axes[1].patches if patch.get_alpha() == 0.15]
    assert {gmp.low, one_shot.low} <= {band.get_y() for band in bands}


def test_one_way_of_pruning_looks_the_same_in_all_methods(study):
    looks = styles.plot_styles(study, pruned_experiments(study))
    for first, second in (("sup_gmp", "scl_gmp"), ("sup_one_shot", "scl_one_shot")):
        assert looks[first]["marker"] == looks[second]["marker"]
        assert looks[first]["color"] != looks[second]["color"]
    assert len({(look["color"], look["marker"]) for look in looks.values()}) == len(looks)


def test_pies_and_noise_end_at_the_whole_populations(study):
    figure = pies_and_noise(study)
    assert titles(figure) == ["Sup, dense and 90% pruned", "SCL, dense and 90% pruned"]
    for axis, method in zip(figure.axes, ("sup", "scl"), strict=True):
        lines = {line.get_label(): line for line in axis.lines}
        dense = study[f"{method}_dense"].at(0.0)
        pies = study[f"{method}_gmp"].at(0.9).pies(dense)
        line = lines[title(study, f"{method}_gmp")]
        assert line.get_xdata()[-1] == len(dense.seeds)
        assert line.get_ydata()[-1] == pies.sum()
        further = lines["the same, extrapolated"]
        assert further.get_ydata()[-1] == pytest.approx(floors_of(study)[f"{method}_gmp"].mean)
    one = {name: run.at(run.levels[-1]) for name, run in study.items()}
    one = {name: changed(run, failed=np.arange(len(run.seeds)) > 0) for name, run in one.items()}
    assert "needs 2 dense models" in said(pies_and_noise(one))
