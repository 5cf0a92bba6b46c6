"""Owns the toy systems of the paper "SGD with Large Step Sizes Learns Sparse Features": data, start, order, schedule.

Source: Andriushchenko, Varre, Pillaud-Vivien, Flammarion, ICML 2023, arXiv 2210.05337, and the authors' code and
stored outputs (github.com/tml-epfl/sgd-sparse-features, commit 656cb0d). Everything here is rebuilt from the facts of
that code; inputs, starts and sample orders are the authors' draws. The start and data of the ReLU systems
came out of torch's generator in float32 and are stored in `paper_start.npz`.

Small-step runs come out as printed: diagonal ones to ten digits, ReLU ones (float32 in the original) to four or five.
Large-step runs amplify last-bit differences, in some settings until the run is lost: their printed numbers are single
survivors and can be compared in size only.
"""

import math
from dataclasses import field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import SpecError
from ..spec.check import dtype_name, frozen
from ..spec.problem import Dataset
from ..spec.record import Record, record


@record()
class PaperRun(Record):
    """One curve of a figure: its update rule, its step sizes and the numbers the authors report for it.

    step of update t = eta_t, t = 0 .. T-1, with t* = int(decay_at * T):
        warm-up (warmup_factor F, warmup_power q): eta_t = step_size (1 + (F - 1) (t / T)^q) for t <= t*, eta_t* after
        decay_timing "before": divided by decay_by from t = t* on;  "after": from t = t* + 1 on

    label: str - name of the curve, unique within its system
    rule: "sgd" (one sample an update) or "gd" (all samples, mean loss)
    step_size: float - base step, > 0
    decay_at: float or None - fraction of the T updates at which the step is divided, None for never
    decay_by: float - divisor
    decay_timing: "after" (diagonal nets) or "before" (ReLU nets)
    warmup_factor, warmup_power: float or None - F and q above, None for no warm-up
    printed: dict - the reported numbers, after `PaperSystem.printed_at` updates unless the name says otherwise:
        train, test (losses), norm (of all parameters), l0 (#{|u_j v_j| > 1e-50}), balance (|| |u| - |v| ||_2),
        rank_start, rank_decay, rank_end (Jacobian), sparsity_start, sparsity_end (feature sparsity as a fraction of 1,
        sparsity1_ and sparsity2_ for the hidden layers of S9), nuclear_neurons (nuclear norm of the rows a_j w_j),
        nuclear_features (of the output-weighted activations), active (fraction of non-zero activations),
        pattern_distance, entropy (of the normalised singular values of row-normalised last-layer features on
        `PaperSystem.rank_points`). Digits are given as far as they are known.
    from_plot: tuple of str - the entries of `printed` that were read off a plot, hence good to a few per cent only
    """

    label: str
    rule: str
    step_size: float
    decay_at: float | None = None
    decay_by: float = 1.0
    decay_timing: str = "after"
    warmup_factor: float | None = None
    warmup_power: float | None = None
    printed: dict = field(default_factory=dict, repr=False)
    from_plot: tuple = field(default=(), repr=False)

    def step_sizes(self, steps: int | None) -> Any:
        """The step sizes eta [T] in float64, as the authors' code forms them, for T = `steps` updates."""
        base, t = self.step_size, np.arange(steps)
        eta = np.full(steps, base)
        if self.decay_at is None:
            return eta
        stop = int(self.decay_at * steps)
        if self.warmup_factor is not None:
            eta = base + (self.warmup_factor - 1) * base * (np.minimum(t, stop) / steps) ** self.warmup_power
        return np.where(t >= stop + (self.decay_timing == "after"), eta / self.decay_by, eta)


