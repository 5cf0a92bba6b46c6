"""Owns the programs of ranks and spectra: csrc/cuda/metrics/{diagonal, gram_rank, jacobi}.h."""

from . import SHORT, SUMS, WARP, padded, program, shaped, spec

REGISTER_ROWS = 80  # rows up to which columns of a Gram matrix are held in a card's registers
MOST_WARPS = 8
REGISTERS, SPARE = 512, 48  # for the lanes of a quarter of a multiprocessor; beside a column of a Gram matrix
PIVOTS, TOGETHER = 2, 8  # of csrc/cuda/metrics/gram_rank.h


def diagonal_ranks(d, parts):
    """Ranks of diagonal networks by exact counts."""
    ld = padded(d)
    vectors, matrices = d + 8 * ld + 8, (2 * ld + 1) * ld + 48 * 48 + 5 * ld
    local = 8 * vectors <= SHORT
    made = spec({"D": d, "K": parts, "VECTORS": vectors, "MATRICES": matrices}, {"LOCAL": local})
    return program(f"ranks, diagonal d={d}", "diagonal", "diagonal_ranks", made, rolled=True,
                   each=matrices + (not local) * vectors, local=local * 8 * vectors)


def scaled_values(d, parts, points, most_shared):
    """Singular values of X diag(s) by one-sided Jacobi."""
    return _values(f"spectra, diagonal d={d}", "scaled_values", points, d, d,
                   {"D": d, "K": parts, "POINTS": points}, most_shared)


def dense_values(form, P, points, most_shared):
    """Singular values of Jacobians of dense networks by one-sided Jacobi; most_shared as in `gram_ranks`."""
    sizes, o = form.sizes, form.outputs
    return _values(f"spectra, dense {'-'.join(map(str, sizes))} at {points} points", "dense_values",
                   o * padded(points), P, P + _passes(sizes, points),
                   {"POINTS": points, "VALUES": min(o * points, P)}, most_shared, shaped(form))


def _values(name, call, length, columns, making, ints, most_shared, *lines):
    """Jacobi's method on matrices [length, columns], which take `making` doubles to be made."""
    most = min(length, columns)
    scratch = most * padded(columns) + padded(length) + 2 * columns + 2 * most
    work = 2 * most + columns * padded(length) + max(making, scratch)
    warps = max(1, min(MOST_WARPS, columns // 8))  # rows of the factorisation are shared out among them
    shares = 8 * work <= most_shared
    made = spec({**ints, "THREADS": WARP * warps, "WORK": work}, {"SHARED": shares}, *lines)
    return program(name, "jacobi", call, made, rolled=True, threads=WARP * warps, whole=True,
                   shared=shares * 8 * work, each=(not shares) * work)


def _passes(sizes, points):
    """Doubles that a dense network's passes over the points leave, as csrc/cuda/metrics/dense_layer.h lays it out."""
    o = sizes[-1]
    return sum(h * points * ((2 if o > 1 else 1) + o) for h in sizes[1:-1])


def gram_ranks(form, P, points, most_shared):
    """Ranks of dense networks by the inertia of J J^T.

    most_shared: bytes of shared memory that a block can have
    """
    sizes, o = form.sizes, form.outputs
    rows = o * points
    layers = _passes(sizes, points)
    holds = rows <= REGISTER_ROWS

    def sized(vectors):
        whole = rows + (-rows) % PIVOTS
        shared = whole * (1 + 2 * PIVOTS) + PIVOTS * TOGETHER + SUMS + 3 * vectors + 1
        return shared, P + max(layers, vectors * (rows | 1))

    vectors = min(rows, max(32, layers // (rows | 1)))
    shared, work = sized(vectors)
    works = 8 * (shared + work) <= most_shared
    if not works:
        vectors = rows
        shared, work = sized(vectors)
    square = 0 if holds else rows * rows
    grams = works and not holds and 8 * (shared + work + square) <= most_shared
    threads = -(-rows // WARP) * WARP
    blocks = 4 * (REGISTERS // (2 * rows + SPARE)) // (threads // WARP)
    made = spec({"POINTS": points, "VECTORS": vectors, "WORK": work, "SHARED": shared},
                         {"IN_REGISTERS": holds, "WORK_SHARED": works, "G_SHARED": grams}, shaped(form))
    return program(
        f"ranks, dense {'-'.join(map(str, sizes))} at {points} points", "gram_rank", "gram_ranks", made,
        rolled=not holds, threads=threads, blocks=max(1, blocks) if holds else 1, whole=True,
        shared=8 * (shared + works * work + grams * square), each=(not works) * work + (not grams) * square)
