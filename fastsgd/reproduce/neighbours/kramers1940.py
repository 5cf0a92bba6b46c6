"""Owns Kramers 1940: first exits from a double well, by gradient descent with isotropic noise, against his law."""

import numpy as np

from ... import losses, metrics, models, rules, stops
from ...spec.noise import GradientNoise
from ...spec.problem import Dataset
from ...train import train
from ..record import Reproduction, Verdict
from .page import COLOURS, columns, number, sheet

NAME = "kramers1940"
TITLE = "First exits from a double well (Kramers 1940, Physica 7, 284)"

HEIGHT = 0.25  # of the barrier of V(w) = (w^2 - 1)^2 / 4
ETA = 0.01  # step size: a step is so much time
EVERY = 20  # steps between looks
LONG = 12  # times Kramers' time that the coldest networks have


def potential(w):
    """V(w) = (w^2 - 1)^2 / 4: wells at -1 and 1, V'' = 2 there, V'' = -1 on the barrier."""
    return (w**2 - 1) ** 2 / 4


def kramers(T):
    """Mean time from one well to the other at temperature T by Kramers' law, 2 pi / sqrt(V''(1) |V''(0)|) e^(H / T)."""
    return 2 * np.pi / np.sqrt(2.0) * np.exp(HEIGHT / T)


def exact(T):
    """Mean time in which dw = -V' dt + sqrt(2 T) dB first comes from 1 to -1.

    (1 / T) int_-1^1 e^(V(y) / T) int_y^inf e^(-V(z) / T) dz dy, by trapezia
    """
    z = np.linspace(-1, 4, 200_001)
    inner = np.exp(-potential(z) / T)
    steps = 0.5 * (inner[1:] + inner[:-1]) * (z[1] - z[0])
    above = np.append(np.cumsum(steps[::-1])[::-1], 0.0)
    outer = np.exp(potential(z[z <= 1]) / T) * above[z <= 1]
    return (outer.sum() - 0.5 * (outer[0] + outer[-1])) * (z[1] - z[0]) / T


def make(replicas=None, seed=0, progress=None, quick=False):
    """Barriers of 2 .. 6 temperatures (2 .. 4 if quick), `replicas` networks each (1000, 250), until they are out."""
    barriers = np.arange(2.0, 5.0 if quick else 7.0)
    replicas = replicas or (250 if quick else 1000)
    T = HEIGHT / barriers
    sigma = np.sqrt(2 * T / ETA)  # so that a step's noise has variance 2 T ETA
    result = train(
        models.DiagonalPower(1, depth=2, signed=False, w0=1.0), Dataset(np.ones((1, 1)), np.ones(1)),
        rule=rules.GD(gradient_noise=GradientNoise(np.repeat(sigma, replicas))), step_size=ETA,
        steps=int(LONG * kramers(T[-1]) / ETA), loss=losses.Squared(HEIGHT), dtype="float64", seed=seed,
        stop=stops.Above(metrics.DistanceTravelled(), 2.0, every=EVERY), progress=progress)  # from 1 to below -1
    found = {"barriers": barriers, "T": T, "out": result.stopped.reshape(-1, replicas) >= 0,
             "steps": np.where(result.stopped < 0, result.run.steps, result.stopped).reshape(-1, replicas)}
    found |= _fitted(found) | {"kramers": kramers(T), "exact": np.array([exact(one) for one in T])}
    return Reproduction(NAME, TITLE, _table(found), _verdicts(found), {"exits": result},
                        lambda path: _draw(found, path))


def _fitted(found):
    """Mean exit times and their errors: time spent over exits seen, which holds where some are inside."""
    time, exits = ETA * found["steps"].sum(axis=1), found["out"].sum(axis=1)
    mean = time / np.maximum(exits, 1)
    return {"mean": mean, "error": mean / np.sqrt(np.maximum(exits, 1)), "exits": exits}


