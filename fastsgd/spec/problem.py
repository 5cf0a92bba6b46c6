"""Owns what networks are trained on: a data set, inputs made on the way, or a function that makes samples."""

from typing import Any, TypeVar

import numpy as np

from ..errors import SpecError
from . import draws
from .check import Array, as_array, as_float, finite, frozen, one_of, other_dtype, per_network, what_is, whole
from .record import Record, like, record

INPUTS = ("gaussian", "sparse")  # that kernels make
D = TypeVar("D", bound="Data")


class Data(Record):
    """What all kinds of data share. sets: how many there are, of which each network has one; 0 if all share one."""

    sets = 0

    @property
    def numbers(self) -> np.ndarray:
        """[N] which set each network has; by default network k has set k."""
        return np.arange(self.sets)

    def of(self: D, k: int) -> D:
        """Set k, as one that all networks share."""
        return self._with(lambda a: a[k])

    @property
    def one(self: D) -> D:
        """The data of one network, where only sizes count."""
        return self.of(0) if self.sets else self

    @property
    def rows(self) -> "Data":
        """The points of all sets one after the other."""
        return self

    def lengths(self) -> dict[str, int]:
        """{field: number of networks it was given for}."""
        return {}

    def chosen(self: D, numbers: Any) -> D:
        """The data of networks that have the sets `numbers` [M]."""
        return self._with(lambda a: a[numbers]) if self.sets else self

    def swept(self) -> dict[str, np.ndarray]:
        """{dotted name: values [N]} of what was given per network."""
        return {"data.which": self.numbers} if self.sets else {}

    def _with(self: D, part: Any) -> D:
        """The same with part(array) of each array that is for each network; of kinds of data that have such."""
        raise NotImplementedError


@record()
class Dataset(Data):
    """Training points and labels, and test points if there are any. Networks share them, or each has one of K sets.

    X [n, d]: training inputs, finite; or [K, n, d], K sets of them, and then the other arrays have an axis [K, ...] too
    y [n], or [n, o] for models with o > 1 outputs: training labels, finite; classes are whole numbers
    X_test [n_test, d], y_test [n_test] or [n_test, o]: optional test set, given together
    which [N]: of K sets, the one that each network has, 0 <= which < K; by default network k has set k, and N is K.
        Steps, metrics and test sets of a network are of its own set alone
    Arrays may be NumPy, torch or DLPack, float32 or float64 (whole numbers are taken in either). A dtype is never
    changed silently: the plan refuses float64 data in a float32 run, `astype` converts on request.
    Raises SpecError on wrong shapes or non-finite entries.
    """

    X: Array
    y: Array
    X_test: Array | None = None
    y_test: Array | None = None
    which: Array | None = None
    kind = "given"

    def __post_init__(self):
        _put(self, "X", "y", sets=(0, 1))
        _test_set(self, len(self.X) if self.sets else None)
        if self.y_test is not None and self.y_test.shape[1 + (self.sets > 0):] != self.y.shape[1 + (self.sets > 0):]:
            raise SpecError(f"y_test: has shape {self.y_test.shape}, y has {self.y.shape}")
        if self.which is not None:
            if not self.sets:
                raise SpecError("which: given, but X [n, d] is one data set for all networks; expected X [K, n, d]")
            which = as_array(self.which, "which", ndim=1, kinds="iu")
            if not which.size or which.min() < 0 or which.max() >= self.sets:
                raise SpecError(f"which: {'is empty' if not which.size else f'holds {which.max()}'}, expected numbers "
                                f"of data sets, 0 .. {self.sets - 1}, one for each network")
            object.__setattr__(self, "which", frozen(which.astype(np.int64)))

    def astype(self, dtype: str) -> "Dataset":
        """The same data in another precision, "float32" or "float64"."""
        one_of(dtype, "dtype", ("float32", "float64"))
        if all(a is None or a.dtype == dtype for a in (self.X, self.y, self.X_test, self.y_test)):
            return self
        arrays = (self.X, self.y, self.X_test, self.y_test)
        with np.errstate(over="ignore"):
            return Dataset(*(None if a is None else a.astype(dtype) for a in arrays), self.which)

    @property
    def n(self) -> int:
        """Number of training points of a network."""
        return self.X.shape[-2]

    @property
    def d(self) -> int:
        """Number of inputs."""
        return self.X.shape[-1]

    @property
    def sets(self) -> int:
        """Number K of data sets of which each network has one; 0 where all share one."""
        return len(self.X) if self.X.ndim == 3 else 0

    def lengths(self) -> dict[str, int]:
        """{field: number of networks it was given for}."""
        if not self.sets:
            return {}
        return {"data.which": len(self.which)} if self.which is not None else {"data": self.sets}

    @property
    def numbers(self) -> np.ndarray:
        """[N] which set each network has, of K."""
        return np.arange(self.sets) if self.which is None else self.which

    @property
    def rows(self) -> "Dataset":
        """The points of all sets one after the other."""
        return self._with(lambda a: a.reshape(-1, *a.shape[2:])) if self.sets else self

    def chosen(self, numbers: np.ndarray) -> "Dataset":
        """The data of networks that have the sets `numbers` [M]: these sets, in order, and no others."""
        if not self.sets:
            return self
        used, which = np.unique(numbers, return_inverse=True)
        return self._with(lambda a: a[used], which.reshape(-1).astype(np.int64))

    def _with(self, part, which=None):
        """A Dataset of part(array) of each of the arrays, which were checked before."""
        arrays = {name: getattr(self, name) for name in ("X", "y", "X_test", "y_test")}
        made = {name: None if a is None else part(a) for name, a in arrays.items()} | {"which": which}
        for a in made.values():
            if a is not None:
                a.setflags(write=False)
        return like(self, **made)


