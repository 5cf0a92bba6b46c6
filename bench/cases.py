"""Owns the list of what is measured: the systems, the opponents, the claims and their goals."""

from dataclasses import dataclass
from functools import cached_property
from math import prod

import numpy as np

import fastsgd as fs

SEED = 0
CHECK_STEPS = 64  # few enough that float32 trajectories have not parted, enough that a wrong draw shows
CHECKED = 64  # networks of a case whose answers are compared, spread over all N


@dataclass(frozen=True, eq=False)
class Case:
    """N networks of one family on one data set, each with its own sample order.

    model, data: as fs.train takes them, data in `dtype`
    step_size: stable, so that answers can be compared
    N: networks in the table of opponents
    batch: samples a step, None for all of them; factor c: the loss is c r^2
    lost_step_size: every run with it is lost within a few steps; None where that is not measured
    init: start shared by all networks, None to draw each its own
    tolerance: largest legal relative error of the displacement w(T) - w(0) of any network after CHECK_STEPS steps
    compiled: whether fastsgd takes a loop compiled for the run, as a long run's plan does; None leaves it to the plan
    """

    name: str
    title: str
    model: object
    data: object
    step_size: float
    N: int = 1024
    batch: int | None = 1
    dtype: str = "float32"
    factor: float = 0.5
    lost_step_size: float | None = None
    init: dict | None = None
    tolerance: float = 1e-3
    compiled: bool | None = None

    @cached_property
    def _starts(self):
        return {}

    @property
    def key(self):
        """How other processes are told: by its name if it is on the list, else whole."""
        return self.name if CASES.get(self.name) is self else self

    @property
    def kind(self):
        """"diagonal" or "dense"."""
        return "diagonal" if type(self.model) is fs.models.DiagonalLinear else "dense"

    @property
    def layers(self):
        """Names of the parameters of a dense network, [(weight, bias or None)] from the inputs on."""
        names = self.model.shapes()
        return [(W, b if b in names else None) for W, b in ((f"W{k}", f"b{k}") for k in range(1, len(names) + 1))
                if W in names]

    @property
    def samples(self):
        """Samples in one step."""
        return self.data.n if self.batch is None else self.batch

    def start(self, N):
        """Starting weights [N, P] of networks 0 .. N-1, the same for every provider."""
        if N not in self._starts:
            flat = (self.model.start(SEED, np.arange(N)) if self.init is None else
                    np.repeat(self.model.flatten(self.init, 1), N, axis=0))
            self._starts[N] = flat.astype(self.dtype)
        return self._starts[N]

    def order(self, N, T):
        """Sample indices [N, T, B] int64 that fastsgd draws for networks 0 .. N-1: what the opponents are given."""
        if self.batch is None:
            return np.zeros((N, T, 0), dtype=np.int64)
        return fs.orders.PerNetwork().indices(SEED, np.arange(N), 0, T, self.data.n, self.batch).reshape(N, T, -1)

    def run(self, N, T, lost="none", **fields):
        """The fs.Run of this case; lost="half" gives every second network a step size that loses it."""
        step = self.step_size if lost == "none" else np.where(np.arange(N) % 2, self.lost_step_size, self.step_size)
        rule = fs.rules.GD() if self.batch is None else fs.rules.SGD(batch_size=self.batch)
        fields = {"init": self.model.unflatten(self.start(N)), "seed": SEED, "networks": N, "dtype": self.dtype,
                  "loss": fs.losses.Squared(self.factor)} | fields
        return fs.Run(self.model, self.data, rule, step_size=step, steps=T, **fields)

    def loss(self, f, y):
        """Mean over a batch, of predictions and labels [B] that are tensors."""
        return self.factor * ((f - y) ** 2).mean()

    def checked(self, N):
        """Which networks' answers are compared, [M]."""
        return np.unique(np.linspace(0, N - 1, min(N, CHECKED)).astype(int))

    def truth(self, N):
        """Weights [M, P] of the checked networks after CHECK_STEPS steps in float64, differentiated by torch.func.

        Start and data are the case's own, widened.
        """
        init = {name: a.astype(np.float64) for name, a in self.model.unflatten(self.start(N)).items()}
        run = self.run(N, CHECK_STEPS, init=init, dtype="float64", backend="reference", ids=self.checked(N)).replace(
            data=self.data.astype("float64"))
        return fs.train(run).weights

    @property
    def flops(self):
        """Floating-point operations of one step of one network, a fused multiply-add being two.

        Diagonal, a sample: u*v (d), <beta, x> (2d), g*x (d), u -= gx*v (2d), v -= gx*u (2d).
        Dense, a sample: 4 a weight (z += w a, w -= delta a), 1 a hidden bias (which starts the sum), and for every
        weight that carries a derivative back 2, or 1 below a single output. Units that are off count like those that
        are on; draws, the output's bias and scalar operations of a step are not counted.
        """
        if self.kind == "diagonal":
            return 8 * self.model.d * self.samples
        shapes = self.model.shapes()
        weights = [prod(shapes[W]) for W, _ in self.layers]
        back = sum(2 * size if shapes[W][0] > 1 else size for size, (W, _) in zip(weights[1:], self.layers[1:],
                                                                                strict=True))
        biases = sum(prod(shapes[b]) for _, b in self.layers[:-1] if b)
        return (4 * sum(weights) + back + biases) * self.samples


