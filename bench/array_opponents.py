"""Owns the opponents that compile array code: JAX's jit(vmap(scan)), and numba's njit with prange over networks."""

import numpy as np

from .opponents import Provider
from .peak import Absent


class Jax(Provider):
    """jit(vmap(scan)) of a step differentiated by jax.grad, the loop unrolled 1 or 8 times."""

    name, variants = "jax", ("unroll 1", "unroll 8")

    def __init__(self, cores):
        super().__init__(cores)
        try:
            import jax
        except ImportError as error:
            raise Absent(f"jax is not installed ({error})") from None
        jax.config.update("jax_enable_x64", True)  # for the cases in float64; arrays keep the dtype they come with
        self.jax = jax

    def versions(self):
        import jaxlib

        return {"jax": self.jax.__version__, "jaxlib": jaxlib.__version__}

    def prepare(self, case, N, T, variant, options):
        jax = self.jax
        jnp = jax.numpy
        X, y = jnp.asarray(case.data.X), jnp.asarray(case.data.y)
        eta, factor = X.dtype.type(case.step_size), X.dtype.type(case.factor)

        def predict(w, x):
            if case.kind == "diagonal":
                return x @ (w["u"] * w["v"])
            for W, b in case.layers:
                x = x @ w[W].T + (w[b] if b else 0)
                x = jax.nn.relu(x) if W != case.layers[-1][0] else x
            return x[:, 0]

        def loss(w, i):
            x, label = (X, y) if case.batch is None else (X[i], y[i])
            return factor * ((predict(w, x) - label) ** 2).mean()

        def step(w, i):
            return jax.tree.map(lambda a, g: a - eta * g, w, jax.grad(loss)(w, i)), None

        def train(w, order):
            return jax.lax.scan(step, w, order, unroll=int(variant.split()[1]))[0]

        many = jax.jit(jax.vmap(train))
        start = {name: jnp.asarray(a) for name, a in case.model.unflatten(case.start(N)).items()}
        order = jnp.asarray(case.order(N, T).astype(np.int32))
        return lambda: jax.block_until_ready(many(start, order))

    def answer(self, out, case):
        return np.concatenate([np.asarray(out[name]).reshape(len(out[name]), -1) for name in case.model.shapes()],
                              axis=1)


def _diagonal(W, X, y, order, eta, T):
    """Networks [N, 2d] by batches order [N, T, B], all samples if B is 0."""
    for k in prange(len(W)):  # noqa: F821 - numba's own, put into this function's globals below
        d, B = X.shape[1], order.shape[2]
        count = B if B else len(X)
        w, g = W[k], np.zeros(X.shape[1], X.dtype)
        for t in range(T):
            if count > 1:
                g[:] = 0
            for b in range(count):
                x = X[order[k, t, b] if B else b]
                s = X.dtype.type(0)
                for j in range(d):
                    s += w[j] * w[d + j] * x[j]
                r = eta * (s - y[order[k, t, b] if B else b])
                if count > 1:
                    for j in range(d):
                        g[j] += r * x[j]
                else:
                    for j in range(d):
                        u, v, e = w[j], w[d + j], r * x[j]
                        w[j], w[d + j] = u - e * v, v - e * u
            if count == 1:
                continue
            for j in range(d):
                u, v = w[j], w[d + j]
                w[j], w[d + j] = u - g[j] * v, v - g[j] * u


def _dense(W, X, y, order, eta, T, sizes, bias):
    """Networks [N, P] of layers sizes [L + 1], bias [L] whether each has one; batches as above.

    A layer's weights are [fan, width] here, so that every inner loop runs along the units and can be vectorised.
    """
    for k in prange(len(W)):  # noqa: F821
        B, L = order.shape[2], len(sizes) - 1
        count, zero = B if B else len(X), X.dtype.type(0)
        w = W[k]
        g = w if count == 1 else np.empty_like(w)  # a lone sample's derivatives go straight to the weights
        a, delta = np.empty(sizes.sum(), X.dtype), np.empty(sizes.sum(), X.dtype)
        for t in range(T):
            if count > 1:
                g[:] = 0
            for b in range(count):
                i = order[k, t, b] if B else b
                for q in range(sizes[0]):
                    a[q] = X[i, q]
                at, base = 0, 0
                for l in range(L):  # noqa: E741
                    fan, width = sizes[l], sizes[l + 1]
                    top = base + fan
                    for j in range(width):
                        a[top + j] = w[at + fan * width + j] if bias[l] else zero
                    for q in range(fan):
                        from_q, row = a[base + q], at + q * width
                        for j in range(width):
                            a[top + j] += w[row + j] * from_q
                    if l < L - 1:
                        for j in range(width):
                            a[top + j] = max(a[top + j], zero)
                    at += fan * width + (width if bias[l] else 0)
                    base = top
                delta[base] = -eta * (a[base] - y[i])
                for l in range(L - 1, -1, -1):  # noqa: E741
                    fan, width = sizes[l], sizes[l + 1]
                    at -= width * fan + (width if bias[l] else 0)
                    top, base = base, base - fan
                    if l:
                        for q in range(fan):
                            s, row = zero, at + q * width
                            for j in range(width):
                                s += delta[top + j] * w[row + j]
                            delta[base + q] = s if a[base + q] > 0 else zero
                    for q in range(fan):
                        from_q, row = a[base + q], at + q * width
                        for j in range(width):
                            g[row + j] += from_q * delta[top + j]
                    if bias[l]:
                        for j in range(width):
                            g[at + fan * width + j] += delta[top + j]
            if count > 1:
                for p in range(len(w)):
                    w[p] += g[p]