@record()
class PaperSystem(Record):
    """One figure of the paper: data, start and sample order, which all its runs share, and the runs.

    name, title: str
    data: Dataset - like all arrays float64, or the dtype that `paper` was asked for
    init: dict of arrays - u, v [d] (diagonal) or W1 [h, d], b1 [h], W2 [o, h], b2 [o], ... (ReLU; layers
        without a bias have no entry)
    loss_factor: float - c of the loss mean_i c r_i^2: 0.5 (diagonal) or 1.0 (ReLU)
    steps: int - T, the number of updates
    evaluations [S]: int64, rising - numbers of updates after which the authors evaluate
    printed_at: int - number of updates after which the printed numbers hold, the last of `evaluations`
    rank_points [m, d]: inputs of the Jacobian whose rank is reported, None where it is not
    rank_rtol: float or None - rank = #{sigma > rank_rtol * sigma_max}
    sparsity_threshold: float or None - correlation above which two units count as one in the feature sparsity
    runs: tuple of PaperRun
    teacher: dict of arrays or None - what made the labels: beta [d] (diagonal) or W1 [3, 2], W2 [1, 3], ...
        (teacher-student); None for S4, S5, whose labels are chosen
    """

    name: str
    title: str
    data: Dataset
    init: dict
    loss_factor: float
    steps: int
    evaluations: np.ndarray
    runs: tuple
    order_seed: int
    order_law: str
    rank_points: np.ndarray | None = None
    rank_rtol: float | None = None
    sparsity_threshold: float | None = None
    teacher: dict | None = None

    @property
    def printed_at(self) -> Any:
        """Number of updates after which the printed numbers hold."""
        return int(self.evaluations[-1])

    def order(self) -> Any:
        """The authors' sample indices [T] int64, the same for every SGD run of the system (GD runs use none).

        order_law "randint": one `randint(n)` an update; "choice": one `choice(n, size=1, replace=False)` an update,
        i.e. the first entry of a fresh permutation; both from NumPy's legacy generator seeded with `order_seed`.
        """
        return _order(self.order_law, self.order_seed, self.data.n, self.steps)


@lru_cache(maxsize=16)
def _order(law, seed, n, T):
    generator = np.random.RandomState(seed)
    if law == "randint":
        return frozen(generator.randint(n, size=T, dtype=np.int64))
    return frozen(np.fromiter((generator.permutation(n)[0] for _ in range(T)), np.int64, count=T))


def paper(name: str, dtype: str = "float64") -> PaperSystem:
    """The paper's system `name`, rebuilt.

    name: "S1" (diagonal, SGD), "S2" (diagonal, GD against SGD), "S3" (diagonal, loss surface), "S3b" (its
        animation), "S4" (1-D regression), "S5" (the same, over-regularised), "S7" (two-layer teacher-student) or "S9"
        (three-layer teacher-student)
    dtype: "float32" or "float64" - of data, start and teacher, which are made in float64 and rounded to it
    Returns a PaperSystem. Raises SpecError for another name.
    """
    if not isinstance(name, str) or name not in _SYSTEMS:
        raise SpecError(f"name: {name!r} given, expected one of {', '.join(_SYSTEMS)}")
    system, dtype = _SYSTEMS[name](name), dtype_name(dtype)
    if dtype == "float64":
        return system
    init, teacher = ({key: frozen(a.astype(dtype)) for key, a in (given or {}).items()}
                     for given in (system.init, system.teacher))
    return replace(system, data=system.data.astype(dtype), init=init, teacher=teacher or None)


def _evenly(T, points):
    """The evaluations 0 .. 99 and the rounded points of an even grid on [0, T] without its end."""
    return frozen(np.union1d(np.arange(100), np.round(np.linspace(0, T, points))[:-1]).astype(np.int64))


def _labels(X, beta):
    """<beta, x_i>, each sum correctly rounded, so that the labels carry the same bits on every machine."""
    return np.array([math.fsum(row) for row in X * beta])


def _diagonal(name, title, n, d, nonzero, T, evaluations, runs, order_seed, ranked=False):
    """A diagonal net at u = 0.1, v = 0; X, 1000 test points and beta* drawn in this order by the legacy generator."""
    generator = np.random.RandomState(0)
    X, X_test = generator.standard_normal((n, d)), generator.standard_normal((1000, d))
    beta = generator.standard_normal(d)
    beta[nonzero:] = 0.0
    beta = np.abs(beta) / math.sqrt(math.fsum(beta * beta))
    data = Dataset(X, _labels(X, beta), X_test, _labels(X_test, beta))
    init = {"u": frozen(np.full(d, 0.1)), "v": frozen(np.zeros(d))}
    ranks = (data.X_test[: 2 * d], 1e-15) if ranked else ()
    return PaperSystem(name, title, data, init, 0.5, T, evaluations, runs, order_seed, "randint", *ranks,
                       teacher={"beta": frozen(beta)})


