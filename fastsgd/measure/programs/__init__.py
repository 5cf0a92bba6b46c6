"""Owns what the text of metric kernels has in common: templates of csrc/cuda/metrics with all that a compiler may know.

Sizes of memory, which templates state in doubles, are computed here too, since the host sets it aside; a template
does not compile where the two differ.
"""

from dataclasses import dataclass

from ...cuda.program import C_TYPES, THREADS, Program, boolean, constants, entry

SHORT = 8 << 10  # bytes that a thread may keep in local memory: a card sets aside as much for every thread
WARP = 32
SUMS = 32  # of csrc/cuda/metrics/launch.h


@dataclass(frozen=True)
class MetricProgram(Program):
    """A kernel that measures.

    shared: bytes of dynamic shared memory; each: doubles of global memory a block (`whole`) or a thread
    local: bytes of local memory a thread, apart from what the compiler may spill
    lanes: threads a network, if not `whole`
    """

    shared: int = 0
    each: int = 0
    local: int = 0
    lanes: int = 1


def program(name, header, call, spec, *, rolled=False, threads=THREADS, blocks=1, whole=False, shared=0, each=0,
            local=0, lanes=1):
    text = entry(f"metrics/{header}", spec, "fs::MetricLaunch", f"fs::{call}<Spec>(job)", blocks, rolled, threads)
    return MetricProgram(name, text, threads, whole, shared, each, local, lanes)


def spec(ints, flags, *lines):
    fields = [constants("int", **ints)] if ints else []
    fields += [constants("bool", **{name: boolean(value) for name, value in flags.items()})] if flags else []
    return "struct Spec {\n" + "".join(f"  {line}\n" for line in (*fields, *lines)) + "};\n"


def reader(dtype, factors):
    """What metrics read of weights on the card: products of `factors` parts of a network's, in float64."""
    made = spec({}, {}, f"using T = {C_TYPES[dtype]};", constants("int", K=factors))
    return Program(f"read, {dtype}", entry("metrics/read", made, "fs::ReadLaunch", "fs::read_weights<Spec>(job)", 1))


def padded(count):
    """As csrc/core/metrics/tile.h."""
    return -(-count // 8) * 8


def shaped(form):
    """A line that tells a program the shape of a dense network."""
    return f"FS_HD static constexpr fs::DenseShape shape() {{ return {form.shape_text()}; }}"
