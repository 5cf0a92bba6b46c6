"""What surrounds CUDA kernels: structs, keys, caches, NVRTC, the driver's calls, sanitizers."""

import ctypes
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import ahead
import fibers
import pytest
from cases import MODELS, request
from tiers import long

import fastsgd as fs
from fastsgd.backends.cuda import layout
from fastsgd.backends.cuda.structs import Launch, OrderLaunch
from fastsgd.cuda import card as cards
from fastsgd.cuda import compiler, driver, program
from fastsgd.errors import BackendUnavailable
from fastsgd.lowering.work import Work

HERE = Path(__file__).parent
COPY = program.Program("copy", """#include "cuda/platform.h"
struct Job { const fs::i64* from; fs::i64* to; fs::i64 count; };
FS_ENTRY(32, 1, Job, const fs::i64 k = fs::thread_number(); if (k < job.count) job.to[k] = 2 * job.from[k])
""", 32)


class Job(ctypes.Structure):
    _fields_ = [("from_", ctypes.c_int64), ("to", ctypes.c_int64), ("count", ctypes.c_int64)]


@pytest.fixture
def nvrtc():
    try:
        return compiler.nvrtc()
    except BackendUnavailable as error:
        pytest.skip(str(error))


class Hopper:
    """What the choice of a program asks of a card."""

    processors, shared, arch, name = 132, 227 << 10, "sm_90", "Hopper"

    def free(self):
        return 80 << 30


SWEPT = {
    "diagonal 30": (fs.models.DiagonalLinear(30), 20), "diagonal 100": (fs.models.DiagonalLinear(100), 40),
    "diagonal 200": (fs.models.DiagonalLinear(200), 80),
    "2-20-1": (fs.models.ReLU2(2, 20, hidden_bias=False, output_bias=False), 15),
    "1-100-1": (fs.models.ReLU2(1, 100, output_bias=False), 12), "10-100-1": (fs.models.ReLU2(10, 100), 40)}


@pytest.mark.parametrize("dtype", ("float32", "float64"))
@pytest.mark.parametrize("system", SWEPT)
def test_common_programs_are_those_that_are_chosen(system, dtype):
    model, n = SWEPT[system]
    data = fs.data.sparse_regression(n=n, d=model.d, nonzero=1, seed=0).astype(dtype)
    run = fs.Run(model, data, fs.rules.SGD(), 0.1, 10, dtype=dtype)
    assert layout.choose(Work(run), 10**6, Hopper, fs.Tuning()).program in program.common()


def test_structs_have_eight_bytes_a_field():
    for struct in (Launch, OrderLaunch):
        assert ctypes.sizeof(struct) == 8 * len(struct._fields_)


def test_a_key_knows_text_and_headers(monkeypatch):
    other = program.Program("another name", COPY.text + " ")
    assert COPY.key == program.Program("another name", COPY.text).key != other.key
    before = COPY.key
    monkeypatch.setattr(program, "headers_hash", lambda: "other headers")
    assert COPY.key != before


def test_programs_are_kept_whole_or_not_at_all(monkeypatch, tmp_path):
    made = []

    class Compiler:
        version = "0"

        def compile(self, asked, arch):
            made.append(arch)
            return b"machine code for " + arch.encode()

    monkeypatch.setattr(compiler, "nvrtc", Compiler)
    monkeypatch.setenv("FASTSGD_CACHE", str(tmp_path))
    code = compiler.compiled(COPY, "sm_90")
    assert code == b"machine code for sm_90" == compiler.compiled(COPY, "sm_90") and made == ["sm_90"]
    assert compiler.compiled(COPY, "sm_80") == b"machine code for sm_80" and made == ["sm_90", "sm_80"]
    kept = tmp_path / "cuda" / f"{COPY.key}.sm_90.cubin"
    kept.write_bytes(kept.read_bytes()[:-1])  # what a full disk leaves behind
    assert compiler.compiled(COPY, "sm_90") == code and made[-1] == "sm_90" and len(made) == 3
    monkeypatch.setenv("FASTSGD_CACHE", "/proc/nowhere")
    assert compiler.compiled(COPY, "sm_90") == code


