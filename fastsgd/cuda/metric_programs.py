"""Owns the text of metric kernels: templates of csrc/cuda/metrics with everything that the compiler may know.

Sizes of memory that the templates state in doubles are computed here as well, for the host sets it aside; the templates
refuse to compile where the two differ.
"""

from dataclasses import dataclass

from .program import C_TYPES, THREADS, Program, boolean, constants, entry, partials

SHORT = 8 << 10  # bytes that a thread may keep in local memory: a card sets aside as much for every thread
UNROLLED = 96  # doubles that a thread may hold in registers
WARP, MOST_WARPS = 32, 8
REGISTERS, SPARE = 512, 48  # for the lanes of a quarter of a multiprocessor; beside a column of a Gram matrix
PIVOTS, SUMS = 2, 32  # of csrc/cuda/metrics/gram_rank.h and launch.h


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


def _program(name, header, call, spec, *, rolled=False, threads=THREADS, blocks=1, whole=False, shared=0, each=0,
             local=0, lanes=1):
    text = entry(f"metrics/{header}", spec, "fs::MetricLaunch", f"fs::{call}<Spec>(job)", blocks, rolled, threads)
    return MetricProgram(name, text, threads, whole, shared, each, local, lanes)


def _spec(ints, flags, *lines):
    fields = [constants("int", **ints)] if ints else []
    fields += [constants("bool", **{name: boolean(value) for name, value in flags.items()})] if flags else []
    return "struct Spec {\n" + "".join(f"  {line}\n" for line in (*fields, *lines)) + "};\n"


def held(dtype, factors):
    """What metrics read of weights on the card: products of `factors` parts of a network's, in float64."""
    spec = _spec({}, {}, f"using T = {C_TYPES[dtype]};", constants("int", K=factors))
    return Program(f"held, {dtype}", entry("metrics/held", spec, "fs::HeldLaunch", "fs::held<Spec>(job)", 1))


