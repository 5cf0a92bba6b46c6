"""Owns rank and singular values of the Jacobian of the predictions with respect to the parameters."""

from math import prod
from typing import Any

import numpy as np

from ..linalg import count_above
from ..models.base import form_of
from ..spec.check import BELOW_ONE, Array, one_of, real, whole
from ..spec.record import record
from .base import Metric
from .points import as_points, refuse_test_points, test_points

DEPENDENT = 1e-12  # of columns of length one, what rounding leaves of a singular value that is zero


def jacobians(model, params, X):
    """Jacobians [N, m o, P] of the o outputs at x_1..m by torch.func in float64: the definition."""
    import torch

    names = list(model.shapes())
    X = torch.from_numpy(np.array(X, dtype=np.float64))
    stacks = tuple(torch.from_numpy(np.array(params[name])) for name in names)

    def predictions(*arrays):
        return model.forward(dict(zip(names, arrays, strict=True)), X)

    parts = torch.func.vmap(torch.func.jacrev(predictions, argnums=tuple(range(len(names)))))(*stacks)
    rows = len(X) * model.outputs
    return torch.cat([part.reshape(len(part), rows, -1) for part in parts], dim=2).numpy()


def trained_jacobians(model, params, X):
    """Jacobians [N, m, P'] in the parameters that are trained; of several outputs, all of a point after each other."""
    phi = jacobians(model, params, X)
    columns = np.concatenate([np.full(int(np.prod(shape)), model.trained(name))
                              for name, shape in model.shapes().items()])
    return phi[..., columns]


def independent(J):
    """Singular values [N, k] of matrices [N, m, P] with columns of length one, 0 where they are but for rounding."""
    columns = np.ldexp(J, -np.frexp(np.abs(J).max(axis=1, keepdims=True))[1])
    length = np.linalg.norm(columns, axis=1, keepdims=True)
    sigma = np.linalg.svd(columns / np.where(length > 0, length, 1), compute_uv=False)
    return np.where(sigma > DEPENDENT * sigma[:, :1], sigma, 0)


class JacobianMetric(Metric):
    """What metrics of phi = [dh(x_i)/dtheta]_i [m o, P] share: the evaluation points `points`, and a `method`.

    A subclass has `of(sigma [N, k], exponents=None)`: the metric from the singular values sigma, largest first, times
    2^exponents [N, k] if given.
    """

    by_definition = ("auto", "svd")  # methods that need no kernel

    def _check(self, methods):
        name = type(self).__name__
        one_of(self.method, f"{name}.method", methods)
        object.__setattr__(self, "points", as_points(self.points, f"{name}.points"))

    def refuse(self, model: Any, data: Any) -> str | None:
        return refuse_test_points(self.points, data)

    def where(self, model: Any, data: Any) -> np.ndarray:
        """The evaluation points [m, d] float64."""
        return test_points(self.points, model, data)

    def most(self, model: Any, data: Any) -> int:
        """Number of singular values of phi."""
        trained = sum(prod(shape) for name, shape in model.shapes().items() if model.trained(name))
        return min(len(self.where(model, data)) * model.outputs, trained)

    def compute(self, model: Any, params: dict, data: Any, loss: Any) -> np.ndarray:
        X = self.where(model, data)
        N, out = len(next(iter(params.values()))), []
        at_once = max(1, (64 << 20) // (8 * len(X) * model.outputs * model.P))  # Jacobians a time: 64 MiB
        for k in range(0, N, at_once):
            part = {name: a[k:k + at_once] for name, a in params.items()}
            J = trained_jacobians(model, part, X)
            known = np.isfinite(J).all(axis=(1, 2))
            sigma = np.full((len(J), min(J.shape[1:])), np.nan)
            sigma[known] = self.values(J[known])
            out.append(self.of(sigma))
        return np.concatenate(out)

    def values(self, J: Any) -> np.ndarray:
        """Singular values [N, k] of finite Jacobians [N, m o, P']."""
        return np.linalg.svd(J, compute_uv=False)


@record()
class JacobianRank(JacobianMetric):
    """Numerical rank of phi = [dh(x_i)/dtheta]_i [m o, P]: #{k : sigma_k > rtol * sigma_1}.

    rtol: in [0, 1). 1e-4 (ReLU networks) and 1e-15 (diagonal networks, in float64) are those of arXiv 2210.05337. 0 is
        for diagonal networks alone, and counts the independent columns of the points among inputs whose weights are not
        zero, at most min(m, live inputs): there J is that of the points with its columns scaled. Other Jacobians are
        known to rounding only, which leaves no singular value at zero; the plan refuses them
    points [m, d]: where phi is evaluated; by default the first min(P, n_test) test points, as in that paper
    method: "count" (diagonal networks: exact inertia), "gram" (dense networks, rtol >= 1e-6: inertia of phi phi^T),
        "jacobi" (singular values with high relative accuracy), "svd" (the definition: torch.func and LAPACK), or
        "auto", which takes the fastest that is right here; `plan(run).explain()` says which, and why
    """

    rtol: float = 1e-4
    points: Array | None = None
    name: str = "rank"
    method: str = "auto"

    def __post_init__(self):
        object.__setattr__(self, "rtol", real(self.rtol, "JacobianRank.rtol", 0, high=BELOW_ONE))
        self._check(("auto", "count", "gram", "jacobi", "svd"))

    def refuse(self, model: Any, data: Any) -> str | None:
        form = form_of(model)
        if self.rtol == 0 and not (form and form.linear):  # else J is the points, columns scaled
            return (f"rtol is 0, and rounding leaves no singular value of {type(model).__name__}'s Jacobian at zero; "
                    "give rtol=1e-12 to count what is above rounding (diagonal networks take 0)")
        return super().refuse(model, data)

    def values(self, J: Any) -> np.ndarray:
        return super().values(J) if self.rtol else independent(J)

    def of(self, sigma: Any, exponents: Any = None) -> Any:
        """Ranks [N] of singular values [N, k]; NaN where they are not finite."""
        return np.where(np.isfinite(sigma).all(axis=-1), count_above(sigma, self.rtol, exponents), np.nan)


@record()
class JacobianSpectrum(JacobianMetric):
    """Singular values of phi = [dh(x_i)/dtheta]_i [m o, P], largest first: records [N, S, k].

    k: how many are kept, >= 1; by default all min(m o, P)
    points [m, d]: where phi is evaluated; by default the first min(P, n_test) test points
    method: "jacobi" (high relative accuracy), "svd" (the definition: torch.func and LAPACK), or "auto"
    """

    k: int | None = None
    points: Array | None = None
    name: str = "spectrum"
    method: str = "auto"

    def __post_init__(self):
        if self.k is not None:
            object.__setattr__(self, "k", whole(self.k, "JacobianSpectrum.k", 1))
        self._check(("auto", "jacobi", "svd"))

    def refuse(self, model: Any, data: Any) -> str | None:
        why = super().refuse(model, data)
        if why is None and self.k is not None and self.k > self.most(model, data):
            return f"k={self.k} given, the Jacobian has {self.most(model, data)} singular values"
        return why

    def axes(self, model: Any, data: Any) -> dict | None:
        return {f"{self.name}_number": range(self.k or self.most(model, data))}

    def of(self, sigma: Any, exponents: Any = None) -> Any:
        """The k largest [N, k] of singular values [N, all]."""
        if exponents is not None:
            with np.errstate(over="ignore", under="ignore"):
                sigma = np.ldexp(sigma, exponents)
        return sigma[:, :self.k]