def test_what_is_built_ahead_is_taken_first_where_it_loads(monkeypatch, tmp_path):
    class Driver:
        def load(self, code, threads, shared):
            if code == b"of newer cards":
                raise BackendUnavailable("no kernel image is available")
            return code, threads, shared

    monkeypatch.setattr(compiler, "BUILT", tmp_path)
    monkeypatch.setattr(cards, "driver", Driver)
    monkeypatch.setattr(compiler, "compiled", lambda program, arch: arch)
    one = object.__new__(cards.Card)
    one.arch = "sm_80"
    for ahead_of_time, want in ((None, "sm_80"), (b"for all", b"for all"), (b"of newer cards", "sm_80")):
        if ahead_of_time:
            (tmp_path / f"{COPY.key}.fatbin").write_bytes(ahead_of_time)
        assert one._load(COPY, 5) == (want, 32, 5)


def test_the_newest_nvrtc_is_taken(monkeypatch, tmp_path):
    for name in ("cuda_nvrtc/lib/libnvrtc.so.12", "cu13/lib/libnvrtc.so.13", "old/lib/libnvrtc.so.9.2"):
        (tmp_path / "nvidia" / name).parent.mkdir(parents=True)
        (tmp_path / "nvidia" / name).touch()
    monkeypatch.setattr("sys.path", [str(tmp_path)])
    assert [Path(path).name for path in compiler._candidates()][:3] == ["libnvrtc.so.13", "libnvrtc.so.12",
                                                                        "libnvrtc.so.9.2"]


def test_nvrtc_compiles_and_says_what_it_does_not_like(nvrtc):
    assert nvrtc.compile(COPY, "sm_90")[:4] == b"\x7fELF"
    with pytest.raises(BackendUnavailable, match=r"could not compile 'bad' for sm_90.*unknown_word"):
        nvrtc.compile(program.Program("bad", COPY.text + "unknown_word x;"), "sm_90")


def test_programs_that_ran_as_fibers_are_compiled_ahead(nvrtc, monkeypatch, tmp_path):
    fibers.build(COPY, tmp_path)
    (tmp_path / "old.cu").write_text("of other headers")
    (found,) = ahead.programs(tmp_path)
    monkeypatch.setenv("FASTSGD_CACHE", str(tmp_path))
    assert ahead.compiled(found, "sm_90") > 1000 and (tmp_path / "cuda" / f"{COPY.key}.sm_90.cubin").is_file()
    assert "could not compile" in ahead.compiled(program.Program("bad", "unknown_word x;"), "sm_90")


def test_where_nvrtc_is_not_to_be_had(monkeypatch):
    monkeypatch.setattr(compiler, "_candidates", lambda: ["/no/libnvrtc.so"])
    with pytest.raises(BackendUnavailable, match="pip install nvidia-cuda-nvrtc"):
        compiler.nvrtc.__wrapped__()


DRIVER = r"""
#include <dlfcn.h>
#include <cstring>
extern "C" {
int cuInit(unsigned) { return 0; }
int cuDriverGetVersion(int* v) { *v = 13010; return 0; }
int cuGetErrorString(int e, const char** s) { *s = e == 7 ? "seven" : "other"; return 0; }
int cuModuleLoadData(void** m, const void* code) { *m = dlopen((const char*)code, RTLD_NOW); return *m ? 0 : 7; }
int cuModuleGetFunction(void** f, void* m, const char* name) {
  return std::strcmp(name, "fastsgd") ? 7 : (*f = dlsym(m, "fastsgd_launch")) ? 0 : 7; }
int allowed = 0, carved = 0;
thread_local void* current = nullptr;
int cuCtxGetCurrent(void** context) { *context = current; return 0; }
int cuCtxSetCurrent(void* context) { current = context; return 0; }
int cuFuncSetAttribute(void*, int what, int value) {
  (what == 8 ? allowed : carved) = value; return what == 8 || what == 9 ? 0 : 7; }
int cuFuncGetAttribute(int* value, int what, void*) { *value = 1000; return what == 1 ? 0 : 7; }
int cuOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, void*, int threads, size_t shared) {
  *blocks = 3; return threads == 32 && (shared == 70000 || !shared) ? 0 : 7; }
int cuCtxGetDevice(int* device) { *device = 5; return 0; }
int cuDeviceGetAttribute(int* value, int what, int device) {
  *value = what == 81 ? 233472 : 1024; return (what == 81 || what == 111) && device == 5 ? 0 : 7; }
int cuLaunchKernel(void* f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                   unsigned shared, void* stream, void** arguments, void** extra) {
  if (!current) return 201;
  if (gy * gz * by * bz != 1 || extra || stream != (void*)0x1234567812345678 || shared != 70000) return 7;
  return ((const char* (*)(unsigned, unsigned, size_t, const void*))f)(gx, bx, shared, arguments[0]) ? 7 : 0; }
}
"""