def _relu(name, title, prefix, T, points, runs, order_seed, threshold, grid=None):
    """A ReLU net, stored under `prefix`; rank points: `grid` even ones over the inputs, or the first P test points."""
    with Path(__file__).with_name("paper_start.npz").open("rb") as file:
        stored = {key: value.astype(np.float64) for key, value in np.load(file).items()}
    get = {key.removeprefix(prefix + "_"): frozen(value) for key, value in stored.items() if key.startswith(prefix)}
    data = Dataset(get["X"], get["y"], get.get("Xt"), get.get("yt"))
    init = {key: value for key, value in get.items() if key[0] in "Wb"}
    if grid is None:
        at = data.X_test[: sum(value.size for value in init.values())]
    else:
        at = frozen(np.linspace(data.X.min(), data.X.max(), grid)[:, None])
    teacher = {key[1:]: value for key, value in get.items() if key[0] == "t"} or None
    return PaperSystem(name, title, data, init, 1.0, T, _evenly(T, points), runs, order_seed, "choice", at, 1e-4,
                       threshold, teacher)


def _s1(name):
    def run(label, step, decay, train, test, norm, l0, balance, **ranks):
        ranks = {"rank_start": 200.0, **ranks}
        printed = {"train": train, "test": test, "norm": norm, "l0": l0, "balance": balance, **ranks}
        return PaperRun(label, "sgd", step, *decay, printed=printed, from_plot=tuple(ranks))

    runs = (
        run("0.25", 0.25, (), 1.4216162873995314e-06, 0.003528621943603826, 2.5705361849781974, 200.0,
            0.00016493386927656734, rank_end=200.0),
        run("0.282, 10 %", 0.282, (0.1, 4.8), 6.255816023616457e-05, 0.0006594051602101788, 2.5402884044255885, 156.0,
            8.938165067501848e-24, rank_decay=96.0, rank_end=109.0),
        run("0.282, 30 %", 0.282, (0.3, 3.4), 5.97536626918197e-05, 0.0002847392808476946, 2.537063744381602, 89.0,
            1.0114221995695532e-53, rank_decay=63.0, rank_end=68.0),
        run("0.282, 50 %", 0.282, (0.5, 1.5), 6.698997999358844e-05, 0.00015373111459504016, 2.5375004173407, 71.0,
            4.2494340308983445e-90, rank_decay=56.0, rank_end=58.0))
    evaluations = _evenly(100_001, 250)
    return _diagonal(name, "diagonal linear net, SGD", 80, 200, 20, 100_001, evaluations, runs, 1, ranked=True)


def _s2(name):
    def printed(train, test, l0, norm):
        return {"train": train, "test": test, "l0": l0, "norm": norm}

    runs = (
        PaperRun("GD 2.0", "gd", 2.0, printed=printed(4e-34, 0.168241, 100.0, 2.8749)),
        PaperRun("GD 3.53, 10 %", "gd", 3.53, 0.1, 4.8, printed=printed(1e-31, 0.449, 86.0, 3.43)),
        PaperRun("GD 3.53, 30 %", "gd", 3.53, 0.3, 3.4, printed=printed(1e-31, 0.438, 80.0, 3.32)),
        PaperRun("GD 3.53, 50 %", "gd", 3.53, 0.5, 1.5, printed=printed(1e-31, 0.497, 78.0, 3.47)),
        PaperRun("SGD 0.272, 50 %", "sgd", 0.272, 0.5, 20.0, printed=printed(8.896e-4, 0.0385, 33.0, 2.628)))
    return _diagonal(name, "diagonal linear net, GD against SGD", 40, 100, 20, 100_001, _evenly(100_001, 250), runs, 1)


def _s3(name):
    runs = (
        PaperRun("flow", "gd", 0.03, printed={"train": 4.902335457375223e-06, "test": 0.014909591370857017}),
        PaperRun("GD 3.0", "gd", 3.0, 0.5, 3.0,
                 printed={"train": 1.6436803027068225e-10, "test": 0.12648761921433635}),
        PaperRun("SGD 0.6", "sgd", 0.6, 0.5, 3.0,
                 printed={"train": 3.8729665455897834e-08, "test": 3.982127812000106e-08}))
    return _surface(name, "diagonal linear net, loss surface in a plane", runs, 2)


def _s3b(name):
    # The flow's numbers are those of an older revision of the notebook.
    runs = (
        PaperRun("GD 0.25", "gd", 0.25, printed={"train": 4.4934e-10, "test": 0.0153990}),
        PaperRun("SGD 0.6, 75 %", "sgd", 0.6, 0.75, 1.5))
    return _surface(name, "diagonal linear net, animation of the loss surface", runs, 3)


def _surface(name, title, runs, order_seed):
    # Here alone the authors evaluate after the update of iteration i, so i counts i + 1 updates.
    after = 1 + np.union1d(np.arange(500), np.logspace(0, 4, 201, dtype=np.int64))
    return _diagonal(name, title, 20, 30, 3, 10_001, frozen(after), runs, order_seed)


