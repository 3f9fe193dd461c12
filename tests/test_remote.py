"""A work directory in a bucket, against an emulator of Google's storage: epath's and TensorStore's real drivers."""

import importlib.util
import os
import socket
import subprocess
import sys
import time
import urllib.request

import pytest
from test_commands import ROOT, TINY, command


@pytest.fixture
def bucket():
    """Environment variables with which `gs://bucket` is on this machine."""
    if importlib.util.find_spec("gcp_storage_emulator") is None:
        pytest.skip("gcp-storage-emulator is not installed")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    line = [sys.executable, str(ROOT / "tests" / "bucket_server.py"), str(port)]
    server = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}"
    for _ in range(100):
        try:
            urllib.request.urlopen(address + "/storage/v1/b").close()
            break
        except OSError:
            time.sleep(0.1)
    names = {"STORAGE_EMULATOR_HOST": address, "TENSORSTORE_GCS_HTTP_URL": address, "NO_GCE_CHECK": "true"}
    yield os.environ | names | {"GOOGLE_AUTH_TOKEN_FOR_TESTING": "x"}
    server.kill()
    server.wait()


def test_a_run_in_a_bucket_is_trained_resumed_measured_and_reported(bucket):
    def call(script, *arguments):
        line = command(script, "--workdir=gs://bucket/runs", *arguments)
        return subprocess.run(line, cwd=ROOT, env=bucket, capture_output=True, text=True, timeout=300)

    training = ["--experiment=sup_dense", *TINY]
    first = call("train", *training)
    assert "trained 2 models for 4 steps; checkpoint in gs://bucket/runs/sup_dense" in first.stdout, first.stderr
    assert "nothing to do" in call("train", *training).stdout
    assert "holds another run" in call("train", *training, "--models=3").stderr
    measured = call("evaluate")
    assert "2 of 2 models" in measured.stdout, measured.stderr
    assert "report: gs://bucket/runs/report/report.html" in call("report").stdout
    assert not (ROOT / "gs:").exists()
