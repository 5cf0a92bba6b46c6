"""Owns the pages: tables and plots from the newest rows, between markers in README.md and docs/benchmarks.md."""

import json
from pathlib import Path

from . import flows, own, ranks, sparsity
from .cases import CASES, GOAL_CASES, GOALS, OPPONENTS, SHORT

BEGIN, END = "<!-- bench:begin -->", "<!-- bench:end -->"
HERE = Path(__file__).parent
PAGES = (HERE.parent / "docs" / "benchmarks.md", HERE.parent / "README.md")
NAMES = OPPONENTS | {"fma-peak": "FMA peak", "copy": "copy bandwidth", "torch-batched, plain":
                     "PyTorch batched, first version that comes to mind", "numpy": "numpy.linalg.svd, given J",
                     "torch": "torch.linalg.svdvals, given J", "autograd": "autograd by points, then svdvals",
                     "fs.linalg.rank": "fs.linalg.rank, given J", "numpy-loop": "a plain NumPy loop"}
README_CASES = ("diagonal", "relu2", "S9")
README_OPPONENTS = {"torch-naive": "an autograd loop in PyTorch", "torch-batched": "PyTorch, batched over networks",
                    "jax": "JAX, jit(vmap(scan))", "numba": "numba, compiled loops"}
LONE = "one network's steps wait for each other's sums, and no other network's work hides that"
SHORT_RUN = "the call's fixed part, about 0.3 ms of checks and planning, is longer than so few steps of one network"


SIGNS = {"rank": ("rank ratio", "diagonal rank ratio"), "systems": "seconds, ", "one": "one network",
         "lost": "half lost / none lost", "memory": "peak memory"}  # a metric that says that a part was measured


def newest(rows):
    """The rows of the newest run, and what runs of the same day on the same machine measured before, and it did not.

    So parts for which there was no time can be measured apart, by `--only`; their gaps are then gone.
    """
    last, newer = max(rows, key=lambda row: row["date"]), {}
    same = [row for row in rows if row["date"][:10] == last["date"][:10]
            and all(row[name] == last[name] for name in ("machine", "isa"))]
    for row in same:
        newer[_what(row)] = max(row["date"], newer.get(_what(row), ""))
    kept = [row for row in same if row["date"] == newer[_what(row)]]
    return [row for row in kept if row["metric"] != "gap" or not any(_fills(other, row) for other in kept)]


def _commits(rows):
    """"commit a", or "commits a, b" where parts were measured apart."""
    names = list(dict.fromkeys(row["commit"] for row in rows))
    return f"commit{'s' * (len(names) > 1)} {', '.join(names)}"


def _what(row):
    return row["case"], row["provider"], row["cores"], row["metric"]


def _fills(row, gap):
    """Whether a row was measured where there had been a gap: of one provider, or of a part that had no time."""
    part = gap["provider"]
    if row["metric"] == "gap" or row["date"] < gap["date"] or row["cores"] != gap["cores"]:
        return False
    if part == "curves":
        return row["metric"] == f"curve {gap['case']}"
    return row["case"] == gap["case"] and (
        row["provider"] == part or row["metric"].startswith(SIGNS.get(part, f"{part} ratio")))


def rewrite(rows, pages=PAGES, plots=True):
    """Put tables between the markers of every page that has them: all of them in the first, a summary in the others.

    Returns the files that changed.
    """
    rows, changed = newest(rows), []
    if plots:
        from . import plots as drawing

        changed += drawing.draw(rows, HERE.parent / "docs")
    for path in map(Path, pages):
        old = path.read_text() if path.exists() else ""
        if BEGIN not in old or END not in old:
            continue
        text = f"{BEGIN}\n{whole(rows) if path == Path(pages[0]) else summary(rows)}\n{END}"
        new = old[:old.index(BEGIN)] + text + old[old.index(END) + len(END):]
        if new != old:
            path.write_text(new)
            changed.append(path)
    return changed


