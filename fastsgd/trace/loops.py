"""Owns how a graph becomes C++: loops with fixed bounds over arrays of vectors, by the project's sums.

What is kept in an array: sums, what costs something and is read more than once, and a sine and a cosine of the same
argument. Those two are computed in one loop, where the compiler shares what they have in common. A sum that one map
reads, entry by entry, is formed inside that map's loop. A sum of which a loop has four side by side or more runs in
order, four at a time in registers; any other goes by csrc/core/team.h's tree. So a sum's bits follow from the graph.
"""

from math import prod

import numpy as np

from .functions import SIGNS, TABLE
from .graph import affine, order, positions

TILE = 4  # sums side by side in registers
SHORT_TREE = 4  # terms of a tree that is written out
WORTH_KEEPING = 2  # cost from which on something that is read twice is kept


def through(node, index):
    """(node that is no view, positions in it) of entries `index` of a node."""
    while node.op == "view":
        node, index = node.args[0], np.append(node.attr.reshape(-1), -1)[index]
    return node, index


def _twins(nodes):
    """{id: the sine and the cosine of one argument} of those that have each other."""
    found = {}
    for node in nodes:
        if node.op == "map" and node.attr in ("sin", "cos"):
            found.setdefault(id(node.args[0]), []).append(node)
    return {id(node): tuple(pair) for pair in found.values() if len(pair) == 2 for node in pair}


def kept_nodes(ends):
    """(nodes that need an array, ids of those that need a zero behind their entries).

    The nodes are in order, in tuples of those that one loop computes.
    """
    nodes, reads, padded = order(ends), {}, set()
    twins = _twins(nodes)

    def note(reader, a, kind):
        base, index = through(a, positions(a))
        if (index < 0).any():
            padded.add(id(base))
        alike = index.size == base.size and np.array_equal(index.reshape(-1), np.arange(base.size))
        reads.setdefault(id(base), []).append((kind, alike, index.size > base.size))

    for node in nodes:
        if node.op != "view" and twins.get(id(node), (node,))[0] is node:
            for a in node.args:
                note(node, a, node.op)
    for end in ends:
        note(None, end, "end")
    kept, costs, summing = [], {}, set()
    for node in nodes:
        known = reads.get(id(node), [])
        alone = len(known) == 1 and known[0][0] in ("map", "end") and known[0][1]
        bases = [through(a, positions(a))[0] for a in node.args]
        if node.op == "map":
            cost = TABLE[node.attr].cost + sum(costs[id(base)] for base in bases)
            sums = any(id(base) in summing for base in bases)
            wide = any(larger for _, _, larger in known)
            keeps = not alone if sums else (len(known) > 1 or wide) and cost >= WORTH_KEEPING
        else:
            cost, sums, keeps = 0, node.op in ("sum", "max"), node.op == "cat" or not alone
            keeps = keeps and node.op in ("cat", "sum", "max")
        pair = twins.get(id(node))
        if pair or keeps or id(node) in padded:
            if not pair or pair[0] is node:
                kept.append(pair or (node,))
            cost, sums = 0, False
        costs[id(node)] = cost
        if sums:
            summing.add(id(node))
    return kept, padded


