"""Owns row S15: loss stabilisation in one dimension, h(x) = theta^2 x, against its closed forms."""

from functools import partial

import numpy as np

from .. import models, orders, rules
from ..metrics import TrainLoss
from ..report import scalar as picture
from ..report.table import grid, number
from ..spec.problem import Dataset
from ..spec.run import Run
from ..spec.save import SaveAt
from ..train import train
from .record import Reproduction, Verdict

DOUBLING = 5**0.5 - 1  # where the 2-cycle gives way to a 4-cycle
STEPS, TAIL = 20_000, 64  # updates, and how many of the last are kept
SPREAD = (0.7, 1.0, 1.3)  # g_i / g of the samples of the random case
WINDOW = (1.0, 1.25)  # the step sizes for which the paper proves stabilisation
CLEAR = 0.1  # |E log| below which float64 reaches a = 1 exactly within STEPS updates, and sticks there
STARTS = (0.2, 0.5, 0.8, 0.95)  # a_0 = theta_0 / theta*


def trained(x, g, order, metrics=(), keep=True, starts=STARTS, options=None):
    """Result of theta^2 x on samples x [n] with labels x (theta* = 1), g [N] = 2 eta: one network a start and g.

    Networks are start by start, all g each.
    """
    x = np.asarray(x, dtype=float)[:, None]
    steps = np.r_[np.arange(0, STEPS - TAIL, 1000), np.arange(STEPS - TAIL, STEPS)] + 1
    model = models.DiagonalPower(1, depth=2, signed=False, w0=np.repeat(starts, len(g)))
    return train(Run(model, Dataset(x, x[:, 0]), rules.SGD(), np.tile(np.asarray(g) / 2, len(starts)), STEPS,
                     order=order, save=SaveAt(steps=steps, params=keep), metrics=metrics, dtype="float64",
                     seed=options.seed), progress=options.named("S15"))


def level(g):
    """Mean of (a^2 - 1)^2 over the stable 2-cycle of a <- a + g a (1 - a^2), 1 < g < sqrt(5) - 1."""
    return (1 - 1 / g**2) / 2


def exponent(g):
    """E log |1 - 2 g_i|, the growth of a - 1 a step, for samples of g_i = g SPREAD."""
    with np.errstate(divide="ignore"):
        return np.mean([np.log(np.abs(1 - 2 * g * s)) for s in SPREAD], axis=0)


def s15(options):
    """The Reproduction of S15."""
    g = np.linspace(0.8, 2.1, 521)
    one = trained([1.0], g, orders.Common(), options=options)
    a = one.saved_weights[:, -TAIL:, 0].reshape(len(STARTS), len(g), TAIL)  # [starts, g, tail]
    lost = one.lost.reshape(len(STARTS), len(g))

    spread_g = np.linspace(0.9, 1.5, 61)
    starts = np.linspace(0.7, 0.95, options.replicas)
    x = np.sqrt(SPREAD)
    mixed = trained(x, spread_g, orders.PerNetwork(), (TrainLoss(),), False, starts, options)
    final = mixed.numpy("train_loss")[:, -TAIL:].max(axis=1).reshape(len(starts), len(spread_g))
    gone = mixed.lost.reshape(final.shape) >= 0

    inside = np.linspace(WINDOW[0], WINDOW[1], 42)[1:-1]
    window = trained(np.sqrt(inside), np.ones(options.replicas), orders.PerNetwork(), starts=(0.8,), options=options)
    gap = np.abs(window.saved_weights[:, 1:, 0] ** 2 - 1)

    with np.errstate(over="ignore", invalid="ignore"):
        loss = ((a**2 - 1) ** 2).mean(axis=2)
    verdicts = (*_one(g, a, lost, loss), _random(spread_g, final, gone), _bounded(gap, window))
    results = {"one_sample": one, "random_samples": mixed, "window": window}
    draw = partial(picture.draw, {"g": g, "a": a, "lost": lost, "loss": loss, "level": level, "doubling": DOUBLING,
                                  "spread_g": spread_g, "exponent": exponent(spread_g), "final": final, "gone": gone})
    title = "loss stabilisation of theta^2 x, one and many samples"
    return Reproduction("S15", title, _table(title, g, loss, lost), verdicts, results, draw)


