"""Populations over more devices than this process has."""

import os
import subprocess
import sys
from pathlib import Path


def test_on_eight_devices():
    """The tests of `eight_devices.py`, whose names its output has."""
    tests = Path(__file__).parent / "eight_devices.py"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:xdist", str(tests)]
    environment = os.environ | {"JAX_NUM_CPU_DEVICES": "8"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout[-5000:]