def summary(rows):
    """What a README shows: how many times the speed of each of four ways to do it, on three systems, and where."""
    ratios = {(row["provider"], row["case"], row["cores"]): row for row in rows if row["metric"] == "speed ratio"}
    most = max((row["cores"] for row in rows), default=0)
    cases = [name for name in README_CASES if any((provider, name, most) in ratios for provider in README_OPPONENTS)]
    lines = [(words, *(_ratio(ratios[provider, name, most]) if (provider, name, most) in ratios else ""
                       for name in cases)) for provider, words in README_OPPONENTS.items()]
    head = ("times the speed of", *(CASES[name].title for name in cases))
    return (_table(head, lines) + f"\n\n{rows[0]['machine']}, {most} cores, {rows[0]['isa']}, {_commits(rows)}, "
            f"{rows[0]['date'][:10]}; medians, own sample order for each network, answers checked "
            "before anything is timed.")


def whole(rows):
    """Everything that was measured."""
    parts = (("Against opponents", opponents(rows)), ("Where we are slower", slower(rows)),
             ("One network", "\n\n".join(filter(None, (first(rows), calls(rows), alone(rows))))),
             ("Rates, ceilings and answers", rates(rows)), ("Ranks and feature sparsity", metrics(rows)),
             ("Gradient flow", flow(rows)), ("Networks and losses of your own", traced(rows)),
             ("The paper's systems", systems(rows)), ("Scaling", curves(rows)),
             ("What plans expect", expected(rows)), ("Goals", claims(rows)), ("Not measured", gaps(rows)))
    text = [f"### {title}\n\n{part}" for title, part in parts if part]
    return "\n\n".join([*text, conditions(rows)])


def opponents(rows):
    """A line a case: our rate, and how many times that of each opponent; bold where we are slower."""
    ratios = {(row["case"], row["cores"], row["provider"]): row for row in rows if row["metric"] == "speed ratio"}
    if not ratios:
        return ""
    seen = [name for name in SHORT if any(provider == name for *_, provider in ratios)]
    lines = []
    for row in rows:
        if row["metric"] == "rate" and row["provider"] == "fastsgd" and row["case"] in CASES:
            at = [ratios.get((row["case"], row["cores"], name)) for name in seen]
            lines.append((_title(row), row["cores"], row["N"], _digits(float(row["median"])),
                          *("" if found is None else _ratio(found) for found in at)))
    head = ("case", "cores", "N", "fastsgd, network-steps/s", *(SHORT[name] for name in seen))
    return (_table(head, lines) + "\n\nTimes the speed of each opponent, median of the rounds; ≈ where the band holds "
            "1, **bold** where fastsgd is slower; N is fastsgd's, opponents that cannot take so many take fewer.")


def slower(rows):
    """Every ratio, and every point of a curve, whose whole band is below 1, with the cause."""
    lines = []
    for row in [*rows, *_curve_ratios(rows)]:
        against = row["metric"] in ("speed ratio", "one network ratio", "rank ratio", "diagonal rank ratio",
                                    "sparsity ratio", "curve ratio", "flow ratio")
        if against and float(row["high"]) < 1:
            lines.append((_title(row), row["cores"], NAMES.get(row["provider"], row["provider"]), row["T"],
                          _band(row), _cause(row)))
    return _table(("case", "cores", "slower than", "T", "ratio (band)", "cause"), lines) if lines else ""


def _cause(row):
    """What is known of why we are slower."""
    if row["metric"] == "one network ratio" and int(row["T"]) <= 100:
        return SHORT_RUN
    return LONE if row["metric"] == "curve ratio" and int(row["N"]) == 1 else "not known yet"


def _curve_ratios(rows):
    """Our rate over that of each opponent at the points of the curves, as rows."""
    ours = {(row["metric"], row["case"]): row for row in rows if row["provider"] == "fastsgd"}
    for row in rows:
        mine = ours.get((row["metric"], row["case"]))
        if row["metric"].startswith("curve ") and row["provider"] != "fastsgd" and mine:
            parts = {"median": ("median", "median"), "low": ("low", "high"), "high": ("high", "low")}
            yield mine | {"metric": "curve ratio", "provider": row["provider"]} | {
                name: float(mine[a]) / float(row[b]) for name, (a, b) in parts.items()}


