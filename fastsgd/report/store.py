"""Owns the report of a sweep's store, finished or not: a page with heat maps, curves and survival; a table, JSON."""

import base64
import csv
import html
import io
import json
from dataclasses import asdict
from pathlib import Path

import numpy as np

from ..errors import SpecError
from ..files import whole
from ..spec.check import near
from ..sweep import reduce
from ..sweep.cells import labelled
from . import look
from .figure import FEWEST
from .labelled import Cells
from .look import COLOURS, canvas

BAND = (0.1, 0.5, 0.9)
MEDIAN = 1  # its place
LARGEST = 50_000_000  # numbers that are read where there are no reductions


def text(store, data=None):
    """Plain text: how far the store is, and the share of networks lost in each cell along each axis.

    data: `cells(store)`, where they are at hand
    """
    lines, data = [str(store.progress())], cells(store) if data is None else data
    if "lost_share" in data:
        for dim in data["lost_share"].dims:
            share = data["lost_share"].over(np.nanmean, (dim,))
            values = [f"{data.label(dim, k)}: {s:.0%}" for k, s in enumerate(share.values) if np.isfinite(s)]
            shown = values if len(values) <= 8 else [*values[:4], "...", *values[-4:]]
            lines.append(f"lost by {dim}: " + ", ".join(shown))
    return "\n".join(lines)


def write(store, folder, over=None, by=None, metrics=None, svg=False, style="page", data=None):
    """Write index.html, with its figures in it, and the figures, cells.csv and summary.json; returns their paths.

    over: names of the two axes of heat maps, by default the first two of more than one value
    by: name of the axis whose values are curves, by default the first
    metrics: names, by default all that are numbers; svg: whether figures are written as SVG too, besides PNG
    style: of figures, "page" or "paper"; data: `cells(store)`, where they are at hand
    Needs matplotlib. Raises SpecError for names that the sweep does not have.
    """
    folder = Path(folder)
    data, progress = cells(store) if data is None else data, store.progress()
    names = _chosen(metrics, [name.removesuffix("_band") for name in data if name.endswith("_band")], "metric")
    wide = [axis.dim for axis in store.sweep.axes if len(axis) > 1]
    over = list(over) if over else wide[:2]
    for dim in [*over, *([by] if by else [])]:
        _chosen([dim], [axis.dim for axis in store.sweep.axes], "axis")
    if len(over) > 2 or len(set(over)) < len(over):
        raise SpecError(f"report: heat maps are over two axes, {over} given")
    by = by or (over[0] if over else None)
    folder.mkdir(parents=True, exist_ok=True)
    with look.style(style):
        figures = {"maps": _maps(data, over, names)} if len(over) == 2 else {}
        figures |= {"curves": _curves(data, by, names, store.sweep.replicas), "survival": _survival(data, by)}
        kinds = ("png", "svg") if svg else ("png",)
        drawn = {name: _drawn(figure, kinds) for name, figure in figures.items() if figure}
    paths = []
    for name, figure in drawn.items():
        for kind, content in figure.items():
            paths.append(folder / f"{name}.{kind}")
            with whole(paths[-1]) as file:
                file.write(content)
    for name, content in (("cells.csv", _csv(data, names)), ("summary.json", _json(store, data, progress, names)),
                          ("index.html", _page(store, progress, drawn, data, names))):
        paths.append(folder / name)
        with whole(paths[-1]) as file:
            file.write(content.encode())
    return paths


def _chosen(given, legal, what):
    for name in given or ():
        if name not in legal:
            raise SpecError(f"report: there is no {what} {name!r}, there are {', '.join(legal) or 'none'}"
                            + near(name, legal))
    return list(given) if given else legal


