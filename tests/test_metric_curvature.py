"""Gradient, Hessian and tangent kernel: closed forms, finite differences, Lanczos against whole spectra."""

import numpy as np
import pytest
from cases import problem
from tiers import some
from tolerances import METRIC

import fastsgd as fs
from fastsgd.metrics.hessian import derivative
from fastsgd.metrics.lanczos import top_eigenvalues

M = fs.metrics
HALF = fs.losses.Squared()
TANH = fs.models.MLP(3, (4, 3), activation="tanh")


def weights(model, N=4, seed=0):
    return model.unflatten(np.random.default_rng(seed).standard_normal((N, model.P)))


def flat(params):
    return np.concatenate([a.reshape(len(a), -1) for a in params.values()], axis=1)


def loss_of(model, vector, data, factor=0.5):
    f = model.forward({name: a[0] for name, a in model.unflatten(vector[None]).items()}, data.X)
    return factor * np.mean((f - data.y) ** 2)


def diagonal_hessian(u, v, data):
    """The Hessian by hand: blocks diag(v) C diag(v), diag(u) C diag(u), diag(v) C diag(u) + diag(X^T r / n)."""
    C, r = data.X.T @ data.X / data.n, data.X @ (u * v) - data.y
    cross = v[:, None] * C * u + np.diag(data.X.T @ r / data.n)
    return np.block([[v[:, None] * C * v, cross], [cross.T, u[:, None] * C * u]])


def test_hessian_of_a_diagonal_network():
    model, data = fs.models.DiagonalLinear(6), problem(6)
    params = weights(model)
    want = np.array([diagonal_hessian(u, v, data) for u, v in zip(params["u"], params["v"], strict=True)])
    np.testing.assert_allclose(derivative("hessian", model, params, data, HALF), want, rtol=METRIC, atol=1e-13)
    spectrum = np.linalg.eigvalsh(want)[:, ::-1]
    np.testing.assert_allclose(M.Sharpness().compute(model, params, data, HALF), spectrum[:, 0], rtol=METRIC)
    np.testing.assert_allclose(M.Sharpness(5).compute(model, params, data, HALF), spectrum[:, :5], rtol=METRIC)
    np.testing.assert_allclose(M.HessianTrace().compute(model, params, data, HALF), spectrum.sum(axis=1), rtol=METRIC)
    doubled = M.Sharpness().compute(model, params, data, fs.losses.Squared.full())
    np.testing.assert_allclose(doubled, 2 * spectrum[:, 0], rtol=METRIC)


def test_gradient_and_hessian_are_those_of_finite_differences():
    data, params = problem(3), weights(TANH, 1)
    at, step = flat(params)[0], 1e-4 * np.eye(TANH.P)
    central = np.array([(loss_of(TANH, at + e, data) - loss_of(TANH, at - e, data)) / 2e-4 for e in step])
    gradient = derivative("gradient", TANH, params, data, HALF)[0]
    np.testing.assert_allclose(gradient, central, atol=1e-7)
    np.testing.assert_allclose(M.GradientNorm().compute(TANH, params, data, HALF), np.linalg.norm(central), rtol=1e-6)
    rows = np.array([(derivative("gradient", TANH, TANH.unflatten((at + e)[None]), data, HALF)
                      - derivative("gradient", TANH, TANH.unflatten((at - e)[None]), data, HALF))[0] / 2e-4
                     for e in step])
    np.testing.assert_allclose(derivative("hessian", TANH, params, data, HALF)[0], rows, atol=1e-6)


@pytest.mark.parametrize("model", some([
    fs.models.ReLU2(3, 12), TANH, fs.models.MLP(3, 9, activation="erf", outputs=1)], 3), ids=["relu", "tanh", "erf"])
def test_lanczos_is_the_whole_spectrum(model):
    data, params = problem(model.d), weights(model, 6)
    for k in (1, 4):
        exact = M.Sharpness(k, "exact").compute(model, params, data, HALF)
        lanczos = M.Sharpness(k, "lanczos").compute(model, params, data, HALF)
        np.testing.assert_allclose(lanczos, exact, rtol=1e-9)
    probes = M.HessianTrace("hutchinson", probes=400).compute(model, params, data, HALF)
    hessian = derivative("hessian", model, params, data, HALF)
    spread = np.sqrt(2 * ((hessian**2).sum((1, 2)) - (np.diagonal(hessian, 0, 1, 2) ** 2).sum(1)) / 400)
    exact = M.HessianTrace("exact").compute(model, params, data, HALF)
    assert (np.abs(probes - exact) < 4 * spread).all() and (probes != exact).all()


