"""Owns kernels as text: a few lines that name a template of csrc/cuda and everything the compiler may know.

One program is one kernel, called `fastsgd`. nvcc compiles the common ones when the package is built, NVRTC any other at
its first use, g++ all of them in tests, where threads are fibers. Nothing is imported here but the standard library:
setup.py reads this file before there is a package.
"""

import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

THREADS = 128  # of a block
FLAGS = ("--std=c++17", "--fmad=false")  # a fused multiply-add happens where it is written, nowhere else
C_TYPES = {"float32": "float", "float64": "double"}


@dataclass(frozen=True)
class Program:
    """A kernel to be compiled.

    name: for people, e.g. "diagonal d=30 float32, 1 lane"; text: the source; threads: of a block, which the text may
        rely on if whole
    """

    name: str
    text: str
    threads: int = THREADS
    whole: bool = False

    @property
    def key(self):
        """What names it in caches: a hash of its text and of every header."""
        return hashlib.sha256(f"{headers_hash()}\n{self.text}".encode()).hexdigest()[:32]


@cache
def source_folder():
    """The folder of headers: csrc, beside the package in a checkout, inside it when installed."""
    inside, beside = Path(__file__).parents[1] / "csrc", Path(__file__).parents[2] / "csrc"
    return inside if inside.is_dir() else beside


@cache
def headers_hash():
    """One hash over all headers that a program may include."""
    digest = hashlib.sha256(" ".join(FLAGS).encode())
    root = source_folder()
    for path in sorted([*(root / "core").rglob("*.h"), *(root / "cuda").rglob("*.h")]):
        digest.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def entry(header, spec, job, call, blocks, rolled=False, threads=THREADS):
    define = "#define FS_ROLLED\n" if rolled else ""
    return f'{define}#include "cuda/{header}.h"\n{spec}FS_ENTRY({threads}, {blocks}, {job}, {call})\n'


def boolean(value):
    return "true" if value else "false"


def constants(kind, **values):
    return f"static constexpr {kind} " + ", ".join(f"{name} = {value}" for name, value in values.items()) + ";"


def partials(count):
    """Partial sums of a spread axis of `count` items, as csrc/core/team.h has it."""
    return 8 if count <= 64 else 32


def fused(family, sizes, dtype, *, lanes, blocks, holds, copies, batches, full, table, rolled, sets=False, update=None,
          buffers=0, losses=0):
    """The fused loop of csrc/cuda/fused.h.

    family: "diagonal" with sizes (d,), or "relu2" with (d, h, hidden_bias, output_bias)
    lanes: of a team, dividing the partial sums; blocks: on a multiprocessor that registers must suffice for
    holds: inputs in registers; copies: of the data in shared memory, 0 where they are read through the caches
    rolled: parameters in local memory
    batches, full, table: more than a sample a step; all of them; an order from a table; sets: a data set each
    update: C++ of a fs::Update's fields where the rule is not plain; buffers: arrays that it carries
    losses: numbers of a network's own loss, 0 where all share one
    """
    kind, spread = ("Diagonal", sizes[0]) if family == "diagonal" else ("ReLU2", sizes[1])
    T = C_TYPES[dtype]
    flags = {"SPREADS": family == "diagonal", "HOLDS": holds, "BATCHES": batches, "FULL": full, "TABLE": table,
             "STAGED": copies > 0, "SETS": sets, "CARRIES": update is not None}
    rule = "" if update is None else f"  FS_HD static constexpr fs::Update update() {{ return {{{update}}}; }}\n"
    numbers = constants("int", L=lanes, COPIES=max(1, copies), BUFFERS=buffers, LOSSES=losses)
    spec = (f"struct Spec {{\n  using T = {T};\n  {numbers}\n{rule}"
            f"  {constants('bool', **{name: boolean(value) for name, value in flags.items()})}\n"
            f"  template <class Tm>\n  FS_HD static constexpr auto model() {{\n"
            f"    return fs::{kind}<Tm, {partials(spread)}>{{{', '.join(map(str, sizes))}}};\n  }}\n}};\n")
    name = (f"{family} {'-'.join(map(str, sizes))} {dtype}, {lanes} lane(s)"
            + "".join(f", {name.lower()}" for name, value in flags.items() if value and name != "SPREADS")
            + (", own losses" if losses else "") + (", rolled" if rolled else ""))
    return Program(name, entry("fused", spec, f"fs::Launch<{T}>", "fs::fused<Spec>(job)", blocks, rolled))


