"""Owns rows S10 to S13: their recipes, how the trainings are spread over processes, their table and results."""

import multiprocessing
import os
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np

from ...errors import SpecError
from ...files import whole
from ...report import deep as picture
from ...report.table import grid
from ..record import Reproduction
from . import claims
from .images import images
from .networks import Dense, Residual
from .training import Recipe, Setting, training


def settings(small, large, growth, constants):
    """The small constant step first, then the large step decayed at 10, 30 and 50 %, then constants to be tuned."""
    grown = f" growing to {growth**50 * large:.2g}" if growth > 1 else ""
    return (Setting(f"small: {small:g}", small),
            *(Setting(f"large: {large:g}{grown}, decay at {at:.0%}", large, at, growth) for at in (0.1, 0.3, 0.5)),
            *(Setting(f"constant {step:g}", step) for step in constants))


PLAIN = settings(0.03, 0.5, 1.03, (0.1, 0.3, 1.0))
MOMENTUM = settings(0.002, 0.1, 1.0, (0.006, 0.02, 0.06))
RECIPES = {
    "S10": ("residual network, plain SGD", Recipe(Residual, PLAIN)),
    "S11": ("residual network, momentum, crops and flips, weight decay",
            Recipe(Residual, MOMENTUM, momentum=0.9, weight_decay=5e-4, augment=True)),
    "S12": ("residual network on the images given, plain SGD", Recipe(Residual, PLAIN)),
    "S13": ("dense network on the images given, plain SGD", Recipe(Dense, PLAIN)),
}
FULL = {"epochs": 30, "seeds": 4, "train": 2000, "tune": 1000, "test": 2000}
QUICK = {"epochs": 16, "seeds": 3, "train": 1000, "tune": 500, "test": 1000}


@dataclass(frozen=True, eq=False)
class Study:
    """A deep row, trained. curves: all of them; settings x seeds, those of a setting together."""

    name: str
    title: str
    data: str
    epochs: int
    recipe: Recipe
    curves: tuple

    def of(self, setting):
        """The curves of a setting that did not blow up."""
        return [curve for curve in self.curves if curve.setting == setting and not curve.lost]

    def tuned(self):
        """The constant step, the small one among them, with the least error on images that are in no other use."""
        constants = [s for s in self.recipe.settings if s.decay_at is None and len(self.of(s)) == self.seeds]
        return min(constants, key=lambda s: np.mean([c.tuning for c in self.of(s)]), default=None)

    @property
    def seeds(self):
        return len({curve.seed for curve in self.curves})

    def save(self, path):
        """Write every curve to one npz file: settings [G], seeds [R], layers [L], and loss [G, R, E] and the like; NaN
        from where a training was lost."""
        labels = [setting.label for setting in self.recipe.settings]
        longest = {name: max((getattr(c, name) for c in self.curves), key=len).shape
                   for name in ("loss", "rate", "sparsity", "density", "error")}
        arrays = {name: np.full((len(labels), self.seeds, *shape), np.nan) for name, shape in longest.items()}
        for k, curve in enumerate(self.curves):
            for name, array in arrays.items():
                values = getattr(curve, name)
                array[k // self.seeds, k % self.seeds, :len(values)] = values
        epochs = max((curve.epochs for curve in self.curves), key=len)
        with whole(path) as file:
            np.savez(file, settings=labels, layers=list(self.recipe.network.layers), epochs=epochs,
                     seeds=sorted({curve.seed for curve in self.curves}), **arrays)


def row(name, options):
    """The Reproduction of a deep row. Raises SpecError where the images are missing."""
    title, recipe = RECIPES[name]
    if name in ("S12", "S13") and options.data is None:
        raise SpecError(f"data: {name} is for images of your own, such as CIFAR-100; give --data PATH")
    size = QUICK if options.quick else FULL
    found = images(options.data, size["train"], size["tune"], size["test"])
    seeds = size["seeds"] if options.seeds is None else options.seeds
    start = time.process_time()
    curves, seconds = _trained(recipe, found, size["epochs"], range(options.seed, options.seed + seeds),
                               options.progress)
    study = Study(name, title, found.name, size["epochs"], recipe, curves)
    seconds += time.process_time() - start
    return Reproduction(name, title, _table(study, seconds), tuple(claims.verdicts(study)), {"curves": study},
                        partial(picture.draw, study))


def _trained(recipe, found, epochs, seeds, progress):
    """(Curves of all settings and seeds, seconds of processor time), one training a core at a time."""
    jobs = [(setting, seed) for seed in seeds for setting in recipe.settings]
    workers = min(len(jobs), len(os.sched_getaffinity(0)))
    done, seconds, began = {}, 0.0, time.perf_counter()
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        for (setting, seed), (curve, took) in zip(
                jobs, pool.map(_one, *zip(*((recipe, s, seed, found, epochs) for s, seed in jobs), strict=True)),
                strict=True):
            done[setting, seed], seconds = curve, seconds + took
            if progress:
                end = "lost" if curve.lost else f"loss {curve.loss[-1]:.2g}, test error {curve.error[-1]:.2f} %"
                print(f"[{time.perf_counter() - began:5.0f} s] {len(done)} of {len(jobs)}: seed {seed}, "
                      f"{setting.label}: {end}", flush=True)
    return tuple(done[setting, seed] for setting in recipe.settings for seed in seeds), seconds


def _one(*arguments):
    start = time.process_time()
    return training(*arguments), time.process_time() - start


def _table(study, seconds):
    layers = list(study.recipe.network.layers.values())
    head = ("setting", "lost", "train loss", "test error %", *(f"{name} %" for name in layers))
    rows = []
    for setting in study.recipe.settings:
        left = study.of(setting)
        cells = ["-"] * (len(head) - 2)
        if left:
            ends = np.array([[c.loss[-1], c.error[-1], *c.sparsity[-1]] for c in left])
            cells = [f"{mean:.2g}" if k == 0 else claims.spread(ends[:, k])
                     for k, mean in enumerate(ends.mean(axis=0))]
        rows.append((setting.label, f"{study.seeds - len(left)} of {study.seeds}", *cells))
    recipe = study.recipe
    notes = (f"Mean and standard error over {study.seeds} seeds at the end of {study.epochs} epochs; layers: feature "
             f"sparsity coefficient. {study.data}; batch {recipe.batch}, momentum {recipe.momentum:g}, weight decay "
             f"{recipe.weight_decay:g}, width {recipe.width}"
             f"{', random crops and flips' if recipe.augment else ''}. {seconds:.0f} s of processor time.")
    return grid(f"{study.name}: {study.title}", head, rows, notes)