def padded(count):
    """As csrc/core/metrics/tile.h."""
    return -(-count // 8) * 8


def predictions(shape, P, kept, *, staged):
    """Outputs of any family of the general loop, a thread a network; None where P parameters and `kept` numbers are too
    many for its local memory. shape: its C++
    """
    local = 8 * (P + kept + 1)
    if local > SHORT:
        return None
    return _program("predictions", "losses", "predictions", _general(shape, 1, STAGED=staged, SHARED=False),
                    rolled=True, local=local)


def wide_predictions(shape, P, kept, threads, room):
    """The same, a block of threads a network; None where what it keeps exceeds shared memory, `room` bytes."""
    slot = 2  # numbers through which a block's sums go: csrc/cuda/lanes.h
    shares = 8 * (slot + kept + P) <= room
    if 8 * (slot + kept) > room:
        return None
    return _program(f"predictions, {threads} threads", "losses", "predictions",
                    _general(shape, threads, STAGED=False, SHARED=shares), rolled=True, threads=threads, whole=True,
                    shared=8 * (slot + kept + shares * P))


def _general(shape, lanes, **flags):
    made = ("struct Made : fs::NothingOwn {\n  template <class Tm>\n"
            f"  FS_HD static constexpr auto model() {{ return {shape}; }}\n}};\n")
    return made + _spec({"LANES": lanes}, flags, f"using Model = fs::Whole<fs::Work<double, {lanes}>, Made>;")


def mean_losses(d, h, hidden_bias, output_bias, *, staged):
    """Mean squared losses of two-layer ReLU networks, by the sums of the fused loop, with the fewest lanes that do."""
    def rows(lanes):
        units = -(-h // lanes)
        return units * (d + hidden_bias + 2) + 1

    lanes = next(L for L in (1, 2, 4, 8, 16, 32) if rows(L) <= UNROLLED or L == partials(h))
    rolled = rows(lanes) > UNROLLED
    model = f"fs::ReLU2<Tm, {partials(h)}>{{{d}, {h}, {hidden_bias}, {output_bias}}}"
    spec = _spec({"L": lanes}, {"STAGED": staged},
                 f"template <class Tm>\n  FS_HD static constexpr auto model() {{ return {model}; }}")
    return _program(f"mean losses, relu2 {d}-{h}, {lanes} lane(s)", "losses", "mean_losses", spec, rolled=rolled,
                    local=rolled * 8 * rows(lanes), lanes=lanes)


def linear_losses(d, *, staged):
    """Sums of squared residuals of linear predictors."""
    return _program(f"linear losses, d={d}", "losses", "linear_losses", _spec({"D": d}, {"STAGED": staged}),
                    rolled=d > 80, local=(d > 80) * 8 * d)


def norms(d, which):
    """A measure of pairs of vectors: 0 norm, 1 imbalance, 2 support."""
    return _program(f"norms, d={d}", "losses", "norms", _spec({"D": d, "WHICH": which}, {}))


def diagonal_ranks(d, parts):
    """Ranks of diagonal networks by exact counts."""
    ld = padded(d)
    vectors, matrices = d + 8 * ld + 8, (2 * ld + 1) * ld + 48 * 48 + 5 * ld
    local = 8 * vectors <= SHORT
    spec = _spec({"D": d, "K": parts, "VECTORS": vectors, "MATRICES": matrices}, {"LOCAL": local})
    return _program(f"ranks, diagonal d={d}", "diagonal", "diagonal_ranks", spec, rolled=True,
                    each=matrices + (not local) * vectors, local=local * 8 * vectors)


def scaled_values(d, parts, points, room):
    """Singular values of X diag(s) by one-sided Jacobi."""
    return _values(f"spectra, diagonal d={d}", "scaled_values", points, d, d,
                   {"D": d, "K": parts, "POINTS": points}, room)


def dense_values(shape, sizes, P, points, room):
    """Singular values of Jacobians of dense networks by one-sided Jacobi; shape, sizes, room as in `gram_ranks`."""
    o = sizes[-1]
    return _values(f"spectra, dense {'-'.join(map(str, sizes))} at {points} points", "dense_values", o * padded(points),
                   P, P + _passes(sizes, points), {"POINTS": points, "KEPT": min(o * points, P)}, room, _shaped(shape))


def _values(name, call, length, columns, making, ints, room, *lines):
    """Jacobi's method on matrices [length, columns], which take `making` doubles to be made."""
    most = min(length, columns)
    scratch = most * padded(columns) + padded(length) + 2 * columns + 2 * most
    work = 2 * most + columns * padded(length) + max(making, scratch)
    warps = max(1, min(MOST_WARPS, columns // 8))  # rows of the factorisation are shared out among them
    shares = 8 * work <= room
    spec = _spec({**ints, "THREADS": WARP * warps, "WORK": work}, {"SHARED": shares}, *lines)
    return _program(name, "jacobi", call, spec, rolled=True, threads=WARP * warps, whole=True, shared=shares * 8 * work,
                    each=(not shares) * work)


def _passes(sizes, points):
    """Doubles that a dense network's passes over the points leave, as csrc/cuda/metrics/dense_layer.h lays it out."""
    o = sizes[-1]
    return sum(h * points * ((2 if o > 1 else 1) + o) for h in sizes[1:-1])


def _shaped(shape):
    return f"FS_HD static constexpr fs::DenseShape shape() {{ return {shape}; }}"


def gram_ranks(shape, sizes, P, points, held, room):
    """Ranks of dense networks by the inertia of J J^T.

    shape: C++ of a DenseShape, sizes: d, h_1, ..., o; held: rows up to which columns of G are held in registers
    room: bytes of shared memory that a block can have
    """
    o = sizes[-1]
    rows = o * points
    layers = _passes(sizes, points)
    holds = rows <= held

    def sized(vectors):
        shared = rows + (-rows) % PIVOTS
        return shared * (1 + 2 * PIVOTS) + SUMS + 3 * vectors + 1, P + max(layers, vectors * (rows | 1))

    vectors = min(rows, max(32, layers // (rows | 1)))
    shared, work = sized(vectors)
    works = 8 * (shared + work) <= room
    if not works:
        vectors = rows
        shared, work = sized(vectors)
    square = 0 if holds else rows * rows
    grams = works and not holds and 8 * (shared + work + square) <= room
    threads = -(-rows // WARP) * WARP
    blocks = 4 * (REGISTERS // (2 * rows + SPARE)) // (threads // WARP)
    spec = _spec({"POINTS": points, "VECTORS": vectors, "WORK": work, "SHARED": shared},
                 {"HELD": holds, "WORK_SHARED": works, "G_SHARED": grams}, _shaped(shape))
    return _program(f"ranks, dense {'-'.join(map(str, sizes))} at {points} points", "gram_rank", "gram_ranks", spec,
                    rolled=not holds, threads=threads, blocks=max(1, blocks) if holds else 1, whole=True,
                    shared=8 * (shared + works * work + grams * square),
                    each=(not works) * work + (not grams) * square)


def feature_sparsity(shape, sizes, P, samples, layers, normalise, within, room):
    """Feature sparsity of hidden layers `layers` (1, 2, ...) of dense networks; within: a number for each layer."""
    work = P + sum(sizes[1:-1]) * (samples | 1)
    fits = 8 * (SUMS + work) <= room
    chosen = "".join(f"i == {i} ? {layer} : " for i, layer in enumerate(layers)) + "0"
    still = "".join(f"i == {i} ? {value!r} : " for i, value in enumerate(within)) + "0.0"
    spec = _spec({"SAMPLES": samples, "LAYERS": len(layers), "WORK": work}, {"NORMALISE": normalise, "SHARED": fits},
                 _shaped(shape), f"FS_HD static constexpr int layer(int i) {{ return {chosen}; }}",
                 f"FS_HD static constexpr double within(int i) {{ return {still}; }}")
    return _program(f"feature sparsity, {'-'.join(map(str, sizes))} on {samples} samples", "sparsity",
                    "feature_sparsity", spec, whole=True, shared=8 * (SUMS + fits * work),
                    each=0 if fits else work)


