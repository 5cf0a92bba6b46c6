"""Programs with all types written out pass mypy with torch's and matplotlib's own types too."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.long
def test_types_hold_beside_those_of_torch(tmp_path):
    """`make lint` leaves torch's types unread (the overrides in pyproject.toml)."""
    settings = (ROOT / "pyproject.toml").read_text()
    strict = settings[settings.index("[tool.mypy]"):settings.index("# Left unread by `make lint`")]
    (tmp_path / "whole.toml").write_text(strict)
    done = subprocess.run([sys.executable, "-m", "mypy", "--config-file", tmp_path / "whole.toml", "--cache-dir",
                           tmp_path / "cache"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