def _put(record, points, labels, sets=(0,)):
    """Check the arrays that `record` holds by these names, and put what they become in their place.

    sets: how many axes of data sets they may have before that of points
    """
    X = finite(as_array(getattr(record, points), points, ndim=tuple(2 + more for more in sets)), points)
    more = X.ndim - 2
    y = finite(as_array(getattr(record, labels), labels, ndim=(1, 2, 3)[:2 + more]), labels)
    if 0 in X.shape:
        raise SpecError(f"{points}: has shape {X.shape}, expected at least one point and one input")
    if X.shape[:-1] != y.shape[:1 + more] or y.ndim > 2 + more:
        raise SpecError(f"{labels}: has length {len(y)}, {points} has n={len(X)} points" if not more else
                        f"{labels}: has shape {y.shape}, {points} has shape {X.shape}: K={len(X)} sets of "
                        f"n={X.shape[1]} points want labels [K, n] or [K, n, o]; one set for all networks is X [n, d]")
    if 0 in y.shape:
        raise SpecError(f"{labels}: has shape {y.shape}, expected at least one label a point")
    for name, array in ((points, X), (labels, y)):
        _exact(array, name)
        if array.dtype.kind in "iu":
            array = array.astype(np.int64)
        elif array.dtype not in (np.float32, np.float64):
            raise SpecError(f"{name}: holds {array.dtype}, expected float32, float64 or whole numbers")
        object.__setattr__(record, name, frozen(array))


def _exact(array, name):
    """Refuse whole numbers that no run can take as they are."""
    why = other_dtype(array, "float64") if array.dtype.kind in "iu" else None
    if why:
        raise SpecError(f"{name}: {why}")


def _test_set(data, sets=None):
    """Check the test set of a record, if it has one; sets: how many it has one for, None for one alone."""
    if (data.X_test is None) != (data.y_test is None):
        raise SpecError("X_test and y_test: one is missing, give both or neither")
    if data.X_test is not None:
        _put(data, "X_test", "y_test", (0,) if sets is None else (1,))
        if sets is not None and len(data.X_test) != sets:
            raise SpecError(f"X_test: has {len(data.X_test)} test sets, X has K={sets} data sets")
        if data.X_test.shape[-1] != data.d:
            raise SpecError(f"X_test: has d={data.X_test.shape[-1]} inputs, {'X' if data.n else 'data'} has d={data.d}")


def teachers_of(data: Any) -> int:
    """Number N of networks that the teacher's weights are for, 0 where all share one, or there is none."""
    if data.teacher is None:
        return 0
    name, shape = next(iter(data.teacher.shapes().items()))
    return len(data.weights[name]) if data.weights[name].ndim > len(shape) else 0