def test_lanczos_of_any_symmetric_matrix():
    """Clusters, multiple eigenvalues, low rank, zero, negative ones, and what does not converge."""
    rng = np.random.default_rng(0)
    P = 60
    Q = np.linalg.qr(rng.standard_normal((P, P)))[0]
    spectra = [np.linspace(-1, 1, P), np.r_[np.ones(4), 1 - 1e-4, np.zeros(P - 5)], np.zeros(P), -np.arange(1.0, P + 1),
               10.0 ** -np.arange(P), np.r_[1e9, 1e-9 * np.ones(P - 1)]]
    A = np.array([Q * s @ Q.T for s in spectra])
    first = np.repeat(rng.standard_normal((1, P)), len(A), axis=0)
    top = top_eigenvalues(lambda v: np.einsum("nij,nj->ni", A, v), first, 1, 1e-10, P)[:, 0]
    np.testing.assert_allclose(top, np.max(spectra, axis=1), rtol=1e-9, atol=1e-12)
    pair = top_eigenvalues(lambda v: np.einsum("nij,nj->ni", A[:1], v), first[:1], 3, 1e-10, P)[0]
    np.testing.assert_allclose(pair, np.sort(spectra[0])[:-4:-1], rtol=1e-9)
    early = top_eigenvalues(lambda v: np.einsum("nij,nj->ni", A, v), first, 1, 1e-12, 5)[:, 0]
    assert np.isnan(early[0]) and early[2] == 0  # five products do not resolve 60 equally spaced eigenvalues


def test_auto_changes_from_exact_to_lanczos():
    small, large = fs.models.DiagonalLinear(50), fs.models.DiagonalLinear(51)
    assert M.Sharpness().exact(small) and not M.Sharpness().exact(large)
    data, params = problem(51), weights(large, 2)
    params = {name: 0.1 * a for name, a in params.items()}
    want = [np.linalg.eigvalsh(diagonal_hessian(u, v, data))[-1]
            for u, v in zip(params["u"], params["v"], strict=True)]
    np.testing.assert_allclose(M.Sharpness().compute(large, params, data, HALF), want, rtol=1e-9)


def test_fixed_parameters_do_not_count():
    free = fs.models.MLP(3, 4, activation="tanh")
    held = fs.models.MLP(3, 4, activation="tanh", fixed=("W1", "b2"))
    data, params = problem(3), weights(free)
    keep = np.r_[12:16, 16:20]  # b1, W2 of W1 [12], b1 [4], W2 [4], b2 [1]
    hessian = derivative("hessian", free, params, data, HALF)[:, keep][:, :, keep]
    np.testing.assert_allclose(derivative("hessian", held, params, data, HALF), hessian, rtol=METRIC, atol=1e-13)
    np.testing.assert_allclose(M.Sharpness().compute(held, params, data, HALF), np.linalg.eigvalsh(hessian)[:, -1])
    gradient = derivative("gradient", free, params, data, HALF)[:, keep]
    np.testing.assert_allclose(M.GradientNorm().compute(held, params, data, HALF), np.linalg.norm(gradient, axis=1))
    assert (M.JacobianSquaredNorm().compute(held, params, data, HALF)
            < M.JacobianSquaredNorm().compute(free, params, data, HALF)).all()


def test_sharpness_is_where_gradient_descent_turns_unstable():
    """On the quadratic loss of a linear network, GD diverges exactly for steps above 2 / sharpness."""
    model, data = fs.models.MLP(3, (), bias=False), problem(3)
    params = {"W1": np.zeros((1, 1, 3))}
    top = M.Sharpness().compute(model, params, data, HALF)[0]
    for step, lost in ((1.99, False), (2.01, True)):
        run = fs.Run(model, data, fs.rules.GD(lost_above=1e6), step / top, 5000, init=params, dtype="float64")
        assert (fs.train(run).lost[0] >= 0) == lost


