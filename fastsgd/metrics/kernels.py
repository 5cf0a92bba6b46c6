"""Owns metrics of gradients of the predictions: phi in the trained parameters, K = phi phi^T, gradients in inputs."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..gradients import of_each
from ..spec.check import Array, one_of, real, whole
from .base import Metric, by_parts, eigenvalues
from .feature_sparsity import merged
from .hessian import refuse_untrained
from .jacobian_rank import jacobians, trained_jacobians
from .points import as_points, refuse_points, train_points
from .two_layer import refuse_neurons


class Tangent(Metric):
    """A metric of phi at `points`, by default the training inputs."""

    points = None

    def refuse(self, model: Any, data: Any) -> str | None:
        return refuse_points(self.points, data) or refuse_untrained(model)

    def rows(self, model: Any, data: Any) -> np.ndarray:
        """Number m o of rows of phi."""
        return len(train_points(self.points, data)) * model.outputs

    def by_jacobian(self, function: Any, model: Any, data: Any, *stacks: Any) -> np.ndarray:
        """function(phi of each stack) [N, ...], a few networks at a time: `by_parts` of Jacobians and kernels."""
        X = train_points(self.points, data)
        rows = self.rows(model, data)
        size = 8 * len(stacks) * rows * (4 * model.P + 2 * rows)
        return by_parts(lambda *parts: function(*(trained_jacobians(model, part, X) for part in parts)), size, *stacks)


def kernel(phi):
    """K [N, m, m] = phi phi^T."""
    return phi @ phi.swapaxes(1, 2)


@dataclass(frozen=True, eq=False)
class NTK(Tangent):
    """Tangent kernel K_ij = <grad h(x_i), grad h(x_j)>, [N, S, m, m], without a factor 1/m.

    With o > 1 outputs it is [N, S, m o, m o]; row i o + k is output k at x_i.
    points [m, d]: x; by default the training inputs. Gradients are in the parameters that are trained.
    """

    points: Array | None = None
    name: str = "ntk"

    def __post_init__(self):
        object.__setattr__(self, "points", as_points(self.points, "NTK.points"))

    def axes(self, model: Any, data: Any) -> dict | None:
        m = self.rows(model, data)
        return {f"{self.name}_row": range(m), f"{self.name}_column": range(m)}

    def compute(self, model: Any, params: dict, data: Any, loss: Any) -> np.ndarray:
        return self.by_jacobian(kernel, model, data, params)


@dataclass(frozen=True, eq=False)
class NTKEigenvalue(Tangent):
    """Largest eigenvalue of the tangent kernel phi phi^T, without a factor 1/m.

    k: how many of the largest, 1 .. m o; k > 1 gives [N, S, k], falling
    points [m, d]: by default the training inputs
    Source: Lewkowycz et al. 2020, arXiv 2003.02218, where K is that of one sample
    """

    k: int = 1
    points: Array | None = None
    name: str = "ntk_eigenvalue"

    def __post_init__(self):
        object.__setattr__(self, "k", whole(self.k, "NTKEigenvalue.k", 1))
        object.__setattr__(self, "points", as_points(self.points, "NTKEigenvalue.points"))

    def refuse(self, model: Any, data: Any) -> str | None:
        why = super().refuse(model, data)
        if why is None and self.k > self.rows(model, data):
            why = f"k is {self.k}, but the kernel has only {self.rows(model, data)} rows"
        return why

    def axes(self, model: Any, data: Any) -> dict | None:
        return {f"{self.name}_number": range(self.k)} if self.k > 1 else None

    def compute(self, model: Any, params: dict, data: Any, loss: Any) -> np.ndarray:
        values = self.by_jacobian(lambda phi: eigenvalues(kernel(phi))[:, :self.k], model, data, params)
        return values[:, 0] if self.k == 1 else values


@dataclass(frozen=True, eq=False)
class KernelDistance(Tangent):
    """Distance of the tangent kernel K from that of step 0, K_0.

    kind: "cosine", 1 - <K, K_0> / (||K|| ||K_0||), 0 where one is a multiple of the other; or "relative",
        ||K - K_0|| / ||K_0||; Frobenius norms. NaN where a norm is 0
    points [m, d]: by default the training inputs
    Source: Chizat et al. 2019, arXiv 1812.07956 ("relative"); Fort et al. 2020, arXiv 2010.15110 ("cosine")
    """

    kind: str = "cosine"
    points: Array | None = None
    name: str = "kernel_distance"
    needs_start = True

    def __post_init__(self):
        one_of(self.kind, "KernelDistance.kind", ("cosine", "relative"))
        object.__setattr__(self, "points", as_points(self.points, "KernelDistance.points"))

    def compute(self, model: Any, params: dict, data: Any, loss: Any, start: Any) -> np.ndarray:
        def norm(K):
            return np.linalg.norm(K, axis=(1, 2))

        def distance(phi, phi0):
            K, K0 = kernel(phi), kernel(phi0)
            if self.kind == "relative":
                return norm(K - K0) / norm(K0)
            # half the squared chord of the unit matrices is 1 - cosine, without its cancellation near 0
            return norm(K / norm(K)[:, None, None] - K0 / norm(K0)[:, None, None]) ** 2 / 2

        return self.by_jacobian(distance, model, data, params, start)


@dataclass(frozen=True, eq=False)
class JacobianSquaredNorm(Tangent):
    """Squared Frobenius norm of the Jacobian, sum_i ||grad h(x_i)||^2, the trace of the tangent kernel.

    points [m, d]: x; by default the training inputs. Gradients are in the parameters that are trained.
    Source: Blanc et al. 2020, arXiv 1904.09080, whose implicit regulariser this is
    """

    points: Array | None = None
    name: str = "jacobian_squared_norm"

    def __post_init__(self):
        object.__setattr__(self, "points", as_points(self.points, "JacobianSquaredNorm.points"))

    def compute(self, model: Any, params: dict, data: Any, loss: Any) -> np.ndarray:
        return self.by_jacobian(lambda phi: (phi**2).sum(axis=(1, 2)), model, data, params)


@dataclass(frozen=True, eq=False)
class GradientCount(Tangent):
    """Number of neurons of a two-layer network whose gradients differ in kind.

    Neuron j has a vector of the squared norms of its columns of phi, one for each entry of w_j, b_j, a_j. Neurons whose
    vector is zero are dropped; neuron i is merged away if some later living j > i has Pearson correlation
    |rho_ij| > tau over the entries (the rule of `FeatureSparsity`); those that stay are counted.

    tau: in (0, 1]; 0.999 is that of arXiv 2210.05337's code
    points [m, d]: by default the training inputs
    """

    tau: float = 0.999
    points: Array | None = None
    name: str = "gradient_count"

    def __post_init__(self):
        object.__setattr__(self, "tau", real(self.tau, "GradientCount.tau", 0, low_open=True, high=1))
        object.__setattr__(self, "points", as_points(self.points, "GradientCount.points"))

    def refuse(self, model: Any, data: Any) -> str | None:
        return refuse_points(self.points, data) or refuse_neurons(model)

    def compute(self, model: Any, params: dict, data: Any, loss: Any) -> np.ndarray:
        X = train_points(self.points, data)

        def count(params):
            norms = model.unflatten((jacobians(model, params, X) ** 2).sum(axis=1))
            rows = [norms["W1"].swapaxes(1, 2), norms["W2"]] + ([norms["b1"][:, None]] if "b1" in norms else [])
            entries = np.concatenate(rows, axis=1)  # [N, entries of a neuron, h]
            alive = (entries > 0).any(axis=1)
            return (alive & ~merged(entries, alive, self.tau)).sum(axis=1)

        return by_parts(count, 16 * len(X) * model.P + 32 * model.shapes()["W1"][0] ** 2, params)


@dataclass(frozen=True, eq=False)
class GradientOuterProduct(Metric):
    """Average outer product of the gradients in the inputs, (1/m) sum_i grad_x h(x_i) grad_x h(x_i)^T, [N, S, d, d].

    points [m, d]: x; by default the training inputs
    Source: Radhakrishnan et al. 2022, arXiv 2212.13881
    """

    points: Array | None = None
    name: str = "gradient_outer_product"

    def __post_init__(self):
        object.__setattr__(self, "points", as_points(self.points, "GradientOuterProduct.points"))

    def refuse(self, model: Any, data: Any) -> str | None:
        several = f"{type(model).__name__} has {model.outputs} outputs, needed is one" if model.outputs > 1 else None
        return refuse_points(self.points, data) or several

    def axes(self, model: Any, data: Any) -> dict | None:
        return {"input": range(model.d), f"{self.name}_input": range(model.d)}

    def compute(self, model: Any, params: dict, data: Any, loss: Any) -> np.ndarray:
        import torch

        X = torch.from_numpy(np.array(train_points(self.points, data)))

        def product(params):
            stacks = {name: torch.from_numpy(np.array(a)) for name, a in params.items()}
            N = len(next(iter(stacks.values())))
            g = of_each(lambda X, one: model.forward(one, X))(X.expand(N, *X.shape), stacks).numpy()  # [N, m, d]
            return g.swapaxes(1, 2) @ g / len(X)

        return by_parts(product, 64 * len(X) * (model.d + model.P // model.d), params)
