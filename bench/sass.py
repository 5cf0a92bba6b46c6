"""Owns what machine code says without a card: registers, spills, instructions of a step, and the bound they imply.

A step's instructions are half of those of the innermost loop with arithmetic, for it makes two steps, block by block: a
block of draws runs once in four steps for each lane of a team, one that writes a lost network back hardly ever, any
other once.
Throughput is bounded by the five things a multiprocessor issues (NVIDIA's tables for compute capability 9.0, a clock of
1.98 GHz): 4 warp instructions in all, 4 of arithmetic in float32, 2 in float64, 2 of integers and comparisons, 1 of
shared memory and shuffles. Integer products share the pipe of float32 at half its rate.
"""

import re
import shutil
import struct
import subprocess
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

PROCESSORS, CLOCK = 132, 1.98e9  # of an H200 or H100 SXM
STEPS = 2  # of a turn of the loop
MATH = {"FFMA", "FMUL", "FADD", "FFMA32I", "FMUL32I", "FADD32I"}
DOUBLE = {"DFMA", "DMUL", "DADD", "DSETP"}
MEMORY = {"LDS", "SHFL", "LDG", "LD", "LDL", "STL", "STS", "STG"}


def tool(name):
    """One of CUDA's tools: on the PATH, or the one that Triton's wheel carries; None without one."""
    found = shutil.which(name)
    if found:
        return found
    try:
        import triton
    except ImportError:
        return None
    inside = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / name
    return str(inside) if inside.exists() else None


