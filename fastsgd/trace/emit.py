"""Owns C++ of a traced model, loss, penalty or rule: the struct that csrc/core/general.h's loop takes."""

import numpy as np

from .graph import INPUT, SEED, leaf, order, positions, shared
from .loops import Loops, kept_nodes
from .reverse import gradients

UNROLLED = 400  # operations of a function up to which its loops are written out: then those cost more than loops do
LOCAL = 512  # vectors of arrays that a function may have for itself; more go to the rows it is given


class Layout:
    """Where parameters {name: shape} lie in the rows of a network: {name: first row}, and the number P of rows."""

    def __init__(self, shapes):
        self.shapes, self.first, self.P = dict(shapes), {}, 0
        for name, shape in shapes.items():
            self.first[name] = self.P
            self.P += int(np.prod(shape, dtype=int))

    def reads(self):
        """How loops read parameters."""
        return {name: (lambda at, first=first: f"w[{_plus(at, first)}]") for name, first in self.first.items()}


def _plus(at, first):
    return f"{at} + {first}" if first else at


class Part:
    """One function of a struct: its loops, and where its arrays are."""

    def __init__(self, read, loops=None):
        self.loops, self.heads, self.local = Loops(read), [], 0
        if loops is not None:
            self.loops.arrays.update(loops.arrays)

    def keep(self, nodes, padded, rows):
        """Compute nodes into arrays of their own: in `residuals` from row `rows` on, local if that is None.

        nodes: a tuple of kept_nodes; padded: ids of those that need a zero behind their entries. Returns the rows taken
        """
        total, names = 0, []
        for node in nodes:
            size, name = node.size + (id(node) in padded), f"a{len(self.loops.arrays) + len(names)}"
            self.heads.append(f"V {name}[{size}];" if rows is None else
                              f"V *const {name} = residuals + {rows + total};")
            total += size
            names.append(name)
        self.loops.keep(nodes, names, [id(node) in padded for node in nodes])
        return total

    def text(self, more=()):
        """The statements of the function."""
        lines = [*self.loops.declarations(), *self.heads, *more, *self.loops.lines]
        return body(lines, self.loops.work <= UNROLLED)


def body(lines, unrolled):
    """The text of a function's lines, its loops written out or not."""
    text = "\n".join("    " + part for line in lines for part in line.split("\n"))
    return text.replace("FS_TRACED_LOOP", "FS_UNROLL" if unrolled else "FS_UNROLL_ROWS")


def model(f, layout, trained, d):
    """(C++ of `template <class Tm> struct Model`, rows that forward leaves for vjp) of a network with output f.

    f: node of leaves that are parameters of `layout` and INPUT [d]; trained: names of the parameters that move
    """
    o = f.size
    f, grads = differentiated(f, layout, trained)
    kept, padded = kept_nodes([f, *grads.values()])
    read = layout.reads() | {INPUT: lambda at: f"x.shared({at})", SEED: lambda at: f"g[{at}]"}
    forward, rows, first = Part(read), 0, {id(node) for node in order([f])}
    for nodes in kept:
        if within(nodes, first):
            rows += forward.keep(nodes, padded, rows)
    where = positions(f).reshape(-1)
    forward.loops.loop((o,), [(f, where)], lambda made, to: [f"out[{to(where)}] = {made[0]};"])
    vjp, heads = Part(read, forward.loops), list(forward.heads)
    rows = sinks(vjp, [nodes for nodes in kept if not within(nodes, first)], padded, grads, layout, rows,
                 in_place=True)
    used = [head for head in heads if any(name_of(head) + "[" in line for line in vjp.loops.lines)]
    return f"""template <class Tm>
struct Model {{
  using T = typename Tm::T;
  using V = typename Tm::V;
  FS_HD constexpr int P() const {{ return {layout.P}; }}
  FS_HD constexpr int inputs() const {{ return {d}; }}
  FS_HD constexpr int outputs() const {{ return {o}; }}
  FS_HD constexpr int residuals() const {{ return {rows}; }}
  template <class X>
  FS_HD void forward(const V* w, X x, V* residuals, V* out) const {{
{forward.text()}
  }}
  template <class X, class Sink>
  FS_HD void vjp(const V* w, X x, const V* g, V* residuals, Sink sink) const {{
{vjp.text(used)}
  }}
}};
""", rows


