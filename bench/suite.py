"""Owns the order of a whole run: which sides meet in which measurement, and the rows that come of it."""

import os
import time
from contextlib import ExitStack
from dataclasses import dataclass

from . import cases, curves, energy, flows, own, ranks, rows, sparsity
from .harness import Band, Gap, Side, Starter, WrongAnswer, admit, fresh, interleave, ratio

ALL_CASES, ALL_OPPONENTS = tuple(cases.CASES), tuple(cases.OPPONENTS)


@dataclass(frozen=True)
class Settings:
    """How much is measured. target: seconds of one call; budget: seconds after which what is left becomes a gap.

    cases, opponents: names of those that meet; orders: of every schedule of the paper's systems; share: of their steps
    compiled: cases on which torch.compile is tried, since it takes ten seconds and more for each
    curve_target: seconds of one call of the scaling curves
    """

    rounds: int = 6
    compiled: tuple = ("diagonal", "relu2", "S2")
    best_of: int = 2
    target: float = 0.06
    budget: float = 1020.0
    cases: tuple = ALL_CASES
    opponents: tuple = ALL_OPPONENTS
    memory: tuple = (16_384, 500, 5)  # networks, T, saved steps
    memory_repeats: int = 2
    orders: int = 64
    share: float = 1.0
    rank_rounds: int = 4
    curve_rounds: int = 4
    curve_target: float = 0.05
    curves: tuple = tuple(curves.CURVES)


QUICK = Settings(rounds=2, best_of=1, target=0.02, budget=85.0, cases=("diagonal", "relu2", "S2", "S9"),
                 opponents=cases.QUICK_OPPONENTS, memory=(8192, 100, 3), memory_repeats=1, orders=16, share=0.05,
                 rank_rounds=2, curve_rounds=2, curve_target=0.01, curves=("N",))
PARTS = (  # what matters most first
    "speed", "rank", "sparsity", "systems", "one", "lost", "curves", "flow", "memory", "own")


class Clock:
    """Time since the run began. say_late(what): whether the budget is used up, told once."""

    def __init__(self, budget):
        self.began, self.budget = time.perf_counter(), budget

    def late(self):
        return time.perf_counter() - self.began > self.budget


def whole(settings, say=print, only=PARTS):
    """Rows of everything, or of the parts named: what matters most first, since time may run out."""
    cores, clock = list(range(1, min(2, len(os.sched_getaffinity(0))) + 1)), Clock(settings.budget)
    top = cores[-1]

    def timely(case, part, make, cores=top):
        """Rows of `make()`, or the gap that says there was no time."""
        if clock.late():
            yield rows.gap(cores, case, part, f"the budget of {settings.budget:g} s was used up")
        else:
            yield from make()

    for count in reversed(cores):
        with ExitStack() as stack:
            start = Starter(count, stack)
            names = settings.cases if count == top else cases.GOAL_CASES
            for case in (cases.CASES[name] for name in names) if "speed" in only else ():
                yield from timely(case.name, "speed", lambda c=case, s=start: against_opponents(c, s, settings, say),
                                  count)
            for case in cases.GOAL_CASES if "lost" in only and count == 1 else ():
                yield from timely(case, "lost", lambda c=case, s=start: lost_runs(cases.CASES[c], s, settings, say),
                                  count)
        for case in ranks.CASES.values() if "rank" in only else ():
            yield from timely(case.name, "rank", lambda c=case, n=count: jacobian_ranks(c, n, settings, say), count)
        for case in sparsity.CASES if "sparsity" in only else ():
            yield from timely(case, "sparsity", lambda c=case, n=count: feature_sparsity(c, n, settings, say), count)
        if count == top and "systems" in only:
            for name in ("S1", "S2", "S4", "S7", "S9"):
                yield from timely(name, "systems", lambda n=name: paper_system(n, top, settings, say))
        if count == top and "one" in only:
            yield from timely("diagonal", "one", lambda: curves.first_results(settings, say), 1)
            yield from timely("diagonal", "one", lambda: curves.calls(settings, say), 1)
            for name in curves.ALONE[:6 if settings.rounds > 2 else 2]:
                yield from timely(name, "one", lambda n=name: curves.alone(n, settings, say), 1)
        if count == top and "curves" in only:
            for name in settings.curves:
                yield from timely(name, "curves", lambda n=name: curves.curve(n, top, settings, say))
    for case in flows.CASES if "flow" in only else ():
        yield from timely(case, "flow", lambda c=case: gradient_flow(c, top, settings, say))
    if "memory" in only:
        yield from timely("diagonal", "memory", lambda: memory(top, settings, say))
    with ExitStack() as stack:
        start = Starter(1, stack)
        for name in own.CASES if "own" in only else ():
            yield from timely(name, "own", lambda n=name: own.against_torch(n, start, settings, say), 1)


