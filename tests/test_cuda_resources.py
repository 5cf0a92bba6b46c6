"""What the CUDA programs were compiled to, for sm_90 and without a card: registers, spills, shuffles, instructions."""

from math import log2

import pytest

from bench import programs, sass
from fastsgd.cuda import compiler
from fastsgd.errors import BackendUnavailable


@pytest.fixture(scope="module", autouse=True)
def tools():
    try:
        compiler.nvrtc()
    except BackendUnavailable as error:
        pytest.skip(str(error))
    if sass.disassembler() is None:
        pytest.skip("no cuobjdump: Triton's wheel brings one")


@pytest.mark.parametrize("row", programs.ROWS, ids=lambda row: f"{row.title} {row.dtype} {row.N}")
def test_no_spills_and_one_shuffle_for_each_halving(row):
    report = sass.report(compiler.nvrtc().compile(row.chosen.program, "sm_90"))
    words = 2 if row.dtype == "float64" else 1
    assert report.spilled == 0 and not report.of({"LDL", "STL"})
    assert report.registers <= 168 and report.steps == 2
    assert report.of({"SHFL"}) == words * log2(row.chosen.lanes)


@pytest.mark.parametrize(("title", "issue", "registers", "share"), [
    ("diagonal d=30", 265, 168, 0.70), ("ReLU 2-20-1", 276, 152, 0.68)])
def test_the_systems_that_are_swept_most_stay_near_their_floor(title, issue, registers, share):
    """At least 60 % of the throughput that arithmetic alone would allow is the goal; these hold what was reached."""
    row = next(row for row in programs.ROWS if row.title == title)
    measured = row.measure()
    assert measured["instructions a step"] <= issue and measured["registers"] <= registers
    assert measured["share"] >= share and measured["bound G steps/s"] > 120
    assert measured["warps a multiprocessor"] >= 12


def test_instructions_are_counted_where_they_are():
    """A loop of two steps with a block of draws, one that hardly ever runs, and the rest, as cuobjdump prints it."""
    code = ["MOV R1, c[0x0][0x28]", "FFMA R2, R3, R4, R5", *["LOP3.LUT R1, R1, R2, RZ, 0x3c, !PT"] * 16,
            "@!P0 BRA 0x150", "NOP", "NOP", *["FMUL R2, R3, R4"] * 5, "@P1 BRA 0x10", "EXIT"]
    text = "\n".join(f"        /*{16 * k:04x}*/      {words} ;" for k, words in enumerate(code))
    step, steps = sass._step(sass._instructions(text))
    assert steps == 1 and step["FMUL"] == 5 and step["BRA"] == 2 and "EXIT" not in step and "MOV" not in step
    assert step["LOP3"] == 16