def test_tangent_kernel_of_a_diagonal_network():
    """K = X diag(u^2 + v^2) X^T."""
    model, data = fs.models.DiagonalLinear(5), problem(5)
    params, start = weights(model), weights(model, seed=1)
    K, K0 = (np.array([data.X * (u**2 + v**2) @ data.X.T for u, v in zip(p["u"], p["v"], strict=True)])
             for p in (params, start))
    np.testing.assert_allclose(M.NTK().compute(model, params, data, HALF), K, rtol=METRIC, atol=1e-12)
    spectrum = np.linalg.eigvalsh(K)[:, ::-1]
    np.testing.assert_allclose(M.NTKEigenvalue().compute(model, params, data, HALF), spectrum[:, 0], rtol=METRIC)
    np.testing.assert_allclose(M.NTKEigenvalue(3).compute(model, params, data, HALF), spectrum[:, :3], rtol=METRIC)
    trace = np.trace(K, axis1=1, axis2=2)
    np.testing.assert_allclose(M.JacobianSquaredNorm().compute(model, params, data, HALF), trace, rtol=METRIC)
    size, size0 = np.linalg.norm(K, axis=(1, 2)), np.linalg.norm(K0, axis=(1, 2))
    cosine = 1 - (K * K0).sum((1, 2)) / size / size0
    np.testing.assert_allclose(M.KernelDistance().compute(model, params, data, HALF, start=start), cosine, rtol=1e-10)
    relative = np.linalg.norm(K - K0, axis=(1, 2)) / size0
    got = M.KernelDistance("relative").compute(model, params, data, HALF, start=start)
    np.testing.assert_allclose(got, relative, rtol=METRIC)
    points = np.random.default_rng(5).standard_normal((4, 5))
    rows = M.NTK(points).compute(model, params, data, HALF)
    np.testing.assert_allclose(rows[0], points * (params["u"][0] ** 2 + params["v"][0] ** 2) @ points.T, rtol=METRIC)


def test_gradient_count_by_the_sequential_rule():
    """Squared column norms written out by hand; copies with other scales correlate, dead neurons go."""
    model, data = fs.models.ReLU2(1, 9), problem(1, n=15)
    params = weights(model, 3)
    params["W1"][:, 4] = params["W1"][:, 2]
    params["b1"][:, 4], params["W2"][:, 0, 4] = params["b1"][:, 2], params["W2"][:, 0, 2] * (1 + 1e-3)
    params["W1"][:, 7], params["b1"][:, 7] = 0, -1
    want = []
    for w, b, a in zip(params["W1"][..., 0], params["b1"], params["W2"][:, 0], strict=True):
        z = data.X * w + b
        on = z > 0
        V = np.array([(a**2 * on * data.X**2).sum(0), (a**2 * on).sum(0), (np.maximum(z, 0) ** 2).sum(0)])
        kept = [j for j in range(9) if V[:, j].any()]
        for i in list(kept):
            if any(abs(np.corrcoef(V[:, i], V[:, j])[0, 1]) > 0.99 for j in kept if j != i):
                kept.remove(i)
        want.append(len(kept))
    got = M.GradientCount(0.99).compute(model, params, data, HALF)
    np.testing.assert_array_equal(got, want)
    assert max(want) < 8


def test_gradient_outer_product():
    """By differences of predictions; beta beta^T of a linear network."""
    data, params = problem(3), weights(TANH)
    step = 1e-5 * np.eye(3)
    up, down = ([M.FittedFunction(data.X + e).compute(TANH, params, data, HALF) for e in sign * step]
                for sign in (1, -1))
    slope = (np.stack(up, axis=2) - np.stack(down, axis=2)) / 2e-5
    want = np.einsum("nmi,nmj->nij", slope, slope) / data.n
    np.testing.assert_allclose(M.GradientOuterProduct().compute(TANH, params, data, HALF), want, atol=1e-8)
    model = fs.models.DiagonalLinear(3)
    uv = weights(model)
    beta = uv["u"] * uv["v"]
    got = M.GradientOuterProduct(points=np.zeros((2, 3))).compute(model, uv, data, HALF)
    np.testing.assert_allclose(got, beta[:, :, None] * beta[:, None], rtol=METRIC)


