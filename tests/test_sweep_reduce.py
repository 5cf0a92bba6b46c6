"""Reductions: what they are, and that their bits do not depend on who made which part."""

import numpy as np
import pytest

import fastsgd as fs
from fastsgd.sweep import reduce
from fastsgd.sweep.reduce import Part

RNG = np.random.default_rng(3)


def part(cells, R, S=4, of=None):
    rng = np.random.default_rng(of) if of is not None else RNG
    lost = np.where(rng.random((cells, R)) < 0.3, rng.integers(0, 30, (cells, R)), -1)
    steps = np.array([0, 10, 20, 30])[:S]
    a = np.exp(rng.normal(0, 4, (cells, R, S)))
    a[(lost[:, :, None] >= 0) & (lost[:, :, None] <= steps)] = np.nan
    return Part({"x": a}, lost, steps)


def test_reductions_are_what_numpy_says():
    p = part(5, 37)
    a, lost = p.values["x"], p.lost
    m = fs.reduce.Moments().finish(fs.reduce.Moments().of(p))
    assert np.array_equal(m["x_n"][1], (~np.isnan(a)).sum(axis=1))
    np.testing.assert_allclose(m["x_mean"][1], np.nanmean(a, axis=1), rtol=1e-13)
    np.testing.assert_allclose(m["x_std"][1], np.nanstd(a, axis=1, ddof=1), rtol=1e-12)
    assert np.array_equal(m["x_max"][1], np.nanmax(a, axis=1)) and np.array_equal(m["x_min"][1], np.nanmin(a, axis=1))
    at = (0, 0.1, 0.5, 0.77, 1)
    q = fs.reduce.Quantiles(at)
    np.testing.assert_allclose(q.finish(q.of(p))["x_quantiles"][1], np.moveaxis(np.nanquantile(a, at, axis=1), 0, 1),
                               rtol=1e-12)
    share = fs.reduce.LostShare()
    assert np.array_equal(share.finish(share.of(p))["lost_share"][1], (lost >= 0).mean(axis=1))
    alive = fs.reduce.Survival()
    assert np.array_equal(alive.finish(alive.of(p))["survival"][1], (~np.isnan(a)).mean(axis=1))


def test_a_cell_of_lost_networks_has_no_numbers():
    p = Part({"x": np.full((2, 3, 4), np.nan)}, np.zeros((2, 3), int), np.arange(4))
    for reduction in reduce.usual(10):
        for name, (_, a) in reduction.finish(reduction.of(p)).items():
            if name in ("lost_share", "survival"):
                assert (a == (name == "lost_share")).all()
            elif a.dtype.kind == "f":
                assert np.isnan(a).all(), name


@pytest.mark.parametrize("n", [1, 2, 3, 7, 64, 1000])
def test_sums_are_a_fixed_tree(n):
    a = RNG.normal(0, 1, (2, n, 3)) * 10.0**RNG.integers(-8, 8, (2, n, 1))

    def tree(column):
        while len(column) > 1:
            half = len(column) // 2
            column = [float(column[k]) + float(column[half + k]) for k in range(half)] + (
                [float(column[-1])] if len(column) % 2 else [])
        return column[0]

    assert all(reduce.total(a)[i, j] == tree(a[i, :, j].tolist()) for i in range(2) for j in range(3))


def test_parts_of_a_cell_join_in_order():
    parts = [part(4, R, of=R) for R in (5, 9, 1)]
    whole = Part({"x": np.concatenate([p.values["x"] for p in parts], axis=1)},
                 np.concatenate([p.lost for p in parts], axis=1), parts[0].steps)
    for reduction in (fs.reduce.LostShare(), fs.reduce.Survival(), fs.reduce.Histogram()):
        states = [reduction.of(p) for p in parts]
        for order in ((0, 1, 2), (2, 0, 1)):  # whole numbers know no order
            joined = reduction.join([states[k] for k in order])
            assert all(np.array_equal(joined[key], a) for key, a in reduction.of(whole).items())
    moments = fs.reduce.Moments()
    joined, wanted = (moments.finish(s) for s in (moments.join([moments.of(p) for p in parts]), moments.of(whole)))
    for name, (_, a) in wanted.items():
        np.testing.assert_allclose(joined[name][1], a, rtol=1e-12, err_msg=name)
    assert np.isnan(fs.reduce.Quantiles().join([fs.reduce.Quantiles().of(p) for p in parts])["x"]).all()


def test_bins_hold_what_they_say():
    values = np.concatenate([np.exp(RNG.normal(0, 50, 500)), 2.0 ** np.arange(-60, 60), 1.25 * 2.0 ** np.arange(-9, 9)])
    for bin, value in zip(reduce.bins(values), values, strict=True):
        low, high = reduce.bounds(bin)
        assert low <= value < high and high / low <= 1.26
    assert np.array_equal(reduce.bins(-values), -reduce.bins(values))
    assert reduce.bins(np.array([0.0, -0.0, np.inf, -np.inf])).tolist() == [0, 0, reduce.INFINITE, -reduce.INFINITE]
    assert (np.diff(reduce.bins(np.sort(values))) >= 0).all()


def test_bad_quantiles_are_refused():
    for at in ((), (1.5,), ("a",), (np.nan,)):
        with pytest.raises(fs.SpecError, match="quantiles"):
            fs.reduce.Quantiles(at)
