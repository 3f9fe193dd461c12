"""A study's tables and figures -> files, and one self-contained HTML page."""

import base64
import io
import warnings
from collections.abc import Callable, Mapping, Sequence

import jinja2
from matplotlib.figure import Figure

from prunejax.config.errors import in_one_line
from prunejax.data import Dataset
from prunejax.report.all_tables import table_makers
from prunejax.report.figures import Curves, Picture, picture_makers
from prunejax.report.figures.style import (
    colours,
    font_families,
    in_style,
    missing_characters,
    texts_of,
)
from prunejax.report.hover import hover_data
from prunejax.report.opening import opening
from prunejax.report.published import Published
from prunejax.report.study import (
    Study,
    measured_models,
    methods,
    question,
    scope,
    seeds_a_cell,
    settings_of,
)
from prunejax.report.table import Table
from prunejax.runs.directory import whole_file, write_whole
from prunejax.training.state import under_own_switches
from prunejax.types import Path

LEADING = ("what_pruning_costs", "when_to_prune")
"""The figures at the start of the page."""
UNFOLDED = ("findings", "comparison", "when")
"""The first of these tables that exists is shown next to the findings, unfolded."""


@under_own_switches
def write(
    directory: Path,
    study: Study,
    source: str,
    curves: Curves,
    notes: Sequence[str] = (),
    published: Published | None = None,
    dataset: Dataset | None = None,
) -> Path:
    """Writes tables (CSV, Markdown, LaTeX), figures (PNG, SVG) and the page that shows them.

    Args:
        directory: created if missing.
        study: the measures of each experiment, all of the same test images.
        source: the end of every caption, for instance models, preset and commit.
        curves: the training curves.
        notes: for instance which runs are not shown, and why.
        published: the paper's numbers, if they are for this data.
        dataset: the images, for the gallery and the tooltips; None leaves these out.

    Returns:
        The path of the page.
    """
    for part in ("tables", "figures"):
        (directory / part).mkdir(parents=True, exist_ok=True)
    # Files first: if the page fails, the tables are there.
    tables, failed_tables = _all_tables(directory / "tables", study, published)
    makers = picture_makers(study, curves, dataset, published)
    pictures, drawn, failed_pictures = _draw_all(directory / "figures", study, makers)

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("prunejax.report", ""), autoescape=True
    )
    environment.filters["in_words"] = in_words
    page = environment.get_template("report.html.j2").render(
        **_opening(study, tables),
        **_sections_of_tables(tables),
        **_sections_of_pictures(study, pictures, drawn, dataset),
        source=source,
        notes=[
            *notes,
            *failure_notes(study),
            *failed_tables,
            *failed_pictures,
            *_font_notes(study),
        ],
    )
    path = directory / "report.html"
    write_whole(path, page)
    return path


def _opening(study: Study, tables: Sequence[Table]) -> Mapping[str, object]:
    """The start of the page: the question, the answer, and what was trained and measured."""
    # The comparison holds the numbers of the answer.
    compared = next((table for table in tables if table.name == "comparison"), Table("", ""))
    plain, sentences = opening(study, compared)
    return {
        "question": question(study),
        "plain": plain,
        "answer": sentences,
        "methods": _methods(study),
        "about": about(study),
    }


def _sections_of_tables(tables: Sequence[Table]) -> Mapping[str, list[Table]]:
    """The table next to the findings, and those that are folded."""
    made = [table.name for table in tables]
    unfolded = next((name for name in UNFOLDED if name in made), None)
    return {
        "findings": [table for table in tables if table.name == unfolded],
        "tables": [table for table in tables if table.name != unfolded],
    }


def _sections_of_pictures(
    study: Study,
    pictures: Mapping[str, Picture],
    drawn: Mapping[str, bytes],
    dataset: Dataset | None,
) -> Mapping[str, object]:
    """The figures at the start of the page, the others, and the test images of their points."""
    shown = {name: _shown(name, picture, drawn[name]) for name, picture in pictures.items()}
    # The positions of points are known only now: drawing a figure fixes its layout.
    figures = {name: picture.figure for name, picture in pictures.items()}
    hover = hover_data(study, figures, dataset)
    pointed = [name for name, panels in hover["panels"].items() if panels and name != "figure_6"]
    return {
        "leading": [shown[name] for name in LEADING if name in shown],
        "pictures": [shown[name] for name in shown if name not in LEADING],
        "pointed": [in_words(name) for name in pointed],
        "hover": hover,
    }


def _all_tables(
    directory: Path, study: Study, published: Published | None
) -> tuple[list[Table], list[str]]:
    """Makes and writes every table; one that fails adds a note, and the others are still made."""
    tables, notes = [], []
    for name, make in table_makers(study, published).items():
        try:
            made = make()
        except Exception as error:  # any error that a study's numbers cause
            notes.append(_not_made(name, error))
            continue
        for table in made:
            write_table(directory, table)
        tables += made
    return tables, notes


