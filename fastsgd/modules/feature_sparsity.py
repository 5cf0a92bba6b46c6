"""Owns the feature sparsity of named layers of a module, counted by hooks in one pass without keeping activations."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..errors import PlanError, SpecError
from ..spec.check import flag, real, whole
from ..spec.constant import constant_within
from .passes import checked_module, device_of, evaluating, float64_device, inputs, known

STRIDE, LOWEST = 256, -1024.0  # of exponents of columns' scales
UNFINISHED = "FeatureSparsity: a forward did not finish, so some layers lack its samples; reset() and count again"


@dataclass(frozen=True)
class LayerSparsity:
    """What one layer's activations Phi [n, U] look like; K of its U units are sampled. Low means sparse.

    density: #{Phi > 0} / (n U), all units
    coefficient: #{Phi > 0 in sampled columns that stay} / (n K), the feature sparsity coefficient
    sampled_density: #{Phi > 0 in sampled columns} / (n K)
    alive: sampled units that are positive for some sample
    merged: living sampled units that a later one stands for
    units: U;  sampled: K;  samples: n
    """

    density: float
    coefficient: float
    sampled_density: float
    alive: int
    merged: int
    units: int
    sampled: int
    samples: int


class FeatureSparsity:
    """Feature sparsity coefficient of named layers of any module, all of them in one pass over the data.

    Phi [n, U] = a layer's output, flattened beyond its first axis. K = min(U, units) columns are sampled. A column that
    is never positive is dropped; living unit i is merged away if some later living unit j > i has Pearson correlation
    |rho_ij| > tau over the samples; coefficient = #{Phi > 0 in the columns that stay} / (n K). So copies and collinear
    columns merge to one. Constant columns have no correlation and all stay, copies of each other included: those with
    |Phi_j - mean| at most 16 eps |Phi_j|, norms over the samples and eps that of the features' dtype, plus
    U/8 float64 eps |Phi_j| if rows are scaled, which is what rounding makes of a constant. The scale of columns, and of
    scaled rows, does not matter. The closed form equals the sequential rule of arXiv 2210.05337, whose deep networks
    have the defaults tau 0.95, rows as they are, 1000 units.

    Only sums are kept, U counts and a K x K float64 co-moment a layer: a batch that brings b samples of mean m_b gives
        C <- C + sum (x - m_b)(x - m_b)^T + (m_b - m)(m_b - m)^T n b / (n + b),   m <- m + (m_b - m) b / (n + b)
    (Chan, Golub and LeVeque 1979), which centres before it multiplies and so loses nothing to a large mean.

    model: the torch.nn.Module that is called
    layers: names of submodules as in model.named_modules(), each called once in every forward; "" is the model's output
    tau: in (0, 1]; 1 merges nothing
    normalise: scale each row of Phi to unit length first (over all U units), as the paper does for its toy networks
    units: K at most, >= 1, or None for all units of the layer
    seed: >= 0; decides which units, a layer of U units always the same
    axis: which axis of the layers' outputs counts samples. None: the first, which must then be as long as that of the
        model's first input, and be no sequence's: a layer that flattens tokens or images into it is refused, and one
        of or in a module with batch_first=False. A number: this axis, of all layers, whatever it means
    Raises SpecError for a field outside its range, PlanError for an unknown layer.
    """

    def __init__(self, model: Any, layers: Any, tau: float = 0.95, normalise: bool = False,
                 units: int | None = 1000, seed: int = 0, axis: Any = None) -> None:
        self.model = checked_module(model, "FeatureSparsity")
        self._modules = dict(model.named_modules(remove_duplicate=False))
        self.layers = known(layers, self._modules, "FeatureSparsity.layers")
        self.tau = real(tau, "FeatureSparsity.tau", 0, low_open=True, high=1)
        self.normalise = flag(normalise, "FeatureSparsity.normalise")
        self.units = None if units is None else whole(units, "FeatureSparsity.units", 1)
        self.seed = whole(seed, "FeatureSparsity.seed")
        self.axis = None if axis is None else whole(axis, "FeatureSparsity.axis")
        self._handles = []
        self.reset()

    def reset(self) -> None:
        """Forget all counts."""
        self._counts = {}
        self._called = None  # layers called so far in the running forward, None between two
        self._samples = None  # how many samples this forward has, once that is known

    def attach(self) -> Any:
        """Forget all counts and count from now on, until `detach`; `with meter:` does both. Returns the meter."""
        if self._handles:
            raise PlanError("FeatureSparsity: is attached already, detach it first")
        self.reset()
        self._handles.append(self.model.register_forward_pre_hook(_Hook(self._begin), with_kwargs=True))
        for name in self.layers:
            self._handles.append(self._modules[name].register_forward_hook(_Hook(self._hook(name))))
        self._handles.append(self.model.register_forward_hook(_Hook(self._end)))
        return self

    def detach(self) -> None:
        """Stop counting; the counts stay until the next `attach`."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def __enter__(self):
        return self.attach()

    def __exit__(self, *exception):
        self.detach()

    def compute(self) -> dict:
        """{layer: LayerSparsity} of what was counted. Raises SpecError for fewer than 2 samples."""
        if self._called is not None:
            raise PlanError(UNFINISHED)
        if not self._counts:
            raise SpecError("FeatureSparsity: nothing was counted; the loader is empty, or the model was not called")
        return {name: self._counts[name].summary(self.tau) for name in self.layers}

    def feature_rank(self, share: float = 0.99) -> dict:
        """{layer: principal components of the sampled columns that explain `share` of their variance}, 0 for none.

        share: in (0, 1]; the least k with (lambda_1 + ... + lambda_k) >= share (lambda_1 + ... + lambda_K), lambda the
            eigenvalues of the co-moment of columns that are centred over samples, which the meter holds
        """
        share = real(share, "FeatureSparsity.feature_rank.share", 0, low_open=True, high=1)
        self.compute()  # refuses what was not counted
        return {name: self._counts[name].rank(share) for name in self.layers}

    def counts(self) -> Any:
        """{layer: what was counted}, numbers and CPU tensors, for `merge` in another process."""
        if self._called is not None:
            raise PlanError(UNFINISHED)
        return {name: self._counts[name].state() for name in self.layers if name in self._counts}

    def merge(self, counts: Any) -> None:
        """Take in the `counts()` of another meter, as if it had been this one that saw its samples.

        With torch.distributed: all_gather_object of every process's counts, then merge those of the others.
        Raises PlanError for counts of other layers, units, normalisation or seed.
        """
        if self._called is not None:
            raise PlanError(UNFINISHED)
        if counts.keys() not in (set(), set(self.layers)):
            raise PlanError(f"FeatureSparsity.merge: counts of {sorted(counts)} given, this meter has "
                            f"{sorted(self.layers)}")
        for name, state in counts.items():
            if name in self._counts and not self._counts[name].like(state):
                raise PlanError(f"layer {name!r}: the counts are of {state['positive'].numel()} units, "
                                f"{len(state['sample'])} sampled; meters that are merged must have the same layers, "
                                "units, normalise and seed")
        for name, state in counts.items():
            if name in self._counts:
                self._counts[name].merge(state)
            else:
                self._counts[name] = _Counts.of(state, device_of(self.model))

    def over(self, data: Any) -> Any:
        """One pass over `data` in evaluation mode, without gradients; modes and hooks are restored. See `compute`.

        data: a tensor of inputs [B, ...], or a loader of tensors or (input, ...) tuples; moved to the model's device
        Raises SpecError for other data, PlanError for a layer that does not fit or for activations that are not finite.
        """
        with evaluating(self.model), torch.no_grad(), self:
            for x in inputs(data, device_of(self.model)):
                self.model(x)
        return self.compute()

    def _begin(self, module, args, kwargs):
        if self._called is not None:
            raise PlanError(UNFINISHED)
        self._called = set()
        first = next((value for value in (*args, *kwargs.values()) if isinstance(value, torch.Tensor)), None)
        self._samples = None if self.axis is not None or first is None or not first.ndim else len(first)

    def _hook(self, name):
        def count(module, args, output):
            if self._called is None:
                raise PlanError(f"layer {name!r}: ran outside a forward of the model; give FeatureSparsity the module "
                                "that is called (a checkpointed block runs again in the backward: count without)")
            if name in self._called:
                raise PlanError(f"layer {name!r}: called twice in one forward; name modules that run once, e.g. give "
                                "each place its own ReLU")
            self._called.add(name)
            features = self._features(name, output)
            if name not in self._counts:
                with torch.inference_mode(False):  # its sums are added to in any mode
                    self._counts[name] = _Counts(features, self.units, self.normalise, self.seed)
            self._counts[name].add(name, features)
        return count

    def _features(self, name, output):
        """A layer's output as a detached matrix [b, U]."""
        if not isinstance(output, torch.Tensor) or not output.is_floating_point():
            kind = str(output.dtype) if isinstance(output, torch.Tensor) else type(output).__name__
            raise PlanError(f"layer {name!r}: gives {kind}, expected one real tensor; name a submodule that does")
        axis = self.axis or 0
        if output.ndim <= axis or output.numel() == 0:
            raise PlanError(f"layer {name!r}: gives shape {list(output.shape)}, expected "
                            f"[{'..., ' * bool(axis)}samples, ...]{f' on axis {axis}' if axis else ''}")
        b = output.shape[axis]
        if self.axis is None and (owner := self._sequence_first(name)) is not None:
            raise PlanError(f"layer {name!r}: {owner or 'the model'!r} has batch_first=False, so the first of "
                            f"{list(output.shape)} is not the sample's; name the sample's axis, axis=1, or axis=0 if "
                            "samples come first")
        if self._samples not in (None, b):
            raise PlanError(f"layer {name!r}: gives {list(output.shape)} for {self._samples} samples; name the "
                            f"sample's axis, e.g. axis=1, or axis=0 to count each of the {b} rows as a sample")
        if self.axis is not None:
            self._samples = b
        return output.detach().movedim(axis, 0).reshape(b, -1)

    def _sequence_first(self, name):
        """Name of the module with batch_first=False that the layer is, lies in or stands in a row with, or None."""
        parts = name.split(".") if name else []
        owners = [".".join(parts[:k]) for k in range(len(parts), -1, -1)]
        return next((owner for owner in owners if _sequence_first(self._modules[owner])), None)

    def _end(self, module, args, output):
        missing = [name for name in self.layers if name not in self._called]
        if missing:
            raise PlanError(f"layer {missing[0]!r}: not called in this forward of the model")
        self._called = None