class Loops:
    """Statements that compute nodes.

    read: {name of a leaf: function (position as text) -> C++}
    arrays: {id of a node: name of the array that holds it}
    """

    def __init__(self, read):
        self.read, self.arrays, self.lines, self.tables, self.sums = read, {}, [], {}, {}
        self.work, self.count = 0, 0
        self.before = []  # statements that an expression needs to have come before it

    # ---- what is written

    def keep(self, nodes, names, padded):
        """Compute nodes, which one loop computes, into arrays; padded: of each, whether a zero comes behind it."""
        node, name = nodes[0], names[0]
        if node.op == "cat":
            at = 0
            for a in node.args:
                where = positions(a).reshape(-1)
                self.loop((a.size,), [(a, where)], lambda made, to, at=at, where=where: [
                    f"{name}[{to(where + at)}] = {made[0]};"])
                at += a.size
        else:
            where = positions(node)
            self.loop(node.shape, [(one, where) for one in nodes], lambda made, to: [
                f"{into}[{to(where)}] = {text};" for into, text in zip(names, made, strict=True)])
        for node, name, zero in zip(nodes, names, padded, strict=True):
            if zero:
                self.lines.append(f"{name}[{node.size}] = V::set(0);")
            self.arrays[id(node)] = name

    def loop(self, shape, wanted, statements, products=False):
        """Loops over `shape`.

        wanted: [(node, positions [shape])]; statements(made, to): lines, where made[k] is C++ of wanted[k] at the entry
        in hand, or a pair of factors if `products` and it is one, and to(positions [shape]) C++ of a position
        """
        sums = []
        cost = 1 + sum(self._inner(node, index, sums) for node, index in wanted)
        sizes = [size for size in shape if size != 1] or [1]
        axes = list(range(len(sizes)))
        tiled = next((k for k in reversed(axes) if sizes[k] >= TILE), None) if sums else None
        if tiled is not None:
            axes = [k for k in axes if k != tiled] + [tiled]
        domain = tuple(sizes[k] for k in axes)

        def seen(index):
            return np.asarray(index).reshape(sizes).transpose(axes)

        names = [f"i{k}" for k in range(len(domain))]
        self.work += prod(domain) * (cost + sum(node.args[0].shape[-1] for node, _ in sums))

        def body(copies):
            lines, kept = [], self.sums
            at = [[*((name, 0) for name in names[:-1]), (names[-1], copy)] for copy in range(copies)]
            self.sums = {}
            for node, index in sums:
                lines += self._sum(node, seen(index), at, domain, tiled is not None)
            for one in at:
                made = [self._factors(node, seen(index), one, domain) if products else
                        self._text(node, seen(index), one, domain) for node, index in wanted]
                lines += self._after(statements(made, lambda index, one=one: self._position(seen(index), one, domain)))
            self.sums = kept
            return lines

        heads = [f"FS_TRACED_LOOP\nfor (int {name} = 0; {name} < {size}; ++{name}) {{"
                 for name, size in zip(names[:-1], domain[:-1], strict=True)]
        last, size = names[-1], domain[-1]
        if size == 1 and len(domain) == 1:
            self.lines += ["{", f"constexpr int {last} = 0;", *body(1), "}"]
            return
        whole = size // TILE * TILE if tiled is not None else 0
        inner = []
        if whole:
            inner += [f"FS_TRACED_LOOP\nfor (int {last} = 0; {last} < {whole}; {last} += {TILE}) {{", *body(TILE), "}"]
        if whole < size:
            inner += [f"FS_TRACED_LOOP\nfor (int {last} = {whole}; {last} < {size}; ++{last}) {{", *body(1), "}"]
        self.lines += [*heads, *inner, *["}"] * len(heads)]

    def _after(self, lines):
        """Lines behind the statements that they need, which are taken."""
        lines, self.before = [*self.before, *lines], []
        return lines

    # ---- sums

    def _inner(self, node, index, found):
        """Find sums without an array that the entries need; what functions cost an entry beyond an operation each."""
        node, index = through(node, index)
        if id(node) in self.arrays or node.op not in ("sum", "max", "map"):
            return 0
        if node.op == "map":
            return max(0, TABLE[node.attr].cost - 1) + sum(self._inner(a, index, found) for a in node.args)
        if all(node is not one for one, _ in found):
            found.append((node, index))
        return 0

    def _sum(self, node, index, at, domain, in_order):
        """Lines that form a sum, or find a largest, at every place of `at`; self.sums gets their names."""
        terms, K = node.args[0], node.args[0].shape[-1]
        inside, where = (*domain, K), index[..., None] * K + np.arange(K)
        number, self.count = self.count, self.count + 1
        names = [f"s{number}_{copy}" for copy in range(len(at))]
        for one, name in zip(at, names, strict=True):
            self.sums[id(node), tuple(one)] = name

        def term(one, k):
            return self._text(terms, where, [*one, k], inside)

        def plus(one, k, total):
            return self._added(terms, where, [*one, k], inside, total)

        if node.op == "max":
            lines = []
            for one, name in zip(at, names, strict=True):
                lines += self._after([f"V {name} = {term(one, ('0', 0))};"])
            lines += [f"FS_TRACED_LOOP\nfor (int k = 1; k < {K}; ++k) {{"]
            for one, name in zip(at, names, strict=True):
                lines += ["{", *self._after([f"const V e = {term(one, ('k', 0))};"]),
                          f"{name} = choose(e.a > {name}.a, e, {name});", "}"]
            return [*lines, "}"]
        if in_order:
            return [f"V {', '.join(f'{name} = V::set(0)' for name in names)};",
                    f"FS_TRACED_LOOP\nfor (int k = 0; k < {K}; ++k) {{",
                    *(line for one, name in zip(at, names, strict=True)
                      for line in self._after([f"{name} = {plus(one, ('k', 0), name)};"])), "}"]
        lines = []
        for one, name in zip(at, names, strict=True):
            if K <= SHORT_TREE:
                parts, half = [plus(one, (str(k), 0), "V::set(0)") for k in range(K)], 2
                while half:
                    for k in range(half):
                        if k + half < len(parts):
                            parts[k] = f"({parts[k]} + {parts[k + half]})"
                    parts, half = parts[:half], half // 2
                lines += self._after([f"const V {name} = {parts[0]};"])
            else:
                inside = " ".join(self._after([f"return {plus(one, ('k', 0), 's')};"]))
                lines.append(f"const V {name} = fs::tree_sum<Tm>({K}, [&](int k, V s) {{ {inside} }});")
        return lines

    # ---- expressions

    def _position(self, index, at, domain):
        """C++ of a position that depends on the loop variables `at` [(name, offset)]."""
        found = affine(index)
        if found is None:
            flat, strides = index.reshape(-1), np.cumprod([1, *domain[:0:-1]])[::-1]
            key = ("int", tuple(flat.tolist()))
            name = self.tables.setdefault(key, f"t{len(self.tables)}")
            return f"{name}[{_affine_text(0, strides, at)}]"
        return _affine_text(*found, at)

    def _text(self, node, index, at, domain):
        node, index = through(node, index)
        if id(node) in self.arrays:
            if (index < 0).any():
                index = np.where(index < 0, node.size, index)
            return f"{self.arrays[id(node)]}[{self._position(index, at, domain)}]"
        if node.op == "leaf":
            return self._leaf(node.attr, index, at, domain)
        if node.op == "const":
            return self._const(node.attr.reshape(-1)[index], at, domain)
        if node.op in ("sum", "max"):
            return self.sums[id(node), tuple(at)]
        return f"({self._map(node, index, at, domain)})"

    def _leaf(self, name, index, at, domain):
        return self.read[name](self._position(index, at, domain))

    def _const(self, values, at, domain):
        if np.all(values == values.flat[0]) or np.isnan(values).all():
            return f"V::set({number(values.flat[0])})"
        name = self.tables.setdefault(("T", tuple(values.reshape(-1).tolist())), f"t{len(self.tables)}")
        strides = np.cumprod([1, *domain[:0:-1]])[::-1]
        return f"V::set({name}[{_affine_text(0, strides, at)}])"

    def _map(self, node, index, at, domain):
        a = node.args
        if node.attr == "add":
            for x, y in ((a[0], a[1]), (a[1], a[0])):
                if self._product(x, index):
                    return self._added(x, index, at, domain, self._text(y, index, at, domain))
        if node.attr == "sub":
            for x, y, sign in ((a[1], a[0], "-"), (a[0], a[1], "")):
                factors = self._product(x, index)
                if factors:
                    left, right = (self._text(*one, at, domain) for one in factors)
                    rest = self._text(y, index, at, domain)
                    return f"fma({sign}{left}, {right}, {'' if sign else '-'}{rest})"
        if node.attr == "where":
            c, where = through(a[0], index)
            if c.op == "map" and c.attr in SIGNS and id(c) not in self.arrays:
                x, y = (self._text(b, where, at, domain) for b in c.args)
                yes, no = (self._text(b, index, at, domain) for b in a[1:])
                return f"choose(({x}).a {SIGNS[c.attr]} ({y}).a, {yes}, {no})"
        return TABLE[node.attr].code.format(*(self._text(b, index, at, domain) for b in a))

    def _product(self, node, index):
        """The two factors (node, positions) of entries that are a product, else None."""
        node, index = through(node, index)
        if node.op != "map" or id(node) in self.arrays or node.attr not in ("mul", "square"):
            return None
        return (node.args[0], index), (node.args[-1], index)

    def _added(self, node, index, at, domain, total):
        """total + an entry, fused where that is a product."""
        factors = self._product(node, index)
        if factors is None:
            return f"{total} + {self._text(node, index, at, domain)}"
        return f"fma({', '.join(self._text(*one, at, domain) for one in factors)}, {total})"

    def _factors(self, node, index, at, domain):
        factors = self._product(node, index)
        if factors is None:
            return (self._text(node, index, at, domain),)
        return tuple(self._text(*one, at, domain) for one in factors)

    def reads(self, node, index):
        """[(name, positions)] of the leaves that entries without an array read; a sum's terms have an axis more."""
        node, index = through(node, index)
        if id(node) in self.arrays or node.op == "const":
            return []
        if node.op == "leaf":
            return [(node.attr, index)]
        if node.op in ("sum", "max"):
            K = node.args[0].shape[-1]
            index = index[..., None] * K + np.arange(K)
        return [one for a in node.args for one in self.reads(a, index)]

    def declarations(self):
        """Tables of positions and numbers, as C++."""
        out = []
        for (kind, values), name in self.tables.items():
            kind = "short" if kind == "int" and max(map(abs, values)) < 2**15 else kind
            texts = map(number, values) if kind == "T" else map(str, values)
            out.append(f"static const {kind} {name}[] = {{{', '.join(texts)}}};")
        return out


def _affine_text(base, strides, at):
    parts = []
    for stride, (name, offset) in zip(strides, at, strict=True):
        if name.isdecimal():
            base += stride * (int(name) + offset)
        elif stride:
            base += stride * offset
            parts.append(name if stride == 1 else f"{stride} * {name}")
    return " + ".join(parts + ([str(base)] if base or not parts else []))


def number(value):
    """C++ of a number of type T."""
    value = float(value)
    if value != value:
        return 'T(__builtin_nan(""))'
    if value in (np.inf, -np.inf):
        return f"T({'-' if value < 0 else ''}__builtin_inf())"
    return f"T({value!r})"
