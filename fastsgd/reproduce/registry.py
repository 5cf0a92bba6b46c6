"""Owns the catalogue of reproductions, and where their tables, figures and results are written."""

import time
from pathlib import Path

from ..errors import SpecError
from ..files import whole
from ..report import look
from ..spec.check import near
from . import deep, fluctuation, functions, movement, plane, scalar, systems
from .neighbours import NEIGHBOURS
from .options import Options

CATALOGUE = {**systems.ROWS, "S3": plane.s3, "S6": functions.s6, "S8": movement.s8, "S14": fluctuation.s14,
             "S15": scalar.s15}
NAMES = tuple(sorted(CATALOGUE, key=lambda name: int(name[1:])))


def reproduce(name, out, options=None):
    """Do row `name` of the catalogue, a deep row, or a neighbour: NAME.txt, NAME.png and NAME_*.npz in folder `out`.

    Each file is written whole or not at all. Returns (the Reproduction, the paths written). Raises SpecError for a name
    that it does not know.
    """
    rows = {**CATALOGUE, **deep.ROWS}
    if name not in rows and name not in NEIGHBOURS:
        legal = (*NAMES, *deep.ROWS, *NEIGHBOURS)
        raise SpecError(f"name: {name!r} given, expected one of {', '.join(legal)}{near(name, legal)}")
    options = Options() if options is None else options
    out = Path(out)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SpecError(f"out: {str(out)!r:.200} cannot be made a folder ({error.strerror})") from None
    if name in rows:
        done = rows[name](options)
    else:  # each has sample orders and saved steps of its own
        done = NEIGHBOURS[name].make(seed=options.seed, progress=options.named(name), quick=options.quick)
    paths = [out / f"{name}.txt", out / f"{name}.png"]
    _write(paths[0], done.text())
    with look.style(options.style):
        done.draw(paths[1])
    for kind, result in done.results.items():
        paths.append(out / f"{name}_{kind}.npz")
        result.save(paths[-1])
    return done, paths


def reproduce_all(out, options=None, tell=None, names=None):
    """Do every row of `names`, by default all of the paper, and write index.txt with all verdicts.

    tell: called after each row with (name, Reproduction, seconds). Returns the path of the index.
    """
    options, parts, holds = Options() if options is None else options, [], []
    for name in NAMES if names is None else names:
        start = time.perf_counter()
        done, _ = reproduce(name, out, options)
        parts.append("\n".join([f"{name}: {done.title}", *(f"  {verdict.text()}" for verdict in done.verdicts)]))
        holds += [verdict.holds for verdict in done.verdicts]
        if tell is not None:
            tell(name, done, time.perf_counter() - start)
    counts = f"{holds.count(True)} hold, {holds.count(False)} do not, {holds.count(None)} left open"
    head = f"Seed {options.seed}: {counts}."
    if names is None:
        head = (f"Claims of arXiv 2210.05337 over {options.replicas} sample orders, {options.saved} saved steps, seed "
                f"{options.seed}: {counts}. Medians are over the orders that survive to the end.")
    path = Path(out) / "index.txt"
    _write(path, "\n\n".join([head, *parts]))
    return path


def _write(path, text):
    with whole(path) as file:
        file.write(f"{text}\n".encode())
