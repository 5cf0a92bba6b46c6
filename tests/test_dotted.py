"""Names of fields: one dotted name for a number in messages, labels, files of configuration and axes of sweeps."""

import numpy as np
import pytest
import torch
from general_cases import NETWORKS, D, general

import fastsgd as fs

M, R, L = fs.models, fs.rules, fs.losses
EACH, TWO = np.linspace(0.1, 0.9, NETWORKS), np.array([0.1, 0.2])
NET = M.MLP(D, 4, activation="tanh")


def model(scale=1.0):
    return M.Function(lambda p, x: (p["W"] * p["scale"]) @ x, D, {"W": (D,)}, constants={"scale": np.full(
        (np.size(scale), D), np.reshape(scale, (-1, 1)))})


def heavy(p, g, state, lr, beta):
    m = beta * state["m"] + g
    return p - lr * m, {"m": m}


FIELDS = {  # dotted name: fields of a run, of numbers [N]
    "loss.constants.delta": lambda a: {"loss": L.Function(lambda h, y, delta: delta * (h - y) ** 2,
                                                          constants={"delta": a})},
    "loss.factor": lambda a: {"loss": L.Squared(a)},
    "rule.constants.beta": lambda a: {"rule": R.Function(heavy, state={"m": 0.0}, constants={"beta": a})},
    "rule.state.m": lambda a: {"rule": R.Function(heavy, state={"m": a}, constants={"beta": 0.5})},
    "rule.weight_decay.W1": lambda a: {"rule": R.SGD(weight_decay={"W1": a})},
    "rule.step_scale.b2": lambda a: {"rule": R.SGD(step_scale={"b2": a})},
    "rule.localisation.gamma.W1": lambda a: {"rule": R.SGD(localisation=R.Localisation({"W1": a}))},
    "stop.1.level": lambda a: {"stop": [fs.stops.Below("train_loss", 1e-9), fs.stops.Above("train_loss", 100 * a)]},
    "init.W1": lambda a: {"init": {name: np.zeros(shape) if name != "W1" else a.reshape(-1, 1, 1) * np.ones(shape)
                                   for name, shape in NET.shapes().items()}},
}


@pytest.mark.parametrize("name", FIELDS)
def test_messages_and_labels_have_the_dotted_name(name):
    run = general({"model": NET} | FIELDS[name](TWO), networks=3)
    with pytest.raises(fs.PlanError, match=rf"{name} has 2, networks has 3".replace(".", r"\.")):
        fs.plan(run)
    if name == "init.W1":
        return
    result = fs.train(general({"model": NET} | FIELDS[name](EACH), step_size=0.02))
    pytest.importorskip("xarray")
    values = result.to_xarray().coords[name].values
    np.testing.assert_allclose(values, 100 * EACH if name == "stop.1.level" else EACH)
    one = result.select(**{name: values[3]})
    assert one.ids.tolist() == [3]
    last_two = ".".join(name.split(".")[-2:])
    assert result.select(**{last_two: values[[5]]}).ids.tolist() == [5]


def test_constants_of_models_too():
    run = general({"model": model(TWO)}, networks=3, metrics=())
    with pytest.raises(fs.PlanError, match=r"model\.constants\.scale has 2"):
        fs.plan(run)


@pytest.mark.parametrize("name", ["loss.constants.delta", "rule.constants.beta", "rule.state.m", "rule.weight_decay.W1",
                                  "rule.step_scale.b2", "rule.localisation.gamma.W1"])
def test_axes_of_sweeps_have_it(name, tmp_path):
    pytest.importorskip("xarray")
    run = general({"model": NET} | FIELDS[name](np.float64(0.3)), step_size=0.02, save=None)
    ds = fs.Sweep(run, grid={name: [0.3, 0.6]}).run(tmp_path / "s").open()
    alone = fs.train(run.replace(**FIELDS[name](np.float64(0.6)), keys=np.arange(1), networks=None))
    assert ds.sizes[name.rpartition(".")[2]] == 2
    np.testing.assert_allclose(ds["train_loss"].values[1].ravel(), alone.numpy("train_loss").ravel(), rtol=1e-9)


BAD = {"rule.weight_decay.W1": lambda: R.SGD(weight_decay={"W1": -1}), "rule.state.m": lambda: R.Function(
    heavy, state={"m": [[1.0]]}, constants={"beta": 0.5}), "loss.constants.delta": lambda: L.Function(
    lambda h, y, delta: delta * h, constants={"delta": [[1.0]]}), "init.W1": lambda: general(
    {"model": NET}, init={"W1": np.array(["a"])}), "rule.localisation.gamma.W1": lambda: R.Localisation({"W1": -1})}


@pytest.mark.parametrize("name", BAD)
def test_what_is_wrong_alone_is_named_so(name):
    with pytest.raises(fs.SpecError, match=rf"^{name}:".replace(".", r"\.")):
        BAD[name]()


def test_files_of_configuration_say_the_line(tmp_path):
    path = tmp_path / "run.toml"
    path.write_text('steps = 5\nmodel = {type = "ReLU2", d = 2, width = 4}\nstep_size = 0.1\n[rule]\ntype = "SGD"\n'
                    '[rule.weight_decay]\nW1 = -1\n[data]\ntype = "teacher_student"\nn = 15\nd = 2\n'
                    'teacher_width = 3\n')
    from fastsgd import config

    with pytest.raises(fs.SpecError, match=r"^rule\.weight_decay\.W1: .*\(line 7 of"):
        config.read(path)


def test_parameters_with_dots_are_axes_too(tmp_path):
    """A module's parameters have dots in their names."""
    net = M.from_module(torch.nn.Sequential(torch.nn.Linear(D, 3), torch.nn.Tanh(), torch.nn.Linear(3, 1)), d=D)
    run = general({"model": net, "rule": R.SGD(weight_decay={"0.weight": 0.1})}, save=None, step_size=0.02)
    sweep = fs.Sweep(run, grid={"rule.weight_decay.0.weight": [0.1, 0.2]})
    assert sweep.networks == 2
