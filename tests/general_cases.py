"""Owns the table of requests for the general loop: families, rules, losses, orders, kinds of data; small."""

from functools import cache

import numpy as np

import fastsgd as fs
from fastsgd import orders

D, POINTS, NETWORKS, STEPS = 5, 7, 11, 13
M, R, L = fs.models, fs.rules, fs.losses
RELU, DIAGONAL = M.ReLU2(D, 6), M.DiagonalLinear(D, u0=0.5, v0=0.2)
NET = M.MLP(D, (6, 4), activation="tanh", b_scale=0.3)
EACH = np.linspace(0.1, 0.4, NETWORKS)
TEACHER = M.MLP(D, 2, activation="erf", b_scale=0.5)
TAUGHT = {name: a[0] for name, a in TEACHER.unflatten(TEACHER.start(9, [0])).items()}
MENTOR = M.MLP(D, 2, activation="erf", bias=False)
MENTORED = {name: a[0] for name, a in MENTOR.unflatten(MENTOR.start(9, [0])).items()}
MENTORS = M.MLP(D, 2, outputs=2, activation="leaky", bias=False)
THEY = MENTORS.unflatten(MENTORS.start(9, np.arange(NETWORKS)))


RAGGED = np.where(np.arange(3) < np.random.default_rng(4).integers(1, 4, (NETWORKS, STEPS, 1)),
                  np.random.default_rng(5).integers(0, POINTS, (NETWORKS, STEPS, 3)), -1)


def samples(ids, t0, t1, batch):
    """What a Stream gives: samples that depend on network and step alone."""
    draws = np.array([[np.random.default_rng((i, t)).standard_normal((batch, D + 1)) for t in range(t0, t1)]
                      for i in ids])
    return draws[..., :D], draws[..., D]


