"""Owns the plots: one log-log picture for every scaling curve of a run, bands as bars."""

import json
from pathlib import Path

from .cases import SHORT

AXES = {"N": "networks N", "d": "inputs d", "width": "hidden units h", "T": "steps T"}
MARKS = {"fastsgd": "o", "torch-batched": "s", "jax": "^", "numba": "D", "numpy-loop": "v"}


def draw(rows, folder):
    """Write bench_<name>.png for every curve in the rows, bench_T.png of lone networks; returns the paths.

    What cores give is a number in a table: two points are no curve.
    """
    drawn = {}
    for row in rows:
        if row["metric"].startswith("curve "):
            where = drawn.setdefault(row["metric"].removeprefix("curve "), {})
            where.setdefault(row["provider"], []).append((float(json.loads(row["versions"])["at"]), row))
    for row in rows:
        if row["metric"] == "one network":
            drawn.setdefault("T", {}).setdefault(row["case"], []).append((float(row["T"]), row))
    folder = Path(folder)
    return [_picture(folder / f"bench_{name}.png", name, lines) for name, lines in drawn.items() if name != "cores"]


def _picture(path, name, lines):
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4.2), layout="constrained")
    for provider, points in lines.items():
        points.sort(key=lambda point: point[0])
        x, rows = zip(*points, strict=True)
        y, low, high = ([float(row[key]) for row in rows] for key in ("median", "low", "high"))
        bars = [[a - b for a, b in zip(y, low, strict=True)], [b - a for a, b in zip(y, high, strict=True)]]
        axes.errorbar(x, y, yerr=bars, marker=MARKS.get(provider, "x"), markersize=5, capsize=2, linewidth=1.4,
                      label=SHORT.get(provider, provider), zorder=3 if provider == "fastsgd" else 2)
    first = next(iter(lines.values()))[0][1]
    axes.set(xscale="log", yscale="log", xlabel=AXES.get(name, name),
             ylabel="one call of fs.train, microseconds" if name == "T" else "network-steps / s")
    fixed = first["case"].split(",")[0]
    axes.set_title({"T": "one network of each case", "N": f"{fixed}", "d": f"DiagonalLinear, N={first['N']}",
                    "width": f"ReLU2 10-h-1 with biases, N={first['N']}"}.get(name, fixed)
                   + ("" if name == "T" else ", batch 1, float32") + f", {first['cores']} core(s), {first['machine']}",
                   fontsize=9)
    axes.grid(True, which="major", alpha=0.3)
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=130)
    plt.close(figure)
    return path