def first(rows):
    """A sentence on the first result of a process."""
    found = {(row["metric"], row["provider"]): row for row in rows if row["metric"] in ("first result", "import")}
    ours = found.get(("first result", "fastsgd"))
    if ours is None:
        return ""
    loaded = "torch is imported on the way" if json.loads(ours["versions"])["torch"] else "torch is not imported"
    text = (f"From the start of a fresh Python process to the first result (64 networks, 10,000 steps, losses and "
            f"Jacobian rank): {_band(ours)} s, of which `import fastsgd` takes "
            f"{float(found['import', 'fastsgd']['median']):.3f} s; {loaded}.")
    numpy = found.get(("import", "numpy"))
    return text + (f" A process that imports NumPy alone takes {_band(numpy)} s, in turn with it." if numpy else "")


def calls(rows):
    """What a call of one network and ten steps takes, by the way in which it is made."""
    lines = [(f"`{row['provider']}`", _band(row)) for row in rows if row["metric"] == "a call"]
    return _table(("a call of one network, ten steps", "us"), lines) if lines else ""


def alone(rows):
    """A lone network against a plain NumPy loop."""
    ours = {(row["case"], row["T"]): row for row in rows if row["metric"] == "one network"}
    lines = [(_title(row), row["T"], _band(ours[row["case"], row["T"]]), _ratio(row))
             for row in rows if row["metric"] == "one network ratio"]
    return _table(("one network", "T", "fs.train, us", "times NumPy's speed"), lines) if lines else ""


def rates(rows):
    """Every side's rate, its share of the machine's ceilings, how it was done and how right it was."""
    peaks = {(row["case"], row["cores"]): float(row["median"]) for row in rows
             if row["provider"] == "fma-peak" and row["metric"] == "rate"}
    shares = {(row["case"], row["cores"]): float(row["median"]) for row in rows if row["metric"] == "share of copy"}
    lines = []
    for row in rows:
        case = CASES.get(row["case"])
        if row["metric"] != "rate" or case is None:
            continue
        share = ""
        if (row["case"], row["cores"]) in peaks and row["unit"] == "network-steps/s":
            peak = peaks[row["case"], row["cores"]] / (1 if row["dtype"] == "float32" else 2)
            share = f"{100 * float(row['median']) * case.flops / peak:.2g} % of FMA peak"
        if row["provider"] == "steps" and (row["case"], row["cores"]) in shares:
            share += f", {100 * shares[row['case'], row['cores']]:.2g} % of copy"
        facts = json.loads(row["versions"])
        how = [facts.get("variant", "")] + [f"first call {facts['first_call_s']} s longer"
                                            for _ in "1" if facts.get("first_call_s", 0) >= 0.1]
        lines.append((_title(row), row["cores"], NAMES.get(row["provider"], row["provider"]),
                      f"{_band(row)} {row['unit']}", share, row["N"], row["T"], row["answer_error"],
                      "; ".join(filter(None, how))))
    head = ("case", "cores", "what", "measured (band)", "ceiling", "N", "T", "answer error", "how")
    return _table(head, lines) if lines else ""


def metrics(rows):
    """Ranks and sparsity: rates, and ratios to ours."""
    def side(row):
        if row["case"] in sparsity.CASES and row["provider"] == "numpy":
            return "vectorised NumPy"
        return NAMES.get(row["provider"], row["provider"])

    lines = [(_title(row), row["cores"], side(row), f"{_band(row)} {row['unit']}",
              json.loads(row["versions"]).get("variant", ""))
             for row in rows if row["metric"] == "rate" and row["case"] not in CASES]
    return _table(("case", "cores", "what", "measured (band)", "checked"), lines) if lines else ""