def against_opponents(case, start, settings, say):
    """Rates of all providers and ceilings, and the ratios the claims are about."""
    N, cores = case.N, start.cores
    say(f"\n{case.title}: N={N}, calls of {settings.target} s, {case.dtype}, {cores} core(s)")
    left_out = [name for name in settings.opponents if name.endswith("compiled") and case.name not in settings.compiled]
    names = [name for name in ("fastsgd", *settings.opponents) if name not in left_out]
    sides = [Side(name, start[name], case, N) for name in names]
    if "torch-batched" in settings.opponents and case.name in cases.GOAL_CASES:
        sides.append(Side("torch-batched, plain", start["torch-batched"], case, N, only="plain"))
    sides += [Side(name, start[name], None, 0) for name in ("fma-peak", "copy")]
    ready, gaps = admit(sides, case.truth(N), settings.target)
    gaps |= dict.fromkeys(left_out, f"torch.compile is tried on {', '.join(settings.compiled)} alone, for its time")
    expected = {name for name, reason in gaps.items() if name in left_out or "Absent:" in reason}
    meter = energy.Meter()
    interleave(ready, settings.rounds, settings.best_of, meter=meter)
    sides = {side.name: side for side in ready}
    for name, reason in gaps.items():
        say(f"  {name}: not timed. {reason}")
        yield rows.gap(cores, case.name, name, reason, N, case.dtype, name in expected)
    for side in ready:
        band = Band.of(side.rates)
        facts = side.versions | {"variant": side.variant, "first_call_s": round(side.first_call, 2)}
        say(f"  {side.name:22s} {band.median:10.3g} {side.unit} [{band.low:.3g} .. {band.high:.3g}]  {side.variant}"
            + (f"  error {side.error:.0e}, first call +{side.first_call:.1f} s" if side.case else ""))
        size = (side.N, side.T) if side.case else ("", "")
        dtype = case.dtype if side.case else "float32"
        yield rows.row(cores, case.name, side.name, "rate", side.unit, band, *size, dtype, side.error, facts)
    ours = sides.get("fastsgd")
    if ours is None:
        return
    yield from _ratios(case, cores, sides, ours, say)
    yield _energy(case, cores, ours, meter)
    yield from _expected(case, cores, ours, say)


def _ratios(case, cores, sides, ours, say):
    """What the claims are about: our rate over each side's, and our shares of the ceilings."""
    peak, scale = sides.get("fma-peak"), 1 if case.dtype == "float32" else 2  # the probe is in float32
    for side in sides.values():
        if side.name in ("fastsgd", "fma-peak", "copy"):
            continue
        facts = side.versions | ours.versions | {"against_N": side.N}
        if peak:  # the ratio that fastsgd would have if it did nothing but fused multiply-adds at their peak
            facts["possible"] = float(f"{ratio(peak, side, 1 / case.flops / scale).median:.3g}")
        yield _claim(say, cores, case, side.name, "speed ratio", "x", ratio(ours, side), ours, facts)
    if peak:
        yield _claim(say, cores, case, "fma-peak", "share of peak", "1", ratio(ours, peak, case.flops * scale), ours,
                     ours.versions | {"flops_a_step": case.flops})
    if "copy" in sides and "steps" in sides:  # a step a call reads and writes every parameter
        moved = 2 * case.model.P * (4 if case.dtype == "float32" else 8)
        yield _claim(say, cores, case, "copy", "share of copy", "1", ratio(sides["steps"], sides["copy"], moved),
                     sides["steps"], ours.versions | {"bytes_a_step": moved})


def _energy(case, cores, ours, meter):
    """Joules of a million runs of as many steps, or the reason why nobody knows."""
    if meter.why_not:
        return rows.gap(cores, case.name, "fastsgd", f"energy: {meter.why_not}", ours.N, case.dtype, expected=True)
    band = Band.of([joules / work * 1e6 * ours.T for joules, work in meter.of(ours)])
    return rows.row(cores, case.name, "fastsgd", "energy", "J a million runs", band, ours.N, ours.T, case.dtype)


def _expected(case, cores, ours, say):
    """The plan's expected seconds over those measured."""
    seconds, words = ours.process.ask("expected", case.key, ours.N, ours.T)
    if seconds is not None:
        band = Band.of([seconds * rate / (ours.N * ours.T) for rate in ours.rates])
        yield _claim(say, cores, case, "fastsgd", "expected / measured", "1", band, ours, {"table": words})


