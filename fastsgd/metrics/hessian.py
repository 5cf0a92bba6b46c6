"""Owns metrics of the training loss around a network: gradient norm, sharpness, trace of the Hessian."""

from typing import Any

import numpy as np

from ..gradients import of_each
from ..models.base import form_of
from ..models.exact import exact
from ..spec.check import one_of, real, whole
from ..spec.population import Population
from ..spec.record import record
from .base import Metric, by_parts, eigenvalues
from .lanczos import top_eigenvalues
from .points import refuse_no_loss

METHODS = ("auto", "exact", "lanczos")
DENSE = 400  # parameters up to which the trace forms the whole Hessian by "auto"
QUICK = 100  # parameters beyond which Lanczos finds the largest eigenvalues sooner than the whole Hessian


def split(model, params):
    """In torch: trained parameters [N, P'], a function from such a vector to {name: array}, fixed {name: [N, ...]}."""
    import torch

    names = [name for name in model.shapes() if model.trained(name)]
    shapes = [model.shapes()[name] for name in names]
    sizes = [int(np.prod(shape)) for shape in shapes]
    N = len(next(iter(params.values())))
    flat = torch.from_numpy(np.concatenate([params[name].reshape(N, -1) for name in names], axis=1))
    fixed = {name: torch.from_numpy(np.array(a)) for name, a in params.items() if name not in names}

    def unflatten(vector):
        return {name: part.reshape(shape) for name, shape, part in
                zip(names, shapes, vector.split(sizes), strict=True)}

    return flat, unflatten, fixed


def derivative(kind, model, params, data, loss, *vectors):
    """Derivatives of the training loss at params, over the networks at once, NumPy float64.

    kind: "gradient" [N, P'], "hessian" [N, P', P'], or "product" of the Hessian with a vector [N, P']
    P' counts the parameters that are trained.
    """
    import torch

    model, data, loss = exact(model, data, loss)
    flat, unflatten, fixed = split(model, params)
    X, y = (torch.from_numpy(a.astype(np.float64)) for a in (data.X, data.y))

    def scalar(vector, fixed):
        return loss.value(model.forward(unflatten(vector) | fixed, X), y, model.outputs).mean()

    if kind == "gradient":
        return of_each(scalar)(flat, fixed).numpy()
    gradient = torch.func.grad(scalar)

    def product(vector, fixed, direction):  # the Hessian is symmetric: backwards twice serves
        return torch.func.vjp(lambda v: gradient(v, fixed), vector)[1](direction)[0]

    function = {"hessian": torch.func.jacrev(gradient), "product": product}[kind]
    return torch.func.vmap(function)(flat, fixed, *(torch.from_numpy(v) for v in vectors)).numpy()


def refuse_untrained(model):
    """None, or that no parameter of a model is trained."""
    return None if any(map(model.trained, model.shapes())) else "no parameter of this model is trained"


def trained_count(model):
    """P', the number of parameters that are trained."""
    return sum(int(np.prod(shape)) for name, shape in model.shapes().items() if model.trained(name))


