"""Owns runs made at random: every family, rule, order, loss, noise, kind of data and dtype."""

import numpy as np

import fastsgd as fs

M, R, L = fs.models, fs.rules, fs.losses


def _maybe(rng, chance, value):
    return value if rng.random() < chance else None


def _each(rng, N, low, high):
    """A number, or one for each network."""
    return rng.uniform(low, high, N) if rng.random() < 0.4 else float(rng.uniform(low, high))


def model(rng, N):
    """A model; its sizes straddle those of vectors and of the trees of sums."""
    d = int(rng.choice([1, 2, 3, 5, 8, 13, 17, 33]))
    kind = rng.choice(["diagonal", "relu2", "mlp", "product", "power", "autoencoder"], p=[0.2, 0.2, 0.3, 0.1, 0.1, 0.1])
    if kind == "diagonal":
        return M.DiagonalLinear(d, u0=_each(rng, N, 0.1, 0.6), v0=float(rng.uniform(-0.3, 0.3)))
    if kind == "relu2":
        return M.ReLU2(d, int(rng.choice([1, 4, 7, 8, 20, 33])), hidden_bias=bool(rng.random() < 0.5),
                       output_bias=bool(rng.random() < 0.5), W1_scale=0.7)
    if kind == "mlp":
        widths = tuple(int(w) for w in rng.choice([1, 2, 4, 7, 12], rng.integers(0, 4)))
        layers = len(widths) + 1
        bias = bool(rng.random() < 0.5) if rng.random() < 0.6 else tuple(bool(b) for b in rng.random(layers) < 0.5)
        fixed = ("W1",) if widths and rng.random() < 0.2 else ()
        return M.MLP(d, widths, outputs=int(rng.choice([1, 1, 2, 3])), bias=bias, b_scale=0.3, fixed=fixed,
                     activation=str(rng.choice([a for a in M.activations.ACTIVATIONS if a != "square"])),
                     **({"scaling": str(rng.choice(["ntk", "mean_field"]))} if rng.random() < 0.2 else {}))
    if kind == "product":
        return M.DiagonalProduct(d, int(rng.choice([1, 2, 3, 5])), start_at=_each(rng, N, 0.4, 0.8))
    if kind == "power":
        return M.DiagonalPower(d, int(rng.choice([1, 2, 3])), signed=bool(rng.random() < 0.7))
    return M.TiedAutoencoder(d, int(rng.choice([1, 2, 5])), bias=bool(rng.random() < 0.5))


def loss(rng, model):
    """A loss that suits the model's outputs."""
    if model.outputs > 1 and not isinstance(model, M.TiedAutoencoder) and rng.random() < 0.4:
        return L.CrossEntropy(float(rng.choice([0.5, 1.0])))
    if model.outputs == 1 and rng.random() < 0.3:
        return L.Logistic() if rng.random() < 0.6 else L.Hinge()
    return L.Squared(float(rng.choice([0.5, 1.0])))


def labels(rng, model, loss, X):
    """Labels of points X that this model and loss can have."""
    if isinstance(loss, L.CrossEntropy):
        return rng.integers(0, model.outputs, len(X))
    if isinstance(model, M.TiedAutoencoder):
        return X
    y = rng.standard_normal((len(X), model.outputs) if model.outputs > 1 else len(X))
    return np.sign(y) if isinstance(loss, L.Logistic | L.Hinge) else y


def dataset(rng, model, loss, dtype):
    """A Dataset, or what makes samples on the way."""
    if isinstance(loss, L.Squared) and rng.random() < 0.1:
        if isinstance(model, M.TiedAutoencoder):
            return fs.data.Fresh(model.d, inputs="sparse", density=0.3)
        teacher = M.MLP(model.d, 2, outputs=model.outputs, activation="erf")
        return fs.data.Fresh(model.d, teacher, {name: a[0] for name, a in
                                                teacher.unflatten(teacher.start(9, [0])).items()})
    n, n_test = int(rng.choice([1, 2, 5, 7, 16, 40])), 4
    X = rng.standard_normal((n + n_test, model.d)) / np.sqrt(model.d)
    y = labels(rng, model, loss, X)
    return fs.Dataset(X[:n], y[:n], X[n:], y[n:]).astype(dtype)


def rule(rng, model, N, T, n):
    """A rule with some of its fields set."""
    common = {"weight_decay": _each(rng, N, 0, 0.2) if rng.random() < 0.3 else 0.0,
              "normalised": bool(rng.random() < 0.1), "average": _maybe(rng, 0.2, _each(rng, N, 0.1, 0.9)),
              "gradient_noise": _maybe(rng, 0.15, fs.GradientNoise(_each(rng, N, 0.05, 0.3), str(
                  rng.choice(["gaussian", "rademacher"])))),
              "label_noise": _maybe(rng, 0.2, fs.LabelNoise(_each(rng, N, 0.05, 0.3), str(
                  rng.choice(["gaussian", "rademacher"]))))}
    if rng.random() < 0.35:  # what has a loop of its own
        common = {}
    size = int(rng.choice([1, 1, 1, 2, 3, min(n, 8) if n else 4]))
    moved = {"momentum": _each(rng, N, 0.1, 0.9), "nesterov": bool(rng.random() < 0.5)} if rng.random() < 0.3 else {}
    kind = rng.choice(["sgd", "gd", "sam", "adam", "sde", "other"], p=[0.44, 0.18, 0.1, 0.1, 0.06, 0.12])
    if kind == "gd":
        if "label_noise" in common and common["label_noise"] is None and rng.random() < 0.2:
            common["label_noise"] = fs.LabelNoise(0.3, on="one")
        return R.GD(**moved, **common)
    if kind == "sam":
        return R.SAM(rho=_each(rng, N, 0.02, 0.2), batch_size=_maybe(rng, 0.7, size), **moved, **common,
                     per_sample=bool(rng.random() < 0.3), unit=bool(rng.random() < 0.7))
    if kind == "adam":
        return R.Adam(batch_size=_maybe(rng, 0.7, size), decoupled=bool(rng.random() < 0.5), epsilon=1e-3, **common)
    if kind == "other":
        size = _maybe(rng, 0.7, size)
        made = (R.SignSGD, R.Lion, R.RMSProp, R.Adagrad)[int(rng.integers(4))]
        more = {"epsilon": 1e-3} if made in (R.RMSProp, R.Adagrad) else moved if made is R.SignSGD else {}
        return made(batch_size=size, **more, **common)
    if kind == "sde":
        common.pop("label_noise", None)
        return R.SDE(sgd_step=0.1, loss_level=_each(rng, N, 0.1, 0.5), **common)
    return R.SGD(batch_size=size, **moved, **common)


