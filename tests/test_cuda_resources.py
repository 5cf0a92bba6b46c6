"""What the CUDA programs were compiled to, for sm_90 and without a card: registers, spills, shuffles, instructions."""

from math import log2

import asked
import numpy as np
import pytest
from tiers import long

import fastsgd as fs
from bench import banks, programs, sass
from fastsgd.cuda import compiler
from fastsgd.errors import BackendUnavailable

pytestmark = pytest.mark.xdist_group("cuda_resources")  # compiled once, in one process
DIAGONAL, MOMENTUM = fs.models.DiagonalLinear(30), fs.rules.SGD(momentum=0.9)
SWEPT = ("diagonal d=30", "ReLU 2-20-1")
CARRIED = (programs.Row("carried", DIAGONAL, 20, rule=MOMENTUM),
           programs.Row("carried", DIAGONAL, 20, rule=fs.rules.Adam()),
           programs.Row("carried", programs.TS2, 20, rule=fs.rules.SGD(momentum=0.9, nesterov=True, weight_decay=0.1)))


def swept(title, N):
    """The row in float32 of a system and so many networks."""
    return next(row for row in programs.ROWS if row.title == title and row.N == N)


@pytest.fixture(scope="module")
def reports(request):
    """{row: sass.Report} of the rows that are asked for: the disassembler takes half a second to start."""
    try:
        compiler.nvrtc()
    except BackendUnavailable as error:
        pytest.skip(str(error))
    if not sass.tool("cuobjdump") or not sass.tool("nvdisasm"):
        pytest.skip("no cuobjdump and nvdisasm: Triton's wheel brings them")
    return programs.reports({given["row"] if "row" in given else swept(given["title"], given["N"])
                             for given in asked.parameters(request)})


@pytest.mark.parametrize("row", [row if row.title in SWEPT and row.dtype == "float32" else long(row)
                                 for row in programs.ROWS], ids=lambda row: f"{row.title} {row.dtype} {row.N}")
def test_few_spills_one_shuffle_for_each_halving_and_six_tenths_of_the_floor(reports, row):
    """A fourth block on a multiprocessor is worth some registers that are spilled, if hardly any stands in the loop."""
    lanes, report = row.chosen.lanes, reports[row]
    words = 2 if row.dtype == "float64" else 1
    assert report.spilled <= 80 and report.of({"LDL", "STL"}) <= 0.05 * report.issue
    assert report.registers <= 168 and row.measure(report)["share"] >= 0.66
    assert report.of({"SHFL"}) == words * log2(lanes) + (lanes > 1), "and one for what another lane has drawn"


@pytest.mark.parametrize(("title", "N", "issue", "registers", "share", "bound", "warps"), [
    ("diagonal d=30", 10**6, 212, 128, 0.89, 157, 16), ("diagonal d=30", 30_000, 80, 72, 0.76, 105, 28),
    ("diagonal d=30", 1000, 59, 52, 0.66, 71, 36), ("ReLU 2-20-1", 10**6, 250, 128, 0.76, 133, 16),
    ("ReLU 2-20-1", 1000, 67, 56, 0.66, 63, 36)])
def test_the_systems_that_are_swept_most_stay_near_their_floor(
        reports, title, N, issue, registers, share, bound, warps):
    """At least 60 % of the throughput that arithmetic alone would allow is the goal; these hold what was reached."""
    row = swept(title, N)
    measured = row.measure(reports[row])
    assert measured["instructions a step"] <= issue and measured["registers"] <= registers
    assert measured["share"] >= share and measured["bound G steps/s"] > bound
    assert measured["warps a multiprocessor"] >= warps


@pytest.mark.parametrize("lanes", [1, 8])
def test_instructions_are_counted_where_they_are(lanes):
    """A turn of two steps: a block of draws, one that hardly ever runs, and the rest, as cuobjdump prints it."""
    draws = ["LOP3.LUT R1, R1, R2, RZ, 0x3c, !PT"] * 16
    code = ["MOV R1, c[0x0][0x28]", "FFMA R2, R3, R4, R5", "@P2 BRA 0x140", *draws, "IMAD R1, R2, R3, R4",
            "@!P0 BRA 0x1a0", "MOV R2, R3", "@!P3 BRA 0x180", "STG.E [R2], R3", "BSYNC B0", "NOP",
            *["FMUL R2, R3, R4"] * 5, "@P1 BRA 0x10", "EXIT"]
    text = "\n".join(f"        /*{16 * k:04x}*/      {words} ;" for k, words in enumerate(code))
    step = sass._step(sass._instructions(text), lanes)
    assert step["FMUL"] == 2.5 and step["BRA"] == 1.5 and "EXIT" not in step
    assert not {"STG", "MOV", "BSYNC"} & set(step), "what is skipped unless a network is lost"
    assert step["LOP3"] == 16 / (4 * lanes)


@pytest.mark.parametrize("row", (*CARRIED[:2], long(CARRIED[2])), ids=("momentum", "adam", "nesterov"))
def test_what_a_rule_carries_is_in_registers(reports, row):
    report = reports[row]
    assert "carries" in row.chosen.program.name
    assert report.of({"LDL", "STL"}) <= 0.02 * report.issue and report.registers <= 168


def test_cycles_of_a_load_are_those_of_its_busiest_bank():
    lane = np.arange(32)
    assert banks.cycles(lane, 1) == banks.cycles(0 * lane, 1) == 1 and banks.cycles(32 * lane, 1) == 32
    assert banks.cycles(2 * lane, 1) == 2 and banks.cycles(2 * lane, 2) == 2 and banks.cycles(4 * lane, 4) == 4
    assert banks.cycles(32 * lane, 4) == 32
    assert banks.expected(7, 8, 217, 1, 1) > 1 == banks.expected(7, 32, 217, 1, 1)
    assert banks.expected(7, 8, 216, 4, 4) == 4, "eight lanes of a team are a phase of their own"
    assert banks.expected(20, 2, 72, 4, 4) > 4 == banks.expected(20, 2, 72, 4, 4, copies=4), "a copy for each of four"
    assert banks.expected(20, 1, 4, 4, 0) > 4 == banks.expected(20, 1, 4, 4, 0, copies=8)
