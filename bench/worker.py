"""Owns one process of one provider on a fixed set of cores: it stays alive and answers requests over a pipe.

Started as `python -m bench.worker FD PROVIDER`; affinity and thread variables are set by the parent beforehand, since
thread pools read them when they are loaded.
"""

import os
import sys
import time
from multiprocessing.connection import Connection


def seconds_of(function):
    """(seconds, what it returned) of one call."""
    began = time.perf_counter()
    out = function()
    return time.perf_counter() - began, out


def _scaled(T, factor):
    return max(8, int(T * factor) // 8 * 8)


class Worker:
    """The requests: answer, fit, measure, call. Prepared functions are kept under the key of their side."""

    def __init__(self, name):
        from .cases import CASES, CHECK_STEPS
        from .opponents import provider

        self.cases, self.check_steps = dict(CASES), CHECK_STEPS
        self.provider = provider(name)(len(os.sched_getaffinity(0)))
        self.fitted = {}

    def hello(self):
        """Facts about the provider, all that the parent needs to know of it."""
        p = self.provider
        return {"versions": p.versions(), "unit": p.unit, "checked": hasattr(p, "answer"),
                "most_networks": getattr(p, "most_networks", None)}

    def case(self, case):
        """A case by its name; a case that is on no list comes whole."""
        if isinstance(case, str) and case not in self.cases:
            from .own import CASES  # which imports torch

            self.cases |= CASES
        return self.cases[case] if isinstance(case, str) else case

    def variants(self, case):
        """Names of the ways in which the provider can do a case."""
        return getattr(self.provider, "variants_for", lambda case: self.provider.variants)(self.case(case))

    def answer(self, case, N, variant, options):
        """Weights [N, P] after CHECK_STEPS steps."""
        p, case = self.provider, self.case(case)
        return p.answer(p.prepare(case, N, self.check_steps, variant, options)(), case)

    def expected(self, case, N, T):
        """(seconds, by which table) that a plan expects of a call; (None, "") of a provider that has none."""
        return getattr(self.provider, "expected", lambda *_: (None, ""))(self.case(case), N, T)

    def spent(self, function):
        """(seconds, what it returned) of one call, or of the part of it that counts."""
        wall, out = seconds_of(function)
        return getattr(self.provider, "seconds", lambda out, wall: wall)(out, wall), out

    def fit(self, key, case, N, variants, options, target, T=None):
        """Keep the fastest variant under `key`, with T such that a call takes `target` seconds (or the T given).

        Returns {"variant", "T", "first_call": seconds by which the first call was slower, i.e. compilation}.
        """
        p, case = self.provider, None if case is None else self.case(case)
        tried = []
        for variant in variants:
            function = p.prepare(case, N, p.first_T, variant, options)
            function()
            times = [self.spent(function)[0]]
            while len(times) < 5 and sum(times) < 2 * target:
                times.append(self.spent(function)[0])
            tried.append((min(times), variant))
        best, variant = min(tried)
        asked, T = T, T or _scaled(p.first_T, target / best)
        for _ in range(3):  # a short call is mostly its fixed part, so that the first guess falls short
            function = p.prepare(case, N, T, variant, options)
            first, _ = seconds_of(function)
            steady = self.spent(function)[0]
            first -= steady
            if asked or steady > 0.5 * target or T >= p.first_T * 2**16:
                break
            T = _scaled(T, target / steady)
        self.fitted[key] = (function, N, T)
        return {"variant": variant, "T": T, "first_call": max(0.0, first)}

    def measure(self, key, best_of):
        """The best rate of a few calls, in the provider's unit."""
        function, N, T = self.fitted[key]
        times = [self.spent(function) for _ in range(best_of)]
        return max(self.provider.work(N, T, out) / spent for spent, out in times)

    def call(self, function, *arguments):
        """A function of one of these files, in this process."""
        from . import flows, ranks, sparsity, studies

        home = next(module for module in (studies, ranks, sparsity, flows) if hasattr(module, function))
        return getattr(home, function)(*arguments)


def main():
    """Answer until the parent hangs up; an exception is an answer too."""
    pipe = Connection(int(sys.argv[1]))
    worker = None
    while True:
        try:
            verb, arguments = pipe.recv()
        except EOFError:
            return
        try:
            worker = worker or Worker(sys.argv[2])
            pipe.send(("done", getattr(worker, verb)(*arguments)))
        except Exception as error:
            pipe.send(("failed", f"{type(error).__name__}: {error}"))


if __name__ == "__main__":
    main()