def teacher_weights(data: Any) -> dict[str, np.ndarray]:
    """The checked weights of the teacher of `data`, {name: array} or {name: [N, ...]} with the same N in all."""
    teacher, given = data.teacher, data.weights
    if not all(hasattr(teacher, name) for name in ("flatten", "forward", "outputs", "d")):
        raise SpecError(f"data.teacher: {what_is(teacher)} given, expected a model from fs.models")
    if teacher.d != data.d:
        raise SpecError(f"data.teacher: has d={teacher.d} inputs, the data have d={data.d}")
    if not isinstance(given, dict):
        raise SpecError(f"data.weights: {what_is(given)} given, expected a dict of named arrays")
    weights = {str(k): finite(as_array(a, f"data.weights.{k}"), f"data.weights.{k}") for k, a in given.items()}
    for k, a in weights.items():
        _exact(a, f"data.weights.{k}")
    weights = {k: a if a.dtype.kind in "iu" else as_float(a, f"data.weights.{k}") for k, a in weights.items()}
    shapes = teacher.shapes()
    N = {len(a) for k, a in weights.items() if a.ndim == len(shapes.get(k, a.shape)) + 1}
    if len(N) > 1 or 0 in N:
        raise SpecError("data.weights: "
                        + ", ".join(f"{k!r} has shape {a.shape}" for k, a in weights.items())
                        + "; expected the same number N >= 1 of networks in front of all that are for each network")
    N = next(iter(N), None)
    flat = teacher.flatten(weights, N or 1, "data.weights").astype(np.float64)
    named = teacher.unflatten(flat if N else flat[0])
    return {k: frozen(np.ascontiguousarray(a).astype(weights[k].dtype)) for k, a in named.items()}


@record()
class Fresh(Data):
    """Inputs made on the way: every sample of every step is new, and its label is a teacher's output or the input.

    d: number of inputs, >= 1
    teacher: a model with d inputs, or None: the label of x is x itself (autoencoders)
    weights: the teacher's parameters {name: array}, the same for all networks, or {name: [N, ...]}, a teacher for each;
        in the run's dtype or whole numbers, `astype` converts on request
    inputs: "gaussian", x ~ N(0, I); or "sparse", each x_j uniform in (0, 1) with probability `density`, else 0
    density [] or [N]: in (0, 1], of "sparse"
    X_test [n_test, d], y_test [n_test] or [n_test, o]: optional test set, given together; or [N, n_test, d] and
        [N, n_test, ...], one for each network, where weights, density or scale are
    scale [] or [N]: > 0, a factor of all inputs, before the teacher sees them
    There is no training set: rules must name a batch size, and metrics of training data are refused.
    """

    d: int
    teacher: object = None
    weights: dict | None = None
    inputs: str = "gaussian"
    density: float | Array = 1.0
    X_test: Array | None = None
    y_test: Array | None = None
    scale: float | Array = 1.0
    X = y = None
    n = 0
    kind = "fresh"

    def __post_init__(self):
        put = object.__setattr__
        put(self, "d", whole(self.d, "data.d", 1))
        one_of(self.inputs, "data.inputs", INPUTS)
        put(self, "density", per_network(self.density, "data.density", 0, low_open=True, high=1))
        put(self, "scale", per_network(self.scale, "data.scale", 0, low_open=True))
        if (self.teacher is None) != (self.weights is None):
            raise SpecError("data.teacher and data.weights: one is missing, give both or neither")
        if self.teacher is not None:
            put(self, "weights", teacher_weights(self))
        given = self.lengths()
        if len(set(given.values())) > 1:
            raise SpecError("data: " + ", ".join(f"{name} is for {N} networks" for name, N in given.items())
                            + "; expected the same number")
        _test_set(self, self.sets if self.sets and np.ndim(self.X_test) == 3 else None)

    @property
    def outputs(self) -> int:
        """Numbers in a label."""
        return self.d if self.teacher is None else self.teacher.outputs

    @property
    def teachers(self) -> int:
        """Number N of teachers of which each network has one; 0 where all share one, or there is none."""
        return teachers_of(self)

    @property
    def sets(self) -> int:
        """Number N of networks that have something of their own; 0 where they share all."""
        return next(iter(self.lengths().values()), 0)

    def lengths(self) -> dict[str, int]:
        """{field: number of networks it was given for}."""
        out = {f"data.{name}": len(a) for name in ("density", "scale") if np.ndim(a := getattr(self, name))}
        return out | ({"data.weights": self.teachers} if self.teachers else {})

    def swept(self) -> dict[str, np.ndarray]:
        """{dotted name: values [N]} of what was given per network."""
        out = {f"data.{name}": a for name in ("density", "scale") if np.ndim(a := getattr(self, name))}
        return out | ({"data.which": self.numbers} if self.teachers else {})

    @property
    def rows(self) -> "Fresh":
        """The same with the test points of all networks one after the other."""
        if np.ndim(self.X_test) < 3:
            return self
        return like(self, **{name: a.reshape(-1, *a.shape[2:]) for name, a in (("X_test", self.X_test),
                                                                               ("y_test", self.y_test))})

    def _with(self, part):
        """The same with part(array) of each array that is for each network."""
        def own(a, axes):
            return a if a is None or np.ndim(a) == axes else part(a)

        weights = self.weights and ({name: part(a) for name, a in self.weights.items()} if self.teachers else
                                    self.weights)
        X_test, y_test = self.X_test, self.y_test
        if np.ndim(X_test) == 3:
            X_test, y_test = part(X_test), part(y_test)
        return type(self)(self.d, self.teacher, weights, self.inputs, own(self.density, 0), X_test, y_test,
                          own(self.scale, 0))

    def labels(self, X: Any, which: Any = None) -> np.ndarray:
        """Labels [..., m] or [..., m, o] of inputs X [..., m, d], in float64.

        which [M]: whose teachers label the M parts of X [M, m, d], where each network has one
        """
        X = np.asarray(X, np.float64)
        if self.teacher is None:
            return X[..., 0] if self.d == 1 else X
        weights = {name: a.astype(np.float64) for name, a in self.weights.items()}
        if not self.teachers:
            return self.teacher.forward(weights, X)
        return np.array([self.teacher.forward({name: a[k] for name, a in weights.items()}, x)
                         for k, x in zip(which, X, strict=True)])

    def astype(self, dtype: str) -> "Fresh":
        """The same with the teacher's weights and the test set in another precision, "float32" or "float64"."""
        one_of(dtype, "dtype", ("float32", "float64"))
        with np.errstate(over="ignore"):
            weights = self.weights and {name: a.astype(dtype) for name, a in self.weights.items()}
            test = (None if a is None else a.astype(dtype) for a in (self.X_test, self.y_test))
            return Fresh(self.d, self.teacher, weights, self.inputs, self.density, *test, self.scale)

    def draw(self, seed: int, ids: Any, t0: int, t1: int, batch: int, which: Any = None) -> np.ndarray:
        """Inputs [len(ids), t1 - t0, batch, d] float64 of the networks `ids` at steps t0 .. t1 - 1.

        which [len(ids)]: whose density and scale they have, where these are for each network; by default in order
        """
        def own(a):
            a = np.asarray(a)
            return a if a.ndim == 0 else (a if which is None else a[which])[:, None, None, None]

        return own(self.scale) * draws.inputs(seed, ids, t0, t1, batch, self.d, self.inputs, own(self.density))