def _claim(say, cores, case, provider, metric, unit, band, ours, versions):
    goal = cases.GOALS.get((metric, provider)) if case.name in cases.GOAL_CASES else None
    verdict = "" if goal is None else f", goal {goal:g}: {'met' if band.low >= goal else 'not met'}"
    possible = f", at the FMA peak {versions['possible']:g}" if "possible" in versions else ""
    say(f"  {metric}, {provider}: {band.median:.4g} [{band.low:.4g} .. {band.high:.4g}]{verdict}{possible}")
    return rows.row(cores, case.name, provider, metric, unit, band, ours.N, ours.T, case.dtype, error=ours.error,
                    versions=versions)


def lost_runs(case, start, settings, say):
    """A sweep with every second run lost beside one with none, in lanes and in teams: ratio of nominal rates."""
    say(f"\n{case.title}: every second run lost, {start.cores} core(s)")
    truth = case.truth(case.N)
    for layout in ("lanes", "team"):
        none, half = (Side(f"fastsgd, {layout}, {lost} lost", start["fastsgd"], case, case.N,
                           {"lost": lost, "layout": layout}) for lost in ("none", "half"))
        try:
            none.admit(truth, settings.target)
            half.admit(truth, settings.target, T=none.T)
        except (Gap, WrongAnswer) as reason:
            say(f"  {layout}: not timed. {reason}")
            yield rows.gap(start.cores, case.name, layout, str(reason), case.N)
            continue
        interleave([none, half], settings.rounds, settings.best_of)
        yield _claim(say, start.cores, case, layout, "half lost / none lost", "x", ratio(half, none), none,
                     none.versions)


def timed(function, case, cores, settings, say):
    """(what a function of worker.py measured of a case in a process of its own, None), or (None, the row of a gap)."""
    try:
        return fresh(cores, function, case, settings.rank_rounds, settings.target), None
    except Gap as reason:
        say(f"  not timed. {reason}")
        return None, rows.gap(cores, case, "fastsgd", str(reason), dtype="float64")


def jacobian_ranks(case, cores, settings, say):
    """Ranks a second by every side on the same networks, ratios to ours, and our share of the FMA peak."""
    say(f"\n{case.title}: ranks at rtol {case.rtol:g}, float64, {cores} core(s)")
    out, gap = timed("ranks", case.name, cores, settings, say)
    if gap:
        yield gap
        return
    N, peak = out["fastsgd"]["networks"], Band.of(out.pop("fma-peak")["rates"])
    ours = out["fastsgd"]["seconds"]
    for side, seen in out.items():
        band = Band.of([1 / spent for spent in seen["seconds"]])
        say(f"  {side:16s} {1e6 / band.median:10.1f} us a rank, counts off by {seen['off']}")
        yield rows.row(cores, case.name, side, "rate", "ranks/s", band, N, "", "float64",
                       versions={"variant": f"counts off by {seen['off']}"})
        if side == "fastsgd":
            continue
        metric = "rank ratio" if case.flops else "diagonal rank ratio"
        if side == "fs.linalg.rank":  # ours too, given J: its own ratio to LAPACK
            metric, over, under = "stack ratio", out["numpy"]["seconds"], seen["seconds"]
        else:
            over, under = seen["seconds"], ours
        band = Band.of([a / b for a, b in zip(over, under, strict=True)])
        goal = cases.GOALS.get((metric, side))
        say(f"    {metric}, {side}: {band.median:.4g} [{band.low:.4g} .. {band.high:.4g}]"
            + (f", goal {goal}: {'met' if band.low >= goal else 'not met'}" if goal else ""))
        yield rows.row(cores, case.name, side, metric, "x", band, N, "", "float64")
    if case.flops:
        share = Band.of([case.flops / spent / peak.median for spent in ours])
        say(f"    share of the FMA peak: {share.median:.2f} [{share.low:.2f} .. {share.high:.2f}]")
        yield rows.row(cores, case.name, "fma-peak", "rank share of peak", "1", share, N, "", "float64")


def feature_sparsity(case, cores, settings, say):
    """Coefficients a second by the kernel and by NumPy, and their ratio."""
    say(f"\n{sparsity.CASES[case][3]}, float64, {cores} core(s)")
    out, gap = timed("sparsities", case, cores, settings, say)
    if gap:
        yield gap
        return
    for side, spent in out.items():
        band = Band.of([1 / seconds for seconds in spent])
        say(f"  {side:8s} {1e6 / band.median:8.2f} us a network")
        yield rows.row(cores, case, side, "rate", "networks/s", band, sparsity.NETWORKS, "", "float64")
    band = Band.of([a / b for a, b in zip(out["numpy"], out["fastsgd"], strict=True)])
    goal = cases.GOALS["sparsity ratio", "numpy"]
    say(f"  ratio: {band.median:.4g} [{band.low:.4g} .. {band.high:.4g}], goal {goal}")
    yield rows.row(cores, case, "numpy", "sparsity ratio", "x", band, sparsity.NETWORKS, "", "float64")


