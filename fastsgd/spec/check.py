"""Owns the checks that single fields share: arrays become plain NumPy, scalars stay in their legal range."""

import numbers
from typing import Any, TypeAlias

import numpy as np

from ..errors import SpecError
from ..limits import memory

Array: TypeAlias = np.ndarray | Any  # a field that takes any array (lists, tensors, DLPack) and keeps NumPy's
FAMILY = ("d", "shapes", "forward")  # what a model has

NO_NUMBERS = (bool, np.bool_, np.timedelta64)  # though Python takes them for some
LARGEST = 2**53  # of whole numbers without a limit of their own: exact in float64
SURELY = 1 << 30  # bytes that are not worth a look at what the machine has left
BELOW_ONE = 1 - 2.0**-53  # the largest number below 1, of ranges open there
CONSTANT = "constants."  # before the names of what `named_numbers` checked, in graphs and tables of numbers


def as_array(value, field, *, ndim=None, kinds="fiu"):
    """Return `value` (NumPy, torch or any DLPack array, or nested lists) as a NumPy array, without changing its dtype.

    value: array-like - must be numeric with no missing entries
    field: str - the name used in messages
    ndim: int or tuple of int, optional - the legal numbers of axes
    kinds: str - the legal NumPy dtype kinds
    Raises SpecError if it is no numeric array of a legal shape.
    """
    array = value if type(value) is np.ndarray else _taken(value, field)
    if array.size and array.dtype.kind not in kinds:  # an empty list has no kind; its size is the caller's to refuse
        wanted = {"iu": "integers", "f": "float32 or float64"}.get(kinds, "real numbers")
        holds = "text" if array.dtype.kind in "US" else str(array.dtype)
        if array.dtype.kind == "O" and not array.ndim:
            holds += f" ({what_is(value)})"
        convert = "; convert it, e.g. with .astype(int)" if array.dtype.kind == "b" else ""
        raise SpecError(f"{field}: holds {holds}, expected {wanted}{convert}")
    if array.nbytes > SURELY and array.nbytes > memory():  # a view may repeat few numbers without end
        raise SpecError(f"{field}: has shape {array.shape}, {array.nbytes / 2**30:.4g} GiB, more than this machine has "
                        "left")
    legal = (ndim,) if isinstance(ndim, int) else ndim
    if legal is not None and array.ndim not in legal:
        raise SpecError(f"{field}: has shape {array.shape}, expected {axes_of(legal)}")
    return array


def axes_of(legal):
    """Numbers of axes in words: "2 axes", "1, 2 or 3 axes"."""
    *most, last = legal
    return f"{', '.join(map(str, most))}{' or ' * bool(most)}{last} ax{'es' if most or last != 1 else 'is'}"


def _taken(value, field):
    """A plain array of what is none."""
    if isinstance(value, np.ndarray) and np.any(getattr(value, "mask", False)):  # a np.ma array
        raise SpecError(f"{field}: has masked entries, expected an array with none missing")
    try:
        if hasattr(value, "detach"):  # a torch tensor, possibly with gradients or on a device
            value = value.detach().cpu().numpy()
        elif not isinstance(value, np.ndarray) and hasattr(value, "__dlpack__") and not np.isscalar(value):
            value = np.from_dlpack(value)
        return np.asarray(value)
    except (TypeError, ValueError, RuntimeError, BufferError) as error:
        raise SpecError(f"{field}: cannot be read as an array ({error})") from None


def shown(value, text=repr):
    """A value as a message shows it: short, or its class where it has no text."""
    try:
        out = " ".join(text(value).split())
    except Exception:  # integers of thousands of digits, objects without a text
        return f"a {type(value).__name__} that has no text"
    return out if len(out) <= 200 else f"{out[:200]}..."


def what_is(value):
    """What a value is, for messages: its class by name, or that it is a class itself, which an instance was to be."""
    if isinstance(value, type):
        return f"the class {value.__name__}"
    return "None" if value is None else type(value).__name__


def needs(value, field, attributes, what):
    """Refuse what lacks one of `attributes`, and a class in the place of an instance.

    what: what was expected, in words
    """
    if isinstance(value, type) or not all(hasattr(value, name) for name in attributes):
        raise SpecError(f"{field}: {what_is(value)} given, expected {what}")


def as_float(array, field):
    """A copy of `array` in float64, or in float32 if it is that; the plan judges the dtype that was given."""
    if array.dtype.kind == "f" and array.dtype.itemsize not in (4, 8):
        raise SpecError(f"{field}: holds {array.dtype}, expected float32, float64 or whole numbers")
    return array.astype(np.float32 if array.dtype.kind == "f" and array.dtype.itemsize == 4 else np.float64)


