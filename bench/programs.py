"""Owns the table of CUDA programs that needs no card: what they were compiled to, and the throughput that allows.

`python -m bench.programs` compiles each for sm_90 by NVRTC and writes bench/data/programs.csv and docs/cuda.md's table.
"""

import csv
from dataclasses import dataclass
from math import log2
from pathlib import Path

import numpy as np

import fastsgd as fs
from fastsgd.backends.cuda import layout
from fastsgd.cuda.compiler import nvrtc
from fastsgd.lowering.work import Work

from . import sass
from .banks import expected

ROOT = Path(__file__).parents[1]
TABLE, PAGE = ROOT / "bench" / "data" / "programs.csv", ROOT / "docs" / "cuda.md"
BEGIN, END = "<!-- programs:begin -->", "<!-- programs:end -->"


class Hopper:
    """What the choice of a program asks of a card: an H200, or an H100."""

    name, arch, processors, shared = "Hopper", "sm_90", sass.PROCESSORS, 227 << 10


@dataclass(frozen=True)
class Row:
    """A program for a model with n samples, N networks; floor: network-steps a second if only the arithmetic counted.

    The floor is that of one lane in float32 (`_floor`), the best that any number of lanes could do.
    """

    title: str
    model: object
    n: int
    dtype: str = "float32"
    N: int = 10**6
    team: int | None = None
    rule: object = None

    @property
    def chosen(self):
        rng = np.random.default_rng(0)
        data = fs.Dataset(rng.standard_normal((self.n, self.model.d)).astype(self.dtype),
                          rng.standard_normal(self.n).astype(self.dtype))
        run = fs.Run(self.model, data, self.rule or fs.rules.SGD(), 0.1, 10, dtype=self.dtype)
        return layout.choose(Work(run), self.N, Hopper, fs.Tuning(team=self.team))

    def measure(self, report):
        """The row of the table, of what reports() says."""
        chosen = self.chosen
        waited = self._waited(chosen, report)
        floor, bound = _floor(self.model, chosen.lanes, self.dtype), report.bound(waited)
        return {"program": f"{self.title}, {self.dtype}, {chosen.lanes} lane(s)", "registers": report.registers,
                "spilled bytes": report.spilled, "shared bytes": chosen.shared,
                "warps a multiprocessor": 4 * report.occupancy(chosen.program.threads, chosen.shared),
                "instructions a step": round(report.issue), "arithmetic": round(report.of(sass.MATH | sass.DOUBLE)),
                "shuffles": round(report.of({"SHFL"})), "loads": round(report.of({"LDS", "LDG", "LD"})),
                "bank conflicts": round(waited), "bound G steps/s": round(bound / 1e9, 1),
                "floor G steps/s": round(floor / 1e9, 1), "share": round(bound / floor, 2)}


    def _waited(self, chosen, report):
        """Cycles of a step that the loads of shared memory take beyond one each."""
        if not chosen.shared:
            return 0
        item, lanes = np.dtype(self.dtype).itemsize // 4, chosen.lanes
        spreads = isinstance(self.model, fs.models.DiagonalLinear)
        pack = 4 if chosen.packs else item  # words that a lane loads at once
        return report.of({"LDS"}) * (expected(self.n, lanes, chosen.stride * item, pack, pack if spreads else 0,
                                              chosen.copies) - 1)


def _floor(model, lanes, dtype):
    """Network-steps a second of a card if a step were its arithmetic, loads, comparisons, and six instructions more.

    For a coordinate of a diagonal network 5 of arithmetic and a load; for a unit of a two-layer network 2 d + 3 (and 2
    for a bias) and 2 comparisons. Sums across lanes add a shuffle and an addition each time that they halve.
    """
    across = log2(lanes)
    if isinstance(model, fs.models.DiagonalLinear):
        axis = -(-model.d // lanes)
        math, integers, memory = 5 * axis + across + 2, 0, axis + across + 1
    else:
        axis, D = -(-model.width // lanes), model.d + model.hidden_bias
        math, integers, memory = axis * (2 * D + 3) + across + 2, 2 * axis, across + D + 1
    issue = math + integers + memory + 6
    half = 2 if dtype == "float64" else 1
    return sass.PROCESSORS * sass.CLOCK * 32 / lanes * min(
        4 / (half * math), 2 / max(integers, 1e-9), 1 / memory, 4 / issue)


M = fs.models
TS2 = M.ReLU2(2, 20, hidden_bias=False, output_bias=False)
ROWS = (
    *(Row("diagonal d=30", M.DiagonalLinear(30), 20, N=N) for N in (10**6, 30_000, 1000)),
    Row("diagonal d=30", M.DiagonalLinear(30), 20, "float64"),
    Row("diagonal d=100", M.DiagonalLinear(100), 40), Row("diagonal d=200", M.DiagonalLinear(200), 80),
    Row("diagonal d=200", M.DiagonalLinear(200), 80, "float64"),
    *(Row("ReLU 2-20-1", TS2, 15, N=N) for N in (10**6, 1000)), Row("ReLU 2-20-1", TS2, 15, "float64"),
    Row("ReLU 1-100-1 with hidden biases", M.ReLU2(1, 100, output_bias=False), 12),
    Row("ReLU 5-50-1", M.ReLU2(5, 50), 40), Row("ReLU 10-100-1", M.ReLU2(10, 100), 40),
)


def reports(rows=ROWS):
    """{row: sass.Report} of what NVRTC makes of the rows' programs."""
    chosen = [row.chosen for row in rows]
    kernels = [(nvrtc().compile(one.program, Hopper.arch), one.lanes) for one in chosen]
    return dict(zip(rows, sass.reports(kernels, Hopper.arch), strict=True))


def text(rows):
    """The table as Markdown."""
    names = list(rows[0])
    lines = ["| " + " | ".join(names) + " |", "|---|" + "--:|" * (len(names) - 1)]
    return "\n".join([*lines, *("| " + " | ".join(str(row[name]) for name in names) + " |" for row in rows)])


def main():
    rows = [row.measure(report) for row, report in reports().items()]
    with TABLE.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    page = PAGE.read_text()
    head, rest = page.split(BEGIN)
    PAGE.write_text(f"{head}{BEGIN}\n{text(rows)}\n\nCompiled by NVRTC {nvrtc().version} for {Hopper.arch}; no card "
                    f"was needed, and none was measured.\n{END}{rest.split(END)[1]}")
    print(text(rows))


if __name__ == "__main__":
    main()
