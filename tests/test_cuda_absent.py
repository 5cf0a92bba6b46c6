"""Without a card: the reason is said by a named backend, by explain, by fastsgd info; nothing else changes."""

import numpy as np
import pytest
from cases import request
from typer.testing import CliRunner

import fastsgd as fs
from fastsgd.cli import app
from fastsgd.cuda import card, driver

NONE = card.why_none()
pytestmark = pytest.mark.skipif(NONE is None, reason="this machine has a card")


def test_a_named_backend_or_device_raises_with_the_reason():
    for change in ({"backend": "cuda"}, {"device": "cuda"}, {"device": "cuda:1", "backend": "auto"}):
        with pytest.raises(fs.BackendUnavailable, match=r"no CUDA|built without CUDA|sees no card"):
            fs.plan(request("diagonal_13").replace(**change))


def test_auto_falls_to_the_cpu_and_says_so():
    plan = fs.plan(request("diagonal_13"))
    assert plan.backend == "cpu" and f"not cuda: {NONE}" in plan.explain()
    np.testing.assert_array_equal(fs.train(plan).lost, -1)


def test_info_says_what_is_missing_and_how_to_get_it():
    said = CliRunner().invoke(app, ["info"]).output
    assert "backend cuda: not available" in said and "NVRTC" in said and "CUDA programs" in said


def test_the_reason_is_the_first_thing_that_is_missing(monkeypatch):
    class Anything:
        version = "13.0"

    monkeypatch.setattr(card, "driver", Anything)
    import torch

    if torch.version.cuda is None:
        assert "built without CUDA" in card.why_none()
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    assert "sees no card" in card.why_none()
    monkeypatch.undo()
    assert isinstance(driver.driver, object)
