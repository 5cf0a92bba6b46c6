"""Figures say what their numbers are, tell curves apart, show what was lost, and come at a paper's width."""

import numpy as np
import pytest

from fastsgd import SpecError
from fastsgd.data import paper
from fastsgd.reproduce.neighbours import page
from fastsgd.reproduce.options import QUICK, Options
from fastsgd.reproduce.registry import CATALOGUE, reproduce
from fastsgd.reproduce.study import Curve, Study

pytest.importorskip("matplotlib")

from matplotlib import image, pyplot
from matplotlib.figure import Figure

from fastsgd.report import figure, functions, look, movement


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


def study(survivors, system="S1", metrics=("train_loss", "test_loss", "rank", "l0")):
    """A Study of so many surviving orders of six, which needs no training."""
    made, S = paper(system), 30
    steps = np.linspace(0, made.steps, S).astype(int)
    rng = np.random.default_rng(0)
    lost = np.array([-1] * survivors + [50] * (6 - survivors))
    values = {name: np.exp(rng.standard_normal((6, S))) for name in metrics}
    return Study(made, tuple(
        Curve(run, steps, {name: a[0] for name, a in values.items()}, -1, {} if run.rule == "gd" else values,
              np.empty(0, np.int64) if run.rule == "gd" else lost) for run in made.runs), {})


def legend(made):
    """What the legend of a figure says: one below all panels, or in a panel's place."""
    there = made.legends or [axis.get_legend() for axis in made.axes if axis.get_legend()]
    return [text.get_text().replace("\n", " ") for text in there[0].get_texts()]


def test_legends_say_what_the_numbers_are(drawn, tmp_path):
    for system in ("S1", "S2"):
        figure.draw(study(6, system), tmp_path / "f.png")
    one, two = map(legend, drawn)
    assert one[1] == "step size 0.282, decay at 10 %: 0 of 6 orders lost"
    assert two[0] == "GD, step size 2 (one run: no sampling)"
    assert any(text.startswith("SGD, step size 0.272, decay at 50 %") for text in two)
    runs = {system: [figure.described(run) for run in paper(system).runs] for system in ("S5", "S9")}
    assert runs["S5"][1] == "step size 0.0002 growing to 0.025, decay at 50 %"  # what it grows to by then
    assert len(set(runs["S9"])) == 4


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
    panel, first = drawn[0].axes[0], legend(drawn[0])[0]
    medians = [line for line in panel.lines if line.get_marker() != "None"]
    dotted = [line for line in panel.lines if line.get_linestyle() == ":"]
    assert len(medians) == (4 if survivors >= 3 else 0) and len(dotted) == (0 if survivors >= 3 else 4 * survivors)
    assert f"{6 - survivors} of 6 orders lost" in first
    assert ("none is left" in first) == (survivors == 0) and ("dotted" in first) == (survivors in (1, 2))


def test_what_survives_stands_beside_the_losses(drawn, tmp_path):
    figure.draw(study(4), tmp_path / "f.png")
    panel = next(axis for axis in drawn[0].axes if axis.get_ylabel() == "share of orders not lost")
    x, y = panel.lines[0].get_data()
    assert list(x) == [1, 51, 51, paper("S1").steps] and np.allclose(y, [1, 5 / 6, 4 / 6, 4 / 6])


def test_settings_that_lose_the_same_orders_can_be_told_apart(drawn, tmp_path):
    figure.draw(study(4), tmp_path / "f.png")
    panel = next(axis for axis in drawn[0].axes if axis.get_ylabel() == "share of orders not lost")
    marked = [line for line in panel.lines if line.get_marker() != "None"]
    assert len({line.get_marker() for line in marked}) == len({line.get_markevery() for line in marked}) == 4
    for line in marked:  # on the curve, at the steps that they stand for
        step, share = line.get_data()
        np.testing.assert_allclose(share, np.where(step < 51, 1, 4 / 6))


def test_no_panel_is_empty_and_the_legend_has_a_place(drawn, tmp_path):
    for given in (study(4), study(4, metrics=("train_loss", "test_loss", "rank"))):
        figure.draw(given, tmp_path / "f.png")
    for axis in drawn[0].axes + drawn[1].axes:
        assert axis.lines or (not axis.axison and axis.get_legend() is not None)
    one, two = drawn
    assert one.axes[-1].get_legend() is not None and not one.legends
    assert two.legends and two.axes[-1].get_ylabel() == "share of orders not lost"