def _table(title, g, loss, lost):
    rows = []
    for wanted in (0.9, 1.05, 1.1, 1.15, 1.2, 1.5, 1.9, 2.05):
        k = int(np.argmin(np.abs(g - wanted)))
        closed = 0.0 if g[k] < 1 else level(g[k]) if g[k] < DOUBLING else None
        alive = lost[:, k] < 0
        ours = number(np.median(loss[alive, k])) if alive.any() else "-"
        rows.append((f"{g[k]:.4g}", number(closed), ours, f"{(~alive).mean():.0%} of {len(alive)}"))
    notes = (f"Mean of (a^2 - 1)^2 over the last {TAIL} of {STEPS} updates of a <- a + g a (1 - a^2), a = "
             f"theta/theta*, g = 2 eta x^2 theta*^2, median over the starts {', '.join(map(str, STARTS))}. No authors' "
             "numbers: the paper's theorem has bounds, the closed form is exact for 1 < g < sqrt(5) - 1.")
    return grid(f"S15: {title}", ("g", "closed form", "level", "lost"), rows, notes)


def _one(g, a, lost, loss):
    """Verdicts on one sample: convergence, the level, the sides, the doubling, the escape."""
    below, cycle = (g < 0.995), (g > 1.005) & (g < DOUBLING - 0.005)
    yield Verdict("g < 1 converges", bool(loss[:, below].max() < 1e-20),
                  f"largest level at g <= {g[below].max():.4g}: {number(loss[:, below].max())}")
    off = np.abs(loss[:, cycle] / level(g[cycle]) - 1).max()
    yield Verdict("1 < g < sqrt(5) - 1: the loss stabilises at (1 - 1/g^2) / 2", bool(off < 1e-9),
                  f"largest relative deviation {off:.1e} over {cycle.sum()} g and {len(a)} starts")
    sides = np.sign(a[:, cycle] - 1)
    share = np.mean(sides[..., 1:] == -sides[..., :-1])
    yield Verdict("the iterates alternate between the two sides of the minimum", bool(share == 1.0),
                  f"{share:.0%} of the last {TAIL} updates, same g")
    four = (g > DOUBLING + 0.005) & (g < 1.27)
    period2 = np.abs(a[:, four, 2:] - a[:, four, :-2]).max(axis=(0, 2))
    period4 = np.abs(a[:, four, 4:] - a[:, four, :-4]).max()
    yield Verdict("above sqrt(5) - 1 the period doubles", bool(period2.min() > 1e-3 and period4 < 1e-6),
                  f"{g[four].min():.4g} <= g <= {g[four].max():.4g}: iterates two apart differ by "
                  f"{number(period2.min())} or more, four apart by at most {period4:.0e}")
    kept, out = g[(lost < 0).all(axis=0)].max(), g[(lost >= 0).any(axis=0)].min()
    yield Verdict("g > 2 escapes, g <= 2 does not", bool(kept <= 2.0 < out + 1e-12),
                  f"largest g that keeps all starts {kept:.4g}, smallest that loses one {out:.4g}")


def _random(g, final, gone):
    """Verdict on the threshold of random samples."""
    stays = ((final > 1e-20) | gone).mean(axis=0)
    positive = exponent(g) > 0
    clear = np.abs(exponent(g)) > CLEAR
    right = (stays > 0.5) == positive
    return Verdict("random samples: the loss stabilises if E log |1 - 2 g_i| > 0 and vanishes if < 0",
                   bool(right[clear].all()), f"{right[clear].sum()} of {clear.sum()} mean g with |E log| > {CLEAR} "
                   f"fall on the side foretold (most of {len(final)} orders, g_i = g times "
                   f"{', '.join(map(str, SPREAD))}); nearer the threshold a reaches 1 exactly by rounding, and stays")


def _bounded(gap, window):
    """Verdict on the two positive levels between which the loss stays."""
    alive = window.lost < 0
    low, high = gap[alive].min(), gap[alive].max()
    return Verdict(f"all g_i in {WINDOW}: the loss stays between two positive levels",
                   bool(alive.all() and low > 0.05 and high < 0.8),
                   f"{low:.3f} <= |a^2 - 1| <= {high:.3f} at {gap.shape[1]} saved steps of {STEPS}, {alive.sum()} of "
                   f"{len(alive)} orders kept")
