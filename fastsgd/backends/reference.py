"""Owns the reference backend: the forward pass differentiated by torch.autograd, one step at a time, on the CPU."""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from ..gradients import of_each
from ..spec import draws
from .base import Backend


@dataclass(eq=False)
class State:
    """weights [N, P] and buffers [N, K, P] torch, lost [N] int64, the plan, and the data as torch tensors."""

    plan: object
    weights: object
    lost: np.ndarray
    buffers: object
    X: object
    y: object


class Reference(Backend):
    """The independent witness: slow, plain, right. Any model with a forward pass runs here."""

    name, slow = "reference", True

    def supports(self, work):
        return None

    def choose(self, work, N, tuning, reserved=None):
        self.refuse(tuning, ("team", "lanes", "isa", "networks", "warps", "compiled"))
        data, P, each = work.run.data, work.P, work.traits["perturb"] == "sample"
        units = P // work.d + work.outputs  # of all layers, at least about so many
        memory = {"state": (8 + 3 * len(work.buffers)) * N * P * work.item,
                  "data": data.X.nbytes + data.y.nbytes if work.n else 0,
                  "samples, and what they leave for their gradients": N * work.batch * work.item * (
                      2 * work.d + 12 * units + 6 * P * each)}
        return replace(tuning, threads=1), memory, ("forward pass differentiated by autograd, one step at a time",)

    def load(self, plan, weights, lost, buffers, reserved=None):
        import torch

        data, dtype = plan.work.run.data, getattr(torch, plan.run.dtype)
        X, y = (torch.tensor(a, dtype=dtype) for a in (data.X, data.y)) if data.n else (None, None)
        return State(plan, torch.tensor(weights), lost.copy(), torch.tensor(buffers), X, y)

    def advance(self, state, segment):
        import torch

        plan = state.plan
        lost, stepper = torch.from_numpy(state.lost), _Stepper(plan, segment)
        samples = _Samples(state, segment)
        for s in range(segment.t1 - segment.t0):
            X, y = samples.at(s)
            weights, buffers, bad = stepper.step(s, state.weights, state.buffers, X, y)
            bad |= ~(weights.isfinite().all(dim=1) & buffers.isfinite().flatten(1).all(dim=1))
            lost[bad & (lost < 0)] = segment.t0 + s
            alive = (lost < 0)[:, None]
            state.weights = torch.where(alive, weights, state.weights)
            state.buffers = torch.where(alive[:, None], buffers, state.buffers)

    def table_bytes(self, plan):
        work = plan.work
        drawn = work.d + work.outputs if work.fresh else not work.full
        return plan.step_bytes + 8 * plan.N * (1 + plan.batch * drawn)

    def lost(self, state):
        return state.lost

    def read(self, state):
        return state.weights.numpy(), state.buffers.numpy()


class _Samples:
    """The samples of a segment's steps: at(s) gives X [N, B, d] and y [N, B] or [N, B, o], noise on labels included."""

    def __init__(self, state, segment):
        self.state, self.segment, self.plan = state, segment, state.plan
        run, plan = self.plan.run, self.plan
        self.draws, self.made = None, segment.samples
        if plan.work.fresh:
            own = () if plan.sets is None else (plan.sets,)  # whose density, scale and teacher each network has
            X = run.data.draw(run.seed, plan.keys, segment.t0, segment.t1, plan.batch, *own)
            rows = X.reshape(*((plan.N, -1) if own else (-1,)), run.data.d)
            y = run.data.labels(rows, *own).reshape(*X.shape[:3], -1)
            self.made = X.astype(run.dtype), (y[..., 0] if run.model.outputs == 1 else y).astype(run.dtype)
        elif self.made is None and not run.rule.full:
            self.draws = self._order(run.rule.batch(run.data.n))

    def _order(self, batch):
        run, plan, segment = self.plan.run, self.plan, self.segment
        order = segment.indices if segment.indices is not None else run.order.indices(
            run.seed, plan.keys, segment.t0, segment.t1, run.data.n, batch)
        return np.broadcast_to(order.astype(np.int64), (plan.N, *order.shape[1:]))

    @cached_property
    def sets(self):
        """(X [N, n, d], y [N, n] or [N, n, o]) of all networks, for full steps."""
        state, plan = self.state, self.plan
        return tuple(a.expand(plan.N, *a.shape) if plan.sets is None else a[plan.sets] for a in (state.X, state.y))

    def at(self, s):
        import torch

        state = self.state
        if self.made is not None:
            X, y = (torch.from_numpy(a[:, s].copy()) for a in self.made)
        elif self.draws is None:
            X, y = self.sets
        else:
            which = torch.from_numpy(self.draws[:, s].copy())
            if self.plan.sets is None:
                X, y = state.X[which], state.y[which]
            else:
                own = torch.from_numpy(self.plan.sets)[:, None]
                X, y = state.X[own, which], state.y[own, which]
        return X, y


