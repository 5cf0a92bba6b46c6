"""Owns the protocol: check the answer, then time all sides interleaved; ratios come with their band."""

import os
import statistics
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import Pipe
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]


class WrongAnswer(Exception):
    """An answer that differs from the truth: its provider is not timed."""


class Gap(Exception):
    """A provider that cannot run here, with its reason."""


@dataclass(frozen=True)
class Band:
    """Median of the rounds, and the least and the largest of them."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values):
        return cls(statistics.median(values), min(values), max(values))


def error_of(answer, truth, start):
    """Largest relative error of a network's displacement, max_k ||w_k - w*_k|| / ||w*_k - w0_k||; NaN counts as inf.

    Of the displacement, not of the weights: a provider that does nothing has error 1.
    """
    if answer.shape != truth.shape:
        raise WrongAnswer(f"answer has shape {answer.shape}, expected {truth.shape}")
    off = np.linalg.norm(answer - truth, axis=1) / np.linalg.norm(truth - start, axis=1)  # [N]
    return float(np.where(np.isfinite(off), off, np.inf).max())


def check(answer, truth, start, tolerance):
    """The error of an answer [N, P]. Raises WrongAnswer above the tolerance."""
    error = error_of(answer, truth, start)
    if error > tolerance:
        raise WrongAnswer(f"relative error {error:.1e} of the displacement, at most {tolerance:.0e} is legal")
    return error


@contextmanager
def pinned(cores):
    """Children started meanwhile run on the first `cores` processors of ours, from their first instruction on."""
    mine = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(mine)[:cores])
    try:
        yield
    finally:
        os.sched_setaffinity(0, mine)


class Process:
    """A worker process of one provider on the first `cores` processors this process may use."""

    def __init__(self, provider, cores):
        self.provider, self.cores = provider, cores
        self.pipe, far = Pipe()
        threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), str(cores))
        if cores == 1:
            threads["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
        command = [sys.executable, "-m", "bench.worker", str(far.fileno()), provider]
        with pinned(cores):
            self.child = subprocess.Popen(command, cwd=ROOT, pass_fds=[far.fileno()],
                                          env=os.environ | threads | {"JAX_PLATFORMS": "cpu"})
        far.close()

    def ask(self, verb, *arguments):
        """Its answer. Raises Gap with the reason if it has none."""
        try:
            self.pipe.send((verb, arguments))
            outcome, value = self.pipe.recv()
        except (EOFError, BrokenPipeError, ConnectionResetError):
            raise Gap(f"its process ended with code {self.child.wait()}") from None
        if outcome == "failed":
            raise Gap(value)
        return value

    def close(self):
        self.pipe.close()
        self.child.wait()


class Starter:
    """Worker processes on `cores` cores, one a provider, started at their first use and ended with the stack."""

    def __init__(self, cores, stack):
        self.cores, self.stack, self.running = cores, stack, {}

    def __getitem__(self, provider):
        if provider not in self.running:
            self.running[provider] = Process(provider, self.cores)
            self.stack.callback(self.running[provider].close)
        return self.running[provider]


def fresh(cores, function, *arguments):
    """A study's answer from a process of its own."""
    process = Process("fastsgd", cores)
    try:
        return process.ask("call", function, *arguments)
    finally:
        process.close()


@dataclass(eq=False)
class Side:
    """One competitor in an interleaved measurement.

    process: anything with `ask`; N networks; options: see Provider.prepare; only: variants whose name begins so
    fit() fills variant, T, first_call; rates: one a round
    """

    name: str
    process: object
    case: object
    N: int
    options: dict = field(default_factory=dict)
    only: str = ""
    error: float = float("nan")
    variant: str = ""
    T: int = 0
    first_call: float = 0.0
    unit: str = ""
    whole: int = 0  # networks of the measurement; a provider may take fewer
    versions: dict = field(default_factory=dict)
    rates: list = field(default_factory=list)

    def admit(self, truth, target, T=None):
        """Check every variant against truth [M, P] of the case's checked networks, then fit the fastest.

        Raises Gap, or WrongAnswer if one is wrong.
        """
        facts = self.process.ask("hello")
        self.unit, self.versions, self.whole = facts["unit"], facts["versions"], self.N
        self.N = min(self.N, facts["most_networks"] or self.N)
        case = self.case and self.case.key
        variants = [name for name in self.process.ask("variants", case) if name.startswith(self.only)]
        if facts["checked"]:
            who = self.case.checked(self.whole)
            who, want = who[who < self.N], truth[who < self.N]
            start, errors = self.case.start(self.whole)[who], []
            for variant in variants:
                answer = self.process.ask("answer", case, self.N, variant, self.options | {"lost": "none"})
                if len(answer) != self.N:
                    raise WrongAnswer(f"answer has {len(answer)} networks, expected {self.N}")
                errors.append(check(answer[who], want, start, self.case.tolerance))
            self.error = max(errors)
        fitted = self.process.ask("fit", self.name, case, self.N, variants, self.options, target, T)
        self.variant, self.T, self.first_call = fitted["variant"], fitted["T"], fitted["first_call"]

    def measure(self, best_of):
        """One round's rate: the best of a few calls."""
        self.rates.append(self.process.ask("measure", self.name, best_of))


def admit(sides, truth, target):
    """(the sides that may be timed, {name of the others: reason})."""
    ready, gaps = [], {}
    for side in sides:
        try:
            side.admit(truth, target)
            ready.append(side)
        except (Gap, WrongAnswer) as reason:
            gaps[side.name] = f"{type(reason).__name__}: {reason}"
    return ready, gaps


def interleave(sides, rounds, best_of, pause=0.01, meter=None):
    """Time all sides once a round, the order alternating, an even number of rounds.

    meter: an energy.Meter that reads the machine's counters around each side
    """
    if rounds % 2:
        raise ValueError(f"rounds: {rounds} given, expected an even number")
    for number in range(rounds):
        for side in sides if number % 2 == 0 else reversed(sides):
            if meter:
                meter.around(side, best_of)
            else:
                side.measure(best_of)
            time.sleep(pause)  # thread pools of the last side stop spinning


def ratio(over, under, scale=1.0):
    """Band of the per-round ratios of two sides' rates."""
    return Band.of([scale * a / b for a, b in zip(over.rates, under.rates, strict=True)])


def calls_within(function, target):
    """How many calls of a function, warm by now, take about `target` seconds."""
    began = time.perf_counter()
    function()
    return max(1, int(target / max(time.perf_counter() - began, 1e-6)))


def round_of(functions, calls, number):
    """Yield (side, best seconds of a call) for round `number`; every second round goes backwards."""
    for side in list(functions) if number % 2 == 0 else reversed(list(functions)):
        best = float("inf")
        for _ in range(3):
            began = time.perf_counter()
            for _ in range(calls[side]):
                functions[side]()
            best = min(best, (time.perf_counter() - began) / calls[side])
        yield side, best
