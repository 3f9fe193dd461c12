"""The benchmarks' own machinery; what they measure is in `benchmarks/results`."""

import json
import subprocess
import sys
from pathlib import Path

from benchmarks.duel import Contestant, duel
from benchmarks.profiled import operation_scopes

ROOT = Path(__file__).parents[1]


def test_a_suite_writes_its_rows_as_json_and_markdown(tmp_path):
    command = [sys.executable, "-m", "benchmarks.run", "--suite=prune", "--repeats=2", f"--out={tmp_path}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "prune.json").read_text())
    ours, by_sorting, pytorch = result["rows"]
    assert [len(row["seconds"]) for row in (ours, by_sorting)] == [2, 2]
    assert ours["to ours"] == "1.00x"
    assert pytorch["seconds"] or pytorch["models/s"] == "not installed"
    assert (tmp_path / "prune.md").read_text().count("\n| ") == 4


def test_a_contestant_that_fails_or_takes_too_long_is_out_and_named():
    good = Contestant("good", [{"contestant": "knn", "steps": 1}])
    unknown = Contestant("unknown", [{"contestant": "nobody", "steps": 1}])
    slow = Contestant("slow", [{"contestant": "knn", "steps": 10**6}])
    duel([good, unknown], repeats=2, limit=200)
    duel([slow], repeats=2, limit=2)
    assert len(good.seconds) == 2
    assert good.peak_bytes > 2**20
    assert "nobody" in unknown.trouble
    assert slow.trouble == "not done in 6 s"
    assert all(process.poll() is not None for one in (good, unknown, slow) for process in one.processes)


def test_an_operation_without_a_scope_has_that_of_its_user():
    text = """
      %x = f32[2]{0} parameter(0)
      %copy.1 = f32[2]{0} copy(%x)
      ROOT %convolution.1 = f32[2]{0} convolution(%copy.1, %x), metadata={op_name="jit(f)/kernel_gradient/conv"}
    """
    scopes = operation_scopes(text)
    assert scopes["copy.1"] == scopes["convolution.1"] == "jit(f)/kernel_gradient/conv"
