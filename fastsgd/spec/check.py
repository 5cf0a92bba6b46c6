"""Owns the checks that single fields share: arrays become plain NumPy, scalars stay in their legal range."""

import numbers

import numpy as np

from ..errors import SpecError

BELOW_ONE = 1 - 2.0**-53  # the largest number below 1, of ranges open there


def as_array(value, field, *, ndim=None, kinds="fiu"):
    """Return `value` (NumPy, torch or any DLPack array, or nested lists) as a NumPy array, without changing its dtype.

    value: array-like - must be numeric with no missing entries
    field: str - the name used in messages
    ndim: int or tuple of int, optional - the legal numbers of axes
    kinds: str - the legal NumPy dtype kinds
    Raises SpecError if it is no numeric array of a legal shape.
    """
    if np.ma.is_masked(value):
        raise SpecError(f"{field}: has masked entries, expected an array with none missing")
    try:
        if hasattr(value, "detach"):  # a torch tensor, possibly with gradients or on a device
            value = value.detach().cpu().numpy()
        elif not isinstance(value, np.ndarray) and hasattr(value, "__dlpack__") and not np.isscalar(value):
            value = np.from_dlpack(value)
        array = np.asarray(value)
    except (TypeError, ValueError, RuntimeError, BufferError) as error:
        raise SpecError(f"{field}: cannot be read as an array ({error})") from None
    if array.size and array.dtype.kind not in kinds:  # an empty list has no kind; its size is the caller's to refuse
        wanted = "integers" if kinds == "iu" else "real numbers"
        raise SpecError(f"{field}: holds {array.dtype}, expected {wanted}")
    legal = (ndim,) if isinstance(ndim, int) else ndim
    if legal is not None and array.ndim not in legal:
        raise SpecError(f"{field}: has shape {array.shape}, expected {' or '.join(map(str, legal))} axes")
    return array


def finite(array, field):
    """Return `array` if all of it is finite, else raise SpecError naming the first bad entry."""
    fine = np.isfinite(array)
    if not fine.all():
        bad = np.argwhere(~fine)
        where = tuple(int(k) for k in bad[0])
        raise SpecError(f"{field}: entry {where if where else ''} is {array[where]}, expected finite numbers "
                        f"({len(bad)} of {array.size} are not)")
    return array


def per_network(value, field, low=None, low_open=False, high=None, extra_axes=0):
    """A real hyper-parameter that may differ per network: scalar or [N] (with `extra_axes` more allowed).

    Returns a read-only float64 array of shape [] or [N]. Raises SpecError outside [low, high] ((low when low_open).
    """
    if type(value) in (float, int) and abs(value) < (1e300 if high is None else high) and (
            low is None or value > low or (value == low and not low_open)):
        array = np.array(float(value))  # a plain number well inside its range: most fields of most runs
        array.setflags(write=False)
        return array
    with np.errstate(over="ignore"):
        array = as_array(value, field, ndim=tuple(range(2 + extra_axes))).astype(np.float64)
    finite(array, field)
    below = low is not None and np.any(array <= low if low_open else array < low)
    above = high is not None and np.any(array > high)
    if below or above:
        left = "-inf" if low is None else f"{low}"
        wanted = f"{'(' if low_open else '['}{left}, {'inf' if high is None else high}]"
        given = array.min() if below else array.max()
        raise SpecError(f"{field}: {given} is outside {wanted}")
    if array.size == 0:
        raise SpecError(f"{field}: is empty, expected one number or one per network")
    array.setflags(write=False)
    return array


def whole(value, field, low=0, high=None):
    """A whole number in [low, high]; booleans and fractions are refused with SpecError."""
    legal = f"a whole number >= {low}" + ("" if high is None else f" and <= {high}")
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, numbers.Integral):
        raise SpecError(f"{field}: {value!r} given, expected {legal}")
    if value < low or (high is not None and value > high):
        raise SpecError(f"{field}: {value} given, expected {legal}")
    return int(value)


def real(value, field, low=None, low_open=False, high=None):
    """One real number in [low, high] ((low when low_open) as a float; booleans and NaN are refused with SpecError."""
    legal = ("a number" + ("" if low is None else f" {'>' if low_open else '>='} {low:g}")
             + ("" if high is None else f" and <= {high:g}"))
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, numbers.Real):
        raise SpecError(f"{field}: {value!r} given, expected {legal}")
    low_ok = low is None or (value > low if low_open else value >= low)
    if value != value or not low_ok or (high is not None and value > high):
        raise SpecError(f"{field}: {value} given, expected {legal}")
    return float(value)


def flag(value, field):
    """True or False; anything else is refused with SpecError."""
    if not isinstance(value, (bool, np.bool_)):
        raise SpecError(f"{field}: {value!r} given, expected True or False")
    return bool(value)


def one_of(value, field, legal):
    """One of the words `legal`; anything else is refused with SpecError."""
    if not (value is None or isinstance(value, str)) or value not in legal:
        raise SpecError(f"{field}: {value!r} given, expected one of {legal}")
    return value


def frozen(array):
    """`array` read-only, in C order and owned by nobody else: records never change under a caller's feet."""
    if array.flags.writeable or not array.flags.owndata or not array.flags.c_contiguous:
        array = np.array(array, order="C")
    array.setflags(write=False)
    return array