FAMILIES = {  # {name: fields of a Run}: one rule, every family
    **{f"mlp_{name}": {"model": M.MLP(D, (6, 4), activation=name, b_scale=0.3, W_scale=0.4, slope=0.2)}
       for name in M.activations.ACTIVATIONS},
    "mlp_square": {"model": M.MLP(D, (6, 4), activation="square", W_scale=0.2)},
    "mlp_linear": {"model": M.MLP(D, ())},
    "mlp_deep": {"model": M.MLP(D, (3, 1, 5, 2), activation="leaky", W_scale=0.8)},
    "mlp_two_outputs": {"model": M.MLP(D, (6, 3), outputs=2, activation="erf")},
    "mlp_bias": {"model": M.MLP(D, (6, 4), bias=(False, True, False), b_scale=0.3)},
    "mlp_ntk": {"model": M.MLP(D, (33, 17), scaling="ntk", b_scale=0.3)},
    "mlp_mean_field": {"model": M.MLP(D, 20, scaling="mean_field"), "rule": R.SGD(momentum=0.5)},
    "mlp_scaling": {"model": M.MLP(D, (6, 4), scaling=(0.5, 2.0, 0.7), W_scale=(0.5, EACH, 0.6))},
    "mlp_fixed": {"model": M.MLP(D, (6, 4), fixed=("W2", "b1"), b_scale=0.3),
                  "rule": R.SGD(weight_decay=0.3, gradient_noise=0.1, momentum=0.5)},
    "product_1": {"model": M.DiagonalProduct(D, 1)},
    "product_3": {"model": M.DiagonalProduct(D, 3, start_at=(0.5, EACH, 0.4))},
    "product_16": {"model": M.DiagonalProduct(D, 16, start_at=0.9)},
    "power_3": {"model": M.DiagonalPower(D, 3, w0=0.6, z0=EACH)},
    "power_unsigned": {"model": M.DiagonalPower(D, 2, signed=False)},
    "power_1": {"model": M.DiagonalPower(D, 1)},
    "autoencoder": {"model": M.TiedAutoencoder(D, 2, b_scale=0.2)},
    "autoencoder_plain": {"model": M.TiedAutoencoder(D, 3, bias=False), "rule": R.SGD(batch_size=3)},
}
RULES = {  # {name: rule}: every rule on two families
    "momentum": R.SGD(momentum=0.9),
    "nesterov": R.SGD(momentum=EACH, nesterov=True, batch_size=3),
    "weight_decay": R.SGD(weight_decay=EACH),
    "normalised": R.SGD(normalised=True),
    "average": R.SGD(average=EACH),
    "everything": R.SGD(batch_size=2, momentum=0.4, nesterov=True, weight_decay=0.2, label_noise=0.1, average=0.5,
                        gradient_noise=0.1, normalised=True),
    "gd": R.GD(momentum=0.5),
    "gradient_noise": R.SGD(gradient_noise=0.2),
    "gradient_signs": R.GD(gradient_noise=fs.GradientNoise(EACH, "rademacher")),
    "label_noise": R.SGD(label_noise=0.3),
    "label_signs": R.SGD(label_noise=fs.LabelNoise(EACH, "rademacher"), batch_size=3),
    "label_schedule": R.SGD(label_noise=fs.StepSize(0.5, decay_at=0.5, decay_by=3)),
    "label_table": R.SGD(label_noise=np.linspace(0, 1, STEPS)[None]),
    "gd_label_noise": R.GD(label_noise=0.4),
    "one_label": R.GD(label_noise=fs.LabelNoise(1.0, on="one")),
    "one_sign": R.GD(label_noise=fs.LabelNoise(EACH, "rademacher", on="one"), momentum=0.5),
    "sam": R.SAM(rho=0.1),
    "sam_batch": R.SAM(rho=EACH, batch_size=3, label_noise=0.3),
    "sam_full": R.SAM(rho=0.1, batch_size=None, momentum=0.5),
    "sam_each": R.SAM(rho=0.1, batch_size=3, per_sample=True),
    "sam_each_full": R.SAM(rho=0.1, batch_size=None, per_sample=True),
    "sam_long": R.SAM(rho=0.1, batch_size=2, unit=False),
    "adam": R.Adam(),
    "adamw": R.Adam(weight_decay=0.1, decoupled=True, batch_size=2, average=0.5, beta1=EACH, beta2=0.9, epsilon=1e-4),
    "adam_full": R.Adam(weight_decay=0.1, batch_size=None),
    "sign": R.SignSGD(batch_size=2, momentum=0.5),
    "lion": R.Lion(weight_decay=0.1, batch_size=3, beta1=EACH),
    "rmsprop": R.RMSProp(average=0.5, epsilon=1e-4),
    "adagrad": R.Adagrad(batch_size=None, epsilon=1e-4),
    "dampening": R.SGD(momentum=0.8, dampening=EACH, batch_size=2),
    "decoupled": R.SGD(momentum=0.5, weight_decay=EACH, decoupled=True),
    "clip": R.SGD(batch_size=3, clip_value=0.3, clip_norm=EACH, gradient_noise=0.1, weight_decay=0.1),
    "clip_value": R.SGD(clip_value=EACH, momentum=0.5),
    "each": R.SGD(batch_size=2, momentum=0.5, weight_decay={"W1": EACH, "W2": 0.3}, step_scale={"W1": 0.5, "b1": EACH}),
    "each_adamw": R.Adam(weight_decay={"W1": 0.2}, decoupled=True, step_scale={"W2": 0, "b1": 2}, average=0.5),
    "near_start": R.SGD(localisation=EACH, gradient_noise=0.3, batch_size=2),
    "near_point": R.GD(momentum=0.5, average=0.8, weight_decay=0.1, localisation=R.Localisation(
        {"W1": 0.5, "b1": EACH}, {"W1": np.full((6, D), 0.2), "b1": np.zeros(6), "W2": np.ones((1, 6)), "b2": [0.1]})),
    "stable": R.SGD(gradient_noise=fs.GradientNoise(0.05, "stable", alpha=EACH + 1.5), batch_size=2),
    "stable_labels": R.SGD(label_noise=fs.LabelNoise(0.1, "stable", alpha=1.0), batch_size=3),
    "muon": R.Muon(batch_size=3, momentum=EACH, weight_decay=0.1),
    "clip_adam": R.Adam(batch_size=2, clip_norm=0.2, weight_decay=0.1, decoupled=True),
    "sde": R.SDE(sgd_step=0.1, loss_level=0.5),
    "sde_schedule": R.SDE(sgd_step=fs.StepSize(0.1, decay_at=0.5, decay_by=4), intensity=1.5,
                          loss_level=np.random.default_rng(1).random((NETWORKS, STEPS))),
}


def own_rule(p, g, state, lr, t, beta):
    """A step that shrinks with time, along a gradient without its mean so far."""
    mean = beta * state["mean"] + (1 - beta) * g
    return p - lr * (g - mean) / (1 + 0.1 * t).sqrt(), {"mean": mean, "seen": state["seen"] + abs(g)}


@cache
def traced_rule():
    """The record of own_rule, made where it is asked for: it imports torch, which other cases need not."""
    return R.Function(own_rule, batch_size=2, state={"mean": EACH, "seen": 0}, constants={"beta": EACH}, average=0.5,
                      weight_decay={"W1": 0.1}, decoupled=True, step_scale={"b2": EACH}, label_noise=0.1)


