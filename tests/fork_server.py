"""Answers commands in forks of a process that has imported everything: each in a process of its own, but quickly."""

import importlib
import json
import os
import runpy
import sys
import tempfile
import traceback
import warnings

warnings.filterwarnings("ignore", message=r"os\.fork\(\) was called")
for module in ("experiments.study", "prunejax.checkpoint", "prunejax.evaluate", "prunejax.report", "sklearn.datasets"):
    importlib.import_module(module)


def answer(script, arguments):
    """Runs in the fork, to its end."""
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


for line in sys.stdin:
    script, *arguments = json.loads(line)
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        child = os.fork()
        if not child:
            os.dup2(out.fileno(), 1)
            os.dup2(err.fileno(), 2)
            code = answer(script, arguments)
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        out.seek(0)
        err.seek(0)
        print(json.dumps([code, out.read(), err.read()]), flush=True)
