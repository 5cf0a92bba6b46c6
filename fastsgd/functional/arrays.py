"""Owns how other tools' arrays become NumPy's without a copy, and go back."""

import ctypes

import numpy as np

from ..errors import SpecError
from ..spec.check import as_array, other_dtype, what_is

NAMES = {np.dtype(name): name for name in ("float32", "float64", "int64")}
DTYPES = ("float32", "float64")


def in_place(value, field, shape, dtypes=DTYPES):
    """A NumPy array on the very memory of `value`, to be written to. Raises SpecError where that cannot be.

    shape: lengths of its axes, None where any will do
    JAX says of its arrays that nobody writes to them; theirs are taken by address.
    """
    if type(value) is np.ndarray:
        array = value
    elif hasattr(value, "detach"):
        if value.device.type != "cpu":
            raise SpecError(f"{field}: lies on {value.device}, expected a tensor on the CPU")
        try:
            array = value.detach().numpy()
        except (TypeError, RuntimeError) as error:  # sparse, or of a dtype that NumPy does not have
            raise SpecError(f"{field}: cannot be read where it lies ({error})") from None
    elif hasattr(value, "__dlpack__"):
        array = _of_dlpack(value, field)
    else:
        raise SpecError(f"{field}: {what_is(value)} given, expected an array that can be written to: NumPy, "
                        "torch or DLPack")
    if NAMES.get(array.dtype) not in dtypes:
        raise SpecError(f"{field}: holds {array.dtype}, expected {' or '.join(dtypes)}")
    if len(array.shape) != len(shape) or [want for want, have in zip(shape, array.shape, strict=True)
                                          if want not in (None, have)]:
        wanted = ", ".join("N" if want is None else str(want) for want in shape)
        raise SpecError(f"{field}: has shape {array.shape}, expected [{wanted}]")
    flags = array.flags
    if not flags.c_contiguous:
        raise SpecError(f"{field}: is not contiguous, so that it could only be moved as a copy; give "
                        "np.ascontiguousarray(...), or tensor.contiguous(), and keep that")
    if not flags.writeable:
        raise SpecError(f"{field}: may not be written to; give an array of your own, e.g. a copy")
    return array


def _of_dlpack(value, field):
    """A view of a DLPack array on the CPU; one of JAX may be written to."""
    try:
        array = np.from_dlpack(value)
    except (TypeError, ValueError, RuntimeError, BufferError) as error:
        raise SpecError(f"{field}: cannot be read where it lies ({error}); expected an array on the CPU") from None
    jax = type(value).__module__.split(".")[0] in ("jax", "jaxlib")
    if array.flags.writeable or not jax or not array.flags.c_contiguous or not array.size:
        return array
    memory = (ctypes.c_char * array.nbytes).from_address(array.ctypes.data)
    memory.owner = array  # the memory stays as long as the view does
    return np.frombuffer(memory, array.dtype).reshape(array.shape)


def same_dtype(array, field, dtype):
    """Refuse data of another dtype than the parameters have: here is no `dtype=` that could say another."""
    if array.dtype.kind == "f" and array.dtype != dtype:
        raise SpecError(f"{field}: holds {array.dtype}, params are {dtype}, and nothing is cast silently; convert one "
                        f"of them, e.g. with .astype('{dtype}')")


def plain(value, field, dtype, ndim):
    """An array to be read, in `dtype`, of floating-point or whole numbers. Raises SpecError."""
    if type(value) is np.ndarray and NAMES.get(value.dtype) == dtype and value.ndim in ndim:
        return value
    array = as_array(value, field, ndim=ndim)
    same_dtype(array, field, dtype)
    why = other_dtype(array, dtype)
    if why:
        raise SpecError(f"{field}: {why}")
    return array if array.dtype.kind == "f" else array.astype(dtype)


def alike(params, array):
    """A NumPy array as what `params`, or the arrays in it, are: torch, JAX or NumPy."""
    one = next(iter(params.values())) if isinstance(params, dict) else params
    if hasattr(one, "detach"):
        import torch

        return torch.from_numpy(array)
    if type(one).__module__.split(".")[0] in ("jax", "jaxlib"):
        import jax.numpy as jnp

        return jnp.asarray(array)
    return array