def general(model, dtype, *, lanes, rows, shares, teacher, update, loss, labels, buffers, plain, full, table, staged,
            sets, inputs, label_noise, gradient_noise, one, own_inputs=False, groups=0, scratch=0, ragged=False, own="",
            own_loss=False, penalty_rows=None, rule_numbers=0, losses=0):
    """The general loop of csrc/cuda/general.h, everything about the run but its numbers built in.

    lanes: 1, a thread a network, or the threads of a block; rows: numbers that a network keeps; shares: a block keeps
        them in shared memory
    model, teacher: C++ of a family's shape, `teacher` None without one; update: C++ of a fs::Update's fields
    inputs: None or C++ of a fs::Inputs; own_inputs: whether these or teachers differ between networks
    label_noise, gradient_noise: 0 none, else 1 + its number in the contract
    groups: named arrays of parameters that have numbers of their own; scratch: numbers that Muon works in
    ragged: steps have samples of different number
    own: C++ of what was traced, structs in namespace fs::own; own_loss: whether the loss is one; penalty_rows: rows
        that a penalty needs, None without one; rule_numbers: that a rule takes, 0 without one
    losses: numbers of a network's own loss, 0 where all share one
    """
    T = C_TYPES[dtype]
    shapes = {"Made": model} | ({"Teaching": teacher} if teacher else {})
    owns = {"OWN_LOSS": own_loss, "OWN_PENALTY": penalty_rows is not None, "OWN_RULE": rule_numbers > 0}
    traced = (f"  {constants('bool', **{name: boolean(there) for name, there in owns.items()})}\n"
              f"  {constants('int', PENALTY_ROWS=penalty_rows or 0)}\n"
              + "".join(f"  template <class Tm>\n  using {name} = fs::own::{name}<Tm>;\n" for name, there in (
                  ("Loss", own_loss), ("Penalty", penalty_rows is not None), ("Rule", rule_numbers > 0)) if there))
    made = f"namespace fs {{\nnamespace own {{\n{own}}}\n}}\n" if own else ""
    made += "".join(f"struct {name} : fs::NothingOwn {{\n{traced if own else ''}"
                    f"  template <class Tm>\n  FS_HD static constexpr auto model() {{\n    return {shape};\n  }}\n}};\n"
                    for name, shape in shapes.items())
    flags = {"SHARES": shares, "has_teacher": teacher is not None, "PLAIN": plain, "FULL": full, "TABLE": table,
             "STAGED": staged, "SETS": sets, "FRESH": inputs is not None, "OWN_INPUTS": own_inputs, "ONE": one,
             "RAGGED": ragged}
    numbers = {"LANES": lanes, "ROWS": rows, "LABELS": labels, "BUFFERS": buffers, "LABEL_NOISE": label_noise,
               "GRADIENT_NOISE": gradient_noise, "GROUPS": groups, "SCRATCH": scratch, "OWN": rule_numbers,
               "LOSSES": losses}
    spec = (f"{made}struct Spec {{\n  using T = {T};\n  using Tm = fs::Work<T, {lanes}>;\n"
            f"  using Model = fs::Whole<Tm, Made>;\n"
            f"  using Teacher = fs::Whole<Tm, {'Teaching' if teacher else 'Made'}>;\n"
            f"  {constants('bool', **{name: boolean(value) for name, value in flags.items()})}\n"
            f"  {constants('int', **numbers)}\n"
            f"  static constexpr auto loss = fs::Loss<T>::{loss.upper()};\n"
            f"  FS_HD static constexpr fs::Update update() {{ return {{{update}}}; }}\n"
            "  FS_HD static constexpr fs::Inputs inputs() {\n"
            f"    return {{{inputs or 'fs::Inputs::GAUSSIAN, 0.0'}}};\n  }}\n}};\n")
    threads, name = (THREADS if lanes == 1 else lanes), model.split("<")[0].removeprefix("fs::").lower()
    return Program(f"general loop, {name} {dtype}, {lanes} lane(s)",
                   entry("general", spec, f"fs::Launch<{T}>", "fs::general<Spec>(job)", 1, True, threads), threads,
                   whole=lanes > 1)


def orders():
    """Tables of permuted sample orders, csrc/cuda/orders.h."""
    return Program("orders", entry("orders", "", "fs::OrderLaunch", "fs::orders(job)", 1))


def common():
    """The programs that are built ahead of time: plain SGD on the systems that people sweep, with N >= 1e5 networks.

    Sizes as in the papers that docs/reproduce.md and docs/neighbours.md name. The other choices are those that
    `fastsgd.backends.cuda.layout` makes; a test compares them.
    """
    plain = {"holds": True, "batches": False, "full": False, "table": False, "rolled": False}
    out = [orders()]
    for family, sizes, chosen in (  # chosen: lanes, blocks, copies of the data
            ("diagonal", (30,), {"float32": (1, 4, 8), "float64": (2, 4, 4)}),
            ("diagonal", (100,), {"float32": (4, 4, 2), "float64": (8, 4, 1)}),
            ("diagonal", (200,), {"float32": (8, 3, 1), "float64": (16, 4, 0)}),
            ("relu2", (2, 20, 0, 0), {"float32": (1, 4, 1), "float64": (2, 4, 1)}),
            ("relu2", (1, 100, 1, 0), {"float32": (4, 3, 1), "float64": (16, 4, 1)}),
            ("relu2", (10, 100, 1, 1), {"float32": (32, 4, 1), "float64": (32, 2, 1)})):
        out += [fused(family, sizes, dtype, lanes=lanes, blocks=blocks, copies=copies, **plain)
                for dtype, (lanes, blocks, copies) in chosen.items()]
    return out