def _sequence_first(module):
    """Whether a module, its attention, or a member of the row that it is, has batch_first=False."""
    if isinstance(module, torch.nn.Sequential):
        return any(map(_sequence_first, module))
    attention = getattr(module, "self_attn", None)
    return getattr(module, "batch_first", getattr(attention, "batch_first", True)) is False


class _Hook:
    """A hook of a meter. Copies of a module have their own copy of it, which does nothing."""

    def __init__(self, call=None):
        self.call = call

    def __call__(self, *args):
        if self.call is not None:
            self.call(*args)

    def __deepcopy__(self, memo):
        return _Hook()

    def __reduce__(self):
        return _Hook, ()


class _Counts:
    """Running sums of one layer: positives [U] of all units; mean [K] and co-moment [K, K] of the sampled."""

    def __init__(self, features, units, normalise, seed):
        self.U = features.shape[1]
        K = self.U if units is None else min(units, self.U)
        sample = np.sort(np.random.default_rng(seed).choice(self.U, K, replace=False))
        sums = {"dtype": torch.float64, "device": float64_device(features.device)}
        self.sample = torch.from_numpy(sample).to(features.device)
        self.normalise = normalise
        self.n = 0
        self.positive = torch.zeros(self.U, dtype=torch.int64, device=features.device)
        self.eps = torch.finfo(features.dtype).eps
        self.mean = torch.zeros(K, **sums)
        self.comoment = torch.zeros(K, K, **sums)
        self.power = torch.full_like(self.mean, LOWEST)  # sums are of columns over 2^power

    @torch.inference_mode(False)
    @torch.no_grad()
    def add(self, name, features):
        """Take in activations [b, U]."""
        if features.shape[1] != self.U or features.device != self.positive.device:
            raise PlanError(f"layer {name!r}: gives {features.shape[1]} units on {features.device} after {self.U} on "
                            f"{self.positive.device}; a unit must mean the same in every batch")
        if not torch.isfinite(torch.stack(torch.aminmax(features))).all():
            raise PlanError(f"layer {name!r}: gives activations that are not finite")
        self.positive += (features > 0).sum(dim=0, dtype=torch.int32)
        columns = features[:, self.sample].to(self.mean.device).double()
        if self.normalise:
            columns = _of_unit_rows(columns, features)
        columns = self._scaled(columns)
        b = len(columns)
        mean = columns.mean(dim=0)
        columns -= mean
        step = mean - self.mean
        self.comoment.addmm_(columns.T, columns).addr_(step, step, alpha=self.n * b / (self.n + b))
        self.mean += step * (b / (self.n + b))
        self.n += b

    def _scaled(self, columns):
        """Columns [b, K] over powers of two that keep co-moments in the range of float64; the sums follow.

        A power grows with its column's largest entry, in strides: mostly all stay 0.
        """
        top = columns.abs().amax(dim=0)
        own = STRIDE * torch.round(torch.frexp(top)[1].double() / STRIDE)
        power = torch.maximum(self.power, torch.where(top > 0, own, LOWEST))
        factor = torch.exp2(self.power - power)
        if (factor < 1).any():
            self.mean *= factor
            self.comoment.mul_(factor).mul_(factor[:, None])
            self.power = power
        half = torch.where(top > 0, torch.exp2(-power / 2), 1)  # 2^1024 itself does not exist
        return columns * half * half if (half != 1).any() else columns

    TENSORS, NUMBERS = ("sample", "positive", "mean", "comoment", "power"), ("U", "n", "eps", "normalise")

    def state(self):
        """Everything, as numbers and CPU tensors."""
        return {**{name: getattr(self, name).cpu().clone() for name in self.TENSORS},
                **{name: getattr(self, name) for name in self.NUMBERS}}

    @classmethod
    def of(cls, state, device):
        """The counts of a `state`, on a device."""
        made = cls.__new__(cls)
        for name, value in state.items():
            place = device if name in ("sample", "positive") else float64_device(device)
            setattr(made, name, value.to(place, copy=True) if name in cls.TENSORS else value)
        return made

    def like(self, state):
        """Whether a state is of the same units."""
        return (self.U, self.normalise) == (state["U"], state["normalise"]) and torch.equal(
            self.sample.cpu(), state["sample"])

    @torch.inference_mode(False)
    @torch.no_grad()
    def merge(self, state):
        """Take in what another one counted."""
        other = _Counts.of(state, self.positive.device)
        power = torch.maximum(self.power, other.power)
        for part in (self, other):
            factor = torch.exp2(part.power - power)
            part.mean *= factor
            part.comoment.mul_(factor).mul_(factor[:, None])
        step, n = other.mean - self.mean, self.n + other.n
        self.comoment.add_(other.comoment).addr_(step, step, alpha=self.n * other.n / n)
        self.mean += step * (other.n / n)
        self.positive += other.positive
        self.power, self.n, self.eps = power, n, max(self.eps, other.eps)

    def rank(self, share):
        """Principal components that explain `share` of the variance of the sampled columns."""
        factor = torch.exp2(self.power - self.power.max())
        values = torch.linalg.eigvalsh(self.comoment * factor * factor[:, None]).flip(0).clamp(min=0)
        explained = values.cumsum(0)
        return int((explained < share * explained[-1]).sum()) + 1 if explained[-1] > 0 else 0

    def summary(self, tau):
        """The LayerSparsity of what was taken in."""
        if self.n < 2:
            raise SpecError(f"FeatureSparsity: {self.n} sample was counted, correlations need 2 or more")
        positive = self.positive[self.sample].to(self.mean.device)
        alive = positive > 0
        squares, within = self.comoment.diagonal(), constant_within(self.eps, self.U if self.normalise else 0)
        deviation = torch.where(squares > within**2 * self.n * self.mean**2, squares.sqrt(), torch.inf)
        rho = (self.comoment / deviation[:, None] / deviation).abs().clamp(max=1)
        merged = alive & ((rho > tau).triu(1) & alive).any(dim=1)
        n, K = self.n, len(positive)
        return LayerSparsity(
            density=int(self.positive.sum()) / (n * self.U), coefficient=int(positive[~merged].sum()) / (n * K),
            sampled_density=int(positive.sum()) / (n * K), alive=int(alive.sum()), merged=int(merged.sum()),
            units=self.U, sampled=K, samples=n)


def _of_unit_rows(columns, features):
    """Columns [b, K] of activations [b, U], rows divided by their lengths over all units; zero rows stay."""
    sizes, wide = [], _widest(features)
    if features.dtype == wide:  # squares of narrower numbers are in its range
        sizes.append(features.abs().amax(dim=1))
        features = features / torch.where(sizes[0] > 0, sizes[0], 1)[:, None]
    sizes.append(torch.linalg.vector_norm(features, dim=1, dtype=wide))
    for size in sizes:
        columns = columns / torch.where(size > 0, size, 1).to(columns)[:, None]
    return columns


def _widest(features):
    return torch.float32 if features.device.type == "mps" else torch.float64
