"""Owns C++ of a traced network's whole step of plain SGD, in as few sweeps over its parameters as there can be.

The step at one sample and the value at the next are one function. A parameter of which the network reads every entry
once, in one place, moves there: it is loaded and stored once a step. All others move before, as `vjp` moves them. The
sums and their order are those of `forward` and `vjp`, and so are the bits.
"""

import numpy as np

from .emit import UNROLLED, Part, beside, body, differentiated, name_of, sinks, within
from .graph import INPUT, SEED, order, positions
from .loops import Loops, kept_nodes


class Moving(Loops):
    """Loops over a network at the next sample, in which parameters move where they are read.

    old: Loops of the derivatives; grads {name: node}; together {name: names that move with it, itself among them}
    seen {name: places where it was read}: (loop, sum, positions)
    """

    def __init__(self, read, old, layout, grads, together):
        super().__init__(read | {INPUT: lambda at: self._once(f"next.shared({at})")})
        old.read = old.read | {INPUT: lambda at: self._once(f"x.shared({at})")}
        self.inputs = None  # {an input: its name} in a loop over terms of sums side by side
        self.old, self.layout, self.grads, self.together = old, layout, grads, together
        self.tables, self.seen, self.moved, self.inside, self.turn = old.tables, {}, {}, None, 0

    def loop(self, *arguments, **more):
        self.turn += 1
        super().loop(*arguments, **more)

    def _sum(self, node, index, at, domain, in_order):
        self.inside, self.inputs = id(node), {} if in_order else None
        lines = super()._sum(node, index, at, domain, in_order)
        if in_order:  # behind the loop's head
            lines[2:2] = [f"const V {name} = {text};" for text, name in self.inputs.items()]
        self.inside = self.inputs = None
        return lines

    def _once(self, text):
        """An input, which sums side by side read once: what moves between them could be it, for all GCC knows."""
        return text if self.inputs is None else self.inputs.setdefault(text, f"x{len(self.inputs)}")

    def _after(self, lines):
        self.moved = {}  # what is declared is no longer in sight
        return super()._after(lines)

    def _leaf(self, name, index, at, domain):
        if name not in self.layout.first:
            return super()._leaf(name, index, at, domain)
        self.seen.setdefault(name, {})[self.turn, self.inside, index.tobytes()] = index
        if name not in self.together:
            return super()._leaf(name, index, at, domain)
        where = self._position(index, at, domain)
        if (name, where) not in self.moved:
            members, lines, after = self.together[name], [], []
            for one in members:
                number, self.count = self.count, self.count + 1
                place = self._position(index + self.layout.first[one], at, domain)
                parts = self.old._factors(self.grads[one], index, at, domain)
                lines.append(f"const V {', '.join(f'e{number}_{k} = {part}' for k, part in enumerate(parts))}, "
                             f"w{number} = w[{place}];")
                to = (f"fma(e{number}_0, e{number}_1, w{number})" if len(parts) == 2 else f"w{number} + e{number}_0")
                after.append(f"const V m{number} = w[{place}] = {to};")
                self.moved[one, where] = f"m{number}"
            self.before += [*lines, *after]  # all are read before any moves
        return self.moved[name, where]


def step(f, layout, trained, d):
    """C++ of `template <class Tm> struct Sweep` for a network with output f, as `emit.model` takes it."""
    f, grads = differentiated(f, layout, trained)
    kept, padded = kept_nodes([f, *grads.values()])
    first = {id(node) for node in order([f])}
    read = layout.reads() | {INPUT: lambda at: f"x.shared({at})", SEED: lambda at: f"g[{at}]"}
    behind = layout.reads()
    forward, rows = Part(read), 0
    for nodes in kept:
        if within(nodes, first):
            rows += forward.keep(nodes, padded, rows)

    def at_next(together):
        """The network at the next sample, and where its arrays are."""
        loops, heads, at = Moving(behind, old.loops, layout, grads, together), [], 0
        loops.count = 1000  # names of its own
        for nodes in kept:
            if within(nodes, first):
                names, zeros = [], [id(node) in padded for node in nodes]
                for node, zero in zip(nodes, zeros, strict=True):
                    heads.append(f"V *const n{at} = to + {at};")
                    names.append(f"n{at}")
                    at += node.size + zero
                loops.keep(nodes, names, zeros)
        where = positions(f).reshape(-1)
        loops.loop((f.size,), [(f, where)], lambda made, to: [f"out[{to(where)}] = {made[0]};"])
        return loops, heads

    later = [nodes for nodes in kept if not within(nodes, first)]
    old = Part(read, forward.loops)
    for node in (node for nodes in later for node in nodes):  # so that derivatives know what is kept
        old.loops.arrays[id(node)] = "kept"
    together = _together(grads, layout, old.loops, at_next({})[0].seen)
    old = Part(read, forward.loops)
    sinks(old, later, padded, {name: grad for name, grad in grads.items() if name not in together}, layout, rows,
          in_place=True)
    loops, heads = at_next(together)
    lines = [*old.loops.lines, *loops.lines]
    used = [head for head in forward.heads if any(f"{name_of(head)}[" in line for line in lines)]
    text = body([*old.loops.declarations(), *used, *old.heads, *heads, *lines],
                old.loops.work + loops.work <= 2 * UNROLLED)
    return f"""template <class Tm>
struct Sweep {{
  using T = typename Tm::T;
  using V = typename Tm::V;
  template <class X>
  FS_HD static void step(V* w, X x, const V* g, V* residuals, X next, V* to, V* out) {{
    [[maybe_unused]] const fs::Accumulate<V> sink{{w}};
{text}
  }}
}};
"""


def _together(grads, layout, old, seen):
    """{name: names that move with it} of the parameters that move where they are read."""
    groups = {}
    for name, grad in grads.items():
        shape, sums = layout.shapes[name], []
        old._inner(grad, positions(grad), sums)
        own = [layout.first[other] + index for other, index in old.reads(grad, positions(grad))
               if other in layout.first]
        if sums or not all(beside(index, shape, layout) for index in own):
            continue
        groups.setdefault((shape, "together") if own else name, []).append(name)
    out = {}
    for key, names in groups.items():
        places = [seen.get(name, {}) for name in names]
        whole = [sorted(np.concatenate([index.reshape(-1) for index in one.values()] or [[]]).tolist())
                 for one in places]
        wanted = key[0] if isinstance(key, tuple) else layout.shapes[key]
        alike = all(one.keys() == places[0].keys() for one in places)
        complete = len(names) == sum(name in grads for name in names) and all(
            entries == list(range(int(np.prod(wanted, dtype=int)))) for entries in whole)
        others = {name for name, grad in grads.items() if name not in names and isinstance(key, tuple)
                  and layout.shapes[name] == wanted and any(
                      other == name for one in names for other, _ in old.reads(grads[one], positions(grads[one])))}
        if alike and complete and not others:
            out |= dict.fromkeys(names, tuple(names))
    return out
