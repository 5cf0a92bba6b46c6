"""Everything that a card proves and measures, in one command of a few minutes: `python -m bench.card [--limit 450]`.

What matters most comes first: what the machine is, one kernel, bits, speed beside opponents, what bounds the main
kernels, Triton, sanitizers. Every part is a process group with a time box and a log of its own in --logs; rows go to
--rows as soon as they are known, so that nothing is lost where the command is cut.
--kit: a folder that bench/card/kit.py made. --only: parts to do, e.g. smoke,bits,kernels after a mend.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from . import REHEARSAL, sized

ROOT = Path(__file__).parents[2]
NCU = ["ncu", "--clock-control", "none", "--kernel-name", "fastsgd", "--launch-skip", "1", "--launch-count", "1",
       "--target-processes", "all", *(f"--section={name}" for name in (
           "SpeedOfLight", "Occupancy", "LaunchStats", "SchedulerStats", "WarpStateStats", "InstructionStats",
           "MemoryWorkloadAnalysis", "MemoryWorkloadAnalysis_Tables"))]
SANITIZERS = {"memcheck": 4, "racecheck": 4, "synccheck": 3, "initcheck": 3}  # shares of the cases, side by side
FIRST = {"kernels": 60, "whole": 40, "ranks": 40, "steps": 25, "jax": 35, "torch": 40}  # parts of speed: their boxes
LATER = {"teams": 40, "shapes": 70}


class Job:
    """A part that runs: a process group whose output goes to a file, ended when its box is over."""

    def __init__(self, visit, name, command, box, **surroundings):
        self.name, self.began, self.path = name, time.time(), visit.logs / f"{name}.log"
        self.box = max(5, min(box, visit.left() - 8))
        self.file = self.path.open("w")
        self.child = subprocess.Popen(command, cwd=ROOT, env=visit.surroundings | surroundings, stdout=self.file,
                                      stderr=subprocess.STDOUT, start_new_session=True)

    def ended(self):
        """None while it runs, else how it ended."""
        code = self.child.poll()
        if code is None and time.time() - self.began > self.box:
            os.killpg(self.child.pid, signal.SIGKILL)
            self.child.wait()
            code = "its time was over"
        if code is not None:
            self.file.close()
        return code

    def told(self, code):
        lines = [line for line in self.path.read_text(errors="replace").splitlines() if line.strip()]
        bad = [line for line in lines if line.startswith(("WRONG", "GAP", "Traceback", "========= Error"))]
        return (f"{self.name}: {'right' if code == 0 else code}, {time.time() - self.began:.0f} s: "
                f"{lines[-1][:160] if lines else 'silent'}" + "".join(f"\n    {line[:400]}" for line in bad[:4]))


class Visit:
    """One command's time, places and summary."""

    def __init__(self, options):
        self.options, self.began, self.summary, self.failed = options, time.time(), [], []
        self.logs = options.logs.resolve()
        self.logs.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix="card-"))
        if options.kit and (options.kit / "cuda").is_dir():  # what is compiled on the way lands beside it
            shutil.copytree(options.kit / "cuda", scratch / "cuda")
        self.surroundings = os.environ | {
            "PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "tests"))), "PYTHONUNBUFFERED": "1",
            "FASTSGD_CACHE": str(scratch), "FASTSGD_TRITON_TUNE": "off", "CARD_ROWS": str(options.rows.resolve()),
            "TRITON_CACHE_DIR": str(scratch / "triton"), "TORCHINDUCTOR_CACHE_DIR": str(scratch / "inductor"),
            "TORCHINDUCTOR_FX_GRAPH_CACHE": "1", "JAX_COMPILATION_CACHE_DIR": str(scratch / "jax"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0", "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
            "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
        if options.kit and (options.kit / "commit").is_file():
            self.surroundings["FASTSGD_COMMIT"] = (options.kit / "commit").read_text().strip()

    def left(self):
        return self.options.limit - (time.time() - self.began)

    def wants(self, part):
        return (not self.options.only or part in self.options.only.split(",")) and self.left() > 20

    def say(self, text):
        self.summary.append(f"[{time.time() - self.began:5.0f} s] {text}")
        print(self.summary[-1], flush=True)
        (self.logs / "summary.txt").write_text("\n".join(self.summary) + "\n")

    def start(self, name, module, *arguments, box=60, before=(), **surroundings):
        """A Job of a module of this package."""
        command = [*before, sys.executable, "-m", f"bench.card.{module}", *map(str, arguments)]
        return Job(self, name, command, box, **surroundings)

    def wait(self, *jobs):
        """Until these jobs have ended; says how each did."""
        waiting = list(jobs)
        while waiting:
            for job in list(waiting):
                code = job.ended()
                if code is not None:
                    waiting.remove(job)
                    if code:
                        self.failed.append(job.name)
                    self.say(job.told(code))
            time.sleep(0.1)


def run(visit):
    """All parts that are wanted, in their order."""
    for module in visit.options.kit.glob("*.so") if visit.options.kit else ():
        if not (ROOT / "fastsgd" / module.name).exists():
            shutil.copy2(module, ROOT / "fastsgd")
    visit.wait(visit.start("environment", "environment", box=40))
    built = subprocess.run([sys.executable, "-c", "from fastsgd.native import native; native()"], cwd=ROOT,
                           env=visit.surroundings, capture_output=True, text=True)
    if built.returncode:
        visit.say(f"no CPU module loads, one is built: {built.stderr.strip()[-300:]}")
        visit.wait(Job(visit, "build", [sys.executable, "setup.py", "-q", "build_ext", "--inplace"], 150,
                         FASTSGD_CUDA="off"))
    if visit.wants("smoke"):
        smoke = visit.start("smoke", "bits", "smoke", box=40)
        visit.wait(smoke)
        if "smoke" in visit.failed:  # nothing else would be right: the time is better kept
            if shutil.which("compute-sanitizer"):
                visit.wait(visit.start("smoke-memcheck", "bits", "smoke", before=("compute-sanitizer",)))
            return
    if visit.wants("bits"):
        nowhere = {"CARD_ROWS": str(visit.logs / "warm.csv")}
        jobs = [visit.start(f"bits-{k}", "bits", "every", k, sized(5, 2), box=75) for k in range(sized(5, 2))]
        jobs += [visit.start("bits-large", "bits", "large", box=75)]
        jobs += [visit.start(f"bits-random-{k}", "bits", "random", sized(30, 1), k, box=70, OMP_NUM_THREADS="1")
                 for k in range(sized(10, 1))]
        if not REHEARSAL:
            jobs += [visit.start("warm-torch", "opponents", "warm", box=75, **nowhere),
                     visit.start("warm-jax", "opponents", "jax", box=75, **nowhere)]
            jobs += [visit.start(f"triton-{k}", "portable", "agree", k, 4, box=75) for k in range(4)]
        visit.wait(*jobs)
    _speed(visit, FIRST)
    if visit.wants("ncu") and shutil.which("ncu"):
        for case in ("diagonal", "relu", "momentum", "ranks", "wide"):
            if visit.left() > 25:
                visit.wait(visit.start(f"ncu-{case}", "profiled", case, box=20, before=NCU))
    _speed(visit, LATER)
    if visit.wants("triton"):
        visit.wait(visit.start("triton", "portable", "speed", box=90))
    if visit.wants("sanitize") and shutil.which("compute-sanitizer"):
        # Tensors are allocated one by one, else what lies beyond one is inside torch's pool; torch asks the driver for
        # functions that it lacks, which is no error.
        visit.wait(*(visit.start(
            f"{tool}-{k}", "bits", "every", k, shares, box=visit.left() - 10, OMP_NUM_THREADS="1",
            PYTORCH_NO_CUDA_MEMORY_CACHING="1", before=(
                "compute-sanitizer", "--tool", tool, "--error-exitcode", "1", "--launch-timeout", "0",
                "--report-api-errors", "no", "--print-limit", "20"))
            for tool, shares in SANITIZERS.items() for k in range(shares)))


def _speed(visit, parts):
    """Parts that are alone on the card."""
    for part, box in parts.items():
        if visit.wants(part):
            module = "opponents" if part in ("jax", "torch") else "speed"
            visit.wait(visit.start(part, module, part, box=box))


def main(arguments=None):
    parser = argparse.ArgumentParser(prog="python -m bench.card", description=__doc__)
    parser.add_argument("--limit", type=float, default=450, help="seconds in all")
    parser.add_argument("--only", default="", help="parts, with commas between")
    parser.add_argument("--kit", type=Path, help="folder that bench/card/kit.py made")
    parser.add_argument("--logs", type=Path, default=Path("build/card"))
    parser.add_argument("--rows", type=Path, default=ROOT / "bench" / "data" / "gpu.csv")
    visit = Visit(parser.parse_args(arguments))
    run(visit)
    visit.say(f"done; not right: {', '.join(visit.failed) or 'nothing'}")
    return bool(visit.failed)


if __name__ == "__main__":
    sys.exit(main())
