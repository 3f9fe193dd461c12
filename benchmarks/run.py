"""Compares prunejax with other ways to compute the same thing.

    ./launch.sh bench --suite=population

Writes a JSON file and a Markdown table of each suite. Contestants take turns, so that a slow minute
of a shared machine hits them equally: what counts are the ratios of their medians. PyTorch takes
part where it is installed: pip install -e '.[bench]'.
"""

from pathlib import Path

from absl import app, flags

from benchmarks.accelerator import accelerator
from benchmarks.suites import NETWORKS, Options
from benchmarks.suites import SUITES as ON_CPU
from benchmarks.table import write

FLAGS = flags.FLAGS
SUITES = ON_CPU | {"accelerator": accelerator}

flags.DEFINE_multi_enum("suite", None, list(SUITES), "Which comparison; repeatable.", required=True)
flags.DEFINE_list(
    "models", ["1", "2", "4", "8", "16"], "Models in the population, for population and scale."
)
flags.DEFINE_string(
    "networks", "", "A regular expression that picks networks: " + "; ".join(NETWORKS)
)
flags.DEFINE_string(
    "contestants", "", "A regular expression that picks contestants of the suite population."
)
flags.DEFINE_integer("batch", 128, "Images per model and step.")
flags.DEFINE_enum("dtype", "float32", ["float32", "bfloat16"], "What the networks compute in.")
flags.DEFINE_integer("repeats", 5, "Timed rounds of each contestant.", lower_bound=1)
flags.DEFINE_float("limit_s", 60, "A contestant whose round takes longer is out.")
flags.DEFINE_string("images", None, "What accelerator's population trains on: mine.npz, digits.")
flags.DEFINE_string("out", "benchmarks/results/cpu", "Directory for the results.")


def main(_: list[str]) -> None:
    """Runs the suites that the flags name."""
    options = Options(
        models=tuple(int(count) for count in FLAGS.models),
        networks=FLAGS.networks,
        contestants=FLAGS.contestants,
        batch=FLAGS.batch,
        dtype=FLAGS.dtype,
        repeats=FLAGS.repeats,
        limit_s=FLAGS.limit_s,
        images=FLAGS.images,
    )
    out = Path(FLAGS.out)
    for name in FLAGS.suite:
        suite = SUITES[name]
        rows = []
        # Finished parts are written, even if a later one fails.
        for part in suite(options):
            rows += part
            write(out, name, suite.__doc__ or "", options, rows)
        print(f"wrote {out / name}.md and .json")


if __name__ == "__main__":
    app.run(main)
