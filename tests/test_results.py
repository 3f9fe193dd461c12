"""The committed results follow from the committed measures."""

from pathlib import Path

import pytest

from experiments.paper import PUBLISHED
from experiments.registry import EXPERIMENTS
from prunejax import evaluate, report
from prunejax.config import load_config

RESULTS = sorted({path.parents[1] for path in Path(__file__).parents[1].glob("benchmarks/results/*/*/measures.npz")})


@pytest.mark.parametrize("results", RESULTS, ids=lambda path: path.name)
def test_every_committed_table_is_made_of_the_committed_measures(results):
    study = {name: evaluate.load(results / name / "measures.npz") for name in EXPERIMENTS}
    made = report.make_tables(study, load_config(results / "sup_gmp"), PUBLISHED)
    for table in made:
        for suffix, text in (("md", table.markdown()), ("csv", table.csv()), ("tex", table.latex())):
            assert (results / "report" / "tables" / f"{table.name}.{suffix}").read_text() == text
