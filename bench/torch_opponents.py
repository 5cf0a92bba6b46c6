"""Owns the opponents written in PyTorch: a plain loop, by hand, vmap(grad), compiled, CUDA graphs, ModelBatch."""

import numpy as np
import torch

from .opponents import Provider
from .peak import Absent


def tensor(array, device="cpu"):
    return torch.from_numpy(np.array(array, order="C")).to(device)


def forward(case, params, x):
    """Predictions [B] of one network at x [B, d]."""
    if case.kind == "own":
        return torch.func.vmap(case.function, in_dims=(None, 0))(params, x)
    if case.kind == "diagonal":
        return x @ (params["u"] * params["v"])
    a = x
    for W, b in case.layers:
        z = torch.nn.functional.linear(a, params[W], params[b] if b else None)
        a = torch.relu(z) if W != case.layers[-1][0] else z
    return a[:, 0]


class TorchNaive(Provider):
    """The loop a newcomer writes: one network, loss.backward(), torch.optim.SGD."""

    name, most_networks, first_T, device = "torch-naive", 2, 16, "cpu"

    def __init__(self, cores):
        super().__init__(cores)
        torch.set_num_threads(cores)

    def versions(self):
        return {"torch": torch.__version__}

    def prepare(self, case, N, T, variant, options):
        X, y, start = tensor(case.data.X), tensor(case.data.y), tensor(case.start(N))
        order = tensor(case.order(N, T))

        def train(k):
            params = {name: a.clone().requires_grad_() for name, a in case.model.unflatten(start[k]).items()}
            optimizer = torch.optim.SGD(params.values(), lr=case.step_size)
            for t in range(T):
                x, label = (X, y) if case.batch is None else (X[order[k, t]], y[order[k, t]])
                optimizer.zero_grad()
                loss = case.factor * ((forward(case, params, x) - label) ** 2).mean()
                loss.backward()
                optimizer.step()
            return torch.cat([p.detach().reshape(-1) for p in params.values()])

        return lambda: torch.stack([train(k) for k in range(N)])

    def answer(self, out, case):
        return out.numpy()