def flow(rows):
    """A line a case of gradient flow: our rate, and how many times that of each way to call scipy."""
    ratios = {(row["case"], row["cores"], row["provider"]): row for row in rows if row["metric"] == "flow ratio"}
    seen = list(dict.fromkeys(provider for *_, provider in ratios))
    lines = [(_title(row), row["cores"], row["N"], _band(row), row["answer_error"],
              *("" if (found := ratios.get((row["case"], row["cores"], side))) is None else _ratio(found)
                for side in seen))
             for row in rows if row["metric"] == "flow rate" and row["provider"] == "fastsgd"]
    head = ("case", "cores", "N", "fs.flow, networks/s (band)", "answer error", *seen)
    return (_table(head, lines) + f"\n\nTimes the speed of scipy.integrate at the same tolerances, rtol {flows.RTOL:g} "
            f"and atol {flows.ATOL:g}, float64, with the gradient in NumPy: a network after the other, or stacked as "
            "one system." if lines else "")


def traced(rows):
    """A line a traced case: our rate, and its ratios to torch.func and to the same network of ours."""
    ratios = {(row["case"], row["provider"]): row for row in rows if row["metric"] == "own ratio"}
    sides = (*own.GOALS, "built in")
    lines = [(own.CASES[row["case"]].title, row["N"], _digits(float(row["median"])), *(
        "" if (row["case"], side) not in ratios else
        f"{_ratio(ratios[row['case'], side])} (goal {own.goal(row['case'], side):g})" for side in sides))
        for row in rows if row["metric"] == "own rate" and row["provider"] == "fastsgd" and row["case"] in own.CASES]
    head = ("case", "N", "fastsgd, network-steps/s", *(SHORT.get(side, "the same of ours") for side in sides))
    words = ("One core; times the speed of each. Loops are compiled for the run, as the plan of a long one chooses; "
             "compiling is counted on no side.")
    return f"{_table(head, lines)}\n\n{words}" if lines else ""


def systems(rows):
    """Seconds of the paper's systems without and with metrics."""
    lines = []
    for row in rows:
        if row["metric"].startswith("seconds, "):
            facts = json.loads(row["versions"])
            lines.append((row["case"], row["metric"].removeprefix("seconds, "), row["N"], row["T"], _band(row),
                          f"{facts['training']:.3g}", f"{facts['metrics']:.3g}", facts["S"],
                          f"{100 * facts['lost']:.0f} %"))
    head = ("system", "what", "N", "T", "seconds", "training", "metrics", "evaluations", "lost")
    return _table(head, lines) if lines else ""


def curves(rows):
    """The plots, and the numbers under them."""
    lines, names = [], []
    for row in rows:
        if row["metric"].startswith("curve "):
            name = row["metric"].removeprefix("curve ")
            names += [name] if name not in names else []
            lines.append((row["case"], row["provider"], f"{_band(row)} {row['unit']}", row["N"], row["T"]))
    if any(row["metric"] == "one network" for row in rows):
        names.append("T")
    pictures = "\n".join(f"![scaling over {name}](bench_{name}.png)" for name in names if name != "cores")
    gains = [f"{_title(row)}: {row['cores']} cores give {_band(row)} times the speed of one." for row in rows
             if row["metric"] == "cores ratio"]
    pictures = "\n\n".join([pictures, *gains])
    return f"{pictures}\n\n" + _table(("case", "what", "measured (band)", "N", "T"), lines) if lines else ""


def expected(rows):
    """The plan's seconds over those measured."""
    found = [row for row in rows if row["metric"] == "expected / measured"]
    lines = [(_title(row), json.loads(row["versions"]).get("variant") or "training", row["cores"], row["N"], row["T"],
              _band(row), "yes" if float(row["low"]) >= 0.5 and float(row["high"]) <= 2 else "no") for row in found]
    tables = sorted({json.loads(row["versions"])["table"] for row in found})
    head = ("case", "what", "cores", "N", "T", "expected / measured (band)", "within 2 times")
    return _table(head, lines) + f"\n\nBy {'; '.join(tables)}." if lines else ""