class _Stepper:
    """One step of all networks by the plan's rule, in torch."""

    def __init__(self, plan, segment):
        import torch

        self.plan, self.segment, run = plan, segment, plan.work.run
        self.rate = torch.from_numpy(plan.base.astype(run.dtype)[:, None] * segment.multiplier[plan.row])  # [N, steps]
        self.number = {name: torch.from_numpy(a.astype(run.dtype))[:, None] for name, a in plan.numbers.items()}
        self.scale = 1.0
        if plan.each is not None:  # numbers [N, P] in the place of [N, 1]
            each = torch.from_numpy(plan.each.astype(run.dtype).repeat(plan.work.sizes, axis=1))
            self.scale = each[:, :, 0]
            self.number |= {name: each[:, :, k] for k, name in ((1, "weight_decay"), (2, "localisation"))
                            if name in self.number}
        self.trait = plan.work.traits
        self.bound, own = plan.work.bound, run.loss.own()
        if plan.losses is not None:
            self.bound = torch.from_numpy(plan.losses[:, :1].astype(run.dtype))
        lengths, N = run.loss.lengths(), plan.N
        self.loss = {name: torch.from_numpy(np.array(  # numbers of each network's loss
            a[plan.ids] if f"loss.{name}" in lengths else np.broadcast_to(a, (N, *np.shape(a))), run.dtype))
            for name, a in run.loss.numbers().items() if name in own}
        self.sigma = {name: torch.from_numpy(base.astype(run.dtype)[:, None] * segment.noise[name][row])
                      for name, (base, row, _) in plan.noises.items()}
        names = run.model.shapes()
        self.free = torch.cat([torch.full((int(np.prod(shape)),), float(run.model.trained(name)),
                                          dtype=getattr(torch, run.dtype)) for name, shape in names.items()])
        self.penalty = None
        if run.rule.penalty is not None:
            self.penalty = of_each(lambda w: run.rule.penalty.value(run.model.unflatten(w)).reshape(()))
        self.gradient = of_each(self._loss)
        self.at_each = of_each(torch.func.vmap(self._loss, in_dims=(0, 0, 0, None)))  # at a point for each sample

    def _loss(self, weights, x, y, numbers, share=None):
        run = self.plan.work.run
        f, loss = run.model.forward(run.model.unflatten(weights), x), run.loss.having(numbers)
        each = loss.value(f, y, run.model.outputs)
        return each.mean() if share is None else (share * each).sum(), loss.gap(f, y)

    def _label_noise(self, s, shape):
        """Noise [N, *shape] on labels, one item an entry."""
        run, t = self.plan.run, self.segment.t0 + s
        _, draw = draws.NOISES[run.rule.noises()["label_noise"].kind]
        z = draws.items(draw, run.seed, self.plan.keys, t, t + 1, "label_noise", int(np.prod(shape)),
                        **self._alpha("label_alpha"))
        return self._scaled("label_noise", s, z).reshape(-1, *shape)

    def _gradient_noise(self, s):
        """Noise [N, P] on the gradient."""
        run, t, name = self.plan.run, self.segment.t0 + s, "gradient_noise"
        z = draws.noise_vector(run.seed, self.plan.keys, t, run.model.P, run.rule.noises()[name].kind, name,
                               **self._alpha("gradient_alpha"))
        return self.free * self._scaled(name, s, z)

    def _alpha(self, name):
        return {"alpha": self.number[name].double().numpy().ravel()} if name in self.number else {}

    def _scaled(self, name, s, z):
        import torch

        return self.sigma[name][:, s, None] * torch.from_numpy(z.astype(self.plan.run.dtype))

    def _shares(self, s, batch):
        """() where all steps have as many samples, else ([N, B],): 1 over their number where there is one, else 0."""
        import torch

        counts = self.segment.counts
        if counts is None:
            return ()
        counts = np.broadcast_to(counts[:, s, None].astype(np.int64), (self.plan.N, 1))
        share = np.where(np.arange(batch) < counts, 1 / counts, 0.0)
        return (torch.from_numpy(share.astype(self.plan.run.dtype)),)

    def _bad(self, gap, shares):
        """Networks [N] of which a sample is out of bounds."""
        fine = (gap.flatten(1) <= self.bound).reshape(gap.shape)
        fine = fine.flatten(2).all(dim=2) if gap.ndim > 2 else fine
        return ~(fine | (shares[0] == 0) if shares else fine).all(dim=1)

    def _mean_gradient(self, s, weights, X, y):
        """(gradient [N, P], bad [N]) of the mean loss of step s of the segment, perturbed as SAM says."""
        shares = self._shares(s, X.shape[1])
        grad, gap = self.gradient(weights, X, y, self.loss, *shares)
        bad = self._bad(gap, shares)
        if self.trait["perturb"] == "batch":
            grad, gap = self.gradient(weights + self._perturbation(grad), X, y, self.loss, *shares)
            bad |= self._bad(gap, shares)
        elif self.trait["perturb"] == "sample":
            one_x, one_y = X[:, :, None], y[:, :, None]
            at = weights[:, None].expand(-1, X.shape[1], -1)
            own, _ = self.at_each(at, one_x, one_y, self.loss)
            grad, gap = self.at_each(at + self._perturbation(own), one_x, one_y, self.loss)
            bad |= self._bad(gap[:, :, 0], shares)
            grad = (shares[0][:, :, None] * grad).sum(dim=1) if shares else grad.mean(dim=1)
        return grad * self.free, bad

    def _perturbation(self, grad):
        rho = self.number["rho"].reshape(-1, *(1,) * (grad.ndim - 1))
        grad = grad * self.free
        return rho * (_unit(grad) if self.trait["unit"] else grad)

    def step(self, s, weights, buffers, X, y):
        """(weights, buffers, bad) after step s of the segment."""
        if self.plan.work.flows:
            return self._flow(s, weights, buffers, X, y)
        clean, noises = y, self.plan.run.rule.noises()
        one = "label_noise" in noises and noises["label_noise"].on == "one"
        if "label_noise" in noises and not one:
            y = y + self._label_noise(s, y.shape[1:])
        grad, bad = self._mean_gradient(s, weights, X, y)
        if one:
            grad = grad + self._one(s, weights, X, clean)
        if "gradient_noise" in noises:
            grad = grad + self._gradient_noise(s)
        return (*self._update(s, weights, buffers, grad), bad)

    def _flow(self, s, weights, buffers, X, y):
        """The same of gradient flow."""
        import torch

        rule, names = self.plan.run.rule, self.plan.run.rule.buffers()

        def gradient(weights):
            grad, bad = self._mean_gradient(s, weights, X, y)
            if "weight_decay" in self.number:
                grad = grad + self.free * self.number["weight_decay"] * weights
            return grad if self.penalty is None else grad + self.free * self.penalty(weights), bad

        carried = dict(zip(names, buffers.unbind(dim=1), strict=True))
        weights, lost = rule.stretch(gradient, weights, carried, self.number, self.rate[:, s, None])
        return weights, torch.stack([carried[name] for name in names], dim=1), lost

    def _one(self, s, weights, X, y):
        """What label noise on one random sample adds to the gradient."""
        import torch

        run, plan = self.plan.run, self.plan
        t = self.segment.t0 + s
        which = run.order.indices(run.seed, plan.keys, t, t + 1, run.data.n, 1)[:, 0, 0]
        positions, which = torch.arange(plan.N), torch.from_numpy(np.broadcast_to(which, (plan.N,)).copy())
        x, label = X[positions, which][:, None], y[positions, which][:, None]
        noisy = label + self._label_noise(s, label.shape[1:])
        (with_noise, _), (without, _) = (self.gradient(weights, x, one, self.loss) for one in (noisy, label))
        return (with_noise - without) * self.free

    def _update(self, s, weights, buffers, grad):
        import torch

        number, rate, names = self.number, self.rate[:, s, None] * self.scale, self.plan.run.rule.buffers()
        carried = dict(zip(names, buffers.unbind(dim=1), strict=True))
        if self.penalty is not None:
            grad = grad + self.free * self.penalty(weights)
        if "clip_value" in number:
            grad = torch.minimum(torch.maximum(grad, -number["clip_value"]), number["clip_value"])
        if "clip_norm" in number:
            grad = _clipped(grad, number["clip_norm"])
        if "localisation" in number:
            grad = grad + self.free * number["localisation"] * (weights - carried["point"])
        if "weight_decay" in number and not self.trait["decoupled"]:
            grad = grad + self.free * number["weight_decay"] * weights
        if "balance_penalty" in number:
            u, v = weights.chunk(2, dim=1)
            grad = grad + number["balance_penalty"] * torch.cat([u * (u**2 - v**2), -v * (u**2 - v**2)], dim=1)
        if self.trait["normalised"]:
            grad = _unit(grad)
        if "weight_decay" in number and self.trait["decoupled"]:
            weights = weights - rate * number["weight_decay"] * (self.free * weights)
        rule, shapes = self.plan.run.rule, self.plan.run.model.shapes()
        before, moves = dict(carried), self.free > 0
        moved = rule.step(weights, grad, rate, carried, number, self.segment.t0 + s, shapes)
        weights = torch.where(moves, moved, weights)
        carried = {name: torch.where(moves, a, before[name]) for name, a in carried.items()}
        if "average" in number:
            a = number["average"]
            carried["average"] = a * carried["average"] + (1 - a) * weights
        return weights, torch.stack([carried[name] for name in names], dim=1) if names else buffers


def _clipped(grad, most):
    """grad times min(1, most / (|grad| + 1e-6)), the entries of |grad| scaled where their squares leave the range."""
    scaled, scale = _in_range(grad)
    length = scaled.norm(dim=-1, keepdim=True) / scale
    return grad * (most / (length + 1e-6)).clamp(max=1.0)


def _unit(grad):
    """grad over its length; a zero gradient stays zero. It is scaled where its square leaves the dtype's range."""
    grad, _ = _in_range(grad)
    length = grad.norm(dim=-1, keepdim=True)
    return grad * (length > 0) / (length + (length == 0))


def _in_range(grad):
    """(grad times a power of two [N, 1], that power), so that its square is in the dtype's range."""
    import torch

    edge, scale = (2.0**48, 2.0**96) if grad.dtype == torch.float32 else (2.0**384, 2.0**768)
    most = grad.abs().amax(dim=-1, keepdim=True)
    by = torch.ones_like(most).masked_fill(most > edge, 1 / scale).masked_fill(most < 1 / edge, scale)
    return grad * by, by