def all_finite(array):
    """Whether all numbers of an array are finite; NumPy's `all` would take longer than a short call."""
    return np.count_nonzero(np.isfinite(array)) == array.size


def finite(array, field):
    """Return `array` if all of it is finite, else raise SpecError naming the first bad entry."""
    if not all_finite(array):
        bad = np.argwhere(~np.isfinite(array))
        where = tuple(int(k) for k in bad[0])
        if not where:
            raise SpecError(f"{field}: is {array[where]}, expected a finite number")
        raise SpecError(f"{field}: entry {where} is {array[where]}, expected finite numbers "
                        f"({len(bad)} of {array.size} are not)")
    return array


def used(value):
    """Whether a hyper-parameter [] or [N] is not 0 for all networks."""
    return bool(value) if np.ndim(value) == 0 else bool(np.any(value))  # one number is asked for often


def per_network(value, field, low=None, low_open=False, high=None, extra_axes=0):
    """A real hyper-parameter that may differ per network: scalar or [N] (with `extra_axes` more allowed).

    Numbers and lists have no dtype: they are taken as float64 and rounded once, to the run's dtype. So are float64
    arrays. An array of float32 stays one, and the plan refuses it in a float64 run, which has more digits.
    Returns a read-only array of shape [] or [N]. Raises SpecError outside [low, high] ((low when low_open).
    """
    if type(value) in (float, int) and abs(value) < (1e300 if high is None else high) and (
            low is None or value > low or (value == low and not low_open)):
        array = np.array(float(value))  # a plain number well inside its range: most fields of most runs
        array.setflags(write=False)
        return array
    array = finite(as_float(as_array(value, field, ndim=tuple(range(2 + extra_axes))), field), field)
    below = low is not None and np.any(array <= low if low_open else array < low)
    above = high is not None and np.any(array > high)
    if below or above:
        left = "-inf" if low is None else f"{low}"
        right = "inf)" if high is None else "1)" if high == BELOW_ONE else f"{high}]"
        wanted = f"{'(' if low_open or low is None else '['}{left}, {right}"
        given = array.min() if below else array.max()
        raise SpecError(f"{field}: {given} is outside {wanted}")
    if array.size == 0:
        raise SpecError(f"{field}: is empty, expected one number or one per network")
    array.setflags(write=False)
    return array


def per_parameter(value, field, low=None):
    """What `per_network` makes of a number, or of each in {name of a parameter: number or [N]}."""
    if not isinstance(value, dict):
        return per_network(value, field, low)
    if not value or not all(isinstance(name, str) for name in value):
        raise SpecError(f"{field}: {shown(value)} given, expected {{name of a parameter: number or [N]}}")
    return {name: per_network(one, f"{field}.{name}", low) for name, one in value.items()}


def named_numbers(given, field, taken):
    """{name: [] or [N]} of names that a function may have, none of those `taken`."""
    if not isinstance(given, dict) or not all(isinstance(name, str) and name.isidentifier() for name in given):
        raise SpecError(f"{field}: expected {{name: number or [N]}}, names as Python has them")
    if set(taken) & set(given):
        raise SpecError(f"{field}: the names {sorted(set(taken) & set(given))} are taken")
    return {name: per_network(value, f"{field}.{name}") for name, value in given.items()}


def per_layer(values, field, low=None):
    """A tuple of what `per_network` makes of each of `values`; what is one value for all stays one array."""
    made = {id(value): per_network(value, field, low) for value in values}
    return tuple(made[id(value)] for value in values)


def dtype_name(value, field="dtype", legal=("float32", "float64")):
    """"float32" or "float64", of that word, NumPy's dtype or scalar type, or torch's dtype; SpecError for others."""
    if isinstance(value, type) and issubclass(value, np.floating):
        value = np.dtype(value)
    known = isinstance(value, (str, np.dtype)) or type(value).__module__ == "torch"
    name = str(value).removeprefix("torch.") if known else None
    if name not in legal:
        raise SpecError(f"{field}: {shown(value)} given, expected one of {legal}")
    return name


def whole(value, field, low=0, high=None, floats=False):
    """A whole number in [low, high]; booleans and fractions are refused with SpecError.

    floats: whether floats that are whole, such as 1e6, are taken too
    """
    if type(value) is int and low <= value <= (LARGEST if high is None else high):
        return value  # as most are
    legal = f"a whole number >= {low}" + ("" if high is None else f" and <= {high}")
    if floats and isinstance(value, (float, np.floating)) and value == value // 1:
        value = int(value)
    if isinstance(value, NO_NUMBERS) or not isinstance(value, numbers.Integral):
        raise SpecError(f"{field}: {shown(value)} given, expected {legal}")
    if value < low or value > (LARGEST if high is None else high):
        more = "" if high is not None else f" and <= {LARGEST}"
        raise SpecError(f"{field}: {shown(value, str)} given, expected {legal}{more}")
    return int(value)


