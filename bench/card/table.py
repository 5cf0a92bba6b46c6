"""Owns the tables of docs/cuda.md that were measured on a card: `python -m bench.card.table` makes them of the rows."""

import csv
import re
from pathlib import Path

from .rows import PATH

PAGE = Path(__file__).parents[2] / "docs" / "cuda.md"
BEGIN, END = "<!-- measured:begin -->", "<!-- measured:end -->"
MAIN = ("diagonal d=30", "ReLU 2-20-1")
OPPONENTS = ("JAX jit(vmap(scan)), unrolled 1", "JAX jit(vmap(scan)), unrolled 8",
             "torch batched by hand, columns, eager",
             "torch batched by hand, columns, graph", "torch batched by hand, plain, compiled graph",
             "a launch a step, from Python", "a launch a step, CUDA graph of 64")


def newest(rows):
    """The last row of each case, N, T of whole calls, side and kind of number."""
    return {(row["case"], row["N"], row["T"] if row["side"].startswith("whole") else "", row["side"], row["what"]): row
            for row in rows}


def _case(row):
    """What a row is about, whatever lanes were asked for."""
    return re.sub(r", \d+ lane\(s\) asked for$", "", row["case"])


def _together(rows):
    """Of each case the rows of one commit, the last that it was measured with."""
    last = {_case(row): row["commit"] for row in rows}
    return [row for row in rows if row["commit"] == last[_case(row)]]


def text(rows):
    """The tables as Markdown, G network-steps a second unless they say otherwise."""
    rows, found = _together(rows), {}
    for (case, N, _, side, what), row in newest(rows).items():
        found[case, N, "kernel" if side.startswith("kernel") else side, what] = row
    fused = {key: float(row["value"]) for key, row in found.items() if key[2] == "kernel"}
    lines = [f"On one {rows[-1]['card']}; {rows[-1]['versions']}.", "",
             "| | " + " | ".join(f"{case}, N = {N}" for case in MAIN for N in ("10^6", "10^5")) + " |",
             "|---|" + "--:|" * 4]
    for side in ("kernel", *OPPONENTS):
        cells = []
        for case in MAIN:
            for N in ("1000000", "100000"):
                row, ours = found.get((case, N, side, "network-steps/s")), fused[case, N, "kernel", "network-steps/s"]
                rate = row and float(row["value"])
                ratio = "" if side == "kernel" or not row else f" ({ours / rate:.0f} x)"
                cells.append(f"{rate / 1e9:.3g}{ratio}" if row else "")
        lines.append(f"| {'fastsgd, the kernel' if side == 'kernel' else side} | " + " | ".join(cells) + " |")
    lines += ["", "| kernel | N | lanes | G network-steps/s |", "|---|--:|--:|--:|"]
    lanes = {(_case(row), int(N), int(side.split()[1])): float(row["value"])
             for (_, N, _, side, _), row in newest(rows).items() if side.startswith("kernel")}
    lines += [f"| {case} | {N} | {count} | {rate / 1e9:.3g} |" for (case, N, count), rate in sorted(lanes.items())]
    lines += ["", "| whole call | N | T | |", "|---|--:|--:|--:|"]
    for (case, N, T, side, what), row in newest(rows).items():
        if side in ("whole call", "whole call, its training") and what == "seconds":
            call = side.replace("whole call", "`fs.train`")
            lines.append(f"| {case}: {call} | {N} | {T} | {float(row['value']):.3g} s |")
        elif what == "ranks/s":
            lines.append(f"| {case}: ranks in `fs.train` | {N} | | {float(row['value']) / 1e6:.2g} M/s |")
    lines += ["", "| system, N = 10^5 | Triton | CUDA |", "|---|--:|--:|"]
    for case in dict.fromkeys(case for case, _, side, _ in found if side.startswith("backend")):
        rates = [found.get((case, "100000", f"backend {name}, training of a whole call", "network-steps/s"))
                 for name in ("triton", "cuda")]
        lines.append(f"| {case} | " + " | ".join(f"{float(r['value']) / 1e9:.3g}" if r else "" for r in rates) + " |")
    return "\n".join(lines)


def main():
    with PATH.open(newline="") as file:
        rows = list(csv.DictReader(file))
    head, rest = PAGE.read_text().split(BEGIN)
    PAGE.write_text(f"{head}{BEGIN}\n{text(rows)}\n{END}{rest.split(END)[1]}")
    print(text(rows))


if __name__ == "__main__":
    main()
