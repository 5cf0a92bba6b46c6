"""Owns a network's parameters in a program: a tuple of blocks [BN, ...] over networks, loaded, stored and chosen from.

LAYOUT: one (offset, A, B) a parameter array in a row of WIDTH numbers: a block [BN, A, B], [BN, B] where A is 0, or
[BN] where B is 0. Lengths are powers of two; what pads them is zero and stays so. The last axis lies along the lanes.
What a network carries beside them, COUNT more rows [N, COUNT, WIDTH], is for each block a tuple of COUNT.
"""

import triton
import triton.language as tl


@triton.jit
def _offsets(net, WIDTH: tl.constexpr, AT: tl.constexpr, A: tl.constexpr, B: tl.constexpr):
    at = net.to(tl.int64) * WIDTH + AT
    if B == 0:
        return at
    elif A == 0:
        return at[:, None] + tl.arange(0, B)[None, :]
    else:
        return at[:, None, None] + (tl.arange(0, A)[None, :, None] * B + tl.arange(0, B)[None, None, :])


@triton.jit
def over(which, block):
    """A flag or number [BN] beside a block [BN, ...]."""
    if len(block.shape) == 1:
        return which
    elif len(block.shape) == 2:
        return which[:, None]
    else:
        return which[:, None, None]


@triton.jit
def beside(which, block):
    """A number [BN] as a block [BN, ...]."""
    return tl.broadcast_to(over(which, block), block.shape)


@triton.jit
def numbered(block, FIRST: tl.constexpr, A: tl.constexpr, B: tl.constexpr, ROW: tl.constexpr, COLUMN: tl.constexpr):
    """(canonical numbers FIRST + i ROW + j COLUMN of a block's entries, whether i < A and j < B), [1 or BN, ...]."""
    if len(block.shape) == 1:
        p = tl.zeros(block.shape, tl.int32) + FIRST
        real = p >= 0
    elif len(block.shape) == 2:
        j = tl.arange(0, block.shape[1])[None, :]
        p = FIRST + j * COLUMN
        real = j < B
    else:
        i = tl.arange(0, block.shape[1])[None, :, None]
        j = tl.arange(0, block.shape[2])[None, None, :]
        p = FIRST + i * ROW + j * COLUMN
        real = (i < A) & (j < B)
    return p, real


@triton.jit
def load(W, net, live, LAYOUT: tl.constexpr, WIDTH: tl.constexpr, DTYPE: tl.constexpr):
    """The parameters of networks `net` [BN] as DTYPE; zeros where not `live`."""
    w = ()
    for k in tl.static_range(len(LAYOUT)):
        at = _offsets(net, WIDTH, LAYOUT[k][0], LAYOUT[k][1], LAYOUT[k][2])
        w = w + (tl.load(W + at, mask=over(live, at), other=0.0).to(DTYPE),)
    return w


@triton.jit
def store(W, w, net, live, LAYOUT: tl.constexpr, WIDTH: tl.constexpr):
    """The reverse of `load`."""
    for k in tl.static_range(len(LAYOUT)):
        at = _offsets(net, WIDTH, LAYOUT[k][0], LAYOUT[k][1], LAYOUT[k][2])
        tl.store(W + at, w[k], mask=over(live, at))


@triton.jit
def load_carried(rows, net, live, COUNT: tl.constexpr, LAYOUT: tl.constexpr, WIDTH: tl.constexpr):
    """What networks carry beside their parameters."""
    carried = ()
    for k in tl.static_range(len(LAYOUT)):
        buffers = ()
        for c in tl.static_range(COUNT):
            at = _offsets(net, WIDTH * COUNT, LAYOUT[k][0] + c * WIDTH, LAYOUT[k][1], LAYOUT[k][2])
            buffers = buffers + (tl.load(rows + at, mask=over(live, at), other=0.0),)
        carried = carried + (buffers,)
    return carried


@triton.jit
def store_carried(rows, carried, net, live, COUNT: tl.constexpr, LAYOUT: tl.constexpr, WIDTH: tl.constexpr):
    """The reverse of `load_carried`."""
    for k in tl.static_range(len(LAYOUT)):
        for c in tl.static_range(COUNT):
            at = _offsets(net, WIDTH * COUNT, LAYOUT[k][0] + c * WIDTH, LAYOUT[k][1], LAYOUT[k][2])
            tl.store(rows + at, carried[k][c], mask=over(live, at))


@triton.jit
def broken(w):
    """Which networks [BN] have a number in these blocks that is not finite: once it is not, it never is again."""
    total = 0.0
    for k in tl.static_range(len(w)):
        none = w[k] * 0
        if len(w[k].shape) == 3:
            none = tl.sum(none, axis=2)
        if len(w[k].shape) > 1:
            none = tl.sum(none, axis=1)
        total = total + none
    return (total == 0) == 0


@triton.jit
def zeros(w):
    """Blocks of zeros like w."""
    out = ()
    for k in tl.static_range(len(w)):
        out = out + (tl.zeros_like(w[k]),)
    return out


@triton.jit
def choose(go, new, old):
    """`new` of networks that go [BN], `old` of the others, whatever `new` holds there."""
    out = ()
    for k in tl.static_range(len(old)):
        out = out + (tl.where(over(go, old[k]), new[k], old[k]),)
    return out


@triton.jit
def moved(rate, g, w):
    """w + rate [BN] g."""
    out = ()
    for k in tl.static_range(len(w)):
        out = out + (tl.fma(beside(rate, w[k]), g[k], w[k]),)
    return out


@triton.jit
def times(scale, w):
    """scale [BN] w."""
    out = ()
    for k in tl.static_range(len(w)):
        out = out + (beside(scale, w[k]) * w[k],)
    return out