def test_the_driver_is_called_as_it_wants(tmp_path, fiber_card):
    """A libcuda whose modules are libraries of fibers: every argument arrives where it should."""
    (tmp_path / "driver.cpp").write_text(DRIVER)
    made = tmp_path / "libcuda.so"
    subprocess.run(["g++", "-shared", "-fPIC", "-w", str(tmp_path / "driver.cpp"), "-ldl", "-o", str(made)], check=True)
    it = driver.Driver(ctypes.CDLL(str(made)))
    assert it.version == "13.1"
    it("cuCtxSetCurrent", ctypes.c_void_p(0x2345678923456789))  # as torch does where it first touches a card
    kernel = it.load(str(fibers.build(COPY, fiber_card.folder)).encode(), 32, 70000)
    assert ctypes.c_int.in_dll(it.library, "allowed").value == 70000 and kernel.blocks == 3
    assert ctypes.c_int.in_dll(it.library, "carved").value == 93  # percent of 228 KiB: three blocks of 70.3 KiB
    given, out = (ctypes.c_int64 * 40)(*range(40)), (ctypes.c_int64 * 40)()
    job = Job(ctypes.addressof(given), ctypes.addressof(out), 40)
    with ThreadPoolExecutor(1) as pool:  # a thread that torch has not touched
        pool.submit(it.launch, kernel, 2, 32, 70000, 0x1234567812345678, job).result()
    assert list(out) == [2 * k for k in range(40)]
    with pytest.raises(BackendUnavailable, match=r"cuModuleLoadData: seven \(7\)"):
        it.load(b"/no/such/module", 32, 0)


@pytest.mark.parametrize(("call", "why"), [
    ("if (threadIdx.x != 3) __syncthreads(); else for (;;) fibers::wait()", "deadlock"),
    ("if (threadIdx.x != 3) __any_sync(~0u, 1)", "has left"),
    ("__shfl_xor_sync(threadIdx.x == 3 ? 1u : ~0u, 1, 1)", "not in its mask")])
def test_fibers_find_what_a_card_would_hang_on(call, why, fiber_card):
    bad = program.Program("bad", '#include "cuda/platform.h"\nstruct Job { fs::i64 nothing; };\n'
                          f"FS_ENTRY(32, 1, Job, {call})\n", 32)

    class Nothing(ctypes.Structure):
        _fields_ = [("nothing", ctypes.c_int64)]

    with pytest.raises(AssertionError, match=why):
        fiber_card.launch(bad, 32, 0, Nothing())


@pytest.mark.skipif(cards.why_none() is None, reason="compute-sanitizer looks at a card itself")
@pytest.mark.parametrize("mode", ["some", long("planted"), long("all")])
def test_no_kernel_reads_or_writes_where_it_must_not(mode, fiber_card):
    """Address and undefined-behaviour sanitizers over every kernel; an error that was put there is found."""
    libraries = [subprocess.run(["g++", f"-print-file-name={name}"], capture_output=True, text=True).stdout.strip()
                 for name in ("libasan.so", "libubsan.so")]
    if not all(os.path.isabs(path) for path in libraries):
        pytest.skip("this g++ has no sanitizers")
    command = [sys.executable, str(HERE / "every_kernel.py"), str(fiber_card.folder), mode]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {
        "LD_PRELOAD": " ".join(libraries), "OMP_NUM_THREADS": "1", "ASAN_OPTIONS": "detect_leaks=0",
        "PYTHONPATH": str(HERE.parent)})
    if mode == "planted":
        assert done.returncode and "AddressSanitizer: heap-buffer-overflow" in done.stderr, done.stderr[-2000:]
    else:
        assert done.returncode == 0 and "the bits of the CPU" in done.stdout, done.stderr[-3000:]


def test_models_of_the_suite_have_a_program():
    for name in MODELS:
        assert layout.why_not(Work(request(name))) is None
