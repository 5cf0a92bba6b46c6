"""Owns the knobs of the general loop: for each field of a record, fields of a Run before and after it is turned."""

import numpy as np
from general_cases import MENTOR, MENTORED, STEPS, TAUGHT, TEACHER, D, labelled, samples

import fastsgd as fs
from fastsgd import orders

M, R, L = fs.models, fs.rules, fs.losses
UV = M.DiagonalLinear(D, u0=0.5, v0=0.2)
AVERAGE = fs.SaveAt(linear=3, of="average")
SHARED = {  # fields of every rule: what else the rule has, the new value
    "lost_above": ({}, 0.5), "weight_decay": ({}, 0.1), "balance_penalty": ({}, 0.5), "normalised": ({}, True),
    "label_noise": ({}, 0.3), "gradient_noise": ({}, 0.3), "average": ({"average": 0.5}, 0.9),
    "penalty": ({}, lambda p: (p["u"]**2).sum()), "decoupled": ({"weight_decay": 0.1}, True),
    "clip_value": ({}, 0.01), "clip_norm": ({}, 0.01), "step_scale": ({}, {"u": 0.5}), "localisation": ({}, 0.3),
}
DESCENT = {"momentum": ({}, 0.5), "nesterov": ({"momentum": 0.5}, True), "dampening": ({"momentum": 0.5}, 0.5)}
CLIPPED = {"weight_decay": 0.5}, 0.01  # of a rule that takes signs, beside what is not clipped
OWN = {
    R.SGD: DESCENT | {"batch_size": ({}, 2)},
    R.GD: DESCENT,
    R.SAM: DESCENT | {"rho": ({}, 0.3), "batch_size": ({}, 2), "per_sample": ({"batch_size": 2}, True),
                      "unit": ({}, False)},
    R.Adam: {"batch_size": ({}, 2), "beta1": ({}, 0.5), "beta2": ({}, 0.5), "epsilon": ({}, 0.1)},
    R.SignSGD: {"batch_size": ({}, 2), "momentum": ({}, 0.9), "nesterov": ({}, True), "dampening": ({}, 0.9),
                "clip_value": CLIPPED, "clip_norm": CLIPPED},
    R.Lion: {"batch_size": ({}, 2), "beta1": ({}, 0.1), "beta2": ({}, 0.1),
             "decoupled": ({"weight_decay": 0.1}, False), "clip_value": CLIPPED, "clip_norm": CLIPPED},
    R.Muon: {"batch_size": ({}, 2), "momentum": ({}, 0.5), "nesterov": ({}, False),
             "decoupled": ({"weight_decay": 0.1}, False)},
    R.RMSProp: {"batch_size": ({}, 2), "beta2": ({}, 0.5), "epsilon": ({}, 0.1)},
    R.Adagrad: {"batch_size": ({}, 2), "epsilon": ({}, 0.1)},
    R.SDE: DESCENT | {"sgd_step": ({}, 0.2), "loss_level": ({}, 0.6), "intensity": ({}, 1.0)},
}
NEEDED = {R.SAM: {"rho": 0.2}, R.SignSGD: {"momentum": 0.5}, R.SDE: {"sgd_step": 0.1, "loss_level": 0.5}}


def rules():
    """{knob: (before, after)} of every field of every rule."""
    out, before = {}, {}
    for kind, own in OWN.items():
        for name, (still, new) in (SHARED | own).items():
            if (kind, name) == (R.SDE, "label_noise"):  # refused, see test_general_refusals.py
                continue
            fields = NEEDED.get(kind, {}) | still
            save = AVERAGE if name == "average" else fs.SaveAt(linear=3)
            same = kind, str(fields), name == "average"  # which is trained once for all knobs that begin with it
            before.setdefault(same, {"model": UV, "save": save, "rule": kind(**fields)})
            out[f"{kind.__name__}.{name}"] = before[same], before[same] | {"rule": kind(**fields | {name: new})}
    return out


def pair(field, make, still, **new):
    """(before, after): a Run whose `field` is make(**still), and then with `new` in it."""
    def fields(given):
        made = make(**given)
        return made if isinstance(made, dict) else {field: made}

    return fields(still), fields(still | new)


def noisy(kind, where, rule=R.SGD):
    """Makes a Run's fields from those of a noise record."""
    return lambda **given: {"rule": rule(**{where: kind(**given)})}


def near(**given):
    return R.SGD(localisation=R.Localisation(**given))


def net(**given):
    return M.MLP(**({"d": D, "widths": (4, 3), "activation": "leaky", "b_scale": 0.3} | given))


def fitting(make):
    """A model and data that fit it, for fields that change the number of inputs or outputs."""
    def fields(**given):
        model = make(**given)
        return {"model": model, "data": labelled(model, L.Squared())}

    return fields


def loss(kind, outputs=1):
    def fields(**given):
        model = M.MLP(D, 4, outputs=outputs)
        return {"model": model, "loss": kind(**given), "data": labelled(model, kind())}

    return fields