CASES = {
    **FAMILIES,
    **{f"{name}_relu2": {"model": RELU, "rule": rule} for name, rule in RULES.items()},
    **{f"{name}_diagonal": {"model": DIAGONAL, "rule": RULES[name]}
       for name in ("momentum", "label_noise", "one_label", "sam", "sam_each", "adam", "sde", "everything", "lion",
                    "rmsprop", "dampening", "clip", "clip_value", "near_start", "stable")},
    "muon_net": {"model": FAMILIES["mlp_two_outputs"]["model"], "rule": R.Muon(
        batch_size=None, nesterov=False, step_scale={"b1": 0.2, "W2": EACH}, localisation=0.3, average=0.5,
        clip_norm=1.0)},
    "muon_fixed": {"model": FAMILIES["mlp_fixed"]["model"], "rule": R.Muon()},
    "muon_vectors": {"model": DIAGONAL, "rule": R.Muon(momentum=0.5)},
    "each_fixed": {"model": FAMILIES["mlp_fixed"]["model"], "rule": R.SGD(
        weight_decay={"W1": 0.3, "W2": 0.4}, decoupled=True, localisation={"W2": 0.5, "b2": EACH}, gradient_noise=0.1)},
    "each_diagonal": {"model": DIAGONAL, "rule": R.GD(
        step_scale={"u": 0.5, "v": EACH}, weight_decay=0.2, balance_penalty=0.3, normalised=True)},
    **{f"ragged_{name}": {"model": model, "rule": rule, "order": order} for name, model, rule, order in (
        ("epochs", RELU, R.SGD(batch_size=3), orders.Reshuffle(drop_last=False)),
        ("common", NET, R.SGD(batch_size=4, momentum=0.5, label_noise=0.3), orders.Reshuffle(2, drop_last=False)),
        ("large", DIAGONAL, R.SGD(batch_size=9), orders.Reshuffle(drop_last=False)),
        ("sam", NET, R.SAM(rho=0.2, batch_size=4, label_noise=0.2), orders.Reshuffle(drop_last=False)),
        ("each", RELU, R.SAM(rho=0.2, batch_size=3, per_sample=True), orders.Replay(RAGGED)),
        ("replay", FAMILIES["mlp_two_outputs"]["model"], R.SGD(batch_size=3), orders.Replay(RAGGED)))},
    "dropped": {"model": RELU, "rule": R.SGD(batch_size=3), "order": orders.Reshuffle(drop_last=True)},
    "clip_fixed": {"model": FAMILIES["mlp_fixed"]["model"], "rule": R.GD(clip_norm=0.1, clip_value=0.05)},
    "sam_two_outputs": {"model": FAMILIES["mlp_two_outputs"]["model"],
                        "rule": R.SAM(rho=0.1, batch_size=2, per_sample=True, label_noise=0.2)},
    "one_label_two_outputs": {"model": FAMILIES["mlp_two_outputs"]["model"], "rule": RULES["one_label"]},
    "sam_fixed": {"model": FAMILIES["mlp_fixed"]["model"], "rule": R.SAM(rho=0.3)},
    "balance": {"model": DIAGONAL, "rule": R.GD(balance_penalty=EACH)},
    "squared_weights": {"model": M.MLP(D, 6, outputs=3), "loss": L.Squared(0.5, weights=[1, 2, 0.5])},
    "squared_one_weight": {"model": NET, "loss": L.Squared(weights=[3.0])},
    "logistic": {"model": NET, "loss": L.Logistic(1.5)},
    "logistic_at_zero": {"model": M.DiagonalLinear(D), "loss": L.Logistic(), "rule": R.GD()},
    "hinge": {"model": NET, "loss": L.Hinge(2.0), "rule": R.SGD(batch_size=3)},
    "cross_entropy": {"model": M.MLP(D, 6, outputs=3), "loss": L.CrossEntropy(0.7)},
    "cross_entropy_batch": {"model": M.MLP(D, 6, outputs=4), "loss": L.CrossEntropy(), "rule": R.SGD(batch_size=3)},
    **{f"{name}_{family}": {"model": model, "order": order, "rule": R.SGD(batch_size=3, label_noise=noise)}
       for family, model, noise in (("relu2", RELU, None), ("net", NET, 0.2)) for name, order in {
           "common": orders.Common(4), "distinct": orders.PerNetwork(replace=False),
           "common_distinct": orders.Common(3, replace=False), "reshuffle": orders.Reshuffle(),
           "common_reshuffle": orders.Reshuffle(2),
           "replay": orders.Replay(np.random.default_rng(2).integers(0, POINTS, (NETWORKS, STEPS, 3)))}.items()},
    "one_label_reshuffle": {"model": RELU, "rule": RULES["one_label"], "order": orders.Reshuffle()},
    "one_label_common": {"model": RELU, "rule": RULES["one_label"], "order": orders.Common(5)},
    "average_saved": {"model": RELU, "rule": R.SGD(average=0.9),
                      "save": fs.SaveAt(linear=4, params=True, of="average")},
    "floor": {"model": M.ReLU2(D, 6, W1_scale=EACH), "rule": R.SGD(),
              "save": fs.SaveAt(linear=3, params=True, floor=fs.Floor(20, 0.02))},
    "fresh": {"model": M.MLP(D, 4, activation="erf"), "data": fs.data.Fresh(D, TEACHER, TAUGHT)},
    "fresh_batch": {"model": RELU, "rule": R.SGD(batch_size=3, label_noise=0.1),
                    "data": fs.data.Fresh(D, TEACHER, TAUGHT)},
    "fresh_sparse": {"model": M.TiedAutoencoder(D, 2), "rule": R.Adam(batch_size=4),
                     "data": fs.data.Fresh(D, inputs="sparse", density=0.3),
                     "loss": L.Squared(1.0, weights=0.9 ** np.arange(D))},
    "stream": {"model": RELU, "rule": R.SGD(batch_size=2), "data": fs.data.Stream(D, samples)},
    "stream_momentum": {"model": NET, "rule": R.SGD(momentum=0.5), "data": fs.data.Stream(D, samples)},
    "output": {"model": NET, "loss": L.Output(1.5)},
    "population": {"model": M.MLP(D, 4, activation="erf", bias=False), "rule": R.GD(),
                   "data": fs.data.Population(D, MENTOR, MENTORED)},
    "population_each": {"model": M.MLP(D, 3, outputs=2, activation="leaky", bias=False, scaling="ntk", fixed=("W2",)),
                        "rule": R.GD(momentum=0.5, gradient_noise=0.1, weight_decay=EACH),
                        "data": fs.data.Population(D, MENTORS, THEY)},
    "fresh_each": {"model": NET, "rule": R.SGD(batch_size=3, momentum=0.5), "data": fs.data.Fresh(
        D, TEACHER, TEACHER.unflatten(TEACHER.start(7, np.arange(NETWORKS))), "sparse", EACH + 0.3, scale=EACH + 1)},
    "own_rule": {"model": FAMILIES["mlp_fixed"]["model"], "rule": traced_rule},
}


