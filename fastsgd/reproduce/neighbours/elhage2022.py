"""Owns Elhage et al. 2022: the sparser the features, the more of them share a small hidden layer."""

import numpy as np

from ... import losses, metrics, models, rules
from ...data import Fresh
from ...spec.save import SaveAt
from ...train import train
from ..record import Reproduction, Verdict
from .page import COLOURS, columns, sheet

NAME = "elhage2022"
TITLE = "Toy models of superposition (Elhage et al. 2022, arXiv 2209.10652)"

FEATURES, HIDDEN = 5, 2
DENSITIES = (1.0, 0.5, 0.2, 0.1, 0.03, 0.01)  # chance that a feature is not zero
IMPORTANCE = 0.9 ** np.arange(FEATURES)
REPRESENTED = 0.5  # ||W_i|| from which a feature counts
TESTED = 20_000  # fresh inputs of the final loss


def make(replicas=None, seed=0, progress=None, quick=False):
    """Six densities (if quick three) x `replicas` starts (8); the published batch of 1024 and 1e4 steps of Adam.

    If quick, batch 128, 3000 steps.
    """
    densities = DENSITIES[::3] + DENSITIES[-1:] if quick else DENSITIES
    instances, steps, batch, eta = (replicas or 8, 3_000, 128, 3e-3) if quick else (replicas or 8, 10_000, 1024, 1e-3)
    results, found = {}, {}
    for density in densities:
        rng = np.random.default_rng(seed)
        X = rng.random((TESTED, FEATURES)) * (rng.random((TESTED, FEATURES)) < density)
        result = results[f"density_{density:g}"] = train(
            models.TiedAutoencoder(FEATURES, HIDDEN), Fresh(FEATURES, inputs="sparse", density=density, X_test=X,
                                                            y_test=X),
            rule=rules.Adam(batch_size=batch), step_size=np.full(instances, eta), steps=steps, seed=seed,
            dtype="float64", loss=losses.Squared(1.0, weights=IMPORTANCE), metrics=metrics.TestLoss(),
            save=SaveAt(linear=1), progress=progress)
        W = result.run.model.unflatten(result.weights)["W"]
        length = np.linalg.norm(W, axis=1)
        loss = result.numpy("test_loss")[:, -1] / (density * (IMPORTANCE / 3).sum())  # of predicting zero: 1
        found[density] = {"W": W, "count": (length > REPRESENTED).sum(axis=1), "length": length, "loss": loss,
                          "best": int(np.nanargmin(loss)), "lost": int((~result.survived).sum())}
    return Reproduction(NAME, TITLE, _table(found, steps, batch, eta), _verdicts(found), results,
                        lambda path: _draw(found, path))


def _gaps(W):
    """Angles in degrees between neighbouring represented features of one network W [2, features], sorted."""
    kept = np.linalg.norm(W, axis=0) > REPRESENTED
    angles = np.sort(np.degrees(np.arctan2(W[1, kept], W[0, kept])))
    return np.sort(np.diff(angles, append=angles[:1] + 360))


def _table(found, steps, batch, eta):
    rows = []
    for density, one in found.items():
        best = one["W"][one["best"]]
        rows.append((f"{density:g}", float(one["count"].mean()), int(one["count"][one["best"]]),
                     " ".join(f"{x:.2f}" for x in one["length"][one["best"]]),
                     " ".join(f"{x:.0f}" for x in _gaps(best)), np.median(one["loss"]), one["loss"][one["best"]],
                     one["lost"]))
    return columns(TITLE, ("density", "represented (mean)", "best", "||W_i|| of the best", "angles of the best",
                           "loss (median)", "best", "lost"), rows,
                   f"relu(W^T W x + b), {FEATURES} features, {HIDDEN} hidden, importance 0.9^i, each x_j uniform in "
                   f"(0, 1) with chance `density`, else 0;",
                   f"Adam {eta:g}, batch {batch}, {steps} steps, {len(next(iter(found.values()))['count'])} starts. "
                   f""
                   f"Represented: ||W_i|| > {REPRESENTED}. Loss: {TESTED} fresh inputs, 1 is that of predicting zero.",
                   "Angles between neighbouring represented features, in degrees. Published: 2 orthogonal features "
                   "when dense, 5 in a pentagon (72 degrees) when sparse.")


def _verdicts(found):
    densities = list(found)
    means = [float(one["count"].mean()) for one in found.values()]
    dense, sparse = found[densities[0]], found[densities[-1]]
    gaps = {name: _gaps(one["W"][one["best"]]) for name, one in (("dense", dense), ("sparse", sparse))}
    length = sparse["length"][sparse["best"]]
    count = {name: int(one["count"][one["best"]]) for name, one in (("dense", dense), ("sparse", sparse))}
    return (
        Verdict("more features are represented the sparser they are",
                bool((np.diff(means) >= -0.3).all() and means[-1] > means[0] + 2),
                "mean number " + ", ".join(f"{m:.2g}" for m in means) + " at density "
                + ", ".join(f"{d:g}" for d in densities)),
        Verdict("dense features: the two most important, orthogonal",
                bool(count["dense"] == 2 and dense["length"][dense["best"]][:2].min() > 0.9
                     and abs(gaps["dense"][0] - 90) < 10),
                f"best of {len(dense['loss'])} starts: {count['dense']} features at {gaps['dense'][0]:.0f} degrees, "
                f"||W_i|| {', '.join(f'{x:.2f}' for x in dense['length'][dense['best']])}"),
        Verdict("sparse features: all five in a pentagon",
                bool(count["sparse"] == 5 and np.abs(gaps["sparse"] - 72).max() < 8),
                f"best of {len(sparse['loss'])} starts: {count['sparse']} features {gaps['sparse'].min():.0f} to "
                f"{gaps['sparse'].max():.0f} degrees apart, ||W_i|| {length.min():.2f} to {length.max():.2f}"))


def _draw(found, path):
    lost = sum(one["lost"] for one in found.values())
    note = f"lines: columns of W of the start with the lowest loss; coloured by importance; {lost} runs lost"
    with sheet(path, len(found), TITLE, note, size=(2.6, 3.4)) as axes:
        for axis, (density, one) in zip(axes, found.items(), strict=True):
            for j, (x, y) in enumerate(one["W"][one["best"]].T):
                axis.plot((0, x), (0, y), "-", color=COLOURS[j], linewidth=1.8)
                axis.plot(x, y, "o", color=COLOURS[j], markersize=5, label=f"{IMPORTANCE[j]:.2g}")
            axis.set(xlim=(-1.4, 1.4), ylim=(-1.4, 1.4), aspect="equal", xlabel="hidden unit 1",
                     title=f"density {density:g}\n{one['count'].mean():.1f} represented (mean of {len(one['count'])})")
            axis.title.set_fontsize(9)
        axes[0].set_ylabel("hidden unit 2")
        axes[-1].legend(frameon=False, fontsize=8, title="importance", title_fontsize=8, loc="upper left",
                        bbox_to_anchor=(1.02, 1))