def _activations(model, data):
    """Rough number of bytes that one pass of all samples through one network takes."""
    if isinstance(data, Population):  # what is between units, for all pairs of them
        return 64 * model.P * (form_of(model).units + form_of(data.teacher).units)
    return 64 * data.n * (model.d + model.outputs + model.P // max(1, model.d))


@record(eq=True)
class GradientNorm(Metric):
    """Euclidean norm of the gradient of the training loss with respect to the parameters that are trained."""

    name: str = "gradient_norm"

    def refuse(self, model: Any, data: Any) -> str | None:
        return refuse_no_loss(data) or refuse_untrained(model)

    def compute(self, model: Any, params: dict, data: Any, loss: Any) -> np.ndarray:
        def norm(params):
            return np.linalg.norm(derivative("gradient", model, params, data, loss), axis=1)

        return by_parts(norm, 64 * model.P + _activations(model, data), params)


@record(eq=True)
class Sharpness(Metric):
    """Largest eigenvalue of the Hessian of the training loss with respect to the parameters that are trained.

    k: how many of the largest eigenvalues; k > 1 gives [N, S, k], falling
    method: "exact" forms the Hessian [P', P'] and takes its eigenvalues; "lanczos" uses its products with vectors;
        "auto" is "exact" up to P' = 100 parameters
    rtol: > 0, when a Lanczos value counts as converged: residual at most rtol times the largest |eigenvalue|
    iterations: >= 1, most Lanczos iterations; a network that does not converge in them has NaN
    Where a kink of the activation meets a sample, its derivative there is that of the model (relu'(0) = 0). Memory is
    16 MiB, or what one network takes: its Hessian and P' passes of all samples, or 8 P' iterations bytes.
    Source: Cohen et al. 2021, arXiv 2103.00065
    """

    k: int = 1
    method: str = "auto"
    rtol: float = 1e-6
    iterations: int = 300
    name: str = "sharpness"

    def __post_init__(self):
        one_of(self.method, "Sharpness.method", METHODS)
        object.__setattr__(self, "k", whole(self.k, "Sharpness.k", 1))
        object.__setattr__(self, "rtol", real(self.rtol, "Sharpness.rtol", 0, low_open=True, high=1))
        object.__setattr__(self, "iterations", whole(self.iterations, "Sharpness.iterations", 1))

    def refuse(self, model: Any, data: Any) -> str | None:
        count, most = trained_count(model), self.iterations
        if refuse_no_loss(data):
            return refuse_no_loss(data)
        if self.k > count:
            return f"k is {self.k}, but only {count} parameters are trained"
        if self.k > most and not self.exact(model):
            return f"k is {self.k}, but Lanczos may take only {most} iterations"
        return None

    def exact(self, model: Any) -> bool:
        """Whether the whole Hessian is formed."""
        return self.method == "exact" or (self.method == "auto" and trained_count(model) <= QUICK)

    def axes(self, model: Any, data: Any) -> dict | None:
        return {f"{self.name}_eigenvalue": range(self.k)} if self.k > 1 else None

    def compute(self, model: Any, params: dict, data: Any, loss: Any) -> np.ndarray:
        P = trained_count(model)

        def exact(params):
            return eigenvalues(derivative("hessian", model, params, data, loss))[:, :self.k]

        def lanczos(params):
            first = np.random.default_rng(0).standard_normal((1, P)).repeat(len(next(iter(params.values()))), axis=0)
            return top_eigenvalues(lambda v: derivative("product", model, params, data, loss, v), first, self.k,
                                   self.rtol, self.iterations)

        if self.exact(model):
            values = by_parts(exact, _hessian_bytes(model, data), params)
        else:
            values = by_parts(lanczos, 32 * P * min(P, self.iterations) + _activations(model, data), params)
        return values[:, 0] if self.k == 1 else values


@record(eq=True)
class HessianTrace(Metric):
    """Trace of the Hessian of the training loss with respect to the parameters that are trained.

    method: "exact" forms the Hessian [P', P']; "hutchinson" is the mean of z^T H z over random signs z, the same for
        all networks; "auto" is "exact" up to P' = 400 parameters
    probes: >= 1, number of z; the standard deviation is sqrt(2 (||H||_F^2 - sum_j H_jj^2) / probes)
    seed: of z, >= 0
    """

    method: str = "auto"
    probes: int = 64
    seed: int = 0
    name: str = "hessian_trace"

    def __post_init__(self):
        one_of(self.method, "HessianTrace.method", ("auto", "exact", "hutchinson"))
        object.__setattr__(self, "probes", whole(self.probes, "HessianTrace.probes", 1))
        object.__setattr__(self, "seed", whole(self.seed, "HessianTrace.seed", 0, 2**64 - 1))

    def refuse(self, model: Any, data: Any) -> str | None:
        return refuse_no_loss(data) or refuse_untrained(model)

    def compute(self, model: Any, params: dict, data: Any, loss: Any) -> np.ndarray:
        P = trained_count(model)
        if self.method == "exact" or (self.method == "auto" and P <= DENSE):
            def exact(params):
                return np.trace(derivative("hessian", model, params, data, loss), axis1=1, axis2=2)

            return by_parts(exact, _hessian_bytes(model, data), params)

        def hutchinson(params):
            signs = np.random.default_rng(self.seed)
            N, total = len(next(iter(params.values()))), 0.0
            for _ in range(self.probes):
                z = np.broadcast_to(signs.choice((-1.0, 1.0), P), (N, P)).copy()
                total = total + (z * derivative("product", model, params, data, loss, z)).sum(axis=1)
            return total / self.probes

        return by_parts(hutchinson, 64 * P + _activations(model, data), params)


def _hessian_bytes(model, data):
    """Rough number of bytes that the Hessian of one network takes: it and P' passes of all samples."""
    P = trained_count(model)
    return 24 * P**2 + P * _activations(model, data)
