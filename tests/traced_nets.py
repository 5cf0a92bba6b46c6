"""Owns networks, losses and penalties of a user's own that tests trace: {name: (function, d, shapes)}."""

import torch
import torch.nn.functional as F


def _attention(p, x):
    tokens = x.reshape(4, 3)
    q, k, v = (tokens @ p[name] for name in ("Q", "K", "V"))
    return (torch.softmax(q @ k.T / 3**0.5, -1) @ v).sum(0) @ p["o"]


def _linear_attention(p, x):
    tokens = x.reshape(4, 3)
    return ((tokens @ p["Q"]) @ ((tokens @ p["K"]).T @ tokens) / 4)[-1] @ p["o"]


def _gru(p, x):
    h = torch.zeros(3, dtype=x.dtype)
    for k in range(3):
        z, r = (torch.sigmoid(p[f"{name}x"] @ x[2 * k:2 * k + 2] + p[f"{name}h"] @ h) for name in "zr")
        h = (1 - z) * h + z * torch.tanh(p["nx"] @ x[2 * k:2 * k + 2] + r * (p["nh"] @ h))
    return h.sum() + p["c"]


def _conv(p, x):
    h = F.relu(F.conv1d(x.reshape(1, 2, 6), p["K"], p["c"], padding=1))
    return F.avg_pool1d(h, 2).flatten() @ p["o"]


def _conv2(p, x):
    h = torch.tanh(F.conv2d(x.reshape(1, 4, 4), p["K"], stride=2, groups=1))
    return F.max_pool2d(h, 1).flatten() @ p["o"] + F.max_pool1d(x.reshape(1, 16), 4).sum() * p["c"]


def _embedding(p, x):
    return p["E"][x[:2].trunc().long().clamp(0, 4)].mean(0) @ p["o"] + p["E"].gather(
        1, (x[2:3].trunc().long().clamp(0, 2)).expand(5, 1)).sum()


def _padded(p, x):
    z = F.pad(p["w"] * x, (1, 2))
    return (z.cumsum(0) * torch.arange(8.0)).sum() + torch.cat([p["w"].flip(0), x.roll(1)]).prod() + (
        torch.tril(torch.outer(p["w"], x)).sum())


def _chosen(p, x):
    z = p["W"] @ x
    return torch.where(z > 0.1, z.exp(), -z).masked_fill(z > 1, 0.5).max(-1).values + torch.maximum(z, p["b"]).sum(
        ) + z.clamp(-0.3, 0.4).norm() + z.amin() + torch.minimum(z, p["b"]).std()


NETS = {  # name: (function, d, shapes)
    "sine": (lambda p, x: p["W2"] @ torch.sin(p["W1"] @ x + p["b1"]), 2, {"W1": (20, 2), "b1": 20, "W2": 20}),
    "gated": (lambda p, x: p["a"] @ ((p["W"] @ x) * torch.sigmoid(p["V"] @ x)), 5,
              {"W": (8, 5), "V": (8, 5), "a": 8}),
    "two_outputs": (lambda p, x: p["W2"] @ F.gelu(p["W1"] @ x + p["b"]), 3, {"W1": (7, 3), "b": 7, "W2": (2, 7)}),
    "diagonal": (lambda p, x: (p["u"]**2 - p["v"]**2) @ x, 9, {"u": 9, "v": 9}),
    "hermite": (lambda p, x: p["a"] @ ((z := p["W"] @ x)**3 - 3 * z) / 6**0.5, 4, {"W": (6, 4), "a": 6}),
    "layer_norm": (lambda p, x: p["a"] @ F.relu(F.layer_norm(p["W"] @ x, (6,), p["g"], p["c"])), 4,
                   {"W": (6, 4), "a": 6, "g": 6, "c": 6}),
    "attention": (_attention, 12, {"Q": (3, 3), "K": (3, 3), "V": (3, 3), "o": 3}),
    "linear_attention": (_linear_attention, 12, {"Q": (3, 3), "K": (3, 3), "o": 3}),
    "gru": (_gru, 6, {**{f"{n}x": (3, 2) for n in "zrn"}, **{f"{n}h": (3, 3) for n in "zrn"}, "c": ()}),
    "conv": (_conv, 12, {"K": (3, 2, 3), "c": 3, "o": 9}),
    "conv2": (_conv2, 16, {"K": (2, 1, 2, 2), "o": 8, "c": ()}),
    "embedding": (_embedding, 3, {"E": (5, 3), "o": 3}),
    "padded": (_padded, 5, {"w": 5}),
    "chosen": (_chosen, 4, {"W": (5, 4), "b": 5}),
    "tied": (lambda p, x: torch.relu(p["W"].T @ (p["W"] @ x) + p["b"]), 4, {"W": (2, 4), "b": 4}),
    "wide": (lambda p, x: p["c"] @ torch.tanh(p["B"] @ torch.relu(p["A"] @ x)), 3,
             {"A": (70, 3), "B": (5, 70), "c": 5}),
}
LOSSES = {  # name: (function, outputs, shape of a label)
    "huber": (lambda h, y: F.huber_loss(h, y, delta=0.5), 1, ()),
    "huber2": (lambda h, y: F.huber_loss(h, y), 2, (2,)),
    "focal": (lambda h, y: (1 - torch.sigmoid(h * y))**2 * F.softplus(-h * y), 1, ()),
    "cross_entropy": (lambda h, y: F.cross_entropy(h, y.long()), 3, ()),
    "weighted": (lambda h, y: y[0] * (h - y[1])**2, 1, (2,)),
    "logits": (lambda h, y: F.binary_cross_entropy_with_logits(h, (y + 1) / 2), 1, ()),
    "quantile": (lambda h, y: torch.maximum(0.9 * (y - h), 0.1 * (h - y)), 1, ()),
}
