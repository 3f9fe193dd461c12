"""A suite's rows as a JSON file and a Markdown table, with the machine that measured them."""

import importlib.metadata
import importlib.util
import json
import os
import platform
import re
from pathlib import Path

import joblib

from benchmarks.suites import Options, Row
from prunejax.runs import provenance

PACKAGES = {"jax": "jax", "jaxlib": "jaxlib", "torch": "torch", "scikit-learn": "sklearn"}
"""The packages with versions in the table, and their modules."""


def write(out: Path, name: str, description: str, options: Options, rows: list[Row]) -> None:
    """Writes `name`.json and `name`.md.

    Args:
        out: the directory, which is made.
        name: of the suite.
        description: the first paragraph of the Markdown file.
        options: with which the suite ran.
        rows: the results.
    """
    out.mkdir(parents=True, exist_ok=True)
    result = {
        "suite": name,
        "machine": machine(),
        "commit": commit(),
        "batch": options.batch,
        "dtype": options.dtype,
        "repeats": options.repeats,
        "rows": rows,
    }
    (out / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n")
    lines = [
        f"# {name}",
        "",
        " ".join(description.split()),
        "",
        f"{machine()}; commit {commit()}; batch {options.batch}, {options.dtype}; medians of "
        f"{options.repeats} rounds in turns, each after one that is not counted.",
        "",
    ]
    lines += markdown_table(rows)
    (out / f"{name}.md").write_text("\n".join(lines) + "\n")


def markdown_table(rows: list[Row]) -> list[str]:
    """The lines of a table with a column of everything that a row has but its single times."""
    columns = []
    for row in rows:
        for column in row:
            if column != "seconds" and column not in columns:
                columns.append(column)
    lines = [_line(columns), "|---" * len(columns) + "|"]
    for row in rows:
        lines.append(_line([str(row.get(column, "")) for column in columns]))
    return lines


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def machine() -> str:
    """The processor, its cores, the versions of packages and the memory settings."""
    parts = [_processor(), f"{joblib.cpu_count()} cores"]
    for package, module in PACKAGES.items():
        if importlib.util.find_spec(module):
            parts.append(f"{package} {importlib.metadata.version(package)}")
    memory = os.environ.get("GLIBC_TUNABLES") or "without the memory settings of launch.sh"
    return f"{', '.join(parts)}; {memory}"


def commit() -> str:
    """The commit of the measured code; see `provenance.commit_of`."""
    return provenance.commit_of(Path(provenance.__file__))


def _processor() -> str:
    """The processor's name, from Linux where it is available."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        model = re.search(r"model name\s*: (.*)", info.read_text())
        if model:
            return model[1]
    return platform.processor()
