"""Owns Saad and Solla 1995: online learning in soft committee machines, simulated and by their closed equations."""

import numpy as np

from ... import metrics, models, rules
from ...data import Fresh
from ...spec.save import SaveAt
from ...train import train
from ..record import Reproduction, Verdict
from .page import COLOURS, FEW, columns, draw_band, number, sheet

NAME = "saad1995"
TITLE = "Online learning in soft committee machines (Saad and Solla 1995, Phys. Rev. E 52, 4225)"

D, UNITS = 200, 2
ETAS = (0.3, 0.5, 1.0, 1.5)
CHECKED = 4000  # fresh inputs of the Monte Carlo estimate
PLATEAU = 20.0  # eta alpha at which the plateau is looked at
FLOOR = 1e-9  # of the figure
LEARNT = 1e-3  # generalisation error below which the plateau (about 0.012) is left


def make(replicas=None, seed=0, progress=None, quick=False):
    """Four step sizes x `replicas` sample orders (8) from one start, alpha = t / d up to 1000; if quick 2 x 2, 400."""
    orders, d, alpha = (replicas or 2, D // 2, 400) if quick else (replicas or 8, D, 1000)
    rng = np.random.default_rng(seed)
    scaling = ((2 * d) ** -0.5, 1.0)  # erf(w . x / sqrt(2 d)), and output weights of one that stay
    model = models.MLP(d, UNITS, activation="erf", bias=False, scaling=scaling, fixed=("W2",))
    teacher, start = _weights(rng, d)
    ones = np.ones((1, UNITS))
    X = rng.standard_normal((CHECKED, d))
    y = model.forward({"W1": teacher, "W2": ones}, X)
    etas = ETAS[2:] if quick else ETAS
    result = train(model, Fresh(d, model, {"W1": teacher, "W2": ones}, X_test=X, y_test=y), rule=rules.SGD(),
                   step_size=np.repeat(etas, orders), steps=alpha * d, init={"W1": start, "W2": ones}, dtype="float64",
                   seed=seed, progress=progress, save=SaveAt(linear=201),
                   metrics=(metrics.GeneralisationError(teacher), metrics.TestLoss(), metrics.Overlaps(),
                            metrics.TeacherOverlaps(teacher)))
    record = {name: a.reshape(len(etas), orders, *a.shape[1:]) for name, a in result.records.items()}
    time = result.steps / d
    curves = np.array([equations(start @ start.T / d, start @ teacher.T / d, eta, time) for eta in etas])
    found = {"d": d, "etas": etas, "time": time, "limit": curves, "lost": int((~result.survived).sum())} | record
    return Reproduction(NAME, TITLE, _table(found), _verdicts(found), {"online": result},
                        lambda path: _draw(found, path))


def _weights(rng, d):
    """Orthogonal teacher rows of length sqrt(d), and student rows nearly without overlap with them; both [UNITS, d]."""
    teacher = np.linalg.qr(rng.standard_normal((d, UNITS)))[0].T * np.sqrt(d)
    student = np.array([[0.6], [0.3]]) * rng.standard_normal((UNITS, d))
    student = student - student @ teacher.T @ teacher / d
    return teacher, student + 1e-2 * rng.standard_normal((UNITS, UNITS)) @ teacher


def equations(Q, R, eta, time):
    """Generalisation error [S] at times alpha = t / d [S] of the limit d -> infinity, by Runge and Kutta of order 4.

    dR_in = eta <delta_i y_n>,  dQ_ik = eta <delta_i x_k + delta_k x_i> + eta^2 <delta_i delta_k>, with the averages
    over Gaussian fields in closed form (their equations (9)-(12), appendix).
    """
    error, h = np.empty(len(time)), 0.25
    state = np.block([[Q, R], [R.T, np.eye(len(R))]])  # covariance of student and teacher fields
    now, K = 0.0, len(Q)
    for s, until in enumerate(time):
        steps = max(1, int(np.ceil((until - now) / h))) if until > now else 0
        for _ in range(steps):
            dt = (until - now) / steps
            k1 = _slope(state, K, eta)
            k2 = _slope(state + dt / 2 * k1, K, eta)
            k3 = _slope(state + dt / 2 * k2, K, eta)
            state = state + dt / 6 * (k1 + 2 * k2 + 2 * k3 + _slope(state + dt * k3, K, eta))
        now, c = until, np.diag(state)
        sign = np.where(np.arange(len(c)) < K, 1.0, -1.0)
        kernel = 2 / np.pi * np.arcsin(state / np.sqrt((1 + c[:, None]) * (1 + c)))
        error[s] = sign @ kernel @ sign / 2
    return error


def _slope(C, K, eta):
    """d/d alpha of the covariance C [2K, 2K] of the fields."""
    c = np.diag(C)
    sign = np.where(np.arange(len(c)) < K, -1.0, 1.0)  # the error is teacher minus student
    third = three(C, c)  # [i, k, m] = <g'(z_i) z_k g(z_m)>
    moved = np.einsum("ikm,m->ik", third[:K], sign)
    squared = np.einsum("ijkl,k,l->ij", four(C, c, K), sign, sign)
    out = np.zeros_like(C)
    out[:K, :K] = eta * (moved[:, :K] + moved[:, :K].T) + eta**2 * squared
    out[:K, K:] = eta * moved[:, K:]
    out[K:, :K] = out[:K, K:].T
    return out


def three(C, c):
    """<g'(z_i) z_k g(z_m)> [i, k, m] for g(z) = erf(z / sqrt 2) and fields of covariance C, variances c."""
    one = 1 + c
    root = np.sqrt(one[:, None] * one - C**2)  # [i, m]
    return 2 / np.pi * (C[None] * one[:, None, None] - C[:, :, None] * C[:, None, :]) / (one[:, None] * root)[:, None]


def four(C, c, K):
    """<g'(z_i) g'(z_j) g(z_k) g(z_l)> [i, j, k, l] for students i, j < K and all k, l."""
    ci, cj = (1 + c[:K])[:, None, None, None], (1 + c[:K])[None, :, None, None]
    ij = C[:K, :K, None, None]
    ik, il = C[:K, None, :, None], C[:K, None, None, :]
    jk, jl = C[None, :K, :, None], C[None, :K, None, :]
    det = ci * cj - ij**2
    cross = det * C[None, None] - jk * jl * ci - ik * il * cj + ij * (ik * jl + il * jk)
    first, second = (det * own - a**2 * ci - b**2 * cj + 2 * ij * a * b
                     for own, a, b in (((1 + c)[:, None], jk, ik), (1 + c, jl, il)))
    return 4 / np.pi**2 / np.sqrt(det) * np.arcsin(np.clip(cross / np.sqrt(first * second), -1, 1))


def _plateau(found):
    """Index [E] of the saved alpha nearest to PLATEAU / eta."""
    return [int(np.argmin(np.abs(found["time"] - PLATEAU / eta))) for eta in found["etas"]]


def _left(time, error):
    """alpha at which an error [..., S] is below LEARNT for the first time, NaN if never."""
    below = error < LEARNT
    return np.where(below.any(axis=-1), time[below.argmax(axis=-1)], np.nan)


def _table(found):
    rows = []
    for k, (eta, s) in enumerate(zip(found["etas"], _plateau(found), strict=True)):
        error, left = found["generalisation_error"][k], _left(found["time"], found["generalisation_error"][k])
        rows.append((f"{eta:g}", np.median(error[:, 0]), np.median(error[:, s]), np.median(left),
                     float(_left(found["time"], found["limit"][k])), np.median(error[:, -1])))
    orders = found["generalisation_error"].shape[1]
    return columns(TITLE, ("eta", "error at start", f"at alpha = {PLATEAU:g} / eta", "plateau left at alpha",
                           "by the equations", "error at the end"), rows,
                   f"{UNITS} erf units learn {UNITS}, d={found['d']}, fresh Gaussian inputs, loss 1/2 r^2, output "
                   f"weights one, alpha = t / d up to {found['time'][-1]:g}.",
                   f"Medians over {orders} sample orders from one start (lost: {found['lost']}). Plateau left: first "
                   f"saved alpha with an error below {LEARNT:g}.",
                   "Equations: the closed ones of the limit d -> infinity, from the same overlaps.")


def _verdicts(found):
    error, time, etas = found["generalisation_error"], found["time"], np.array(found["etas"])
    monte = found["test_loss"]
    big = error > 1e-4
    off = np.abs(monte[big] / error[big] - 1)
    left = np.nanmedian(_left(time, error), axis=1)
    Q, R = found["overlaps"], found["teacher_overlaps"]
    late = np.abs(R[:, :, -1])
    early, plateau = (np.array([a[k, :, s] for k, s in enumerate(_plateau(found))]) for a in (R, error))
    spread = np.abs(early[..., 0] - early[..., 1]).max()
    match = np.sort(late, axis=-1)
    limit = np.array([float(_left(time, curve)) for curve in found["limit"]])
    slow = left * etas
    return (
        Verdict("the closed form from overlaps is the error on fresh inputs", bool(np.median(off) < 0.05),
                f"median |Monte Carlo / closed form - 1| {np.median(off):.3g} with {CHECKED} inputs"),
        Verdict("first a symmetric plateau, on which no unit prefers a teacher unit", bool(spread < 0.25),
                f"at alpha {PLATEAU:g} / eta the overlaps with the two teacher units differ by at most {spread:.3g}, "
                f"and the error is {number(plateau.min())} to {number(plateau.max())}"),
        Verdict("then specialisation: every unit takes one teacher unit and the error vanishes",
                bool((match[..., 1] > 0.9).all() and (match[..., 0] < 0.1).all() and (error[..., -1] < LEARNT).all()),
                f"at the end |R| is {match[..., 1].min():.3f} or more with its own teacher unit, at most "
                f"{match[..., 0].max():.3f} with the other; |Q - 1| at most "
                f"{np.abs(np.diagonal(Q[:, :, -1], axis1=-2, axis2=-1) - 1).max():.2g}"),
        Verdict("a larger learning rate leaves the plateau earlier", bool((np.diff(left) < 0).all()),
                f"alpha {', '.join(f'{a:g}' for a in left)} at eta {', '.join(f'{e:g}' for e in etas)}; times eta "
                f"{', '.join(f'{a:.0f}' for a in slow)}"),
        Verdict("the closed equations give the plateau's length", bool((np.abs(left / limit - 1) < 0.3).all()),
                f"by them alpha {', '.join(f'{a:g}' for a in limit)}"))


def _draw(found, path):
    orders, time = found["generalisation_error"].shape[1], found["time"]
    note = (f"d = {found['d']}; median and 10 to 90 % over {orders} sample orders, {found['lost']} runs lost; "
            f"{FEW}; left, dashed: equations of the limit d -> infinity")
    shown = len(found["etas"]) // 2
    with sheet(path, 2, TITLE, note) as axes:
        for k, (eta, colour) in enumerate(zip(found["etas"], COLOURS, strict=False)):
            error = found["generalisation_error"][k]
            draw_band(axes[0], time, np.maximum(error, FLOOR), colour, label=f"learning rate eta = {eta:g}")
            limit = found["limit"][k]
            axes[0].plot(time, np.maximum(limit, FLOOR), "--", color=colour, linewidth=1)
        for i in range(UNITS):
            for n in range(UNITS):
                axes[1].plot(time, found["teacher_overlaps"][shown, 0, :, i, n], "--" if i else "-", color=COLOURS[n],
                             label=f"unit {i + 1}, teacher unit {n + 1}")
        axes[0].set(yscale="log", xlabel="alpha = t / d", ylabel=f"generalisation error (above {FLOOR:g})")
        axes[1].set(xlabel="alpha = t / d", ylabel=f"overlap R, one order, eta = {found['etas'][shown]:g}")
        for axis in axes:
            axis.legend(frameon=False, fontsize=8)
