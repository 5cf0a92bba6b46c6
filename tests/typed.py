"""A user's program with all types written out: `make lint` has mypy look at it, strictly; it runs as well."""

from pathlib import Path

import numpy as np
import torch

import fastsgd as fs


class Mine(fs.models.Model):
    """A model of one's own."""

    d = 3

    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {"w": (3,)}

    def scales(self) -> dict[str, tuple[float, float]]:
        return {"w": (0.0, 1.0)}

    def forward(self, params: dict[str, torch.Tensor], X: torch.Tensor) -> torch.Tensor:
        return X @ params["w"]


class Largest(fs.metrics.Metric):
    """A metric of one's own."""

    name = "largest"

    def compute(self, model: fs.models.Model, params: dict[str, np.ndarray], data: fs.Dataset, loss: fs.losses.Loss
                ) -> np.ndarray:
        return np.asarray(np.max([abs(a).reshape(len(a), -1).max(axis=1) for a in params.values()], axis=0))


def spread(params: dict[str, np.ndarray], data: fs.Dataset) -> np.ndarray:
    """A metric that is a function."""
    return np.asarray(params["u"].std(axis=1))


def runs(folder: Path) -> fs.Result:
    """Train, save, load, select, go on."""
    step_size = fs.StepSize(np.linspace(0.01, 0.05, 4), decay_at=0.5, decay_by=2.0, warmup=fs.Warmup(2.0))
    run = fs.Run(fs.models.DiagonalLinear(d=6), fs.data.sparse_regression(n=8, d=6, nonzero=2, n_test=5, seed=0),
                 fs.rules.SGD(batch_size=2, momentum=0.5, label_noise=0.01), step_size, 40, dtype="float64",
                 metrics=[fs.metrics.TrainLoss(), fs.metrics.JacobianRank(rtol=1e-4), Largest(), spread],
                 save=fs.SaveAt(linear=3))
    plan = fs.plan(run, fs.Tuning(threads=1))
    assert isinstance(plan, fs.Plan)
    text: str = plan.explain()
    result = fs.train(plan)
    losses: np.ndarray = result.numpy("train_loss")
    assert "N=4" in text and losses.shape == (4, 3) and "rank" in result
    assert result["largest"].shape == (4, 3) and set(result.params) == {"u", "v"}
    assert result.predict(run.data.X).shape == (4, 8)
    init = {"u": np.ones(6), "v": np.full((4, 6), 0.5)}
    plain = run.replace(metrics=[fs.metrics.TestLoss()], order=fs.orders.Reshuffle(), init=init)
    path = folder / "run.npz"
    fs.train(plain, tuning=fs.Tuning(threads=1), checkpoint=fs.Checkpoint(str(folder / "run.ckpt"))).save(path)
    loaded = fs.Result.load(path)
    both: fs.Result = fs.concat([loaded.select(loaded.survived), loaded.select([0])])
    assert len(both.lost) > 1
    return loaded


def arrays() -> np.ndarray:
    """The low level."""
    model = fs.models.MLP(3, 4, activation="tanh")
    deep = fs.models.MLP(3, (4, 5), outputs=2)
    X, y = np.ones((7, 3)), np.ones(7)
    params = fs.functional.start(model, 5, seed=1, dtype="float64")
    lost: np.ndarray = fs.functional.advance_(model, params, X, y, np.arange(7), 0.01)
    rank: np.ndarray = fs.functional.jacobian_rank(model, params, X, rtol=1e-4)
    assert (lost < 0).all() and rank.shape == (5,) and fs.functional.loss(model, params, X, y).shape == (5,)
    assert fs.linalg.rank(np.eye(3), 1e-3) == 3 and deep.P == 16 + 25 + 12
    return np.asarray(model.predict(model.unflatten(params), X))


def given() -> None:
    """Lists, ranges and tensors, wherever arrays are taken."""
    import torch

    data = fs.Dataset(torch.eye(2), [1.0, 2.0])
    assert fs.SaveAt(steps=[0, 10]).steps is not None and fs.SaveAt(steps=range(3)).steps is not None
    warmup = fs.Warmup([2.0, 3.0], power=[1.0, 2.0])
    schedule = fs.StepSize([0.1, 0.2], decay_at=[0.5, 0.6], decay_by=2.0, warmup=warmup)
    rule = fs.rules.SGD(momentum=[0.1, 0.2], batch_size=[1, 2], weight_decay={"u": 0.1})
    fs.rules.Adam(beta2=[0.9, 0.99])
    fs.rules.SAM(rho=torch.tensor([0.1]))
    fs.losses.Squared([0.5, 0.25])
    fs.metrics.JacobianRank(1e-4, points=[[1.0, 0.0]])
    fs.metrics.DistanceToTeacher([1.0, 0.0])
    run = fs.Run(fs.models.DiagonalLinear(2, u0=[0.1, 0.2]), data, rule, schedule, 5, order=fs.orders.Common(2),
                 keys=[1, 2], stop=fs.stops.Below("train_loss", [1e-6, 1e-7]))
    assert run.replace(order=fs.orders.Replay([0, 1, 0, 1, 1]), rule=fs.rules.SGD()).steps == 5


def sweeps() -> tuple[int, ...]:
    """A request for a sweep, of which nothing runs."""
    base = fs.Run(Mine(), fs.Dataset(np.eye(3), np.ones(3)), fs.rules.SGD(), 0.1, 10, dtype="float64")
    sweep = fs.Sweep(base, grid={"step_size": [0.1, 0.2], "rule.momentum": [0.0, 0.9]}, replicas=3)
    return sweep.shape


def main(folder: Path) -> None:
    """All of it."""
    assert runs(folder).steps[-1] == 40
    assert arrays().shape == (5, 7)
    assert sweeps() == (2, 2, 3)
    given()
    assert fs.__version__


if __name__ == "__main__":
    main(Path("."))