def _two_layer(W1, b1, w2, b2, X, y, order, eta, T, bias1, bias2):
    """Networks W1 [N, d, h], b1 [N, h], w2 [N, h], b2 [N]: arrays of their own, whose inner loops numba vectorises."""
    for k in prange(len(W1)):  # noqa: F821
        d, h, B = W1.shape[1], W1.shape[2], order.shape[2]
        count, zero = B if B else len(X), X.dtype.type(0)
        z, e = np.empty(h, X.dtype), np.empty(h, X.dtype)
        G1, g1, g2 = np.empty((d, h), X.dtype), np.empty(h, X.dtype), np.empty(h, X.dtype)
        for t in range(T):
            G1[:], g1[:], g2[:] = zero, zero, zero
            g0 = zero
            for b in range(count):
                i = order[k, t, b] if B else b
                for j in range(h):
                    z[j] = b1[k, j]
                for q in range(d):
                    x = X[i, q]
                    for j in range(h):
                        z[j] += W1[k, q, j] * x
                s = b2[k]
                for j in range(h):
                    z[j] = max(z[j], zero)
                    s += w2[k, j] * z[j]
                r = eta * (s - y[i])
                g0 += r
                for j in range(h):
                    e[j] = r * w2[k, j] if z[j] > 0 else zero
                if count > 1:
                    for j in range(h):
                        g2[j] += r * z[j]
                        g1[j] += e[j]
                    for q in range(d):
                        x = X[i, q]
                        for j in range(h):
                            G1[q, j] += e[j] * x
                else:
                    for j in range(h):
                        w2[k, j] -= r * z[j]
                    if bias1:
                        for j in range(h):
                            b1[k, j] -= e[j]
                    for q in range(d):
                        x = X[i, q]
                        for j in range(h):
                            W1[k, q, j] -= e[j] * x
            if count > 1:
                for j in range(h):
                    w2[k, j] -= g2[j]
                if bias1:
                    for j in range(h):
                        b1[k, j] -= g1[j]
                for q in range(d):
                    for j in range(h):
                        W1[k, q, j] -= G1[q, j]
            if bias2:
                b2[k] -= g0


class Numba(Provider):
    """The loops written out, compiled by numba, networks spread over threads; exact or fast arithmetic."""

    name, variants = "numba", ("exact", "fastmath")

    def __init__(self, cores):
        super().__init__(cores)
        try:
            import numba
        except ImportError as error:
            raise Absent(f"numba is not installed ({error})") from None
        self.numba, self.made = numba, {}
        globals()["prange"] = numba.prange

    def versions(self):
        return {"numba": self.numba.__version__}

    def prepare(self, case, N, T, variant, options):
        loop = _diagonal if case.kind == "diagonal" else _two_layer if len(case.layers) == 2 else _dense
        if (loop, variant) not in self.made:
            self.made[loop, variant] = self.numba.njit(parallel=True, fastmath=variant == "fastmath")(loop)
        made, eta = self.made[loop, variant], np.dtype(case.dtype).type(2 * case.factor * case.step_size / case.samples)
        job = case.data.X, case.data.y, case.order(N, T), eta, T
        if loop is _two_layer:
            return self.two_layer(made, case, N, job)
        start, more = case.start(N), ()
        if loop is _dense:
            shapes = case.model.shapes()
            more = (np.array([case.model.d, *(shapes[W][0] for W, _ in case.layers)]),
                    np.array([b is not None for _, b in case.layers]))
            start = turned(case, start)

        def run():
            W = start.copy()
            made(W, *job, *more)
            return W

        return run

    @staticmethod
    def two_layer(made, case, N, job):
        """The loop over arrays of their own; W1 is turned so that inner loops run along the units."""
        params, (_, b1), (_, b2) = case.model.unflatten(case.start(N)), *case.layers
        W1 = np.ascontiguousarray(params["W1"].swapaxes(1, 2))  # [N, d, h]
        bias1 = np.ascontiguousarray(params[b1]) if b1 else np.zeros((N, W1.shape[2]), W1.dtype)
        bias2 = np.ascontiguousarray(params[b2][:, 0]) if b2 else np.zeros(N, W1.dtype)
        start = W1, bias1, np.ascontiguousarray(params["W2"][:, 0]), bias2

        def run():
            arrays = [a.copy() for a in start]
            made(*arrays, *job, b1 is not None, b2 is not None)
            return arrays

        return run

    def answer(self, out, case):
        if isinstance(out, list):
            W1, b1, W2, b2 = out
            named = {"W1": W1.swapaxes(1, 2), "b1": b1, "W2": W2, "b2": b2}
            return np.concatenate([named[name].reshape(len(W2), -1) for name in case.model.shapes()], axis=1)
        return out if case.kind == "diagonal" else turned(case, out, back=True)


def turned(case, flat, back=False):
    """Parameters [N, P] of dense networks with every weight matrix transposed."""
    columns, at = [], 0
    for shape in case.model.shapes().values():
        size = int(np.prod(shape))
        part = flat[:, at:at + size]
        if len(shape) == 2:
            part = part.reshape(-1, *(shape[::-1] if back else shape)).swapaxes(1, 2).reshape(len(flat), size)
        columns.append(part)
        at += size
    return np.ascontiguousarray(np.concatenate(columns, axis=1))


PROVIDERS = {p.name: p for p in (Jax, Numba)}
