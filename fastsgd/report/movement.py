"""Owns the figure of neurons that move in the plane, with the teacher's directions."""

import numpy as np

from . import look
from .figure import described, lost_of
from .look import COLOURS, canvas, write


def draw(data, path):
    """Draw to `path`. data: nets, each with curve, start [h, 2], replay and orders (w [N, h, 2], mass [N, h]); teacher
    [m, 2]; measures; near (degrees)."""
    nets, teacher = data["nets"], data["teacher"]
    across = len(nets) + 1
    figure, axes = canvas(2, across, 3.9, 3.9)
    ends = np.concatenate([net["start"] for net in nets] + [_seen(*net[what]) for net in nets
                                                            for what in ("replay", "orders")])
    low, high = ends.min(axis=0), ends.max(axis=0)
    middle, reach = (low + high) / 2, 0.55 * (high - low).max()
    for k, (net, measure) in enumerate(zip(nets, data["measures"], strict=True)):
        curve, colour = net["curve"], COLOURS[k]
        top, under = axes[k], axes[across + k]
        for axis in (top, under):
            _teacher(axis, teacher, np.abs(middle).max() + reach)
        w, mass = (a[0] for a in net["replay"])
        for start, end in zip(net["start"], w, strict=True):
            top.plot(*np.stack([start, end]).T, color="0.7", linewidth=0.6)
        top.plot(*net["start"].T, "o", color="0.55", markersize=3, label="start")
        top.scatter(*w.T, s=8 + 600 * mass, color=colour, alpha=0.6, linewidth=0, label="end, area: |a_j| ||w_j||")
        lost = "" if curve.replay_lost < 0 else f", lost at step {curve.replay_lost}"
        top.set_title(f"{described(curve.run)}\nthe authors' order{lost}: {measure['aligned']['replay'][0]:.0%} of the "
                      f"mass\nwithin {data['near']:g} degrees of the teacher", fontsize=9)
        many, weight = net["orders"]
        gone = int((curve.lost >= 0).sum())
        if len(many):
            under.scatter(*many.reshape(-1, 2).T, s=2 + 600 * weight.reshape(-1), color=colour, linewidth=0,
                          alpha=max(0.06, min(0.6, 2 / len(many))))
            share = np.median(measure["aligned"]["orders"])
            under.set_title(f"{len(many)} of {len(curve.lost)} other orders, {gone} were lost\n"
                            f"median {share:.0%} of the mass near the teacher", fontsize=9)
        else:
            under.text(0.5, 0.5, f"all {gone} other orders\nwere lost", transform=under.transAxes, ha="center",
                       va="center", color="0.4")
        for axis in (top, under):
            axis.set_xlim(middle[0] - reach, middle[0] + reach)
            axis.set_ylim(middle[1] - reach, middle[1] + reach)
            axis.set_aspect("equal")
            axis.ticklabel_format(useOffset=False)
            axis.label_outer()
        under.set_xlabel("first weight")
    for axis in (axes[0], axes[across]):
        axis.set_ylabel("second weight")
    curves = [net["curve"] for net in nets]
    look.survival(axes[-1], curves[0].steps[-1], lost_of(curves))
    look.legend(figure, axes[len(nets):across], axes[0].get_legend_handles_labels()[0])
    figure.suptitle("S8: rows of W1 at the start and at the end, above in the authors' order, below in the others that "
                    "survive; dashed rays: the teacher's three directions", fontsize=10)
    write(figure, path)


def _seen(w, mass):
    """Ends [., 2] of the neurons that make up a hundredth of a net or more."""
    return w[mass >= 0.01]


def _teacher(axis, teacher, reach):
    for w in teacher / np.linalg.norm(teacher, axis=1, keepdims=True):
        axis.plot(*np.stack([0 * w, 2 * reach * w]).T, "--", color="black", linewidth=0.8)