def differentiated(f, layout, trained, seed=None):
    """(f, {parameter: derivative of <seed, f>}) for those of `trained` that f depends on; by default seed is SEED.

    Equal nodes are one.
    """
    given = [leaf(name, layout.shapes[name]) for name in trained]
    ends = shared([f, *given])
    f, given = ends[0], {one.attr: one for one in ends[1:]}
    grads = gradients([f], [leaf(SEED, f.shape) if seed is None else seed], [given[name] for name in trained])
    moved = [name for name, grad in zip(trained, grads, strict=True) if grad is not None]
    f, *grads = shared([f, *(grad for grad in grads if grad is not None)])
    return f, dict(zip(moved, grads, strict=True))


def within(nodes, ids):
    """Whether one of the nodes is among these: they are computed together."""
    return any(id(node) in ids for node in nodes)


def name_of(head):
    """The array that a declaration makes."""
    return head.partition("const ")[2].partition(" ")[0]


def sinks(part, kept, padded, grads, layout, rows, in_place):
    """Write derivatives {parameter: node} to the sink; returns the rows in use.

    in_place: whether the sink may change the very parameters that are read
    """
    local = sum(node.size + 1 for nodes in kept for node in nodes) <= LOCAL
    size = 0
    for nodes in kept:
        size += part.keep(nodes, padded, None if local else rows + size)
    groups, read = {}, set()
    for name, grad in grads.items():
        own = [(other, index) for other, index in part.loops.reads(grad, positions(grad)) if other in layout.first]
        if in_place and not all(beside(layout.first[other] + index, layout.shapes[name], layout)
                                for other, index in own):
            size += part.keep((grad,), (), None if grad.size <= LOCAL else rows + size)
        elif own:
            read |= {name, *(other for other, _ in own)}  # none moves before all of its shape are read
    for name, grad in grads.items():
        shape = layout.shapes[name]
        groups.setdefault((shape, "together") if name in read else name, []).append(
            (name, grad, layout.first[name], shape))
    for members in groups.values():
        where = [positions(grad) for _, grad, _, _ in members]

        def statements(made, to, members=members, where=where):
            if len(made) == 1:
                return [f"sink({to(where[0] + members[0][2])}, {', '.join(made[0])});"]
            lines = [f"const V {', '.join(f'e{k}_{m} = {text}' for m, text in enumerate(parts))};"
                     for k, parts in enumerate(made)]  # all are read before any moves
            return ["{", *lines, *(f"sink({to(where[k] + member[2])}, "
                                   f"{', '.join(f'e{k}_{m}' for m in range(len(made[k])))});"
                                   for k, member in enumerate(members)), "}"]

        part.loops.loop(members[0][3], [(grad, at) for (_, grad, _, _), at in zip(members, where, strict=True)],
                        statements, products=True)
    return rows + (0 if local and not size else size)


def beside(index, shape, layout):
    """Whether rows that are read are those of one parameter of this shape, entry by entry."""
    if index.shape != tuple(shape):
        return False
    return any(other == shape and np.array_equal(index, layout.first[name] + np.arange(index.size).reshape(shape))
               for name, other in layout.shapes.items())