def claims(rows):
    """The claims with a goal, and whether their whole band meets it."""
    lines = [_claim(row) for row in rows if (row["metric"], row["provider"]) in GOALS
             and (row["case"] not in CASES or row["case"] in GOAL_CASES or row["metric"] != "speed ratio")
             and (row["case"] in GOAL_CASES or row["metric"] != "share of peak")]
    return _table(("case", "cores", "claim", "measured (band)", "goal", "met", "at FMA peak"), lines) if lines else ""


def gaps(rows):
    """What was not measured, with the reason; the same reason of many cases once."""
    found = {}
    for row in rows:
        if row["metric"] == "gap":
            reason = row["unit"].strip().splitlines()[0] if row["unit"].strip() else "no reason given"
            found.setdefault((row["provider"], reason), []).append(f"{row['case']} ({row['cores']})")
    return "\n".join(f"- {NAMES.get(who, who)}: {reason}. Cases (cores): {', '.join(where)}"
                     for (who, reason), where in found.items())


def _claim(row):
    facts, goal = json.loads(row["versions"]), GOALS.get((row["metric"], row["provider"]))
    who = NAMES.get(row["provider"], row["provider"])
    words = {"speed ratio": f"times the speed of {who}", "share of peak": "share of the FMA peak",
             "half lost / none lost": f"speed with half the runs lost / with none, {who}",
             "rank ratio": f"ranks: times the speed of {who}",
             "diagonal rank ratio": f"ranks: times the speed of {who}",
             "stack ratio": "fs.linalg.rank given J: times the speed of numpy.linalg.svd",
             "rank share of peak": "ranks: share of the FMA peak",
             "sparsity ratio": "feature sparsity: times the speed of vectorised NumPy",
             "twice training / whole": "twice the training alone / training with 250 steps of all metrics",
             "memory T / memory 20 T": "peak memory of T steps / of 20 T steps"}[row["metric"]]
    met = "" if goal is None else "yes" if float(row["low"]) >= goal else "no"
    return (_title(row), row["cores"], words, _band(row), "" if goal is None else f"{goal:,g}", met,
            _digits(facts["possible"]) if "possible" in facts else "")


def _title(row):
    known = {name: case.title for name, case in (CASES | ranks.CASES | flows.CASES).items()}
    return (known | {name: case[3] for name, case in sparsity.CASES.items()}).get(row["case"], row["case"])


def _ratio(row):
    """A ratio in a cell: ≈ where the band holds 1, bold where it is below."""
    median, low, high = (float(row[name]) for name in ("median", "low", "high"))
    if low <= 1 <= high:
        return f"≈ {_digits(median)}"
    return f"**{_digits(median)}**" if high < 1 else _digits(median)


def _band(row):
    median, low, high = (_digits(float(row[name])) for name in ("median", "low", "high"))
    return median if low == high else f"{median} ({low} .. {high})"


def _digits(x):
    """Three significant digits, 1,040 and not 1.04e+03."""
    return f"{float(f'{x:.3g}'):,.10g}" if x < 1e6 else f"{x:.3g}"


def _table(head, lines):
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in (head, ["---"] * len(head), *lines))


def conditions(rows):
    """One sentence of provenance."""
    versions = {}
    for row in rows:
        facts = json.loads(row["versions"])
        versions |= {name: facts[name] for name in ("fastsgd", "numpy", "torch", "jax", "jaxlib", "numba", "modelbatch")
                     if name in facts}
    first_row = rows[0]
    peak = {row["cores"]: float(row["median"]) for row in rows
            if row["provider"] == "fma-peak" and row["metric"] == "rate"}
    quiet = ""
    if {"1", "2"} <= peak.keys():
        quiet = f" two cores gave {peak['2'] / peak['1']:.2f} times the FMA peak of one;"
    return (f"{first_row['machine']}, {first_row['isa']}, {_commits(rows)}, {first_row['date']}; "
            + ", ".join(f"{name} {version}" for name, version in versions.items())
            + f";{quiet} own sample order for each network, float32 unless a case says float64 (ranks, sparsity and "
              "the paper's systems: float64), threads pinned, sides interleaved; bands are the least and largest "
              "round; a claim is met only if its whole band is.")
