"""Owns Cohen et al. 2021: gradient descent sharpens until the top Hessian eigenvalue is near 2 / eta, and stays."""

import numpy as np

from ... import metrics, models, rules
from ...spec.problem import Dataset
from ...spec.save import SaveAt
from ...train import train
from ..record import Reproduction, Verdict
from .page import COLOURS, FEW, band, columns, draw_band, sheet

NAME = "cohen2021"
TITLE = "Gradient descent at the edge of stability (Cohen et al. 2021, arXiv 2103.00065)"

N_SAMPLES, D, WIDTHS = 30, 4, (10, 10)
ETAS = (0.05, 0.1, 0.4, 0.6, 0.8)  # the first two are too small for the edge to be reached
LEAST = 1e-16  # loss of the figure
TAIL = 0.5  # of the run, over which "at the end" is averaged


def make(replicas=None, seed=0, progress=None, quick=False):
    """Five step sizes x `replicas` starts (6, if quick 2), the same starts for every step size."""
    starts, steps, saved = (replicas or 2, 4_000, 11) if quick else (replicas or 6, 10_000, 31)
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((N_SAMPLES, D))
    data = Dataset(X, rng.choice((-1.0, 1.0), N_SAMPLES))
    model = models.MLP(D, WIDTHS, activation="tanh")
    first = np.tile(model.start(seed, np.arange(starts)), (len(ETAS), 1))
    even = np.rint(np.linspace(0, steps - 1, saved)).astype(int)
    early = np.rint(np.geomspace(1, even[1], 8)).astype(int)
    at = np.union1d(even, early)
    result = train(model, data, rule=rules.GD(), step_size=np.repeat(ETAS, starts), steps=steps, dtype="float64",
                   init=model.unflatten(first), seed=seed, progress=progress, save=SaveAt(steps=np.union1d(at, at + 1)),
                   metrics=(metrics.TrainLoss(), metrics.Sharpness(method="lanczos", rtol=1e-3)))
    shape = (len(ETAS), starts, len(result.steps))
    loss, sharpness = (result.numpy(name).reshape(shape) for name in ("train_loss", "sharpness"))
    pairs, late = (np.searchsorted(result.steps, part) for part in (at, even[even > TAIL * steps]))
    found = {"steps": result.steps, "loss": loss, "sharpness": sharpness, "gone": result.lost.reshape(shape[:2]),
             "lost": (~result.survived).reshape(shape[:2]),
             "end": sharpness[:, :, late].mean(axis=2), "start": sharpness[:, :, 0], "top": sharpness.max(axis=2),
             "rises": (loss[:, :, pairs + 1] > loss[:, :, pairs]).mean(axis=2)}
    return Reproduction(NAME, TITLE, _table(found, steps), _verdicts(found), {"gd": result},
                        lambda path: _draw(found, path))


def _table(found, steps):
    rows = [(f"{eta:g}", 2 / eta, *(band(found[name][k])[1] for name in ("start", "top", "end")),
             band(found["end"][k])[1] * eta / 2, found["rises"][k].mean(), band(found["loss"][k, :, -1])[1],
             int(found["lost"][k].sum())) for k, eta in enumerate(ETAS)]
    return columns(TITLE, ("eta", "2 / eta", "sharpness at start", "largest", "at the end", "end / (2 / eta)",
                           "loss rises", "train loss", "lost"), rows,
                   f"tanh network {D}-{'-'.join(map(str, WIDTHS))}-1 with biases, n={N_SAMPLES} Gaussian inputs, "
                   f"random labels +-1, loss 1/2 mean r^2, {steps} full steps.",
                   f"Medians over {found['loss'].shape[1]} starts. At the end: mean over the second half. "
                   "Loss rises: on so many of the saved steps. Sharpness: largest eigenvalue of the Hessian of the "
                   "training loss.")


def _verdicts(found):
    calm, etas, alive = found["end"][0], np.array(ETAS)[:, None], ~found["lost"]
    edge = alive & (etas * calm / 2 > 1.1)  # [E, starts]: the smallest step's end is beyond 2 / eta
    below = alive & (etas * calm / 2 < 0.9)
    ratio, top = found["end"] * etas / 2, found["top"] * etas / 2
    return (
        Verdict("sharpness rises in training (progressive sharpening)", bool((calm > 1.5 * found["start"][0]).all()),
                f"by a factor {(calm / found['start'][0]).min():.3g} or more at eta {ETAS[0]:g}"),
        Verdict("where it would rise beyond 2 / eta it stays near it", bool(
            edge.any() and (np.abs(ratio[edge] - 1) < 0.05).all()),
                f"mean over the second half {ratio[edge].min():.3f} to {ratio[edge].max():.3f} of 2 / eta over "
                f"{edge.sum()} runs that reach {top[edge].min():.2f} to {top[edge].max():.2f} of it on the way "
                f"({found['lost'].sum()} more are lost)"),
        Verdict("below the edge it does not reach 2 / eta", bool((top[below] < 1).all()),
                f"largest {top[below].max():.3f} of 2 / eta over {below.sum()} runs"),
        Verdict("at the edge the loss does not fall at every step, but falls in the long run",
                bool(found["rises"][edge].mean() > 0.02
                     and (found["loss"][..., -1][edge] < 0.1 * found["loss"][..., 0][edge]).all()),
                f"loss rises on {found['rises'][edge].mean():.0%} of the saved steps at the edge "
                f"({found['rises'][below].mean():.0%} below it); end over start at most "
                f"{(found['loss'][..., -1] / found['loss'][..., 0])[edge].max():.2g}"))


def _draw(found, path):
    starts = found["loss"].shape[1]
    note = (f"median and 10 to 90 % over those of {starts} starts, the same for every step size, that are not lost; "
            f"{FEW}; dashed: 2 / eta")
    survive = {"T": found["steps"][-1], "curves": list(zip(found["gone"], COLOURS, strict=False)), "of": "runs",
               "labels": [f"step size {eta:g}" for eta in ETAS]}
    with sheet(path, 3, TITLE, note, (4.1, 4.2), survive) as axes:
        axes[2].set_yscale("log")
        for k, (eta, colour) in enumerate(zip(ETAS, COLOURS, strict=False)):
            sharpness, loss = (np.where(found["lost"][k, :, None], np.nan, found[name][k])
                               for name in ("sharpness", "loss"))
            draw_band(axes[0], found["steps"], sharpness, colour)
            axes[0].axhline(2 / eta, color=colour, linestyle="--", linewidth=0.8)
            draw_band(axes[1], found["steps"], eta * sharpness / 2, colour)
            draw_band(axes[2], found["steps"], np.maximum(loss, LEAST), colour)
        axes[1].axhline(1, color="black", linestyle="--", linewidth=0.8)
        labels = "sharpness", "sharpness / (2 / eta)", f"training loss (above {LEAST:g})"
        for axis, label in zip(axes, labels, strict=True):
            axis.set(xlabel="step", ylabel=label, xscale="log", xlim=(1, found["steps"][-1]))
