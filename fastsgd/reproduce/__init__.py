"""The paper's systems, each reproduced by one command: a table, a figure, and the labelled results."""

import time
from pathlib import Path

from ..report import figure, table
from .study import NAMES, study

__all__ = ["NAMES", "reproduce", "study"]


def reproduce(name, out, replicas=256, saved=250, seed=0, progress=None):
    """Run a study of system `name` and write NAME.txt, NAME.png and NAME_*.npz into folder `out`.

    Returns (the table as text, the paths written, seconds by what).
    """
    began = time.perf_counter()
    done = study(name, replicas, saved, seed, progress)
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    seconds = {"training": 0.0, "metrics": 0.0}
    paths = []
    for kind, result in done.results.items():
        paths.append(out / f"{name}_{kind}.npz")
        result.save(paths[-1])
        for what in seconds:
            seconds[what] += result.provenance["seconds"][what]
    text = table.text(done)
    (out / f"{name}.txt").write_text(text + "\n")
    figure.draw(done, out / f"{name}.png")
    seconds["in all"] = time.perf_counter() - began
    return text, [out / f"{name}.txt", out / f"{name}.png", *paths], seconds
