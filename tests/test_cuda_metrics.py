"""Metric kernels of cards, as fibers without one: against the CPU's and the definitions; their memory and registers."""

import numpy as np
import pytest
from cases import problem
from fibers import FiberCard, in_place
from tiers import some

import fastsgd as fs
from bench import sass
from fastsgd.backends import cpu
from fastsgd.backends.cuda import layout
from fastsgd.cuda import card as real_cards
from fastsgd.cuda.compiler import nvrtc
from fastsgd.errors import BackendUnavailable
from fastsgd.lowering.work import Work
from fastsgd.measure import host
from fastsgd.measure.cards import Cards
from fastsgd.measure.programs import jacobians as jacobian_programs
from fastsgd.measure.registry import kernels_of
from fastsgd.metrics import feature_sparsity
from fastsgd.metrics.jacobian_rank import count_above, jacobians, trained_jacobians

m, MLP, ReLU2 = fs.metrics, fs.models.MLP, fs.models.ReLU2
DENSE = {
    "relu2": ReLU2(3, 11), "relu2 plain": ReLU2(2, 9, False, False), "deep": MLP(4, (6, 5)),
    "leaky, outputs": MLP(3, (5, 4), outputs=3, activation="leaky", scaling="ntk"),
    "linear": MLP(3, (), outputs=2), "fixed": MLP(3, (6, 4), fixed=("W2", "b1", "W3"), activation="tanh"),
}
LINEAR = {"diagonal": fs.models.DiagonalLinear(7), "product": fs.models.DiagonalProduct(6, 3),
          "power": fs.models.DiagonalPower(5, 3), "unsigned": fs.models.DiagonalPower(5, 1, signed=False)}
MODELS = {**DENSE, **LINEAR, "autoencoder": fs.models.TiedAutoencoder(4, 3)}
REAL = real_cards.why_none() is None  # the same tests, on this machine's card
chosen_cards = pytest.mark.skipif(REAL, reason="needs cards of chosen memory or number")


def asked(model, metric, data=None, loss=None):
    return fs.Run(model, data or labelled(model, loss or fs.losses.Squared.half(), 11), fs.rules.GD(), 0.1, 1,
                  metrics=[metric], dtype="float64", **({"loss": loss} if loss else {}))


def explained(run, card):
    """What a plan says of a run's only metric."""
    with in_place(card):
        return Cards(Work(run), 1).explain()[0]


def both(card, model, metric, weights, data=None, loss=None):
    """(on the card or cards, on the CPU) of a metric that has a kernel on both."""
    run, here = asked(model, metric, data, loss), card if isinstance(card, list) else [card]
    plan = fs.plan(run.replace(backend="cpu", networks=len(weights)), fs.Tuning(threads=1))
    with in_place(*here):
        measured = Cards(plan.work, plan.N).begin(plan)
    launched = [launches(one) for one in here]
    got = measured.measure(metric, weights)
    assert REAL or all(launches(one) > count for one, count in zip(here, launched, strict=True)), "measured on the host"
    assert f"{metric.name} on the card: " in explained(run, here[0])
    return got, measured.host.measure(metric, weights)


def launches(card):
    return len(getattr(card, "launches", ()))


def orders_of_threads(card):
    """A card of fibers that takes its threads first to last and last to first; a real one, which knows no order."""
    return [card] if REAL else [FiberCard(card.folder, backwards=backwards) for backwards in (False, True)]