class TorchBatched(TorchNaive):
    """N networks side by side in tensors, gradients by hand; plain, or in place with the fused operations of torch.

    Rows are [N, B, d] and [N, h, d], columns [d, N] and [h, d, N]: which is faster depends on the operation, and one
    thread is faster than two where operations are short.
    """

    name, most_networks, first_T = "torch-batched", None, 16
    kinds = ("plain", "rows", "columns")

    def variants_for(self, case):
        kinds = [kind for kind in self.kinds if kind != "columns" or (case.batch == 1 and len(case.layers) <= 2
                                                                      if case.kind == "dense" else case.batch == 1)]
        return tuple(f"{kind}, {threads} thread(s)" for kind in kinds for threads in range(1, self.cores + 1))

    def prepare(self, case, N, T, variant, options):
        kind, threads = variant.split(", ")[0], int(variant.split(", ")[1].split()[0])
        X, y, order = self.data(case, N, T)
        start = case.model.unflatten(tensor(case.start(N), self.device))
        step = self.step(case, kind)
        if kind == "columns":
            start, X = {name: a.movedim(0, -1).contiguous() for name, a in start.items()}, X.T.contiguous()
            order = order[..., 0]

        def run():
            torch.set_num_threads(threads)
            params = {name: a.clone() for name, a in start.items()}
            with torch.inference_mode():
                for i in order:
                    params = step(X, y, i, params) or params
            return params, kind

        return run

    def data(self, case, N, T):
        """X, y, and the samples of each step [T, N, B]; of full batches N views of all."""
        order = tensor(np.ascontiguousarray(case.order(N, T).transpose(1, 0, 2)), self.device)
        return tensor(case.data.X, self.device), tensor(case.data.y, self.device), order

    def step(self, case, kind):
        made = getattr(self, f"{case.kind}_{kind}")
        eta = 2 * case.factor * case.step_size / case.samples
        return lambda X, y, i, params: made(case, X, y, eta, i, **params)

    def answer(self, out, case):
        params, kind = out
        rows = [params[name].movedim(-1, 0) if kind == "columns" else params[name] for name in case.model.shapes()]
        return torch.cat([a.reshape(len(a), -1) for a in rows], dim=1).cpu().numpy()

    @staticmethod
    def slope(case, X, y, eta, i, beta):
        """sum over the batch of eta (<beta, x> - y) x [N, d] of diagonal networks."""
        if case.batch is None:
            return (eta * (beta @ X.T - y)) @ X
        x = X[i]  # [N, B, d]
        if case.batch == 1:
            x = x[:, 0]
            return (eta * ((beta * x).sum(1) - y[i[:, 0]]))[:, None] * x
        r = eta * (torch.bmm(x, beta[:, :, None])[:, :, 0] - y[i])
        return torch.bmm(r[:, None], x)[:, 0]

    @classmethod
    def diagonal_plain(cls, case, X, y, eta, i, u, v):
        g = cls.slope(case, X, y, eta, i, u * v)
        return {"u": u - g * v, "v": v - g * u}

    @classmethod
    def diagonal_rows(cls, case, X, y, eta, i, u, v):
        if case.batch == 1:
            i = i[:, 0]
            x = X.index_select(0, i)
            g = x.mul_(torch.linalg.vecdot(u * v, x).sub_(y[i]).mul_(eta)[:, None])
        else:
            g = cls.slope(case, X, y, eta, i, u * v)
        old = u.clone()
        u.addcmul_(g, v, value=-1)
        v.addcmul_(g, old, value=-1)

    @staticmethod
    def diagonal_columns(case, X, y, eta, i, u, v):
        x = X.index_select(1, i)
        g = x.mul_(torch.mul(u, v).mul_(x).sum(0).sub_(y[i]).mul_(eta))
        old = u.clone()
        u.addcmul_(g, v, value=-1)
        v.addcmul_(g, old, value=-1)

    @staticmethod
    def sweep(case, X, y, eta, i, params):
        """Yield (weight, bias, delta [N, B, out], input [N, B, in]) of every layer, from the top."""
        a = [X.expand(len(next(iter(params.values()))), *X.shape) if case.batch is None else X[i]]
        for W, b in case.layers:
            w = params[W].transpose(1, 2)
            z = torch.baddbmm(params[b][:, None], a[-1], w) if b else torch.bmm(a[-1], w)
            a.append(torch.relu(z) if W != case.layers[-1][0] else z)
        delta = eta * (a[-1] - (y if case.batch is None else y[i])[..., None])
        for k in reversed(range(len(case.layers))):
            W, b = case.layers[k]
            back = torch.bmm(delta, params[W]) * (a[k] > 0) if k else None
            yield W, b, delta, a[k]
            delta = back

    @classmethod
    def dense_plain(cls, case, X, y, eta, i, **params):
        new = {}
        for W, b, delta, a in cls.sweep(case, X, y, eta, i, params):
            new[W] = params[W] - delta.transpose(1, 2) @ a
            if b:
                new[b] = params[b] - delta.sum(1)
        return new

    @classmethod
    def dense_rows(cls, case, X, y, eta, i, **params):
        for W, b, delta, a in cls.sweep(case, X, y, eta, i, params):
            params[W].baddbmm_(delta.transpose(1, 2), a, alpha=-1)
            if b:
                params[b].sub_(delta.sum(1) if delta.shape[1] > 1 else delta[:, 0])

    @staticmethod
    def dense_columns(case, X, y, eta, i, **params):
        (W1, b1), (W2, b2) = case.layers
        x, a = X.index_select(1, i), params[W2][0]
        z = torch.mul(params[W1], x).sum(1)
        z = (z.add_(params[b1]) if b1 else z).relu_()
        out = torch.mul(a, z).sum(0)
        r = (out.add_(params[b2][0]) if b2 else out).sub_(y[i]).mul_(-eta)
        delta = torch.mul(a, r).mul_(z > 0)
        params[W1].addcmul_(delta[:, None], x)
        if b1:
            params[b1].add_(delta)
        a.addcmul_(z, r)
        if b2:
            params[b2].add_(r)


class TorchCompiled(TorchBatched):
    """The plain step, gradients by hand, under torch.compile."""

    name, kinds = "torch-compiled", ("plain",)

    def __init__(self, cores):
        super().__init__(cores)
        self.made = {}

    def step(self, case, kind):
        if case.name not in self.made:
            self.made[case.name] = compiled(super().step(case, kind))
        return self.made[case.name]

    def variants_for(self, case):
        return (f"plain, {self.cores} thread(s)",)


