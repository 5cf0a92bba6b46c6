"""Figures say what their numbers are, tell curves apart, show what was lost, and come at a paper's width."""

import numpy as np
import pytest

from fastsgd import SpecError
from fastsgd.data import paper
from fastsgd.reproduce.options import QUICK, Options
from fastsgd.reproduce.registry import CATALOGUE, reproduce
from fastsgd.reproduce.study import Curve, Study

pytest.importorskip("matplotlib")

from matplotlib import image, pyplot
from matplotlib.figure import Figure

from fastsgd.report import figure, look, movement


@pytest.fixture
def drawn(monkeypatch):
    """The figures that are written, kept open."""
    kept = []

    def keep(self, *given, **more):
        kept.append(self)

    monkeypatch.setattr(Figure, "savefig", keep)
    monkeypatch.setattr(pyplot, "close", lambda *given: None)
    yield kept
    monkeypatch.undo()
    pyplot.close("all")


def study(survivors, system="S1"):
    """A Study of so many surviving orders of six, which needs no training."""
    made, S = paper(system), 30
    steps = np.linspace(0, made.steps, S).astype(int)
    rng = np.random.default_rng(0)
    lost = np.array([-1] * survivors + [50] * (6 - survivors))
    values = {name: np.exp(rng.standard_normal((6, S))) for name in ("train_loss", "test_loss", "rank", "l0")}
    return Study(made, tuple(
        Curve(run, steps, {name: a[0] for name, a in values.items()}, -1, {} if run.rule == "gd" else values,
              np.empty(0, np.int64) if run.rule == "gd" else lost) for run in made.runs), {})


def test_legends_say_what_the_numbers_are(drawn, tmp_path):
    for system in ("S1", "S2"):
        figure.draw(study(6, system), tmp_path / "f.png")
    one, two = ([text.get_text() for text in each.legends[0].get_texts()] for each in drawn)
    assert one[1] == "step size 0.282, decay at 10 %: 0 of 6 orders lost"
    assert two[0] == "GD, step size 2 (one run: no sampling)"
    assert any(text.startswith("step size 0.272, decay at 50 %") for text in two)


def test_curves_that_lie_on_each_other_can_be_told_apart(drawn, tmp_path):
    figure.draw(study(6), tmp_path / "f.png")
    panel = drawn[0].axes[0]
    medians = [line for line in panel.lines if line.get_marker() != "None"]
    widths, markers = [line.get_linewidth() for line in medians], [line.get_marker() for line in medians]
    assert len(medians) == 4 and widths == sorted(set(widths), reverse=True) and len(set(markers)) == 4
    assert len({line.get_markevery() for line in medians}) == 4


@pytest.mark.parametrize("survivors", (0, 1, 2, 3))
def test_a_median_of_few_is_not_drawn_as_one(drawn, tmp_path, survivors):
    figure.draw(study(survivors), tmp_path / "f.png")
    panel, legend = drawn[0].axes[0], drawn[0].legends[0].get_texts()[0].get_text()
    medians = [line for line in panel.lines if line.get_marker() != "None"]
    dotted = [line for line in panel.lines if line.get_linestyle() == ":"]
    assert len(medians) == (4 if survivors >= 3 else 0) and len(dotted) == (0 if survivors >= 3 else 4 * survivors)
    assert f"{6 - survivors} of 6 orders lost" in legend
    assert ("none is left" in legend) == (survivors == 0) and ("dotted" in legend) == (survivors in (1, 2))


def test_what_survives_stands_beside_the_losses(drawn, tmp_path):
    figure.draw(study(4), tmp_path / "f.png")
    panel = next(axis for axis in drawn[0].axes if axis.get_ylabel() == "share of orders not lost")
    x, y = panel.lines[0].get_data()
    assert list(x) == [1, 51, 51, paper("S1").steps] and np.allclose(y, [1, 5 / 6, 4 / 6, 4 / 6])


def test_steps_have_no_factor_beside_the_axis(drawn, tmp_path):
    figure.draw(study(4), tmp_path / "f.png")
    axis = drawn[0].axes[0].xaxis
    assert axis.get_offset_text().get_text() == "" and axis.get_major_formatter()(20_000, 0) == "20k"
    assert [look.short(x) for x in (0, 500, 1500, 2e6, 1e9)] == ["0", "500", "1.5k", "2M", "1G"]


@pytest.mark.parametrize("survivors", (0, 2))
def test_neurons_of_all_orders_fill_the_panel(drawn, tmp_path, survivors):
    rng = np.random.default_rng(0)
    curves = study(survivors, "S7").curves

    def ends(count):
        return rng.standard_normal((count, 5, 2)), np.full((count, 5), 0.2)

    nets = [{"curve": curve, "start": rng.standard_normal((5, 2)), "replay": ends(1), "orders": ends(survivors)}
            for curve in curves]
    measures = [{"aligned": {"replay": np.ones(1), "orders": np.ones(survivors)}} for _ in curves]
    movement.draw({"nets": nets, "teacher": np.eye(2), "near": 10.0, "measures": measures}, tmp_path / "f.png")
    under = drawn[0].axes[4]
    if survivors:
        assert under.collections[0].get_sizes().max() > 100 and "2 of 6 other orders" in under.get_title()
    else:
        assert "all 6 other orders" in under.texts[0].get_text()
    assert drawn[0].axes[1].get_ylabel() == "" and drawn[0].axes[4].get_xlabel() == "first weight"


def test_a_paper_has_its_width(tmp_path):
    sizes = {}
    for name in look.STYLES:
        with look.style(name):
            figure.draw(study(6), tmp_path / f"{name}.png")
        sizes[name] = image.imread(tmp_path / f"{name}.png").shape
    assert sizes["paper"][1] == 7 * 300 and sizes["page"][1] != sizes["paper"][1]
    with pytest.raises(SpecError, match="poster"), look.style("poster"):
        pass


def test_a_row_in_the_style_of_a_paper(tmp_path):
    assert "S15" in CATALOGUE
    _, paths = reproduce("S15", tmp_path, Options(**QUICK | {"replicas": 2}, style="paper"))
    assert image.imread(paths[1]).shape[1] == 7 * 300