def loss(value, gaps, outputs, labels, numbers):
    """C++ of `struct Loss` with dloss(f, y, bound, g, numbers), of a loss and what its bound holds for.

    They depend on leaves "f" and "y", and on `numbers` {leaf: size} that each network has of its own, in this order
    """
    ends = shared([value, gaps, leaf("f", _leaf_shape(value, gaps, "f", outputs))])
    value, gaps, f = ends
    grad = gradients([value], [_one(value)], [f])[0]
    wanted = shared([gaps] if grad is None else [gaps, grad])
    kept, padded = kept_nodes(wanted)
    reads, first = {"f": lambda at: f"f[{at}]", "y": lambda at: f"y[{at}]"}, 0
    for name, size in numbers.items():
        reads[name] = lambda at, first=first: f"numbers[{_plus(at, first)}]"
        first += size
    part = Part(reads)
    for nodes in kept:
        part.keep(nodes, padded, None)
    at = positions(wanted[0]).reshape(-1)
    part.loops.loop((len(at),), [(wanted[0], at)], lambda made, to: [f"bad |= beyond({made[0]}, bound);"])
    where = np.arange(outputs)
    if grad is None:
        part.loops.loop((outputs,), [], lambda made, to: [f"g[{to(where)}] = V::set(0);"])
    else:
        part.loops.loop((outputs,), [(wanted[1], where)], lambda made, to: [f"g[{to(where)}] = {made[0]};"])
    return f"""template <class Tm>
struct Loss {{
  using T = typename Tm::T;
  using V = typename Tm::V;
  static constexpr int labels = {labels};
  template <class Bound>
  FS_HD fs::u32 dloss(const V* f, const V* y, Bound bound, V* g, const V* numbers) const {{
    fs::u32 bad = 0;
{part.text()}
    return bad;
  }}
}};
"""


def _leaf_shape(value, gaps, name, size):
    return next((node.shape for node in order([value, gaps]) if node.op == "leaf" and node.attr == name), (size,))


def _one(value):
    from .graph import const

    return const(np.ones(value.shape))


def penalty(value, layout, trained):
    """(C++ of `struct Penalty` with vjp(w, residuals, sink), rows that it needs) of a function of the parameters."""
    _, grads = differentiated(value, layout, trained, _one(value))
    kept, padded = kept_nodes(list(grads.values()))
    part = Part(layout.reads())
    rows = sinks(part, kept, padded, grads, layout, 0, in_place=False)
    return f"""template <class Tm>
struct Penalty {{
  using T = typename Tm::T;
  using V = typename Tm::V;
  FS_HD constexpr int residuals() const {{ return {rows}; }}
  template <class Sink>
  FS_HD void vjp(const V* w, V* residuals, Sink sink) const {{
{part.text()}
  }}
}};
""", rows


def rule(outputs, names, numbers):
    """C++ of `struct Rule` with move(begin, end, P, fixed, w, g, state, numbers) of nodes that depend on one parameter.

    outputs {leaf: what becomes of it}: first the parameter, then its state; names: of the leaves of that kind, and of
        its gradient, second; numbers: leaves that are the network's, in their order
    """
    rows = [f"state[{k} * P + p]" for k in range(len(outputs) - 1)]
    reads = dict(zip(names, ("w[p]", "g[p]", *rows), strict=True))
    reads |= {name: f"numbers[{k}]" for k, name in enumerate(numbers)}
    part = Part({name: (lambda at, text=text: text) for name, text in reads.items()})
    ends = shared(list(outputs.values()))
    for nodes in kept_nodes(ends)[0]:
        part.keep(nodes, (), None)

    def statements(made, to):
        values = ", ".join(f"e{k} = {text}" for k, text in enumerate(made))  # all are read before any moves
        return [f"const V {values};", *(f"{place} = e{k};" for k, place in enumerate(("w[p]", *rows)))]

    part.loops.loop((), [(node, positions(node)) for node in ends], statements)
    text = part.text().replace("\n    ", "\n      ")
    return f"""template <class Tm>
struct Rule {{
  using T = typename Tm::T;
  using V = typename Tm::V;
  FS_HD void move(int begin, int end, int P, const bool* fixed, V* w, const V* g, V* state, const V* numbers) const {{
    FS_NO_UNROLL
    for (int p = begin; p < end; p += Tm::step()) {{
      if (fixed && fixed[p]) continue;
  {text}
    }}
  }}
}};
"""