class TorchVmap(TorchNaive):
    """torch.func: the step of one network, differentiated by grad, mapped over networks by vmap."""

    name, most_networks, first_T = "torch-vmap", None, 8

    def step(self, case):
        def loss(params, x, y):
            return case.loss(forward(case, params, x), y)

        gradient = torch.func.vmap(torch.func.grad(loss), in_dims=(0, None, None) if case.batch is None else 0)

        def step(X, y, i, params):
            x, label = (X, y) if case.batch is None else (X[i], y[i])
            slopes = gradient(params, x, label)
            return {name: a - case.step_size * slopes[name] for name, a in params.items()}

        return step

    def prepare(self, case, N, T, variant, options):
        X, y = tensor(case.data.X), tensor(case.data.y)
        order = tensor(np.ascontiguousarray(case.order(N, T).transpose(1, 0, 2)))
        start, step = case.model.unflatten(tensor(case.start(N))), self.step(case)

        def run():
            params = {name: a.clone() for name, a in start.items()}
            with torch.no_grad():
                for i in order:
                    params = step(X, y, i, params)
            return params

        return run

    def answer(self, out, case):
        return torch.cat([out[name].reshape(len(out[name]), -1) for name in case.model.shapes()], dim=1).numpy()


class TorchVmapCompiled(TorchVmap):
    """The same step under torch.compile."""

    name = "torch-vmap-compiled"

    def __init__(self, cores):
        super().__init__(cores)
        self.made = {}

    def step(self, case):
        if case.name not in self.made:
            self.made[case.name] = compiled(super().step(case))
        return self.made[case.name]


def compiled(function):
    """A function under torch.compile, of one shape: what is compiled is not shared between cases."""
    torch._dynamo.reset()
    return torch.compile(function, dynamic=False)


class TorchGraphs(TorchBatched):
    """The step batched by hand, in place, replayed as a CUDA graph; the step number lies in device memory."""

    name, kinds, device = "torch-graphs", ("rows",), "cuda"

    def __init__(self, cores):
        super().__init__(cores)
        if not torch.cuda.is_available():
            raise Absent("no CUDA device")

    def variants_for(self, case):
        return ("rows, 1 thread(s)",)

    def prepare(self, case, N, T, variant, options):
        X, y, order = self.data(case, N, T)
        start = case.model.unflatten(tensor(case.start(N), self.device))
        params, i = {name: a.clone() for name, a in start.items()}, order[0].clone()
        step, stream = self.step(case, "rows"), torch.cuda.Stream()
        with torch.cuda.stream(stream), torch.inference_mode():
            step(X, y, i, params)  # libraries make their work areas before the capture
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.inference_mode(), torch.cuda.graph(graph):
            step(X, y, i, params)

        def run():
            for name, a in params.items():
                a.copy_(start[name])
            for which in order:
                i.copy_(which)
                graph.replay()
            torch.cuda.synchronize()
            return params, "rows"

        return run


class ModelBatchLoop(TorchNaive):
    """The package ModelBatch: modules stacked and mapped by torch.vmap, autograd, torch.optim.SGD on the stack."""

    name, most_networks, first_T = "modelbatch", 256, 8

    def __init__(self, cores):
        super().__init__(cores)
        try:
            import modelbatch
        except ImportError as error:
            raise Absent(f"modelbatch is not installed ({error})") from None
        self.package = modelbatch

    def versions(self):
        from importlib.metadata import version

        return super().versions() | {"modelbatch": version("modelbatch")}

    def prepare(self, case, N, T, variant, options):
        X, y, order = tensor(case.data.X), tensor(case.data.y), tensor(case.order(N, T))
        start = case.model.unflatten(tensor(case.start(N)))

        class Network(torch.nn.Module):
            def __init__(self, k):
                super().__init__()
                for name, a in start.items():
                    self.register_parameter(name, torch.nn.Parameter(a[k].clone()))

            def forward(self, x):
                return forward(case, dict(self.named_parameters()), x)

        stack = self.package.ModelBatch([Network(k) for k in range(N)], shared_input=case.batch is None)

        def run():
            with torch.no_grad():
                for name, a in stack.stacked_params.items():
                    a.copy_(start[name])
            optimizer = torch.optim.SGD(list(stack.stacked_params.values()), lr=case.step_size)
            for t in range(T):
                x, label = (X, y) if case.batch is None else (X[order[:, t]], y[order[:, t]])
                optimizer.zero_grad()
                loss = case.factor * ((stack(x) - label) ** 2).mean(dim=1).sum()
                loss.backward()
                optimizer.step()
            return {name: a.detach() for name, a in stack.stacked_params.items()}

        return run

    def answer(self, out, case):
        return torch.cat([out[name].reshape(len(out[name]), -1) for name in case.model.shapes()], dim=1).numpy()


PROVIDERS = {p.name: p for p in (TorchNaive, TorchBatched, TorchCompiled, TorchVmap, TorchVmapCompiled, TorchGraphs,
                                 ModelBatchLoop)}