def _regression(title, constant, results):
    def build(name):
        keys = ("train", "nuclear_features", "active", "pattern_distance",
                "rank_start", "rank_end", "sparsity_start", "sparsity_end")
        runs = tuple(
            PaperRun(label, "sgd", 2e-4, at, by, "before", constant * at, 1.0,
                     printed=dict(zip(keys, values, strict=True)), from_plot=keys[4:])
            for label, at, by, values in results)
        return _relu(name, title, "one", 31_623, 151, runs, 3, 0.999, grid=300)
    return build


def _s7(name):
    keys = ("train", "test", "norm", "nuclear_neurons", "pattern_distance",
            "rank_start", "rank_end", "sparsity_start", "sparsity_end")

    def run(label, step, at, by, *values):
        printed = dict(zip(keys, values, strict=True))
        return PaperRun(label, "sgd", step, at, by, "before", printed=printed, from_plot=keys[5:])

    runs = (
        run("0.13", 0.13, None, 1.0, 1.353839979856275e-05, 0.000609822163823992, 3.3091703270576756,
            1.2837960720062256, 0.07333333045244217, 18.0, 26.0, 0.253, 0.263),
        run("0.455, 10 %", 0.455, 0.1, 2.0, 1.0185355677094776e-05, 0.0001622068084543571, 2.630120505701539,
            1.5292003154754639, 0.3766666650772095, 18.0, 16.0, 0.253, 0.110),
        run("0.455, 30 %", 0.455, 0.3, 4.0, 1.1195015758858062e-05, 0.0001382110349368304, 2.5981035578808527,
            1.531028389930725, 0.3700000047683716, 18.0, 12.0, 0.253, 0.087),
        run("0.455, 50 %", 0.455, 0.5, 5.0, 1.1127009202027693e-05, 5.4106094466988e-05, 2.5883562928618633,
            1.5084540843963623, 0.3566666543483734, 18.0, 7.0, 0.253, 0.063))
    return _relu(name, "two-layer ReLU teacher-student", "two", 14_126, 151, runs, 0, 0.99)


def _s9(name):
    start = {"rank_start": 146.0, "train_start": 3.31, "test_start": 3.73,
             "sparsity1_start": 0.564, "sparsity2_start": 0.518}
    keys = ("train", "test", "entropy", "sparsity1_end", "sparsity2_end", "rank_end")

    def run(label, step, at, by, *values):
        warmup = (None, None) if at is None else (6.0, 0.5)
        printed = {**start, **dict(zip(keys, values, strict=True))}
        return PaperRun(label, "sgd", step, at, by, "before", *warmup, printed, ("rank_end", *start))

    runs = (
        run("0.011", 0.011, None, 1.0, 0.0013713681837543845, 0.061387766152620316, 2.0017507076263428,
            0.570, 0.466, 150.0),
        run("0.04, 10 %", 0.04, 0.1, 3.5, 0.0010971605079248548, 0.03218121454119682, 2.033604621887207,
            0.476, 0.312, 150.0),
        run("0.04, 30 %", 0.04, 0.3, 2.5, 0.0010054792510345578, 0.02477150969207287, 1.7787625789642334,
            0.378, 0.252, 125.0),
        run("0.04, 50 %", 0.04, 0.5, 5.0, 0.0010613595368340611, 0.02057831920683384, 1.270070195198059,
            0.340, 0.182, 102.0))
    return _relu(name, "three-layer ReLU teacher-student", "multi", 10_001, 151, runs, 5, 0.99)


_SYSTEMS = {
    "S1": _s1,
    "S2": _s2,
    "S3": _s3,
    "S3b": _s3b,
    "S4": _regression("1-D regression, two-layer ReLU", 400.0, (
        ("A", 0.02, 2.5, (0.0002085922606056554, 540.21747, 0.4866666667, 0.040833331644535065,
                         100.0, 85.0, 0.25, 0.225)),
        ("B", 0.50, 3.0, (0.00016900205810088664, 22.188341, 0.2666666667, 0.2541666626930237,
                         100.0, 19.0, 0.25, 0.063)))),
    "S5": _regression("1-D regression, two-layer ReLU, over-regularised", 500.0, (
        ("A", 0.02, 2.5, (1.599e-4, 540.18, 0.4867, 0.0408, 100.0, 85.0, 0.25, 0.22)),
        ("B", 0.50, 3.0, (0.2686, 12.73, 0.2217, 0.3042, 100.0, 16.0, 0.25, 0.027)))),
    "S7": _s7,
    "S9": _s9,
}
