"""Owns network-steps a second on a card of the Triton backend beside CUDA, for each of the paper's systems."""

import numpy as np

import fastsgd as fs

from .gpu import fitted

M, R = fs.models, fs.rules
SYSTEMS = {  # {system: (model, n, rule, step size)}, then wide networks
    "S1 diagonal d=200": (M.DiagonalLinear(200), 80, R.SGD(), 0.01),
    "S2 diagonal d=100, GD": (M.DiagonalLinear(100), 40, R.GD(), 0.01),
    "S3 diagonal d=30": (M.DiagonalLinear(30), 20, R.SGD(), 0.01),
    "S4 ReLU 1-100-1": (M.ReLU2(1, 100, output_bias=False), 12, R.SGD(), 1e-4),
    "S7 ReLU 2-20-1": (M.ReLU2(2, 20, hidden_bias=False, output_bias=False), 15, R.SGD(), 0.01),
    "S9 ReLU 5-10-10-1": (M.MLP(5, (10, 10)), 50, R.SGD(), 0.01),
    "wide ReLU 10-512-1": (M.ReLU2(10, 512), 100, R.SGD(), 1e-3),
    "wide ReLU 10-128-128-1": (M.MLP(10, (128, 128)), 100, R.SGD(), 1e-3),
}


def request(system, backend, networks, steps, dtype):
    """The Run of a system."""
    model, n, rule, eta = SYSTEMS[system]
    rng = np.random.default_rng(0)
    data = fs.Dataset(rng.standard_normal((n, model.d)) / model.d**0.5, rng.standard_normal(n)).astype(dtype)
    return fs.Run(model, data, rule, eta, steps, networks=networks, dtype=dtype, backend=backend)


def rate(system, backend, networks, steps, dtype, target):
    """Network-steps a second of training, when everything is compiled, of as many steps as `target` seconds take."""
    def trained(T):
        return fs.train(request(system, backend, networks, T, dtype)).provenance

    T = fitted(lambda T: trained(T)["seconds"]["training"], steps, target)
    provenance = trained(T)
    return provenance["network_steps"] / max(provenance["seconds"]["training"], 1e-4)


def rates(backends=("cuda", "triton"), systems=tuple(SYSTEMS), networks=100_000, steps=2000, dtype="float32",
          target=1.0):
    """{system: {backend: network-steps a second, or why there is none}}."""
    out = {}
    for system in systems:
        for backend in backends:
            try:
                value = rate(system, backend, networks, steps, dtype, target)
            except fs.BackendUnavailable as error:
                value = str(error)
            out.setdefault(system, {})[backend] = value
    return out


def text(table):
    """The table of `rates`, a line a system."""
    def cell(value):
        return value if isinstance(value, str) else f"{value:.3g} network-steps/s"

    return "\n".join(f"{system}: " + "; ".join(f"{backend} {cell(value)}" for backend, value in row.items())
                     for system, row in table.items())


if __name__ == "__main__":
    for dtype in ("float32", "float64"):
        for system in SYSTEMS:  # each as soon as it is known
            print(f"{dtype}, {text(rates(systems=(system,), dtype=dtype))}", flush=True)
