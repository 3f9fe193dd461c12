"""A work directory in a bucket, against an emulator of Google's storage.

The drivers, epath's and TensorStore's, are the real ones.
"""

import importlib.util
import os
import subprocess
import sys
import time
import urllib.request

import pytest
from test_commands import ROOT, TINY, command, free_port


@pytest.fixture
def bucket():
    """Environment variables with which `gs://bucket` is on this machine."""
    if importlib.util.find_spec("gcp_storage_emulator") is None:
        pytest.skip("gcp-storage-emulator is not installed")
    port = free_port()
    line = [sys.executable, str(ROOT / "tests" / "bucket_server.py"), str(port)]
    server = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}"
    wait_for(address + "/storage/v1/b")
    variables = {
        "STORAGE_EMULATOR_HOST": address,
        "TENSORSTORE_GCS_HTTP_URL": address,
        "NO_GCE_CHECK": "true",
        "GOOGLE_AUTH_TOKEN_FOR_TESTING": "x",
    }
    yield os.environ | variables
    server.kill()
    server.wait()


def wait_for(address):
    """Until a server answers, or for ten seconds."""
    for _ in range(100):
        try:
            urllib.request.urlopen(address).close()
            return
        except OSError:
            time.sleep(0.1)


def test_a_run_in_a_bucket_is_trained_resumed_measured_and_reported(bucket):
    def call_in_bucket(script, *arguments):
        line = command(script, "--workdir=gs://bucket/runs", *arguments)
        return subprocess.run(
            line, cwd=ROOT, env=bucket, capture_output=True, text=True, timeout=300
        )

    training = ["--experiment=sup_dense", *TINY]
    first = call_in_bucket("train", *training)
    trained = "trained 2 models for 4 steps; checkpoint in gs://bucket/runs/sup_dense"
    assert trained in first.stdout, first.stderr
    again = call_in_bucket("train", *training)
    assert "nothing to do" in again.stdout
    other = call_in_bucket("train", *training, "--models=3")
    assert "holds another run" in other.stderr
    measured = call_in_bucket("evaluate")
    assert "2 of 2 models" in measured.stdout, measured.stderr
    reported = call_in_bucket("report")
    assert "report: gs://bucket/runs/report/report.html" in reported.stdout
    assert not (ROOT / "gs:").exists()