def cells(store):
    """Cells over the axes: lost_share, survival [step], and of each metric NAME_band [quantile, step]: 10, 50, 90 %.

    By the workers' reductions, or from the records where those have none of it. What is missing is NaN.
    """
    kinds = {one.name: one for one in store.sweep.reductions}
    data, coords = labelled(store, allow_incomplete=True)
    metrics = [metric.name for metric in next(iter(store.groups.values())).run.metrics]
    exact = "quantiles" in kinds and set(BAND) <= set(kinds["quantiles"].at)
    out = {name: data[name] for name in ("lost_share", "survival") if name in data}
    for name in metrics:
        if exact and f"{name}_quantiles" in data:
            dims, a = data[f"{name}_quantiles"]
            out[f"{name}_band"] = dims, a[..., [kinds["quantiles"].at.index(q) for q in BAND], :]
    lacks = [name for name in metrics if f"{name}_band" not in out]
    if lacks and all(one.stride == 1 for one in store.layouts.values()):
        records = store.open(allow_incomplete=True)
        for name in lacks:
            record = records[name]
            if record.dims[-2:] == ("replica", "step") and record.size <= LARGEST:
                a = record.values
                band = reduce.quantiles(a.reshape(-1, *a.shape[-2:]), BAND)
                out[f"{name}_band"] = (*record.dims[:-2], "quantile", "step"), band.reshape(*a.shape[:-2], 3, -1)
    return Cells(out, coords | {"quantile": np.array(BAND)})


def _middle(array, kept):
    """The median over all axes but some, NaN left out."""
    return array.over(np.nanmedian, kept)


