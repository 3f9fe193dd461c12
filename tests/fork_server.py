"""Answers commands in forks of a process that has imported everything.

Each runs in a process of its own, but quickly. A line of the standard input is the JSON list of a
script and its arguments; a line of the output that of its exit code, its output and its errors.
"""

import importlib
import json
import os
import runpy
import sys
import tempfile
import traceback
import warnings

warnings.filterwarnings("ignore", message=r"os\.fork\(\) was called")
MODULES = (
    "experiments.study",
    "experiments.studies.paper",
    "prunejax.runs",
    "prunejax.measures.evaluation",
    "prunejax.report.page",
    "sklearn.datasets",
)
for module in MODULES:
    importlib.import_module(module)


def answer(script, arguments):
    """Runs in the fork, to its end; returns the exit code."""
    sys.argv = [script, *arguments]
    sys.modules.pop(f"experiments.{script}", None)  # it is run, not imported
    try:
        runpy.run_module(f"experiments.{script}", run_name="__main__", alter_sys=True)
    except SystemExit as stop:
        return stop.code or 0
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def run_in_fork(script, arguments, out, err):
    """Returns the exit code; `out` and `err` are the files that the fork prints into."""
    child = os.fork()
    if child == 0:
        os.dup2(out.fileno(), 1)
        os.dup2(err.fileno(), 2)
        code = answer(script, arguments)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


for line in sys.stdin:
    script, *arguments = json.loads(line)
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        code = run_in_fork(script, arguments, out, err)
        out.seek(0)
        err.seek(0)
        print(json.dumps([code, out.read(), err.read()]), flush=True)
