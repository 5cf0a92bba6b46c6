"""A process that has computed on several threads may fork: its children compute on several threads too."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
from forking import WAYS

LONG = 300  # seconds after which a child is taken to hang; it needs one


@pytest.mark.parametrize("way", WAYS)
def test_children_compute_the_same_bits(way):
    if way.startswith("joblib") and importlib.util.find_spec("joblib") is None:
        pytest.skip("joblib is not installed")
    script = Path(__file__).with_name("forking.py")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run([sys.executable, "-W", "ignore", str(script), way], capture_output=True, text=True,
                          timeout=LONG, env=environment)
    assert done.returncode == 0 and done.stdout == "the same bits\n", done.stderr[-2000:]