def _maps(data, over, names):
    """Heat maps over two axes: the share lost, and each metric's median at the last saved step."""
    across, up = over
    share = data.get("lost_share")
    panels = [] if share is None else [("share lost", share.over(np.nanmean, over))]
    panels += [(f"{name}, median at the end", _middle(data[f"{name}_band"].at(quantile=MEDIAN, step=-1), over))
               for name in names]
    if not panels:
        return None
    columns = min(3, len(panels))
    figure, axes = canvas(-(-len(panels) // columns), columns, 4.4, 3.7)
    for axis, (title, array) in zip(axes, panels, strict=False):
        _map(figure, axis, array.turned(up, across), title, data.label, title == "share lost")
    for axis in axes[len(panels):]:
        axis.remove()
    rest = [axis for axis, size in next(iter(data.values())).sizes.items()
            if size > 1 and axis not in (*over, "quantile", "step")]
    if rest:
        figure.suptitle(f"medians (of shares: means) over {', '.join(rest)}", fontsize=9)
    return figure


def _map(figure, axis, array, title, label, share):
    from matplotlib.colors import LogNorm

    values = array.values.astype(float)
    there = values[np.isfinite(values)]
    log = not share and len(there) and there.min() > 0 and there.max() > 30 * there.min()
    norm = LogNorm(there.min(), there.max()) if log else None
    ends = {"vmin": 0, "vmax": 1} if share else {}
    axis.set_facecolor("#d9d9d9")  # where there is nothing: lost or missing
    image = axis.imshow(values, origin="lower", aspect="auto", cmap="cividis", norm=norm, interpolation="nearest",
                        **({} if log else ends))
    bar = figure.colorbar(image, ax=axis, pad=0.02)
    if log:
        _plain_ticks(bar.ax.yaxis)
    for dim, place, labels in ((array.dims[1], axis.set_xticks, axis.set_xlabel),
                               (array.dims[0], axis.set_yticks, axis.set_ylabel)):
        n = array.sizes[dim]
        at = np.unique(np.linspace(0, n - 1, min(n, 6)).round().astype(int))
        place(at, [label(dim, k) for k in at], fontsize=8, **({"rotation": 30} if dim == array.dims[1] else {}))
        labels(dim)
    axis.set_title(title, fontsize=10)


def _plain_ticks(axis):
    """Powers of ten alone have labels."""
    from matplotlib.ticker import LogLocator, NullLocator

    axis.set_major_locator(LogLocator(numticks=8))
    axis.set_minor_locator(NullLocator())


def _values(data, dim):
    """Places on an axis that are drawn as curves: as many as there are colours, evenly spread."""
    n = data.sizes.get(dim, 1)
    return np.unique(np.linspace(0, n - 1, min(n, len(COLOURS))).round().astype(int))


def _against_steps(axis, data):
    """The look of a panel against the step, whose places are returned; its logarithm where steps are saved by that."""
    if "step" not in data.coords:
        axis.set_xlabel("saved step, number")
        return np.arange(data.sizes["step"])
    steps = data.coords["step"][1]
    axis.set_xlabel("step")
    if len(steps) > 4 and 0 < 10 * steps[len(steps) // 2] < steps[-1]:
        axis.set_xscale("symlog", linthresh=steps[steps > 0][0])
    return steps


def _curves(data, by, names, replicas):
    """Each metric against the step: a curve a value of `by`, with a band."""
    if not names:
        return None
    columns = min(3, len(names))
    figure, axes = canvas(-(-len(names) // columns), columns, 4.6, 3.9)
    for axis, name in zip(axes, names, strict=False):
        steps = _against_steps(axis, data)
        band, ends = data[f"{name}_band"], []
        for colour, k in zip(COLOURS, _values(data, by) if by else [None], strict=False):
            own = _middle(band if k is None else band.at(**{by: k}), ("quantile", "step")).values
            ends += [own[np.isfinite(own)].min(initial=np.inf), own[np.isfinite(own)].max(initial=0)]
            axis.fill_between(steps, own[0], own[2], color=colour, alpha=0.18, linewidth=0)
            few = _few(data, by, k, replicas, len(steps))
            axis.plot(steps, np.where(few, np.nan, own[1]), color=colour, linewidth=1.8,
                      label=None if k is None else data.label(by, k))
            axis.plot(steps, np.where(few, own[1], np.nan), ":", color=colour, linewidth=1.2)
        if 0 < 30 * min(ends) < max(ends):
            axis.set_yscale("log")
            _plain_ticks(axis.yaxis)
        axis.set_ylabel(name)
        axis.grid(alpha=0.2)
    for axis in axes[len(names):]:
        axis.remove()
    if by:
        figure.legend(*axes[0].get_legend_handles_labels(), title=by, loc="outside right upper", frameon=False,
                      fontsize=8)
    rest = [dim for dim in data[f"{names[0]}_band"].dims if dim not in (by, "quantile", "step")]
    figure.suptitle(f"line: median, band: 10 to 90 % over the survivors of a cell; dotted: fewer than {FEWEST} are left"
                    + (f"; medians of these over {', '.join(rest)}" if rest else ""), fontsize=9)
    return figure


def _few(data, by, k, replicas, count):
    """Whether [S] so few of a cell's networks are left at a saved step that their median says nothing."""
    if "survival" not in data:
        return np.zeros(count, bool)
    own = data["survival"] if k is None else data["survival"].at(**{by: k})
    return _middle(own, ("step",)).values * replicas < FEWEST


def _survival(data, by):
    """The share of networks that are not lost against the step."""
    if "survival" not in data:
        return None
    figure, axes = canvas(1, 1, 5.6, 3.6)
    steps = _against_steps(axes[0], data)
    for colour, k in zip(COLOURS, _values(data, by) if by else [None], strict=False):
        own = data["survival"] if k is None else data["survival"].at(**{by: k})
        axes[0].plot(steps, own.over(np.nanmean, ("step",)).values, color=colour, linewidth=1.8,
                     drawstyle="steps-post", label=None if k is None else data.label(by, k))
    axes[0].set_ylabel("share of networks not lost")
    axes[0].set_ylim(-0.02, 1.02)
    axes[0].grid(alpha=0.2)
    if by:
        figure.legend(title=by, loc="outside right upper", frameon=False, fontsize=8)
    return figure


def _drawn(figure, kinds):
    """{"png": bytes, "svg": bytes} of a figure."""
    look.shrunk(figure)
    out = {}
    for kind in kinds:
        buffer = io.BytesIO()
        figure.savefig(buffer, format=kind, dpi=look.dpi(110))
        figure.set_layout_engine("none")  # places have been found, which takes longest
        out[kind] = buffer.getvalue()
    return out


def _table(data, names):
    """(headings, rows) of the cells: values of the axes, share lost, each metric's 10, 50 and 90 % at the end."""
    some = data["lost_share"] if "lost_share" in data else data[f"{names[0]}_band"].at(quantile=0, step=-1)
    dims = some.dims
    columns = [name for name, (dim, _) in data.coords.items() if dim in dims]
    heads = [*columns, "lost_share", *(f"{name}_{q:.0%}".replace("%", "") for name in names for q in BAND)]
    ends = [data[f"{name}_band"].at(step=-1).turned(*dims, "quantile").values for name in names]
    share = data["lost_share"].values if "lost_share" in data else np.full(some.values.shape, np.nan)
    values = [(dims.index(data.coords[name][0]), data.coords[name][1]) for name in columns]
    rows = ([*(v[index[axis]] for axis, v in values), share[index], *(x for end in ends for x in end[index])]
            for index in np.ndindex(*some.values.shape))
    return heads, rows


def _csv(data, names):
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    heads, rows = _table(data, names)
    writer.writerow(heads)
    writer.writerows([[_plain(x) for x in row] for row in rows])
    return buffer.getvalue()


def _plain(x):
    x = x.item() if isinstance(x, np.generic) else x
    return "" if isinstance(x, float) and not np.isfinite(x) else x


def _json(store, data, progress, names):
    last = {name: _ends(data[f"{name}_band"].at(quantile=MEDIAN, step=-1).values) for name in names}
    share = {"lost_share": _ends(data["lost_share"].values)} if "lost_share" in data else {}
    return json.dumps({"progress": asdict(progress), "axes": {axis.dim: len(axis) for axis in store.sweep.axes},
                       "replicas": store.sweep.replicas, "store": store.fingerprint, "seed": store.sweep.base.seed,
                       "median_at_the_end": last, **share}, indent=1) + "\n"


def _ends(values):
    there = values[np.isfinite(values)]
    return {"min": float(there.min()), "median": float(np.median(there)), "max": float(there.max()),
            "cells": int(there.size)} if there.size else {"cells": 0}


PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 72em; margin: 2em auto; padding: 0 1em; color: #222; }}
img {{ max-width: 100%; }} pre {{ background: #f4f4f4; padding: .8em; overflow: auto; }}
table {{ border-collapse: collapse; font-size: 13px; }} td, th {{ padding: .15em .7em; text-align: right; }}
tr:nth-child(even) {{ background: #f4f4f4; }}
</style></head><body><h1>{title}</h1><pre>{progress}</pre>{figures}<h2>Cells</h2>{table}
<h2>The run that all cells share</h2><pre>{run}</pre></body></html>
"""
TITLES = {"maps": "Over two axes", "curves": "Against the step", "survival": "Survival"}


def _page(store, progress, drawn, data, names):
    figures = "".join(f'<h2>{TITLES[name]}</h2><img alt="{TITLES[name]}" src="data:image/png;base64,'
                      f'{base64.b64encode(figure["png"]).decode()}">' for name, figure in drawn.items())
    heads, rows = _table(data, names)
    some = [row for row, _ in zip(rows, range(200), strict=False)]
    body = "".join("<tr>" + "".join(f"<td>{html.escape(_short(x))}</td>" for x in row) + "</tr>" for row in some)
    table = f"<table><tr>{''.join(f'<th>{html.escape(str(h))}</th>' for h in heads)}</tr>{body}</table>" + (
        "<p>The first 200; all of them are in cells.csv.</p>" if len(some) == 200 else "")
    return PAGE.format(title=html.escape(store.path.name), progress=html.escape(str(progress)), figures=figures,
                       table=table, run=html.escape(repr(store.sweep.base)))


def _short(x):
    x = _plain(x)
    return f"{x:.4g}" if isinstance(x, float) else str(x)