def fresh(**given):
    return {"model": M.MLP(given["d"], 4), "data": fs.data.Fresh(**given), "metrics": fs.metrics.TestLoss()
            if "X_test" in given else ()}


def everyone(**given):
    return {"model": M.MLP(given["d"], 4, activation="erf", bias=False), "data": fs.data.Population(**given),
            "rule": R.GD(), "metrics": fs.metrics.TrainLoss()}


def stream(**given):
    return {"model": M.MLP(given["d"], 4, outputs=given.get("outputs", 1)), "data": fs.data.Stream(**given),
            "metrics": fs.metrics.TestLoss() if "X_test" in given else ()}


def wide(ids, t0, t1, batch):
    """As `samples`, with two labels each."""
    X, y = samples(ids, t0, t1, batch)
    return X, np.stack([y, -y], axis=-1)


def narrow(ids, t0, t1, batch):
    """As `samples`, with one input fewer."""
    X, y = samples(ids, t0, t1, batch)
    return X[..., 1:], y


TEST = labelled(UV, L.Squared())
TESTS = {"X_test": TEST.X, "y_test": TEST.y}
GUIDE = {"teacher": TEACHER, "weights": TAUGHT}
SPARSE = {"d": D, "inputs": "sparse", "density": 0.5} | GUIDE
SMALLER = M.MLP(D - 1, 2, activation="erf", b_scale=0.5)
SMALLER_TAUGHT = {name: a[0] for name, a in SMALLER.unflatten(SMALLER.start(9, [0])).items()}
SMALLER_MENTOR = M.MLP(D - 1, 2, activation="erf", bias=False)
SMALLER_MENTORED = {name: a[:, :D - 1] if name == "W1" else a for name, a in MENTORED.items()}
SIGMA = {"sigma": 0.3}
STABLE = {"sigma": 0.1, "kind": "stable", "alpha": 1.5}
KNOBS = rules() | {
    "LabelNoise.sigma": pair("rule", noisy(fs.LabelNoise, "label_noise"), SIGMA, sigma=0.4),
    "LabelNoise.kind": pair("rule", noisy(fs.LabelNoise, "label_noise"), SIGMA, kind="rademacher"),
    "LabelNoise.on": pair("rule", noisy(fs.LabelNoise, "label_noise", R.GD), SIGMA, on="one"),
    "GradientNoise.sigma": pair("rule", noisy(fs.GradientNoise, "gradient_noise"), SIGMA,
                                sigma=np.linspace(0.1, 0.4, STEPS)[None]),
    "GradientNoise.kind": pair("rule", noisy(fs.GradientNoise, "gradient_noise"), SIGMA, kind="rademacher"),
    **{f"{kind.__name__}.alpha": pair("rule", noisy(kind, where), STABLE, alpha=1.2)
       for kind, where in ((fs.LabelNoise, "label_noise"), (fs.GradientNoise, "gradient_noise"))},
    "Localisation.gamma": pair("rule", near, {"gamma": 0.3}, gamma={"W1": 0.4}),
    "Localisation.at": pair("rule", near, {"gamma": 0.3}, at={name: np.full(shape, 0.2) for name, shape in M.ReLU2(
        5, 4).shapes().items()}),
    "PerNetwork.replace": tuple({"order": orders.PerNetwork(replace), "rule": R.SGD(batch_size=5)}
                                for replace in (True, False)),
    "Common.network": ({"order": orders.Common(0)}, {"order": orders.Common(7)}),
    "Common.replace": tuple({"order": orders.Common(2, replace), "rule": R.SGD(batch_size=5)}
                            for replace in (True, False)),
    "Reshuffle.drop_last": tuple({"order": orders.Reshuffle(drop_last=drop), "rule": R.SGD(batch_size=5)}
                                 for drop in (None, False)),
    "Reshuffle.network": ({"order": orders.Reshuffle()}, {"order": orders.Reshuffle(7)}),
    "Squared.weights": pair("loss", loss(L.Squared, 2), {}, weights=[1, 2]),
    "Logistic.factor": pair("loss", loss(L.Logistic), {}, factor=1.5),
    "Hinge.factor": pair("loss", loss(L.Hinge), {}, factor=1.5),
    "Output.factor": pair("loss", loss(L.Output), {}, factor=1.5),
    "CrossEntropy.factor": pair("loss", loss(L.CrossEntropy, 3), {}, factor=1.5),
    "MLP.d": pair("model", fitting(net), {}, d=D - 1),
    "MLP.outputs": pair("model", fitting(net), {}, outputs=2),
    "MLP.widths": pair("model", net, {}, widths=(4, 2)),
    "MLP.activation": pair("model", net, {}, activation="tanh"),
    "MLP.bias": pair("model", net, {}, bias=(True, False, True)),
    "MLP.scaling": pair("model", net, {"W_scale": 1.0}, scaling="ntk"),
    "MLP.slope": pair("model", net, {}, slope=0.3),
    "MLP.fixed": pair("model", net, {}, fixed="W2"),
    "MLP.W_scale": pair("model", net, {}, W_scale=0.4),
    "MLP.b_scale": pair("model", net, {}, b_scale=(0.3, 0.4, 0.3)),
    "DiagonalProduct.d": pair("model", fitting(M.DiagonalProduct), {"d": D, "depth": 3}, d=D - 1),
    "DiagonalProduct.depth": pair("model", M.DiagonalProduct, {"d": D, "depth": 3, "start_at": 0.5}, depth=4),
    "DiagonalProduct.start_at": pair("model", M.DiagonalProduct, {"d": D, "depth": 3}, start_at=(0.1, 0.2, 0.0)),
    "DiagonalPower.d": pair("model", fitting(M.DiagonalPower), {"d": D}, d=D - 1),
    "DiagonalPower.depth": pair("model", M.DiagonalPower, {"d": D}, depth=3),
    "DiagonalPower.signed": pair("model", M.DiagonalPower, {"d": D}, signed=False),
    "DiagonalPower.w0": pair("model", M.DiagonalPower, {"d": D}, w0=0.2),
    "DiagonalPower.z0": pair("model", M.DiagonalPower, {"d": D}, z0=0.2),
    "TiedAutoencoder.d": pair("model", fitting(M.TiedAutoencoder), {"d": D, "width": 2}, d=D - 1),
    **{f"TiedAutoencoder.{name}": pair("model", fitting(M.TiedAutoencoder), {"d": D, "width": 2}, **{name: value})
       for name, value in {"width": 3, "bias": False, "W_scale": 0.4, "b_scale": 0.2}.items()},
    "Fresh.d": (fresh(d=D, **GUIDE), fresh(d=D - 1, teacher=SMALLER, weights=SMALLER_TAUGHT)),
    "Fresh.teacher": (fresh(d=D, **GUIDE), fresh(d=D, teacher=M.MLP(D, 2, activation="relu"), weights=TAUGHT)),
    "Fresh.weights": pair("data", fresh, {"d": D} | GUIDE, weights={name: 2 * a for name, a in TAUGHT.items()}),
    "Fresh.inputs": pair("data", fresh, {"d": D} | GUIDE, inputs="sparse"),
    "Fresh.density": pair("data", fresh, SPARSE, density=0.6),
    "Fresh.scale": pair("data", fresh, SPARSE, scale=1.1),
    "Fresh.X_test": pair("data", fresh, {"d": D} | GUIDE | TESTS, X_test=2 * TEST.X),
    "Fresh.y_test": pair("data", fresh, {"d": D} | GUIDE | TESTS, y_test=2 * TEST.y),
    "Population.d": (everyone(d=D, teacher=MENTOR, weights=MENTORED), everyone(d=D - 1, teacher=SMALLER_MENTOR,
                                                                            weights=SMALLER_MENTORED)),
    "Population.teacher": (everyone(d=D, teacher=MENTOR, weights=MENTORED), everyone(
        d=D, teacher=M.MLP(D, 2, activation="erf", bias=False, scaling="ntk"), weights=MENTORED)),
    "Population.weights": pair("data", everyone, {"d": D, "teacher": MENTOR, "weights": MENTORED},
                               weights={name: 2 * a for name, a in MENTORED.items()}),
    "Stream.d": (stream(d=D, function=samples), stream(d=D - 1, function=narrow)),
    "Stream.function": (stream(d=D, function=samples),
                        stream(d=D, function=lambda ids, t0, t1, batch: samples(ids + 1, t0, t1, batch))),
    "Stream.outputs": (stream(d=D, function=samples), stream(d=D, function=wide, outputs=2)),
    "Stream.X_test": pair("data", stream, {"d": D, "function": samples} | TESTS, X_test=2 * TEST.X),
    "Stream.y_test": pair("data", stream, {"d": D, "function": samples} | TESTS, y_test=2 * TEST.y),
    "SaveAt.of": tuple({"rule": R.SGD(average=0.9), "save": fs.SaveAt(linear=3, of=of)}
                       for of in ("weights", "average")),
    "SaveAt.floor": ({}, {"save": fs.SaveAt(linear=3, floor=fs.Floor(5, 0.02))}),
    "Floor.steps": tuple({"save": fs.SaveAt(linear=3, floor=fs.Floor(steps, 0.02))} for steps in (5, 6)),
    "Floor.step_size": tuple({"save": fs.SaveAt(linear=3, floor=fs.Floor(5, step))} for step in (0.02, 0.03)),
}
RECORDS = (R.Localisation, R.SAM, R.Adam, R.SignSGD, R.Lion, R.Muon, R.RMSProp, R.Adagrad, R.SDE,
           fs.LabelNoise,
           fs.GradientNoise, orders.Reshuffle, L.Logistic, L.Hinge, L.CrossEntropy, L.Output, M.MLP, M.DiagonalProduct,
           M.DiagonalPower, M.TiedAutoencoder, fs.data.Fresh, fs.data.Population,
           fs.data.Stream, fs.Floor)