def gradient_flow(case, cores, settings, say):
    """Networks a second of gradient flow by fs.flow and by scipy at the same tolerance, and their ratios."""
    say(f"\n{flows.CASES[case].title}: gradient flow, rtol {flows.RTOL:g}, float64, {cores} core(s)")
    out, gap = timed("flows", case, cores, settings, say)
    if gap:
        yield gap
        return
    ours = out["fastsgd"]["seconds"]
    for side, seen in out.items():
        band = Band.of([1 / spent for spent in seen["seconds"]])
        say(f"  {side:24s} {1e6 / band.median:10.1f} us a network, error {seen['error']:.0e}")
        yield rows.row(cores, case, side, "flow rate", "networks/s", band, seen["networks"], "", "float64",
                       seen["error"])
        if side != "fastsgd":
            band = Band.of([a / b for a, b in zip(seen["seconds"], ours, strict=True)])
            say(f"    flow ratio: {band.median:.4g} [{band.low:.4g} .. {band.high:.4g}]")
            yield rows.row(cores, case, side, "flow ratio", "x", band, flows.NETWORKS, "", "float64")
    off = Band.of([out["fastsgd"]["expected"] / spent for spent in ours])
    say(f"  expected / measured: {off.median:.3g} [{off.low:.3g} .. {off.high:.3g}]")
    yield rows.row(cores, case, "fastsgd", "expected / measured", "1", off, flows.NETWORKS, "", "float64",
                   versions={"table": out["fastsgd"]["table"].partition(";")[0], "variant": "gradient flow"})


def memory(cores, settings, say):
    """Peak of the resident set over T and 20 T steps with the same saves, each in a fresh process."""
    case, (N, T, saves) = cases.CASES["diagonal"], settings.memory
    grown = {T: [], 20 * T: []}
    for _ in range(settings.memory_repeats):
        for steps, seen in grown.items():
            seen.append(fresh(cores, "memory", N, steps, saves))
    plan = grown[T][0]
    say(f"\nmemory: {case.title}, N={N}, {saves} saved steps; the plan states {plan['planned']:.1f} MiB "
        f"{plan['parts']}")
    for steps, seen in grown.items():
        band = Band.of([s["growth"] for s in seen])
        say(f"  T={steps}: peak grows by {band.median:.1f} MiB [{band.low:.1f} .. {band.high:.1f}]")
        yield rows.row(cores, case.name, "fastsgd", "peak memory growth", "MiB", band, N, steps,
                       versions={"planned_MiB": round(plan["planned"], 2), "parts_MiB": plan["parts"]})
    band = Band.of([a["growth"] / b["growth"] for a, b in zip(*grown.values(), strict=True)])
    goal = cases.GOALS["memory T / memory 20 T", "fastsgd"]
    say(f"  T against 20 T: {band.median:.3f}, goal {goal}: {'met' if band.low >= goal else 'not met'}")
    yield rows.row(cores, case.name, "fastsgd", "memory T / memory 20 T", "1", band, N, T)


def paper_system(name, cores, settings, say):
    """Seconds of one of the paper's systems, without metrics, with losses, and as `fastsgd reproduce` measures it."""
    say(f"\n{name}: its schedules x {settings.orders} orders, {cores} core(s)")
    for kind in ("training", "losses", "demo"):
        try:
            out = fresh(cores, "paper", name, settings.orders, settings.share, kind)
        except Gap as reason:
            say(f"  {kind}: not timed. {reason}")
            yield rows.gap(cores, name, "fastsgd", f"{kind}: {reason}", dtype="float64")
            continue
        band, off = Band.of([out["seconds"]]), Band.of([out["expected"] / out["seconds"]])
        say(f"  {kind}: {out['seconds']:.2f} s (training {out['training']:.2f}, metrics {out['metrics']:.2f} for "
            f"{out['S']} evaluations), {100 * out['lost']:.0f} % of the runs lost, expected {out['expected']:.2f} s")
        if kind == "demo":
            share = Band.of([2 * out["training"] / out["seconds"]])
            yield rows.row(cores, name, "fastsgd", "twice training / whole", "1", share, out["N"], out["T"],
                           out["dtype"])
        yield rows.row(cores, name, "fastsgd", f"seconds, {kind}", "s", band, out["N"], out["T"], out["dtype"],
                       versions=out)
        yield rows.row(cores, name, "fastsgd", "expected / measured", "1", off, out["N"], out["T"], out["dtype"],
                       versions={"table": out["table"], "variant": f"with {kind}" if kind != "training" else ""})