def drawn(model, seed=0, N=5):
    """Weights [N, P], one network with dead units, one of zeros."""
    rng = np.random.default_rng(seed)
    weights = rng.standard_normal((N, model.P))
    weights[1, :model.P // 3] = 0
    weights[2] = 0
    return weights


def labelled(model, loss, n=9):
    rng = np.random.default_rng(1)
    X = rng.standard_normal((n, model.d))
    if loss.name == "squared":
        y = rng.standard_normal((n, model.outputs) if model.outputs > 1 else n)
    elif loss.name == "cross_entropy":
        y = np.arange(n) % model.outputs
    else:
        y = np.where(np.arange(n) % 2, 1.0, -1.0)
    return fs.Dataset(X, y, X_test=X[:4], y_test=y[:4])


# ---- losses and norms


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("metric", [m.TrainLoss(), m.TestLoss()])
def test_losses_have_the_bits_of_the_cpu(a_card, name, metric):
    model = MODELS[name]
    loss = fs.losses.Squared.half()
    got, want = both(a_card, model, metric, drawn(model, N=9), labelled(model, loss), loss)
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize(("name", "loss"), [
    ("deep", fs.losses.Logistic()), ("diagonal", fs.losses.Hinge()), ("leaky, outputs", fs.losses.CrossEntropy()),
    ("leaky, outputs", fs.losses.Squared(weights=[1, 2, 0.5])), ("relu2", fs.losses.Logistic())])
def test_other_losses_have_the_bits_of_the_cpu(a_card, name, loss):
    model = MODELS[name]
    got, want = both(a_card, model, m.TrainLoss(), drawn(model), labelled(model, loss), loss)
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize(("model", "threads"), [
    (ReLU2(3, 100), 8), (ReLU2(10, 70), 16), (ReLU2(40, 60), 8), (MLP(9, (31, 30), outputs=3, activation="tanh"), 32),
    (MLP(6, (90, 200)), 256), (fs.models.TiedAutoencoder(33, 40), 64), (MLP(2, (20, 70), bias=False), 128)])
def test_losses_of_wide_networks_have_the_bits_of_the_cpu(a_card, model, threads):
    """A team of lanes with the state in registers, or a block with the weights in shared memory or where they lie."""
    data, weights = labelled(model, fs.losses.Squared.half()), drawn(model, N=5)
    for loss in (fs.losses.Squared.half(), fs.losses.Squared(factor=2.0)):
        got, want = both(a_card, model, m.TrainLoss(), weights, data, loss)
        np.testing.assert_array_equal(got, want)
    assert f"{threads} thread(s) a network" in explained(asked(model, m.TrainLoss(), data), a_card)
    for card in orders_of_threads(a_card):
        got, want = both(card, model, m.TrainLoss(), weights, data)
        np.testing.assert_array_equal(got, want)


def test_points_that_do_not_fit_are_read_where_they_lie(a_card):
    for model in (fs.models.DiagonalLinear(90), ReLU2(90, 3), MLP(90, 3)):
        data = labelled(model, fs.losses.Squared.half(), n=101)
        got, want = both(a_card, model, m.TrainLoss(), drawn(model, N=3), data)
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("metric", [m.ParameterNorm(), m.Balancedness(), m.L0(), m.L0(0.5)])
def test_norms_have_the_bits_of_the_cpu(a_card, metric):
    for d in (1, 7, 19):
        model = fs.models.DiagonalLinear(d)
        got, want = both(a_card, model, metric, drawn(model, N=35))
        np.testing.assert_array_equal(got, want)


# ---- ranks and spectra


@pytest.mark.parametrize(("points", "name"), some([(points, name) for points in (13, 4) for name in DENSE]))
def test_ranks_of_dense_networks_are_those_of_the_definition(a_card, name, points):
    model = DENSE[name]
    weights, X = drawn(model), np.random.default_rng(3).standard_normal((points, model.d))
    sigma = np.linalg.svd(trained_jacobians(model, model.unflatten(weights), X), compute_uv=False)
    for rtol in (1e-1, 1e-4):
        got, want = both(a_card, model, m.JacobianRank(rtol, X), weights)
        np.testing.assert_array_equal(got, want)
        np.testing.assert_array_equal(got, count_above(sigma, rtol))


def graded(rows, seed, model):
    """Weights whose Jacobian's singular values spread over many decades."""
    rng = np.random.default_rng(seed)
    return rng.standard_normal((4, model.P)) * 10.0 ** rng.uniform(-4, 0, (4, model.P))


@pytest.mark.parametrize(("held", "budget"), [(80, 227 << 10), (0, 227 << 10), (0, 17 << 10), (80, 9 << 10)])
def test_columns_lie_in_registers_shared_or_global_memory(a_card, monkeypatch, held, budget):
    model = MLP(3, (8, 7), activation="tanh")
    X = np.random.default_rng(3).standard_normal((37, 3))
    weights = graded(37, 4, model)
    monkeypatch.setattr(jacobian_programs, "REGISTER_ROWS", held)
    monkeypatch.setattr(a_card, "shared", budget)
    sigma = np.linalg.svd(jacobians(model, model.unflatten(weights), X), compute_uv=False)
    for rtol in (1e-2, 1e-4, 1e-5):
        got, _ = both(a_card, model, m.JacobianRank(rtol, X), weights)
        np.testing.assert_array_equal(got, count_above(sigma, rtol), rtol)


def test_huge_tiny_zero_and_lost_networks(a_card):
    """What the Gram matrix cannot hold is counted on the host; what is not finite has no rank."""
    model = ReLU2(3, 9)
    weights, X = drawn(model), np.random.default_rng(3).standard_normal((12, 3))
    weights[0] *= 1e170
    weights[3] *= 1e-170
    weights[4] = 1e308
    got, want = both(a_card, model, m.JacobianRank(1e-4, X), weights)
    np.testing.assert_array_equal(got, want)
    assert np.isnan(got[4])
    assert got[2] == want[2]


def test_ranks_at_rtol_zero_and_values_more_than_308_decades_apart(a_card):
    model, rng = LINEAR["diagonal"], np.random.default_rng(5)
    weights = rng.uniform(0.5, 2, (4, model.P)) * np.tile(10.0 ** np.array([160, -160, 0, -300, 290, 3, -9]), 2)
    weights[1, [0, 7]] = weights[2] = 0
    for X in (rng.standard_normal((12, 7)), rng.standard_normal((3, 7)), np.ones((5, 7))):
        got, want = both(a_card, model, m.JacobianRank(0, X), weights)
        np.testing.assert_array_equal(got, want)
        np.testing.assert_array_equal(got, [min(np.linalg.matrix_rank(X), live) for live in (7, 6, 0, 7)])
        got, want = both(a_card, model, m.JacobianSpectrum(points=X), weights)
        np.testing.assert_array_equal(got, want)
    X = np.linalg.qr(rng.standard_normal((9, 7)))[0]
    got, _ = both(a_card, model, m.JacobianSpectrum(points=X), weights)
    np.testing.assert_allclose(got[0, :7], np.sort(np.hypot(weights[0, :7], weights[0, 7:]))[::-1], rtol=1e-14)


@pytest.mark.parametrize("name", LINEAR)
def test_ranks_and_spectra_of_diagonal_networks(a_card, name):
    model = LINEAR[name]
    rng = np.random.default_rng(5)
    weights = drawn(model, N=6) * 10.0 ** rng.uniform(-9, 0, (6, model.P))
    for X in (rng.standard_normal((12, model.d)), rng.standard_normal((3, model.d))):
        for rtol in (1e-4, 1e-15):
            got, want = both(a_card, model, m.JacobianRank(rtol, X), weights)
            np.testing.assert_array_equal(got, want)
        got, want = both(a_card, model, m.JacobianSpectrum(points=X), weights)
        np.testing.assert_array_equal(got, want)


def test_wide_diagonal_networks_have_scratch(a_card):
    model = fs.models.DiagonalLinear(50)
    rng = np.random.default_rng(6)
    weights = rng.standard_normal((3, 100)) * 10.0 ** rng.uniform(-12, 0, (3, 100))
    X = rng.standard_normal((70, 50))
    got, want = both(a_card, model, m.JacobianRank(1e-9, X), weights)
    np.testing.assert_array_equal(got, want)
    assert "scratch a thread" in explained(asked(model, m.JacobianRank(1e-9, X)), a_card)
    got, want = both(a_card, model, m.JacobianSpectrum(points=X), weights)
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize(("name", "points"), some([(name, points) for points in (13, 3) for name in DENSE]))
def test_singular_values_of_dense_networks_have_the_bits_of_the_cpu(a_card, name, points):
    model = DENSE[name]
    weights, X = graded(points, 7, model), np.random.default_rng(3).standard_normal((points, model.d))
    weights[0, :model.P // 3], weights[1], weights[2, 0] = 0, 0, 1e300
    for metric in (m.JacobianSpectrum(points=X), m.JacobianSpectrum(k=2, points=X),
                   m.JacobianRank(1e-9, X), m.JacobianRank(1e-4, X, method="jacobi")):
        got, want = both(a_card, model, metric, weights)
        np.testing.assert_array_equal(got, want, type(metric).__name__)


@pytest.mark.parametrize(("warps", "budget"), some(
    [(warps, budget) for warps in (5, 1, 2) for budget in (4 << 10, 227 << 10)], 3))
def test_singular_values_do_not_depend_on_warps_or_memory(a_card, monkeypatch, warps, budget):
    monkeypatch.setattr(jacobian_programs, "MOST_WARPS", warps)
    monkeypatch.setattr(a_card, "shared", budget)  # first, for it is given back what it had
    monkeypatch.setattr(FiberCard, "shared", budget)  # of those that are made below
    X = np.random.default_rng(3).standard_normal((21, 4))
    for model in (MLP(4, (9, 3), outputs=2, activation="tanh"), fs.models.DiagonalLinear(4)):
        metric = m.JacobianSpectrum(points=X)
        for card in orders_of_threads(a_card):
            got, want = both(card, model, metric, graded(21, 4, model)[:2])
            np.testing.assert_array_equal(got, want)


# ---- feature sparsity


@pytest.mark.parametrize(("name", "layer"), [("relu2", None), ("deep", None), ("deep", "hidden2"),
                                             ("fixed", "hidden1")])
@pytest.mark.parametrize("normalise", [True, False])
def test_feature_sparsity_is_that_of_the_cpu(a_card, name, layer, normalise):
    model = DENSE[name]
    weights = drawn(model, N=6)
    weights[3] = np.round(weights[3])  # units that agree
    for tau in (0.7, 0.99):
        got, want = both(a_card, model, m.FeatureSparsity(tau, normalise, layer=layer), weights)
        np.testing.assert_allclose(got, want, rtol=1e-14)


def test_constant_units_are_no_copies(a_card):
    model = MLP(2, 5, activation="tanh")
    weights = np.ones((1, model.P))
    weights[0, :10], weights[0, 10:15] = 0, 0.3  # five units, all tanh(0.3)
    got, want = both(a_card, model, m.FeatureSparsity(normalise=False), weights)
    np.testing.assert_array_equal(got, 1)
    np.testing.assert_array_equal(want, 1)


@pytest.mark.parametrize("scale", [1, 1e-170, 1e200])
def test_units_that_are_constant_but_for_rounding_stay_at_any_scale(a_card, scale):
    """Collinear units: scaled rows make them constant; as they are, and with a bias, they are copies."""
    X = np.linspace(0.1, 1, 200)[:, None]
    data = fs.Dataset(X, X[:, 0])
    model = ReLU2(1, 6, False, False)
    weights = np.random.default_rng(2).standard_normal((4, model.P))
    weights[0, :6] = np.abs(weights[0, :6])
    weights[:, :6] *= scale
    on = (weights[:, :6] > 0).sum(axis=1)
    for normalise, want in ((True, on / 6), (False, np.minimum(on, 1) / 6)):
        got, here = both(a_card, model, m.FeatureSparsity(normalise=normalise), weights, data)
        np.testing.assert_allclose(got, want, rtol=1e-14)
        np.testing.assert_allclose(here, want, rtol=1e-14)


def test_copies_of_units_are_merged_across_the_lanes_of_a_warp(a_card):
    model = ReLU2(1, 70, True, False)
    weights = np.random.default_rng(2).standard_normal((3, model.P))
    weights[0, 60:70] = 2 * weights[0, :10]  # W1 of ten units and their biases
    weights[0, 130:140] = 2 * weights[0, 70:80]
    weights[1, :140] = np.nan
    got, want = both(a_card, model, m.FeatureSparsity(), weights)
    np.testing.assert_allclose(got, want, rtol=1e-14)
    assert np.isnan(got[1])


# ---- how they run


def test_a_run_on_a_card_records_the_same_metrics(a_card):
    metrics = [m.TrainLoss(), m.JacobianRank(), m.FeatureSparsity(), m.ParameterNorm()]
    run = fs.Run(ReLU2(2, 6), problem(2).astype("float32"), fs.rules.SGD(), 0.05, 12, metrics=metrics, networks=7,
                 save=fs.SaveAt(3))
    want = fs.train(run.replace(backend="cpu"))
    with in_place(a_card):
        text = fs.plan(run.replace(backend="cuda")).explain()
        got = fs.train(run.replace(backend="cuda"))
    assert "rank on the card: 'gram'" in text and "KiB of shared memory" in text and "losses of them" not in text
    for metric in metrics:
        np.testing.assert_array_equal(got.numpy(metric.name), want.numpy(metric.name), metric.name)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("model", [fs.models.DiagonalLinear(7), fs.models.DiagonalProduct(6, 3), ReLU2(2, 6),
                                   MLP(3, (5, 4))])
def test_what_lies_on_cards_is_measured_there(a_card, monkeypatch, model, dtype):
    """Weights are read home once, for the result; the records are the CPU's.

    A weight of network 3 is huge and belongs to an input that is always zero: no sample sees it overflow.
    """
    from fastsgd.backends.cuda import CUDA

    rng, linear = np.random.default_rng(0), hasattr(model, "depth") or type(model) is fs.models.DiagonalLinear
    X = rng.standard_normal((9, model.d)).astype(dtype)
    X[:, -1] = 0  # what belongs to this input is never read
    metrics = [m.TrainLoss(), *([] if type(model) is fs.models.DiagonalProduct else [m.JacobianRank(1e-9)])]
    start = model.start(0, np.arange(5)).astype(dtype)
    start[3, -1 if linear else model.d - 1] = np.finfo(dtype).max / 45 / 1.25**2.5  # the step from t = 3 is too much
    run = fs.Run(model, fs.Dataset(X, X[:, 0].copy(), X_test=X, y_test=X[:, 0].copy()),
                 fs.rules.SGD(weight_decay=45) if linear else fs.rules.SGD(), 0.05, 12, metrics=metrics, networks=5,
                 init=model.unflatten(start), save=fs.SaveAt(4), dtype=dtype)
    want, read, home = fs.train(run.replace(backend="cpu")), [], CUDA._to_host
    monkeypatch.setattr(CUDA, "_to_host", staticmethod(lambda state, chunk: (read.append(chunk), home(state, chunk))))
    cards = [a_card] if REAL else [a_card, FiberCard(a_card.folder)]
    with in_place(*cards):
        got = fs.train(run.replace(backend="cuda"))
    assert len(read) == len(cards), "weights were read for a record"
    assert not linear or want.lost.tolist() == [-1, -1, -1, 3, -1]
    np.testing.assert_array_equal(got.lost, want.lost)
    for metric in metrics:
        np.testing.assert_array_equal(got.numpy(metric.name), want.numpy(metric.name), metric.name)
    assert REAL or any(name.startswith("read") for name, _ in a_card.launches)


@chosen_cards
def test_little_memory_means_more_launches(a_card):
    small = FiberCard(a_card.folder, memory=4 << 10)
    model = ReLU2(3, 11)
    got, want = both(small, model, m.TrainLoss(), drawn(model, N=9))
    np.testing.assert_array_equal(got, want)
    assert len(small.launches) > 2


@chosen_cards
@pytest.mark.parametrize("metric", [m.JacobianRank(1e-9), m.JacobianRank(1e-4), m.TrainLoss(), m.JacobianSpectrum()])
def test_cards_share_the_networks(a_card, metric):
    for model, N in ((LINEAR["diagonal"], 7), (DENSE["deep"], 4)):
        for memory in (1 << 30, 24 << 20):
            cards = [FiberCard(a_card.folder, memory), FiberCard(a_card.folder)]
            got, want = both(cards, model, metric, drawn(model, N=N))
            np.testing.assert_array_equal(got, want)


# ---- machine code


def resources(program):
    """(registers, stack bytes) of a thread of a program on sm_90."""
    try:
        code = nvrtc().compile(program, "sm_90")
    except BackendUnavailable as error:
        if "could not compile" in str(error):
            raise
        pytest.skip(str(error))
    if sass.tool("cuobjdump") is None:
        pytest.skip("no cuobjdump: triton brings it")
    return sass.resources(code)


def program(model, metric, a_card):
    return kernels_of(metric).on_card(metric, Work(asked(model, metric)), a_card, None).program


PLAIN = ReLU2(2, 20, False, False)


@pytest.mark.parametrize(("model", "metric", "registers", "stack"), some([
    (fs.models.DiagonalLinear(30), m.L0(), 128, 0), (fs.models.DiagonalLinear(30), m.TrainLoss(), 170, 0),
    (PLAIN, m.TrainLoss(), 190, 0), (ReLU2(1, 100, True, False), m.FeatureSparsity(), 72, 0),
    (PLAIN, m.JacobianSpectrum(points=np.zeros((60, 2))), 72, 0),
    (fs.models.DiagonalLinear(30), m.JacobianSpectrum(points=np.zeros((40, 30))), 72, 0),
    (PLAIN, m.JacobianRank(points=np.zeros((32, 2))), 128, 64),
    (PLAIN, m.JacobianRank(points=np.zeros((60, 2))), 168, 64),
    (PLAIN, m.JacobianRank(points=np.zeros((300, 2))), 96, 0)], 2, 1))
def test_registers_and_spills(a_card, model, metric, registers, stack):
    """What a Gram kernel keeps on its stack are addresses, made once; no entry of the matrix."""
    got = resources(program(model, metric, a_card))
    assert got[0] <= registers and got[1] <= stack, got


def test_several_matrices_share_a_multiprocessor(a_card):
    made = program(PLAIN, m.JacobianRank(points=np.zeros((60, 2))), a_card)
    assert (made.threads, made.each) == (64, 0) and 6 * (made.shared + 1024) <= a_card.shared
    assert "FS_ENTRY(64, 6," in made.text


@pytest.mark.parametrize("model", ["diagonal", "relu2", "deep", "autoencoder"])
def test_cards_need_no_module_of_the_cpu(model, monkeypatch, a_card):
    """What the card lacks a kernel for is then measured by its definition, and the records are the same."""
    metrics = [m.TrainLoss(), m.ParameterNorm(), m.JacobianRank(1e-4), m.JacobianSpectrum()]
    metrics += [m.FeatureSparsity()] * (model in ("relu2", "deep"))
    run = asked(MODELS[model], m.TrainLoss()).replace(metrics=metrics, steps=5, networks=6, backend="cuda")
    want = fs.train(run)

    def none(isa=None):
        raise BackendUnavailable("not built")

    for module in (cpu, layout, host, feature_sparsity):
        if hasattr(module, "native"):
            monkeypatch.setattr(module, "native", none)
    got = fs.train(run)
    assert got.weights.tobytes() == want.weights.tobytes() and "on the card" in fs.plan(run).explain()
    for metric in metrics:
        np.testing.assert_allclose(got.numpy(metric.name), want.numpy(metric.name), rtol=1e-12, err_msg=metric.name)
