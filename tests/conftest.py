"""Owns the surroundings of the suite: waiting threads sleep, Triton is interpreted, what must not run explodes."""

import os

import pytest
import torch

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # read once, when the first compiled module is loaded
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # read once, when triton is first imported


@pytest.fixture
def nothing_runs(monkeypatch):
    """Every backend explodes as soon as anything is loaded or advanced."""

    def explode(*args, **kwargs):
        raise AssertionError("something ran")

    from fastsgd import backends  # after the environment is set

    for backend in backends.ALL:
        for verb in ("load", "advance", "measure"):
            monkeypatch.setattr(type(backend), verb, explode)