def real(value, field, low=None, low_open=False, high=None):
    """One real number in [low, high] ((low when low_open) as a float; booleans and NaN are refused with SpecError."""
    legal = ("a number" + ("" if low is None else f" {'>' if low_open else '>='} {low:g}")
             + ("" if high is None else " and < 1" if high == BELOW_ONE else f" and <= {high:g}"))
    if isinstance(value, NO_NUMBERS) or not isinstance(value, numbers.Real) or (
            isinstance(value, numbers.Rational) and abs(value) >= 2**1023):
        raise SpecError(f"{field}: {shown(value)} given, expected {legal}")
    low_ok = low is None or (value > low if low_open else value >= low)
    if value != value or not low_ok or (high is not None and value > high):
        raise SpecError(f"{field}: {value} given, expected {legal}")
    return float(value)


def whole_or_each(value, field, low=0, high=None):
    """A whole number, as `whole` has it, or [N] int64, one of each network."""
    if np.ndim(value) == 0 or isinstance(value, NO_NUMBERS):
        return whole(value, field, low, high)
    array = as_array(value, field, ndim=1, kinds="iu")
    if not array.size or array.min() < low or (high is not None and array.max() > high):
        given = f"{array.min()} .. {array.max()}" if array.size else "none"
        raise SpecError(f"{field}: {given} given, expected whole numbers >= {low}" + (
            "" if high is None else f" and <= {high}") + ", one of each network")
    return frozen(array.astype(np.int64))


def real_or_each(value, field, low, low_open=False, high=None):
    """One real number >= low as a float, as `real` has it, or [N], one of each network."""
    if np.ndim(value) == 0 or isinstance(value, NO_NUMBERS):
        return real(value, field, low, low_open, high)
    array = as_float(as_array(value, field, ndim=1), field)
    wide = array.astype(np.float64)  # the limits are no numbers of every dtype
    fine = ~np.isnan(wide) & (wide > low if low_open else wide >= low) & (True if high is None else wide <= high)
    if not array.size or not fine.all():
        given = f"{array[~fine][0]} given" if array.size else "is empty"
        raise SpecError(f"{field}: {given}, expected numbers {'>' if low_open else '>='} {low:g}"
                        + ("" if high is None else f" and <= {high:g}") + ", one or one of each network")
    return frozen(array)


def flag(value, field):
    """True or False; anything else is refused with SpecError."""
    if not isinstance(value, (bool, np.bool_)):
        raise SpecError(f"{field}: {shown(value)} given, expected True or False")
    return bool(value)


def one_of(value, field, legal):
    """One of the words `legal`; anything else is refused with SpecError."""
    if not (value is None or isinstance(value, str)) or value not in legal:
        raise SpecError(f"{field}: {shown(value)} given, expected one of {legal}{near(value, legal)}")
    return value


def near(word, legal):
    """"; did you mean 'steps'?" of a word that is like some of `legal`, capitals aside; "" if it is like none."""
    from difflib import get_close_matches  # of errors alone

    names = {str(name).lower(): name for name in legal if name is not None}
    close = [names[name] for name in get_close_matches(shown(word, str).lower(), list(names), 3, 0.6)]
    return f"; did you mean {' or '.join(map(repr, close))}?" if close else ""


def near_or_all(word, legal):
    """What `near` says, or all that is legal: "; legal are steps, step_size"."""
    return near(word, legal) or f"; legal are {', '.join(map(str, legal))}"


def frozen(array):
    """`array` read-only, in C order and owned by nobody else: records never change under a caller's feet."""
    if array.flags.writeable or not array.flags.owndata or not array.flags.c_contiguous:
        array = np.array(array, order="C")
    array.setflags(write=False)
    return array


def other_dtype(array, dtype, hyper=False):
    """None, or a sentence saying why an array cannot be taken in a run of `dtype` without changing a number.

    hyper: whether it is a hyper-parameter, which is float64 until it is rounded to the run's dtype once
    """
    kind = array.dtype.kind
    if kind == "f" and array.dtype != dtype and not (hyper and array.dtype == np.float64):
        return (f"holds {array.dtype}, but the run is {dtype}. Nothing is cast silently: pass dtype='{array.dtype}', "
                f"or convert it with .astype('{dtype}')")
    if kind in "iu" and not hyper and array.size:
        digits = 24 if dtype == "float32" else 53
        if array.max() > 2**digits or array.min() < -2**digits:
            more = "; pass dtype='float64'" if digits == 24 else ""
            return f"holds a whole number beyond 2**{digits}, which {dtype} cannot{more}"
    return None