def labelled(model, loss, seed=0, n=POINTS, n_test=4):
    """A Dataset with labels that this model and loss can have."""
    rng = np.random.default_rng(seed)
    X, o = rng.standard_normal((n + n_test, model.d)), model.outputs
    y = rng.standard_normal((n + n_test, o) if o > 1 else n + n_test)
    if isinstance(loss, (L.Logistic, L.Hinge)):
        y = np.sign(y)
    elif isinstance(loss, L.CrossEntropy):
        y = rng.integers(0, o, n + n_test)
    elif isinstance(model, M.TiedAutoencoder):
        y = X
    return fs.Dataset(X[:n], y[:n], X[n:], y[n:])


def general(name, dtype="float64", **changes):
    """The Run of CASES[name] with N = 11 networks, T = 13 steps, step sizes and a decay of their own."""
    fields = CASES[name] if isinstance(name, str) else name
    if fields.get("rule") is traced_rule:
        fields = fields | {"rule": traced_rule()}
    loss = fields.get("loss", L.Squared())
    data = fields["data"] if "data" in fields else labelled(fields["model"], loss).astype(dtype)
    made = getattr(data, "function", None)
    metrics = (fs.metrics.TrainLoss(), fs.metrics.TestLoss()) if data.n else (fs.metrics.ParameterNorm(),)
    if isinstance(data, fs.data.Population):
        metrics = metrics[:1]
    if isinstance(data, (fs.data.Fresh, fs.data.Population)):
        data = data.astype(dtype)
    elif isinstance(data, fs.data.Stream) and dtype != "float64":
        data = fs.data.Stream(data.d, lambda *asked: tuple(a.astype(dtype) for a in made(*asked)), data.outputs)
    defaults = {"rule": R.SGD(), "step_size": fs.StepSize(np.linspace(0.02, 0.05, NETWORKS), 0.6, 2.0),
                "steps": STEPS, "seed": 3, "metrics": metrics, "save": fs.SaveAt(linear=3, params=True)}
    return fs.Run(**(defaults | fields | {"data": data, "dtype": dtype} | changes))
