"""Owns how a program becomes machine code: built ahead of time, found in the cache on disk, or compiled by NVRTC."""

import ctypes
import glob
import hashlib
import os
import re
import sys
from contextlib import suppress
from functools import cache
from pathlib import Path

from ..errors import BackendUnavailable
from ..files import cache_folder, keep
from .program import FLAGS, source_folder

BUILT = Path(__file__).with_name("built")  # fat binaries that setup.py made with nvcc


def built(program):
    """The fat binary of a program that was built with the package, None without one; it need not suit every card."""
    with suppress(OSError):
        return (BUILT / f"{program.key}.fatbin").read_bytes()


def compiled(program, arch):
    """Machine code of a program for an architecture, e.g. "sm_90", from the cache or by NVRTC.

    Raises BackendUnavailable where it is not in the cache and there is no NVRTC.
    """
    kept = cache_folder() / "cuda" / f"{program.key}.{arch}.cubin"
    code = _read(kept)
    if code is None:
        code = nvrtc().compile(program, arch)
        with suppress(OSError):  # a cache that cannot be written is no reason to stop
            keep(kept, hashlib.sha256(code).digest() + code)
    return code


def _read(path):
    """The code that was kept with its digest, None if there is none or it is not whole."""
    try:
        data = path.read_bytes()
    except OSError:
        return None
    digest, code = data[:32], data[32:]
    return code if hashlib.sha256(code).digest() == digest else None


class NVRTC:
    """NVIDIA's run-time compiler, which comes with every CUDA build of torch. It needs no card."""

    def __init__(self, library):
        self.library = library
        major, minor = ctypes.c_int(), ctypes.c_int()
        library.nvrtcVersion(ctypes.byref(major), ctypes.byref(minor))
        self.version = f"{major.value}.{minor.value}"
        library.nvrtcGetErrorString.restype = ctypes.c_char_p

    def compile(self, program, arch):
        """Machine code of a program. Raises BackendUnavailable with the compiler's words if it will not compile."""
        handle = ctypes.c_void_p()
        self._call("nvrtcCreateProgram", ctypes.byref(handle), program.text.encode(), b"program.cu", 0, None, None)
        try:
            options = [option.encode() for option in (
                *FLAGS, f"--gpu-architecture={arch}", f"--include-path={source_folder()}",
                "--device-as-default-execution-space")]
            status = self.library.nvrtcCompileProgram(handle, len(options),
                                                      (ctypes.c_char_p * len(options))(*options))
            if status:
                log = self._bytes(handle, "nvrtcGetProgramLogSize", "nvrtcGetProgramLog").decode(errors="replace")
                why = self.library.nvrtcGetErrorString(status).decode()
                raise BackendUnavailable(f"NVRTC {self.version} could not compile {program.name!r} for {arch}: {why}. "
                                         f"{log.strip()[:2000]}")
            return self._bytes(handle, "nvrtcGetCUBINSize", "nvrtcGetCUBIN")
        finally:
            self.library.nvrtcDestroyProgram(ctypes.byref(handle))

    def _bytes(self, handle, size_of, get):
        size = ctypes.c_size_t()
        self._call(size_of, handle, ctypes.byref(size))
        out = ctypes.create_string_buffer(size.value)
        self._call(get, handle, out)
        return out.raw

    def _call(self, name, *arguments):
        status = getattr(self.library, name)(*arguments)
        if status:
            raise BackendUnavailable(f"{name}: {self.library.nvrtcGetErrorString(status).decode()}")


@cache
def nvrtc():
    """The NVRTC of this environment. Raises BackendUnavailable, saying where it was looked for."""
    tried = []
    for path in _candidates():
        for extra in glob.glob(str(Path(path).parent / "libnvrtc-builtins.so*")):
            try:
                ctypes.CDLL(extra, mode=ctypes.RTLD_GLOBAL)
            except OSError as error:
                tried.append(str(error))
        try:
            return NVRTC(ctypes.CDLL(path))
        except OSError as error:
            tried.append(str(error))
    raise BackendUnavailable("NVRTC, which compiles kernels at run time, is not to be found; a CUDA build of torch "
                             "brings it, or `pip install nvidia-cuda-nvrtc`" + (f" ({'; '.join(tried)})" * bool(tried)))


def _candidates():
    """Paths and names under which NVRTC may be, best first."""
    for folder in sys.path:
        yield from _newest(os.path.join(folder, "nvidia", "*", "lib", "libnvrtc.so.*"))
    for home in filter(None, (os.environ.get("CUDA_HOME"), "/usr/local/cuda")):
        yield from _newest(os.path.join(home, "lib64", "libnvrtc.so.*"))
    yield from ("libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so")


def _newest(pattern):
    """Libraries of a pattern, the highest version first."""
    def version(path):
        return [int(part) for part in re.findall(r"\d+", path.rpartition(".so.")[2])]

    return sorted(glob.glob(pattern), key=version, reverse=True)