def test_functions_have_their_survivors_beside_them(drawn, tmp_path):
    made, points = paper("S5"), np.linspace(-1, 1, 9)
    steps, lost = np.array([99, 31_000]), np.array([-1, -1, -1, -1, 40, 60])
    rng = np.random.default_rng(0)
    done = Study(made, tuple(Curve(run, steps, {"fitted_function": rng.standard_normal((2, 9))}, -1,
                                   {"fitted_function": rng.standard_normal((6, 2, 9))}, lost)
                             for run in made.runs), {})
    functions.draw({"study": done, "points": points}, tmp_path / "f.png")
    assert len(drawn[0].axes) == 2 * 3
    for axis in (drawn[0].axes[2], drawn[0].axes[5]):
        assert axis.get_ylabel() == "share of orders not lost" and axis.lines[0].get_ydata()[-1] == pytest.approx(4 / 6)


def test_a_sheet_says_who_survives(drawn, tmp_path):
    lost = np.array([-1, -1, 7, 90])
    survive = {"T": 100, "curves": [(lost, "red"), (lost[:2], "blue")], "of": "runs", "labels": ["one", "two"]}
    for style in look.STYLES:
        with look.style(style), page.sheet(tmp_path / "f.png", 2, "title", "note", survive=survive) as axes:
            assert len(axes) == 2
            for axis in axes:
                axis.plot([0, 1], [0, 1])
        panel = drawn[-1].axes[2]
        assert panel.get_ylabel() == "share of runs not lost" and panel.lines[0].get_ydata()[-1] == 0.5
        words = [text.get_text().replace("\n", " ") for text in panel.get_legend().get_texts()]
        assert words == ["one: 2 of 4 lost", "two: 0 of 2 lost"]
    assert drawn[0]._supxlabel.get_text() == "note" and drawn[1]._supxlabel is None


def test_a_band_of_few_is_each_of_them(drawn, tmp_path):
    x = np.arange(4)
    many = np.arange(20.0).reshape(5, 4)
    many[:3, 2:] = np.nan  # two are left
    with page.sheet(tmp_path / "f.png", 3, "title", "note") as axes:
        page.draw_band(axes[0], x, many, "red", label="many")
        page.draw_band(axes[1], x[:2], many[:1, :2], "red")
        page.draw_band(axes[2], x, np.full((3, 4), np.nan), "red")
    middle, *single = axes[0].lines
    np.testing.assert_array_equal(middle.get_ydata(), [8, 9, np.nan, np.nan])
    assert [line.get_linestyle() for line in single] == [":", ":"]
    np.testing.assert_array_equal([line.get_ydata() for line in single],
                                  [[np.nan, np.nan, 14, 15], [np.nan, np.nan, 18, 19]])
    assert len(axes[1].lines) == 1 and axes[1].lines[0].get_linestyle() == "-"  # one run, and no more were asked for
    assert len(axes[2].lines) == 1 and np.isnan(axes[2].lines[0].get_ydata()).all()


def test_a_row_of_many_panels_goes_on_in_a_paper():
    for columns, across in ((3, 3), (4, 4), (5, 3), (7, 4)):
        with look.style("paper"):
            paper_figure, axes = look.canvas(2, columns, 4.0, 3.0)
        places = [axis.get_subplotspec() for axis in axes]
        lines = -(-columns // across)
        assert [(p.rowspan.start, p.colspan.start) for p in places] == [
            (row * lines + k // across, k % across) for row in range(2) for k in range(columns)]
        assert list(paper_figure.get_size_inches()) == [4.0 * across, 6.0 * lines]
        page_figure, _ = look.canvas(2, columns, 4.0, 3.0)
        assert list(page_figure.get_size_inches()) == [4.0 * columns, 6.0]


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
    under = next(axis for axis in drawn[0].axes if axis.get_subplotspec().rowspan.start == 1)
    if survivors:
        assert under.collections[0].get_sizes().max() > 100 and "2 of 6 other orders" in under.get_title()
    else:
        assert "all 6 other orders" in under.texts[0].get_text()
    assert drawn[0].axes[1].get_ylabel() == "" and under.get_xlabel() == "first weight"
    assert drawn[0].axes[-1].get_ylabel() == "share of orders not lost"
    assert drawn[0].axes[-1].lines[0].get_ydata()[-1] == pytest.approx(survivors / 6)


def test_a_paper_has_its_width(tmp_path):
    sizes = {}
    for name in look.STYLES:
        with look.style(name):
            figure.draw(study(6, metrics=("train_loss", "test_loss")), tmp_path / f"{name}.png")
        sizes[name] = image.imread(tmp_path / f"{name}.png").shape
    assert sizes["paper"][1] == 7 * 300 and sizes["page"][1] != sizes["paper"][1]
    with pytest.raises(SpecError, match="poster"), look.style("poster"):
        pass


def test_a_row_in_the_style_of_a_paper(tmp_path):
    assert "S15" in CATALOGUE
    _, paths = reproduce("S15", tmp_path, Options(**QUICK | {"replicas": 2}, style="paper"))
    assert image.imread(paths[1]).shape[1] == 7 * 300