def _draw_all(
    directory: Path, study: Study, makers: Mapping[str, Callable[[], Picture]]
) -> tuple[dict[str, Picture], dict[str, bytes], list[str]]:
    """Draws and writes every figure; one that fails adds a note, and the others are still drawn.

    Returns:
        The figures and their PNGs by name, and the notes.
    """
    pictures, drawn, notes = {}, {}, []
    for name, make in makers.items():
        try:
            picture = make()
            drawn[name] = _save(study, picture.figure, directory / name)
            pictures[name] = picture
        except OSError:
            raise  # a disk error, which the other figures would have too
        except Exception as error:  # any error of Matplotlib with a study's names and numbers
            notes.append(_not_made(name, error))
    return pictures, drawn, notes


def _not_made(name: str, error: Exception) -> str:
    return f"Not shown: {in_words(name)}, which could not be made ({in_one_line(error)})"


def in_words(name: str) -> str:
    """The text of a link to a table or a figure, from the name of its file."""
    return name.replace("_", " ").capitalize().replace("Pies", "PIEs")


def write_table(directory: Path, table: Table) -> None:
    """Writes a table as CSV, Markdown and LaTeX."""
    write_whole(directory / f"{table.name}.md", table.markdown())
    write_whole(directory / f"{table.name}.csv", table.csv())
    write_whole(directory / f"{table.name}.tex", table.latex())


def about(study: Study) -> str:
    """What was trained and measured, in a few lines."""
    run = next(iter(study.values()))
    config = run.config
    architecture = config.display.architecture or config.model.name
    count = config.data.train_examples
    trained = "all" if count is None else f"{count:,}"
    side = config.data.image_size
    size = "" if side is None else f", averaged to {side}x{side},"
    text = (
        f"{architecture} trained on {trained} training images of {config.data.name}{size} and "
        f"measured on {scope(study)}, {seeds_a_cell(study)}."
    )
    if not any(run.has("depth") for run in study.values()):
        return text
    probes = settings_of(study, "depth")
    probed = measured_models(study, "depth")
    fitted = "all" if probes.depth_examples is None else f"{probes.depth_examples:,}"
    probe = f"{probes.neighbors}-NN probe"
    meaning = f"first layer from which all {probe}s give the {probes.depth_target}"
    if probes.depth_count == "last_wrong":
        meaning = (
            f"last layer where the {probe} does not give the {probes.depth_target}, 1 if all do"
        )
    return (
        f"{text} Prediction depth: the {meaning}; the probes are fitted on {fitted} training "
        f"images, over {probed}."
    )


def failure_notes(study: Study) -> list[str]:
    """A note for each measure that a run lacks, or one for all runs if they all lack it."""
    lacking: dict[str, dict[str, str]] = {}
    for name, run in study.items():
        for measure, why in run.failures.items():
            lacking.setdefault(measure, {})[name] = why
    notes = []
    for measure, reasons in lacking.items():
        of_all = len(reasons) == len(study)
        runs = "any run" if of_all and len(study) > 1 else ", ".join(reasons)
        first = next(iter(reasons.values()))
        notes.append(f"Not measured: {measure} of {runs}. {first}")
    return notes


def _font_notes(study: Study) -> list[str]:
    texts = texts_of(study)
    missing = missing_characters(texts, font_families(texts))
    if not missing:
        return []
    characters = "".join(chr(code) for code in sorted(missing)[:10])
    return [f"No installed font has these characters of names, which figures lack: {characters}"]


def _methods(study: Study) -> list[Mapping[str, str]]:
    """Each method's label, its name in words, and its colour in the figures."""
    chosen = colours(study)
    found = []
    for method in methods(study):
        name = method.name.replace("_", " ")
        found.append({"label": method.label, "name": name, "colour": chosen[method.name]})
    return found


def _save(study: Study, figure: Figure, path: Path) -> bytes:
    """Writes a figure as SVG and PNG, and returns the latter."""
    # Without a date the same measures make the same bytes.
    drawn = {}
    for form, metadata in (("svg", {"Date": None}), ("png", None)):
        buffer = io.BytesIO()
        with in_style(study), warnings.catch_warnings():
            # The page has a note about these characters.
            warnings.filterwarnings("ignore", message="Glyph .* missing from font")
            figure.savefig(buffer, format=form, metadata=metadata, dpi=150)
        drawn[form] = buffer.getvalue()
        with whole_file(path.with_suffix(f".{form}")) as temporary:
            temporary.write_bytes(drawn[form])
    return drawn["png"]


def _shown(name: str, picture: Picture, png: bytes) -> Mapping[str, object]:
    """The data of a figure for the page's template."""
    return {
        "name": name,
        "title": picture.title,
        "alt": picture.alt,
        "data": base64.b64encode(png).decode(),
        "width": round(100 * picture.figure.get_figwidth()),
    }