def _diagonal(name, n=40, d=30, **more):
    data = fs.data.sparse_regression(n=n, d=d, nonzero=3, seed=SEED).astype("float32")
    how = {None: "full batch", 1: "batch 1"}.get(more.get("batch", 1), f"batch {more.get('batch')}")
    return Case(name, f"DiagonalLinear d={d}, n={n}, {how}", fs.models.DiagonalLinear(d=d), data, 0.02, tolerance=1e-4,
                lost_step_size=50.0, **more)


def _relu2(name, d=10, h=100, n=40, step_size=0.1, **more):
    data = fs.data.teacher_student(n=n, d=d, teacher_width=5, seed=SEED).astype("float32")
    how = {None: "full batch", 1: "batch 1"}.get(more.get("batch", 1), f"batch {more.get('batch')}")
    return Case(name, f"ReLU2 {d}-{h}-1 with biases, n={n}, {how}", fs.models.ReLU2(d=d, width=h), data, step_size,
                lost_step_size=1e3, **more)


def _paper(name, model, title, dtype, step_size, batch=1, **more):
    system = fs.data.paper(name)
    init = system.init if model.d > 5 else None  # the ReLU systems: each network its own start, so that they differ
    data = fs.Dataset(system.data.X, system.data.y).astype(dtype)
    tolerance = {"S1": 1e-9, "S2": 1e-9, "S4": 5e-3}.get(name, 1e-3)  # S4 hardly moves in so few steps
    return Case(name, f"{name}: {title}, {'full batch' if batch is None else 'batch 1'}", model, data, step_size,
                dtype=dtype, batch=batch, factor=system.loss_factor, init=init, tolerance=tolerance, **more)


_m = fs.models
CASES = {case.name: case for case in (
    _diagonal("diagonal"),
    _diagonal("diagonal-batch", batch=8),
    _diagonal("diagonal-full", batch=None),
    _relu2("relu2"),
    _relu2("relu2-batch", batch=8, N=256),
    _relu2("relu2-full", batch=None, N=256),
    _relu2("wide", h=512, N=128, step_size=0.02),
    _paper("S1", _m.DiagonalLinear(200), "DiagonalLinear d=200, n=80, float64", "float64", 0.1, N=512),
    _paper("S2", _m.DiagonalLinear(100), "DiagonalLinear d=100, n=40, float64", "float64", 0.5, batch=None, N=256),
    _paper("S4", _m.ReLU2(1, 100, True, False), "ReLU2 1-100-1, hidden biases, n=12", "float32", 2e-4, N=512),
    _paper("S7", _m.ReLU2(2, 20, False, False), "ReLU2 2-20-1, n=15", "float32", 0.05),
    _paper("S9", _m.MLP(5, (10, 10)), "MLP 5-10-10-1 with biases, n=50", "float32", 0.005),
)}

OPPONENTS = {  # provider: how it is called in tables
    "torch-naive": "PyTorch autograd loop, one network",
    "torch-batched": "PyTorch batched over networks, gradients by hand",
    "torch-compiled": "the same under torch.compile",
    "torch-vmap": "torch.func vmap(grad)",
    "torch-vmap-compiled": "the same under torch.compile",
    "modelbatch": "ModelBatch",
    "jax": "JAX jit(vmap(scan))",
    "numba": "numba njit, prange over networks",
    "steps": "fastsgd, one kernel call a step",
    "torch-graphs": "PyTorch batched in a CUDA graph",
    "fastsgd-cuda": "fastsgd on CUDA",
}
SHORT = {"torch-naive": "torch naive", "torch-batched": "torch batched", "torch-compiled": "batched, compiled",
         "torch-vmap": "torch vmap", "torch-vmap-compiled": "vmap, compiled", "modelbatch": "ModelBatch", "jax": "JAX",
         "numba": "numba", "steps": "own, a call a step", "torch-graphs": "CUDA graphs", "fastsgd-cuda": "fastsgd CUDA"}
QUICK_OPPONENTS = ("torch-naive", "torch-batched", "jax", "numba", "steps", "torch-graphs")

GOALS = {  # (metric, provider): smallest ratio that meets the claim, with the whole band
    ("speed ratio", "torch-naive"): 20_000,
    ("speed ratio", "torch-batched"): 25,
    ("speed ratio", "jax"): 10,
    ("share of peak", "fma-peak"): 0.35,
    ("half lost / none lost", "lanes"): 0.95,  # "not slower": 5 % is what the protocol resolves
    ("half lost / none lost", "team"): 0.95,
    ("memory T / memory 20 T", "fastsgd"): 0.9,
    ("twice training / whole", "fastsgd"): 1,
    ("sparsity ratio", "numpy"): 20,
    ("rank ratio", "numpy"): 10,
    ("rank ratio", "torch"): 10,
    ("rank ratio", "autograd"): 50,
    ("diagonal rank ratio", "numpy"): 30,
    ("diagonal rank ratio", "torch"): 30,
    ("diagonal rank ratio", "autograd"): 50,
    ("stack ratio", "fs.linalg.rank"): None,
    ("rank share of peak", "fma-peak"): None,
}
GOAL_CASES = ("diagonal", "relu2")  # the speed goals are about these two
