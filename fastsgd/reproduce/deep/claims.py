"""Owns the verdicts of the deep rows: one for each claim and layer, with seeds and standard errors."""

import numpy as np

from ..record import Verdict

T95 = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23)  # two-sided 95 % of Student's t, by freedom


def spread(values):
    """'mean ± standard error' of numbers, one for each seed."""
    values = np.asarray(values, float)
    if len(values) < 2:
        return f"{values.mean():.1f}"
    return f"{values.mean():.1f} ± {values.std(ddof=1) / len(values)**0.5:.1f}"


def below(differences):
    """True where the mean of paired differences is below zero, False above, None where 95 % of t does not say."""
    d = np.asarray(differences, float)
    if len(d) < 3:
        return None
    error = d.std(ddof=1) / len(d)**0.5
    if abs(d.mean()) <= T95[min(len(d) - 2, len(T95) - 1)] * error:
        return None
    return bool(d.mean() < 0)


def verdicts(study):
    """Yield the verdicts of a deep row."""
    small, short, _, long = study.recipe.settings[:4]
    yield survives(study, study.recipe.settings[1:4])
    yield levels(study, long, small)
    for setting in study.recipe.settings[1:4]:
        yield drops(study, setting)
    for k, layer in enumerate(study.recipe.network.layers.values()):
        def ends(curve, k=k):
            return curve.sparsity[-1][k]
        yield lower(study, long, small, ends, f"{layer}: large steps end sparser than the small one")
        yield lower(study, long, short, ends, f"{layer}: the longer the large step, the sparser")
    yield lower(study, long, small, lambda c: c.error[-1], "large steps end with a lower test error than the small one")
    tuned = study.tuned()
    if tuned is not None:
        yield lower(study, long, tuned, lambda c: c.error[-1],
                    f"large steps end with a lower test error than the best constant one ({tuned.step:g})")


def survives(study, settings):
    """The large steps do not blow up."""
    lost = sum(study.seeds - len(study.of(setting)) for setting in settings)
    return Verdict("the large steps do not blow up", lost == 0, f"{lost} of {len(settings) * study.seeds} runs lost")


def levels(study, long, small):
    """The loss is level from the second to the fourth quarter of the large-step phase, and above the small step's."""
    claim = "the loss is level while the step is large"
    stop = int(long.decay_at * study.epochs)
    quarter = max(1, stop // 4)
    pairs = _pairs(study, long, small)
    if len(pairs) < 3:
        return Verdict(claim, None, "too few runs left")

    def level(curve, end):
        return np.log10(np.mean(curve.loss[end - quarter:end]))

    change = [level(a, stop) - level(a, 2 * quarter) for a, _ in pairs]
    above = [level(a, stop) - level(b, stop) for a, b in pairs]
    return Verdict(claim, bool(abs(np.mean(change)) < np.log10(2) and np.mean(above) > np.log10(2)),
                   f"from the second to the fourth quarter of that phase it changes {_fold(change)}; at its end it is "
                   f"{_fold(above)} that of the small step, {len(pairs)} seeds")


def drops(study, setting):
    """The loss falls three-fold from the last quarter of the large-step phase to the next tenth of the run."""
    claim = f"the loss falls when the step is decayed at {setting.decay_at:.0%}"
    stop, tenth = int(setting.decay_at * study.epochs), max(2, study.epochs // 10)
    left = study.of(setting)
    if len(left) < 3:
        return Verdict(claim, None, "too few runs left")
    fall = [np.log10(np.mean(c.loss[max(stop - max(1, stop // 4), 0):stop]) / np.mean(c.loss[stop:stop + tenth]))
            for c in left]
    return Verdict(claim, bool(np.mean(fall) > np.log10(3)),
                   f"{_fold(fall)} lower over the next {tenth} epochs than over the last before, {len(left)} seeds")


def lower(study, a, b, value, claim):
    """Whether `value` is lower for setting `a` than for `b`, seed by seed."""
    pairs = _pairs(study, a, b)
    if not pairs:
        return Verdict(claim, None, "no runs left")
    differences = [value(x) - value(y) for x, y in pairs]
    holds = below(differences)
    note = "" if holds is not None else "; not resolved"
    return Verdict(claim, holds, f"{np.mean([value(x) for x, _ in pairs]):.1f} % against "
                   f"{np.mean([value(y) for _, y in pairs]):.1f} %, difference {spread(differences)}, "
                   f"{len(pairs)} seeds{note}")


def _pairs(study, a, b):
    """(curve of a, curve of b) for each seed that both survived."""
    others = {curve.seed: curve for curve in study.of(b)}
    return [(curve, others[curve.seed]) for curve in study.of(a) if curve.seed in others]


def _fold(logs):
    """Factors given by their logarithms, as '3.1-fold (standard error 1.1-fold)'."""
    error = np.std(logs, ddof=1) / len(logs)**0.5
    return f"{10**np.mean(logs):.2g}-fold (standard error {10**error:.2g}-fold)"