def _table(found):
    rows = [(f"{barrier:g}", T, f"{exits} of {out.size}", f"{mean:.4g} +- {error:.2g}", f"{right:.4g}", f"{law:.4g}",
             f"{mean / right:.3f}", f"{mean / law:.3f}")
            for barrier, T, exits, out, mean, error, right, law in zip(
                *(found[name] for name in ("barriers", "T", "exits", "out", "mean", "error", "exact", "kramers")),
                strict=True)]
    return columns(TITLE, ("barrier / T", "T", "out", "mean time", "exact", "Kramers", "/ exact", "/ Kramers"), rows,
                   f"w <- w - {ETA} (V'(w) + sqrt(2 T / {ETA}) z), V = (w^2 - 1)^2 / 4: h = w^2 on one sample (1, 1), "
                   f"loss {HEIGHT} (h - y)^2.", "Times are from w = 1 to the first look (every "
                   f"{EVERY} steps) below -1, a step is {ETA} of time. Exact: the double integral for",
                   "the first passage of the diffusion from 1 to -1. Kramers: 2 pi / sqrt(2) e^(barrier / T).")


def _verdicts(found):
    off = found["mean"] / found["exact"] - 1
    error = found["error"] / found["mean"]
    slope, law = (np.polyfit(1 / found["T"], np.log(found[name]), 1)[0] for name in ("mean", "exact"))
    cold = found["steps"][-1][found["out"][-1]] * ETA
    spread = cold.std(ddof=1) / cold.mean()
    last = found["mean"][-1] / found["kramers"][-1] - 1
    return (
        Verdict("mean exit times are those of the diffusion", bool((np.abs(off) < 3 * error + 3 * ETA).all()),
                f"relative deviations {', '.join(f'{x:+.1%}' for x in off)}, standard errors "
                f"{', '.join(f'{x:.1%}' for x in error)}; a step of {ETA} shifts them by up to {3 * ETA:.0%}"),
        Verdict("the logarithm of the time grows by the barrier over T", bool(abs(slope / law - 1) < 0.05),
                f"slope against 1 / T {number(slope)}, of the exact times {number(law)}, the barrier is {HEIGHT}"),
        Verdict("Kramers' law is approached where the barrier is high", bool(abs(last) < 0.2),
                f"{last:+.1%} at a barrier of {found['barriers'][-1]:g} T, "
                f"{found['mean'][0] / found['kramers'][0] - 1:+.1%} at {found['barriers'][0]:g} T"),
        Verdict("exits from a deep well are exponential in time", bool(0.8 < spread < 1.2),
                f"deviation over mean {number(spread)} at a barrier of {found['barriers'][-1]:g} T, 1 expected"))


def _draw(found, path):
    note = (f"left: mean and two standard errors of {found['out'].shape[1]} networks each; middle: the same over "
            "Kramers' law; right: networks still inside against time, dashed: e^(-t / mean)")
    with sheet(path, 3, TITLE, note) as axes:
        fine = np.linspace(found["barriers"][0] - 0.3, found["barriers"][-1] + 0.3, 60)
        T = HEIGHT / fine
        right = np.array([exact(one) for one in T])
        for axis, scale, of in ((axes[0], np.ones_like(fine), 1.0), (axes[1], kramers(T), found["kramers"])):
            axis.plot(fine, kramers(T) / scale, "--", color="0.3", linewidth=1, label="Kramers' law")
            axis.plot(fine, right / scale, color=COLOURS[0], linewidth=1.4, label="exact for the diffusion")
            axis.errorbar(found["barriers"], found["mean"] / of, 2 * found["error"] / of, fmt="o", color=COLOURS[1],
                          markersize=4, capsize=3, label="trained")
            axis.set(xlabel="barrier over temperature")
            axis.legend(frameon=False, fontsize=8)
        axes[0].set(yscale="log", ylabel="mean time to the other well")
        axes[1].set(ylabel="mean time over Kramers' law")
        for k, colour in zip(range(len(found["barriers"])), COLOURS, strict=False):
            time = np.sort(found["steps"][k]) * ETA / found["mean"][k]
            inside = 1 - np.arange(1, len(time) + 1) / len(time)
            axes[2].plot(time, inside, color=colour, linewidth=1.2, label=f"{found['barriers'][k]:g} T")
        t = np.linspace(0, 6, 60)
        axes[2].plot(t, np.exp(-t), "k--", linewidth=1)
        axes[2].set(yscale="log", xlim=(0, 6), ylim=(2e-3, 1.1), xlabel="time over its mean", ylabel="share inside")
        axes[2].legend(frameon=False, fontsize=8, title="barrier", title_fontsize=8)