@record()
class Stream(Data):
    """Samples that a function makes, a stretch of steps at a time: data of any distribution, or read from a file.

    d: number of inputs, >= 1
    function: (ids [M], t0, t1, batch) -> (X [M, t1 - t0, batch, d], y [M, t1 - t0, batch] or [..., o]), the samples of
        the networks `ids` at steps t0 .. t1 - 1, in the run's dtype or whole numbers. It must give the same sample for
        the same network and step however the steps are cut into stretches, or runs will not repeat
    outputs: numbers in a label
    X_test, y_test: as in `Fresh`
    A function cannot be written to a file, so that such a run has no checkpoints and its result no file.
    """

    d: int
    function: object
    outputs: int = 1
    X_test: Array | None = None
    y_test: Array | None = None
    X = y = None
    n = 0
    kind = "stream"

    def __post_init__(self):
        put = object.__setattr__
        put(self, "d", whole(self.d, "data.d", 1))
        put(self, "outputs", whole(self.outputs, "data.outputs", 1))
        if not callable(self.function):
            raise SpecError(f"data.function: {what_is(self.function)} given, expected a function of "
                            "(ids, t0, t1, batch)")
        _test_set(self)

    def draw(self, ids: Any, t0: int, t1: int, batch: int, dtype: str) -> tuple:
        """(X [M, t1 - t0, batch, d], y [M, t1 - t0, batch(, o)]) in `dtype`. SpecError on other shapes, dtypes."""
        out = self.function(ids, t0, t1, batch)
        if not (isinstance(out, tuple) and len(out) == 2):
            raise SpecError(f"data.function: returned {type(out).__name__}, expected (X, y)")
        lead = (len(ids), t1 - t0, batch)
        wanted = (*lead, self.d), (lead if self.outputs == 1 else (*lead, self.outputs))
        made = []
        for name, array, shape in zip(("X", "y"), out, wanted, strict=True):
            array = finite(as_array(array, f"data.function's {name}"), f"data.function's {name}")
            if array.shape != shape:
                raise SpecError(f"data.function's {name}: has shape {array.shape}, expected {shape}")
            why = other_dtype(array, dtype)
            if why:
                raise SpecError(f"data.function's {name}: {why}")
            made.append(np.ascontiguousarray(array, dtype))
        return tuple(made)
