"""The committed results follow from the committed measures."""

from pathlib import Path

import pytest

from experiments.paper import PUBLISHED
from prunejax.measures import load_measures
from prunejax.report import make_tables
from prunejax.report.collect import in_order, run_directories

ROOT = Path(__file__).parents[1] / "benchmarks" / "results"
RESULTS = sorted({path.parents[1] for path in ROOT.glob("*/*/config.json")})


@pytest.mark.parametrize("results", RESULTS, ids=lambda path: path.name)
def test_every_committed_table_is_made_of_the_committed_measures(results):
    study = {path.name: load_measures(path) for path in run_directories(results)}
    committed = {}
    for path in (results / "report" / "tables").iterdir():
        committed[path.name] = path.read_text()
    made = {}
    for table in make_tables(in_order(study), PUBLISHED):
        made[f"{table.name}.md"] = table.markdown()
        made[f"{table.name}.csv"] = table.csv()
        made[f"{table.name}.tex"] = table.latex()
    assert made == committed