def test_a_lanczos_run_that_is_cut_short_has_no_value():
    model, data = fs.models.ReLU2(3, 40), problem(3)
    params = weights(model)
    want = M.Sharpness(method="exact").compute(model, params, data, HALF)
    assert np.isnan(M.Sharpness(method="lanczos", iterations=2).compute(model, params, data, HALF)).all()
    rough = M.Sharpness(method="lanczos", rtol=0.5).compute(model, params, data, HALF)
    assert (np.abs(rough - want) > 1e-12 * want).any() and (np.abs(rough - want) < 0.5 * want).all()
    signs = [M.HessianTrace("hutchinson", seed=seed).compute(model, params, data, HALF) for seed in (0, 0, 1)]
    assert (signs[0] == signs[1]).all() and (signs[0] != signs[2]).all()


def test_several_outputs():
    """K of a linear map W x is <x, x'> for equal outputs and 0 for others; the Hessian of its loss is I (x) C."""
    model = fs.models.MLP(3, (), outputs=2, bias=False)
    plain, rng = problem(3), np.random.default_rng(2)
    data, params = fs.Dataset(plain.X, rng.standard_normal((plain.n, 2))), weights(model)
    K = np.kron(data.X @ data.X.T, np.eye(2))
    np.testing.assert_allclose(M.NTK().compute(model, params, data, HALF), [K] * 4, rtol=METRIC, atol=1e-12)
    top = np.linalg.eigvalsh(data.X.T @ data.X / data.n)[-1]
    np.testing.assert_allclose(M.Sharpness(2).compute(model, params, data, HALF), np.full((4, 2), top), rtol=METRIC)
    r = data.X @ params["W1"].swapaxes(1, 2) - data.y
    gradient = np.linalg.norm(r.swapaxes(1, 2) @ data.X / data.n, axis=(1, 2))
    np.testing.assert_allclose(M.GradientNorm().compute(model, params, data, HALF), gradient, rtol=METRIC)


def test_distances_from_the_start():
    model, data = fs.models.ReLU2(3, 7), problem(3)
    params = weights(model)
    twice = {name: 2.0 * a for name, a in params.items()}
    assert (M.KernelDistance().compute(model, params, data, HALF, start=params) < 1e-15).all()
    norm = M.ParameterNorm().compute(model, params, data, HALF)
    np.testing.assert_allclose(M.DistanceTravelled().compute(model, twice, data, HALF, start=params), norm)
    np.testing.assert_allclose(M.DistanceTravelled(relative=True).compute(model, twice, data, HALF, start=params), 1)


def test_curvature_by_another_library():
    """Hessian of curvlinops, and its Gauss-Newton matrix (2 / n) phi^T phi, whose spectrum is the kernel's.

    No part of the test extra, since it wants torchvision and so another torch; pip install --no-deps serves.
    """
    curvlinops = pytest.importorskip("curvlinops")
    import torch

    model, data, params = fs.models.MLP(3, 5, activation="tanh"), problem(3), weights(fs.models.MLP(3, 5), 1)
    net = torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.Tanh(), torch.nn.Linear(5, 1)).double()
    with torch.no_grad():
        for p, a in zip(net.parameters(), params.values(), strict=True):
            p.copy_(torch.from_numpy(a[0]))
    batch = [(torch.from_numpy(data.X.copy()), torch.from_numpy(data.y.copy())[:, None])]
    given = (net, torch.nn.MSELoss(), list(net.parameters()), batch)
    full = fs.losses.Squared.full()
    for kind, want in ((curvlinops.HessianLinearOperator, derivative("hessian", model, params, data, full)[0]),
                       (curvlinops.GGNLinearOperator, None)):
        matrix = (kind(*given) @ torch.eye(model.P, dtype=torch.float64)).numpy()
        if want is None:
            top = 2 / data.n * M.NTKEigenvalue().compute(model, params, data, full)[0]
            np.testing.assert_allclose(np.linalg.eigvalsh(matrix)[-1], top, rtol=1e-10)
        else:
            np.testing.assert_allclose(matrix, want, rtol=1e-9, atol=1e-11)
