"""Owns the rank, norm and singular values of a module's Jacobian with respect to its parameters or some of them."""

import numbers
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from ..errors import PlanError, SpecError
from ..spec.check import one_of, real, whole
from .passes import checked_module, device_of, evaluating, float64_device, full_precision, inputs, known

BELOW_ONE = 1 - 2.0**-53
CHUNK = {"cpu": 48 << 20}  # bytes of per-sample gradients held at a time: what stays near the caches of a CPU,
CHUNK_OF_A_CARD = 256 << 20  # and what fills a card
ROWS = 128  # rows differentiated at a time at most, since activations are held for each
FEW, FEW_SHARED = 4, 16  # rows below which vmap costs more than it saves; at most, where a forward serves several rows
MATRIX = 4 << 30  # bytes of the float64 matrix that is factorized


@dataclass(frozen=True, eq=False)
class JacobianSpectrum:
    """Singular values of J [rows, columns] and what follows from them.

    rank: #{k : sigma_k > rtol * sigma_1}, 0 for J = 0
    frobenius: ||J||_F
    singular_values [min(rows, columns)]: descending, float64 on the CPU
    """

    rank: int
    frobenius: float
    singular_values: torch.Tensor = field(repr=False)
    rows: int
    columns: int


class JacobianRank:
    """Numerical rank of J = [d f_k(x_i) / d theta]: one row for each example i and output k looked at.

    Per-sample gradients come from torch.func in the module's dtype, a chunk of rows at a time, or, where a chunk
    holds too few rows to gain from it, from plain autograd; the coordinates asked for are kept in float64 and the
    rest of the chunk is forgotten. Singular values are those of J itself, never of a Gram matrix: beyond 2 *
    columns rows, J is replaced by its triangular factor, which has the same ones. The module runs in evaluation
    mode, each example by itself, so batch norm uses its running statistics. Autocast, TF32 and bfloat16 products
    are off meanwhile.

    Memory: 48 MiB of gradients on a CPU, 256 MiB on a card, or one row, whichever is more, activations of `chunk_size`
    examples, and about three times 8 * min(rows, 2 * columns) * columns bytes, which may not exceed 4 GiB once.

    model: the torch.nn.Module that is called with one batch of inputs and gives one tensor [B, ...]
    rtol: in [0, 1) and at least the rounding unit of the parameters' dtype; 1e-4 is that of arXiv 2210.05337
    parameters: None (all that require a gradient), a number of coordinates drawn from those without replacement (the
        authors take 10,000 of a deep network), or names as in model.named_parameters()
    output: "all" (a row for each of the outputs), "random" (one drawn for each example), or the index of one in the
        flattened output
    seed: >= 0; decides which coordinates and outputs, the same in every call
    chunk_size: rows differentiated at a time; by default as many as those MiB of gradients hold, at most 128; 1 does
        without torch.func, for modules that it cannot run
    Raises SpecError for a field outside its range, PlanError for one that does not fit the model.
    """

    def __init__(self, model: Any, rtol: float = 1e-4, parameters: Any = None, output: Any = "all", seed: int = 0,
                 chunk_size: int | None = None) -> None:
        self.model = checked_module(model, "JacobianRank")
        self.rtol = real(rtol, "JacobianRank.rtol", 0, high=BELOW_ONE)
        self.seed = whole(seed, "JacobianRank.seed")
        self.chunk_size = None if chunk_size is None else whole(chunk_size, "JacobianRank.chunk_size", 1)
        is_index = isinstance(output, numbers.Integral)
        self.output = (whole(output, "JacobianRank.output") if is_index
                       else one_of(output, "JacobianRank.output", ("all", "random")))
        self._coordinates = self._choose(parameters)

    def over(self, data: Any) -> Any:
        """The JacobianSpectrum over all examples of `data`; training mode and parameters are left as they were.

        data: a tensor of inputs [B, ...], or a loader of tensors or (input, ...) tuples; moved to the model's device
        Raises SpecError for other data or none, PlanError for what the model gives.
        """
        self._refuse_batch_norm()
        draws = np.random.default_rng([self.seed, 1])
        stack = _Stack(sum(len(index) for index in self._coordinates.values()))
        device = device_of(self.model)
        with evaluating(self.model), full_precision(device), torch.inference_mode(False), torch.enable_grad():
            alone, together = self._gradients()
            for x in inputs(data, device):
                if x.ndim == 0 or not len(x):
                    raise PlanError(f"JacobianRank: a batch has shape {list(x.shape)}, expected [examples, ...]")
                x = x.clone() if x.is_inference() else x
                if not stack.rows:
                    self._try(x)
                examples, outputs = self._rows(x, draws)
                few = min(FEW * (len(examples) // len(x)), FEW_SHARED)
                for start, end in self._chunks(len(examples)):
                    gradients = together if end - start >= few and self.chunk_size != 1 else alone
                    stack.add(self._kept(gradients(x, examples[start:end], outputs[start:end])))
        if not stack.rows:
            raise SpecError("JacobianRank: the loader is empty")
        sigma = stack.singular_values()
        return JacobianSpectrum(int((sigma > self.rtol * sigma[0]).sum()), stack.squares**0.5, sigma, stack.rows,
                                stack.columns)

    def _choose(self, parameters):
        """{name: indices of its entries that are columns of J}, parameters without any left out."""
        everything = dict(self.model.named_parameters())
        if parameters is not None and not isinstance(parameters, numbers.Integral):
            names = known(parameters, everything, "JacobianRank.parameters")
            if not any(everything[name].numel() for name in names):
                raise PlanError(f"JacobianRank.parameters: {list(names)} have no entries")
            return {name: torch.arange(everything[name].numel()) for name in names}
        sizes = {name: p.numel() for name, p in everything.items() if p.requires_grad}
        P = sum(sizes.values())
        if not P:
            raise PlanError("JacobianRank: the model has no parameter that requires a gradient")
        if parameters is None:
            return {name: torch.arange(size) for name, size in sizes.items() if size}
        count = whole(parameters, "JacobianRank.parameters", 1)
        if count > P:
            raise PlanError(f"JacobianRank.parameters: {count} coordinates asked for, the model has {P}")
        drawn = np.sort(np.random.default_rng([self.seed, 0]).choice(P, count, replace=False))
        ends = np.cumsum(list(sizes.values()))
        parts = np.split(drawn, np.searchsorted(drawn, ends[:-1]))
        return {name: torch.from_numpy(part - (end - sizes[name]))
                for name, part, end in zip(sizes, parts, ends, strict=True) if len(part)}

    def _refuse_batch_norm(self):
        for name, module in self.model.named_modules():
            if isinstance(module, torch.nn.modules.batchnorm._BatchNorm) and module.running_mean is None:
                raise PlanError(f"JacobianRank: {name!r} normalises by the batch even in evaluation mode, so a row for "
                                "one example has no meaning; use track_running_stats=True")

    def _try(self, x):
        """Run the first examples: their rounding unit must lie below rtol, and each must have an output of its own."""
        parameters = dict(self.model.named_parameters())
        with torch.no_grad(), _Precisions() as seen:
            first = self._forward(x[:1])
        if not isinstance(first, torch.Tensor) or not first.is_floating_point() or first.shape[:1] != (1,):
            given = list(first.shape) if isinstance(first, torch.Tensor) else type(first).__name__
            raise PlanError(f"JacobianRank: the model gives {given} for one example, expected one real tensor [1, ...]")
        unit, dtype = max((torch.finfo(dtype).eps, str(dtype)) for dtype in
                          {*seen.dtypes, first.dtype, *(parameters[name].dtype for name in self._coordinates)})
        if 0 < self.rtol < unit:
            raise PlanError(f"JacobianRank.rtol: {self.rtol:g} is below the rounding unit {unit:.2g} of {dtype}, in "
                            "which the model computes; measure a copy in float64, e.g. copy.deepcopy(model).double(), "
                            "without an autocast of its own")
        if len(x) > 1:
            with torch.no_grad():
                both, second = self._forward(x[:2]), self._forward(x[1:2])
            one_by_one = torch.cat([first, second]) if second.shape == first.shape else second
            if both.shape != one_by_one.shape or (both - one_by_one).abs().max() > unit**0.5 * one_by_one.abs().max():
                raise PlanError("JacobianRank: two examples together give other outputs than one by one, so a row for "
                                "one example has no meaning; the first axis of inputs and outputs must be the "
                                "example's (batch_first=True), and no layer may mix examples")

    def _forward(self, x, moving=None):
        """The model's output, its buffers left alone."""
        buffers = {name: value.clone() for name, value in self.model.named_buffers()}
        return torch.func.functional_call(self.model, ({} if moving is None else moving, buffers), (x,))

    def _gradients(self):
        """Two functions (x [B, ...], examples [r], outputs [r]) -> {name: gradient [r, ...]} of the chosen parameters:
        by plain autograd one row after the other, and by vmap."""
        # neither a view nor an inference tensor may be differentiated with respect to
        fixed = {name: value.detach().clone() if value.is_inference() else value.detach() for name, value in
                 (*self.model.named_parameters(), *self.model.named_buffers())}
        moving = {name: fixed.pop(name) for name in self._coordinates}
        leaves = {name: value.detach().requires_grad_() for name, value in moving.items()}

        def alone(x, examples, outputs):
            rows, last, out = [], None, None
            for k, (i, output) in enumerate(zip(examples.tolist(), outputs.tolist(), strict=True)):
                if i != last:
                    copies = {name: value.clone() for name, value in fixed.items()}  # a forward may write to buffers
                    out, last = torch.func.functional_call(self.model, (leaves, copies), (x[i:i + 1],)).flatten(), i
                more = k + 1 < len(examples) and int(examples[k + 1]) == i
                rows.append(torch.autograd.grad(out[output], list(leaves.values()), retain_graph=more,
                                                allow_unused=True))
            return {name: torch.stack([torch.zeros_like(leaf) if row[j] is None else row[j] for row in rows])
                    for j, (name, leaf) in enumerate(leaves.items())}

        def value(moving, x, k):
            out = torch.func.functional_call(self.model, (moving, fixed), (x.unsqueeze(0),))
            return out.flatten().gather(0, k.unsqueeze(0)).squeeze(0)

        mapped = torch.func.vmap(torch.func.grad(value), in_dims=(None, 0, 0))

        def together(x, examples, outputs):
            try:
                return mapped(moving, x[examples], outputs)
            except torch.OutOfMemoryError as error:
                raise PlanError(f"JacobianRank: {len(examples)} rows at a time do not fit in memory; give a smaller "
                                "chunk_size") from error
            except Exception as error:
                alone(x, examples[:1], outputs[:1])  # raises what the model itself raises
                raise PlanError(f"JacobianRank: the model fails under torch.func.vmap ({error}); chunk_size=1 does "
                                "without, one row at a time") from error

        return alone, together

    def _rows(self, x, draws):
        """Which (example, output) pairs of a batch are rows of J: two index tensors [r]."""
        with torch.no_grad():
            out = self._forward(x[:1])
        B, M = len(x), out.numel()
        examples = torch.arange(B, device=x.device)
        if self.output == "all":
            return examples.repeat_interleave(M), torch.arange(M, device=x.device).repeat(B)
        if self.output == "random":
            return examples, torch.from_numpy(draws.integers(M, size=B)).to(x.device)
        if self.output >= M:
            raise PlanError(f"JacobianRank.output: {self.output} asked for, the model has {M} outputs")
        return examples, torch.full_like(examples, self.output)

    def _chunks(self, rows):
        """Stretches (start, end) of rows, of nearly equal length, no longer than may be differentiated at a time."""
        parameters = dict(self.model.named_parameters())
        row = sum(parameters[name].nbytes for name in self._coordinates)
        room = CHUNK.get(device_of(self.model).type, CHUNK_OF_A_CARD)
        most = max(1, min(ROWS, room // row)) if self.chunk_size is None else self.chunk_size
        count = -(-rows // most)
        return [(rows * k // count, rows * (k + 1) // count) for k in range(count)]

    def _kept(self, gradients):
        """The chosen coordinates [r, columns] in float64."""
        parts = [gradients[name].flatten(1)[:, index.to(gradients[name].device)]
                 for name, index in self._coordinates.items()]
        part = torch.cat(parts, dim=1)
        return part.to(float64_device(part.device)).double()


class _Stack:
    """Rows of J as they come, at most 2 * columns of them: more are folded into their triangular factor."""

    def __init__(self, columns):
        self.columns, self.rows, self.squares = columns, 0, 0.0
        self.blocks, self.held = [], 0

    def add(self, block):
        """Take in rows [r, columns]."""
        squares = float(block.square().sum())
        if not np.isfinite(squares):
            raise PlanError("JacobianRank: gradients are not finite")
        self.rows += len(block)
        self.held += len(block)
        self.squares += squares
        self.blocks.append(block)
        if self.held >= 2 * self.columns:
            self.blocks = [torch.linalg.qr(torch.cat(self.blocks), mode="r").R]
            self.held = self.columns
        if 8 * self.held * self.columns > MATRIX:
            raise PlanError(f"JacobianRank: {self.held} rows of {self.columns} columns exceed {MATRIX >> 30} GiB; "
                            "give fewer examples, or parameters=10_000 to draw coordinates")

    def singular_values(self):
        """Singular values [min(rows, columns)], descending; those of the triangular factor of the longer side."""
        J = self.blocks[0] if len(self.blocks) == 1 else torch.cat(self.blocks)
        self.blocks = []
        R = torch.linalg.qr(J if len(J) > self.columns else J.T, mode="r").R
        return torch.linalg.svdvals(R).cpu()


class _Precisions(torch.overrides.TorchFunctionMode):
    """Collects the real dtypes in which torch functions give their results."""

    def __init__(self):
        super().__init__()
        self.dtypes = set()

    def __torch_function__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        for value in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(value, torch.Tensor) and value.is_floating_point():
                self.dtypes.add(value.dtype)
        return out