def said(name, content, *options):
    """What a tool prints of a file with this content."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(content)
        file.flush()
        return subprocess.run([tool(name), *options, file.name], capture_output=True, text=True, check=True).stdout


def resources(cubin):
    """(registers of a thread, bytes of its stack) of the kernel in a cubin."""
    found = re.search(r"REG:(\d+) STACK:(\d+)", said("cuobjdump", cubin, "--dump-resource-usage"))
    return int(found[1]), int(found[2])


def instructions(cubins, arch):
    """[(address, instruction)] of the kernel in each of some cubins for one architecture, e.g. "sm_90".

    Their code is laid end to end: the disassembler takes half a second to start, and hardly any to go on.
    """
    codes = [_code(cubin) for cubin in cubins]
    text, out, begin = said("nvdisasm", b"".join(codes), "--binary", arch.upper().replace("_", "")), [], 0
    found = _instructions(text)
    for code in codes:
        end = begin + len(code)
        out.append([(at - begin, _moved(words, -begin)) for at, words in found if begin <= at < end])
        begin = end
    return out


def _code(cubin):
    """The machine code in a cubin, a 64-bit ELF file with one section of it."""
    at, (size, count, names) = struct.unpack_from("<Q", cubin, 40)[0], struct.unpack_from("<HHH", cubin, 58)
    sections = [struct.unpack_from("<I20xQQ", cubin, at + size * k) for k in range(count)]
    name = [cubin[sections[names][1] + section[0]:].split(b"\0", 1)[0] for section in sections]
    ((_, begin, length),) = [section for k, section in enumerate(sections) if name[k].startswith(b".text.")]
    return cubin[begin:begin + length]


def _moved(words, by):
    """An instruction of code that lies so many bytes further on."""
    if not words.startswith(("BRA", "BSSY", "CALL")):
        return words
    return re.sub(r"0x([0-9a-f]+)", lambda found: hex(int(found[1], 16) + by), words)


@dataclass(frozen=True)
class Report:
    """registers, spilled (bytes of stack), step {instruction: number in a step of a warp}, lanes of a team."""

    registers: int
    spilled: int
    step: dict
    lanes: int

    def of(self, names):
        return sum(count for name, count in self.step.items() if name in names)

    @property
    def issue(self):
        return sum(self.step.values())

    @property
    def math(self):
        """Slots of the pipe of float32: integer products take two."""
        return self.of(MATH) + 2 * sum(count for name, count in self.step.items() if name.startswith("IMAD"))

    @property
    def integers(self):
        known = MATH | DOUBLE | MEMORY
        return sum(count for name, count in self.step.items() if name not in known
                   and not name.startswith(("U", "IMAD", "BRA", "BSSY", "BSYNC", "MOV", "CS2R", "EXIT", "NOP", "S2")))

    @property
    def memory(self):
        return self.of(MEMORY)

    def occupancy(self, threads, shared):
        """Blocks of a multiprocessor that registers (64 K) and shared memory (227 KiB) leave room for."""
        per_warp = -(-self.registers * 32 // 256) * 256
        return min(65536 // (per_warp * threads // 32), 227 * 1024 // max(shared + 1024, 1), 2048 // threads, 32)

    def bound(self, waited=0):
        """Network-steps a second of a whole card that the instructions of a step allow.

        waited: cycles of a step in which shared memory answers a load again, for lanes that its banks kept waiting
        """
        pipes = ((self.issue, 4), (self.math, 4), (self.of(DOUBLE), 2), (self.integers, 2), (self.memory + waited, 1))
        warps = min(rate / count for count, rate in pipes if count)
        return PROCESSORS * CLOCK * warps * 32 / self.lanes


def reports(kernels, arch="sm_90"):
    """The Report of each of some [(machine code, lanes)] of the fused loop."""
    steps = instructions([code for code, _ in kernels], arch)
    return [Report(*resources(code), _step(found, lanes), lanes)
            for (code, lanes), found in zip(kernels, steps, strict=True)]


def _instructions(text):
    """[(address, instruction)] of the kernel."""
    found = re.findall(r"^\s+/\*([0-9a-f]{4,})\*/\s+(.*?);", text, re.M)
    return [(int(address, 16), re.sub(r"^@!?U?P\w+\s+", "", words)) for address, words in found]


def _target(words):
    match = re.match(r"(?:BRA|BSSY)\b.*?0x([0-9a-f]+)", words)
    return int(match.group(1), 16) if match else None


def _name(words):
    return words.split()[0].split(".")[0]


def _step(code, lanes):
    """{instruction: number in a step}."""
    at = {address: k for k, (address, _) in enumerate(code)}
    loops = [(at[_target(words)], k) for k, (address, words) in enumerate(code)
             if words.startswith("BRA") and _target(words) in at and _target(words) < address]
    heavy = [(first, last) for first, last in loops
             if sum(_name(words) in MATH | DOUBLE for _, words in code[first:last]) > 4]
    first, last = min(heavy, key=lambda loop: loop[1] - loop[0])
    body = _usual(code[first:last + 1])
    starts = {_target(words) for _, words in code} | {body[0][0]}
    blocks, current = [], []
    for address, words in body:
        if address in starts and current:
            blocks.append(current)
            current = []
        current.append(_name(words))
        if current[-1] == "BRA":
            blocks.append(current)
            current = []
    total = Counter()
    for block in blocks:
        for name, count in Counter(block).items():
            total[name] += count * _weight(Counter(block), lanes) / STEPS
    return {name: count for name, count in total.items() if count}


def _usual(code):
    """Without what a branch skips if there are stores in it: a network that is lost is written back."""
    at, rare = {address: k for k, (address, _) in enumerate(code)}, set()
    for k, (_, words) in enumerate(code):
        skipped = range(k + 1, at.get(_target(words), 0)) if words.startswith("BRA") else ()
        if any(_name(code[j][1]) == "STG" for j in skipped):
            rare.update(skipped)
    return [line for k, line in enumerate(code) if k not in rare]


def _weight(block, lanes):
    """How often a block runs in a turn of the loop."""
    draws = block["LOP3"] >= 15 and not block["FFMA"] + block["DFMA"]
    return STEPS / (4 * lanes) if draws else 1.0
