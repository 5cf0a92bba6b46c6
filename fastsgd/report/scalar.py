"""Owns the figure of loss stabilisation in one dimension: iterates, level, and the threshold of random samples."""

import numpy as np

from .look import COLOURS, canvas, write


def draw(data, path):
    """Draw to `path`. data: g [G], a [starts, G, tail], lost [starts, G], loss [starts, G], level(g), doubling,
    spread_g [H], exponent [H], final [orders, H], gone [orders, H]."""
    figure, axes = canvas(1, 3, 4.6, 4.4)
    _iterates(axes[0], data)
    _level(axes[1], data)
    _random(axes[2], data)
    figure.suptitle("S15: a <- a + g a (1 - a^2),  a = theta / theta*,  g = 2 eta x^2 theta*^2", fontsize=11)
    write(figure, path)


def _iterates(axis, data):
    g = np.repeat(data["g"], data["a"].shape[2])
    for a in data["a"]:
        axis.plot(g, a.reshape(-1), ",", color=COLOURS[0], alpha=0.5)
    _marks(axis, data)
    axis.set_xlabel("g")
    axis.set_ylabel("a over the last updates")
    axis.set_title("iterates: fixed point, 2-cycle, doubling, chaos, escape", fontsize=9)


def _level(axis, data):
    g, ok = data["g"], data["lost"] < 0
    cycle = (g > 1) & (g < data["doubling"])
    for k in range(len(ok)):
        axis.plot(g[ok[k]], np.maximum(data["loss"][k, ok[k]], 0), ".", color=COLOURS[0], markersize=3, alpha=0.6)
    axis.plot(g[cycle], data["level"](g[cycle]), color=COLOURS[3], linewidth=2, label="(1 - 1/g^2) / 2")
    axis.plot([], [], ".", color=COLOURS[0], label="trained, each start")
    _marks(axis, data)
    axis.set_xlabel("g")
    axis.set_ylabel("mean of (a^2 - 1)^2")
    axis.set_title(f"level of the loss; {int((~ok).sum())} of {ok.size} networks lost, all at "
                   f"g >= {g[(~ok).any(axis=0)].min():.4g}", fontsize=9)
    axis.legend(frameon=False, fontsize=8)


def _marks(axis, data):
    for at, label in ((1.0, "1"), (data["doubling"], "sqrt5 - 1"), (2.0, "2")):
        axis.axvline(at, color="0.6", linewidth=0.8, linestyle=":")
        axis.text(at, 1.0, f" {label}", transform=axis.get_xaxis_transform(), fontsize=7, color="0.4", va="top")


def _random(axis, data):
    g, stays = data["spread_g"], ((data["final"] > 1e-20) & ~data["gone"]).mean(axis=0)
    axis.plot(g, stays, color=COLOURS[0], label="orders whose loss stays up")
    axis.plot(g, data["gone"].mean(axis=0), color=COLOURS[3], label="orders lost")
    axis.plot(g, data["exponent"], color="0.3", linestyle="--", linewidth=1, label="E log |1 - 2 g_i|")
    axis.axhline(0, color="0.7", linewidth=0.8)
    axis.set_xlabel("mean g of three samples")
    axis.set_ylabel("share of orders; exponent")
    axis.set_title(f"random samples, {len(data['final'])} orders", fontsize=9)
    axis.legend(frameon=False, fontsize=8)