def beside(rng, rule, model, N):
    """The rule with some of what came later: clipping, numbers of each parameter, a point to stay near, heavy tails."""
    if rng.random() < 0.7:
        return rule
    names, more = list(model.shapes()), {}
    if rng.random() < 0.4:
        more |= {"clip_norm": _each(rng, N, 0.1, 2), "clip_value": _maybe(rng, 0.5, _each(rng, N, 0.05, 1))}
    if rng.random() < 0.4:
        more |= {"step_scale": {str(name): _each(rng, N, 0, 2) for name in rng.choice(names, rng.integers(1, 3))}}
    if rng.random() < 0.3:
        more |= {"weight_decay": {names[-1]: _each(rng, N, 0, 0.3)}, "decoupled": bool(rng.random() < 0.5)}
    if rng.random() < 0.3:
        gamma = _each(rng, N, 0, 0.5)
        more |= {"localisation": {names[0]: gamma} if rng.random() < 0.5 else gamma}
    if rng.random() < 0.2:
        more |= {"gradient_noise": fs.GradientNoise(0.02, "stable", _each(rng, N, 1.2, 2))}
    if getattr(rule, "nesterov", True) is False and rule.momentum.any():
        more |= {"dampening": _each(rng, N, 0, 1)}
    return type(rule)(**({name: getattr(rule, name) for name in rule.__dataclass_fields__} | more))


def order(rng, rule, N, T, n):
    """A sample order."""
    if rule.full or not n:
        return None
    batch = rule.batch(n)
    choices = [None, None, fs.orders.Common(int(rng.integers(5))), fs.orders.Reshuffle(),
               fs.orders.Reshuffle(int(rng.integers(5))), fs.orders.Reshuffle(drop_last=bool(rng.random() < 0.3)),
               fs.orders.Replay(rng.integers(0, n, (int(rng.choice([1, N])), T, batch)))]
    if batch <= n:
        choices += [fs.orders.PerNetwork(replace=False), fs.orders.Common(1, replace=False)]
    return choices[rng.integers(len(choices))]


def step_size(rng, N, T):
    """A step size small enough that rounding does not grow."""
    kind = rng.random()
    if kind < 0.2:
        return fs.StepTable(rng.uniform(0.01, 0.04, (int(rng.choice([1, N])), T)))
    if kind < 0.6:
        return fs.StepSize(_each(rng, N, 0.01, 0.05), _each(rng, N, 0.2, 0.9), 3.0)
    return _each(rng, N, 0.01, 0.05)


def save(rng, rule, T):
    """Which steps are kept."""
    of = "average" if rule.average is not None and rng.random() < 0.5 else "weights"
    params = bool(rng.random() < 0.3)
    if rng.random() < 0.5:
        return fs.SaveAt(linear=int(rng.integers(1, 7)), params=params, of=of)
    return fs.SaveAt(steps=rng.integers(0, T + 1, int(rng.integers(1, 5))), params=params, of=of)


def random_run(rng, dtype=None, most_steps=130):
    """A Run that can be planned, from a NumPy generator alone."""
    while True:
        N, T = int(rng.integers(1, 41)), int(rng.integers(1, most_steps))
        kind = dtype or str(rng.choice(["float32", "float64"]))
        family = model(rng, N)
        measure = loss(rng, family)
        data = dataset(rng, family, measure, kind)
        made = beside(rng, rule(rng, family, N, T, data.n), family, N)
        metrics = [fs.metrics.ParameterNorm()]
        if data.n:
            metrics += [fs.metrics.TrainLoss(), fs.metrics.TestLoss()]
            if rng.random() < 0.3 and family.P <= 200 and isinstance(family, M.DiagonalLinear | M.ReLU2 | M.MLP):
                metrics.append(fs.metrics.JacobianRank(rtol=1e-4))
        try:
            run = fs.Run(family, data, made, step_size(rng, N, T), T, networks=N, order=order(rng, made, N, T, data.n),
                         loss=measure, save=save(rng, made, T), metrics=metrics, dtype=kind, backend="cpu",
                         seed=int(rng.integers(2**40)))
            fs.plan(run)
        except (fs.SpecError, fs.PlanError, fs.BackendUnavailable):
            continue
        return run


def described(run):
    """A line that says what a run is."""
    r = run.rule
    extras = [name for name in ("momentum", "label_noise", "gradient_noise", "average", "normalised")
              if np.any(getattr(r, name, None) is not None and getattr(r, name, None))]
    return (f"{type(run.model).__name__} P={run.model.P}, {type(r).__name__} {'+'.join(extras) or 'plain'}, "
            f"{type(run.loss).__name__}, {type(run.order).__name__}, {type(run.data).__name__} n={run.data.n}, "
            f"N={run.networks}, T={run.steps}, {run.dtype}")
