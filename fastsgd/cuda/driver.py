"""Owns the CUDA driver: what of libcuda is needed to load machine code and launch it, called through ctypes."""

import ctypes
from functools import cache
from typing import NamedTuple

from ..errors import BackendUnavailable

STATIC_SHARED = 1  # CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES
MAX_DYNAMIC_SHARED = 8  # CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
CARVEOUT = 9  # CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT
MULTIPROCESSOR_SHARED = 81  # CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR
RESERVED_SHARED = 111  # CU_DEVICE_ATTRIBUTE_RESERVED_SHARED_MEMORY_PER_BLOCK
FREE_SHARED = 48 << 10  # bytes a block may have without asking


class Kernel(NamedTuple):
    """A kernel, the context in which it runs, and how many of its blocks a multiprocessor has at once."""

    handle: ctypes.c_void_p
    context: ctypes.c_void_p
    blocks: int


class Driver:
    """libcuda. Contexts, memory and streams are torch's; here are modules and launches in the current context."""

    def __init__(self, library):
        self.library = library
        self("cuInit", 0)
        version = ctypes.c_int()
        self("cuDriverGetVersion", ctypes.byref(version))
        self.version = f"{version.value // 1000}.{version.value % 1000 // 10}"

    def __call__(self, name, *arguments):
        status = getattr(self.library, name)(*arguments)
        if status:
            text = ctypes.c_char_p()
            self.library.cuGetErrorString(status, ctypes.byref(text))
            raise BackendUnavailable(f"{name}: {(text.value or b'error').decode()} ({status})")

    def load(self, code, threads, shared):
        """The Kernel `fastsgd` of a piece of machine code, for blocks of `threads` with `shared` bytes to share.

        Shared memory and the first-level cache are one memory. The kernel is given as much of it to share as the blocks
        that run at once need, and the cache the rest: local memory and data that are not staged lie there.
        """
        module, kernel, context = ctypes.c_void_p(), ctypes.c_void_p(), ctypes.c_void_p()
        self("cuCtxGetCurrent", ctypes.byref(context))
        self("cuModuleLoadData", ctypes.byref(module), code)
        self("cuModuleGetFunction", ctypes.byref(kernel), module, b"fastsgd")
        if shared > FREE_SHARED:
            self("cuFuncSetAttribute", kernel, MAX_DYNAMIC_SHARED, shared)
        blocks = self._number("cuOccupancyMaxActiveBlocksPerMultiprocessor", kernel, threads, ctypes.c_size_t(shared))
        each = shared + self._number("cuFuncGetAttribute", STATIC_SHARED, kernel) + self._about(RESERVED_SHARED)
        percent = -(-100 * blocks * each // self._about(MULTIPROCESSOR_SHARED))
        self("cuFuncSetAttribute", kernel, CARVEOUT, min(100, percent))
        return Kernel(kernel, context, blocks)

    def _number(self, name, *arguments):
        """What a function of the driver writes to its first argument."""
        out = ctypes.c_int()
        self(name, ctypes.byref(out), *arguments)
        return out.value

    def _about(self, attribute):
        """An attribute of the device whose context is current."""
        return self._number("cuDeviceGetAttribute", attribute, self._number("cuCtxGetDevice"))

    def launch(self, kernel, blocks, threads, shared, stream, job):
        """Launch a Kernel that takes the struct `job` by value.

        Makes the kernel's context current, which torch's choice of a device alone does not do in a new thread.
        """
        arguments = (ctypes.c_void_p * 1)(ctypes.addressof(job))
        self("cuCtxSetCurrent", kernel.context)
        self("cuLaunchKernel", kernel.handle, blocks, 1, 1, threads, 1, 1, shared, ctypes.c_void_p(stream), arguments,
             None)


def driver():
    """The driver of this machine. Raises BackendUnavailable with the reason where there is none."""
    found, why = _found()
    if why:
        raise BackendUnavailable(why)
    return found


@cache
def _found():
    """(driver, None), or (None, why there is none); looked for once, every run asks."""
    try:
        return Driver(ctypes.CDLL("libcuda.so.1")), None
    except OSError as error:
        return None, (f"no CUDA driver ({error}); a machine with an NVIDIA card and its driver has libcuda.so.1")
    except BackendUnavailable as error:
        return None, str(error)
