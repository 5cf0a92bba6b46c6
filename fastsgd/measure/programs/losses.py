"""Owns the programs of mean losses: csrc/cuda/metrics/losses.h."""

from ...backends.cuda.layout import block
from ...cuda.program import partials
from . import SHORT, program, spec

UNROLLED = 96  # doubles that a thread may hold in registers


def predictions(work, *, staged):
    """Outputs of any form, a thread a network; None where what a network keeps is too much for its local memory."""
    local = 8 * (work.P + work.form.residuals + 1)
    if local > SHORT:
        return None
    return program("predictions", "losses", "predictions", _general(work, 1, STAGED=staged, SHARED=False),
                   rolled=True, local=local)


def wide_predictions(work, most_shared):
    """The same, a block of threads a network; None where what it keeps exceeds shared memory, `most_shared` bytes."""
    slot, threads, kept = 2, block(work.form.longest), work.form.residuals  # numbers of a block's sums: cuda/lanes.h
    shares = 8 * (slot + kept + work.P) <= most_shared
    if 8 * (slot + kept) > most_shared:
        return None
    return program(
        f"predictions, {threads} threads", "losses", "predictions",
        _general(work, threads, STAGED=False, SHARED=shares), rolled=True, threads=threads, whole=True,
        shared=8 * (slot + kept + shares * work.P))


def _general(work, lanes, **flags):
    made = ("struct Made : fs::NothingOwn {\n  template <class Tm>\n"
            f"  FS_HD static constexpr auto model() {{ return {work.form.text()}; }}\n}};\n")
    return made + spec({"LANES": lanes}, flags, f"using Model = fs::Whole<fs::Work<double, {lanes}>, Made>;")


def mean_losses(d, h, hidden_bias, output_bias, *, staged):
    """Mean squared losses of two-layer ReLU networks, by the sums of the fused loop, with the fewest lanes that do."""
    def rows(lanes):
        units = -(-h // lanes)
        return units * (d + hidden_bias + 2) + 1

    lanes = next(L for L in (1, 2, 4, 8, 16, 32) if rows(L) <= UNROLLED or L == partials(h))
    rolled = rows(lanes) > UNROLLED
    model = f"fs::ReLU2<Tm, {partials(h)}>{{{d}, {h}, {hidden_bias}, {output_bias}}}"
    made = spec({"L": lanes}, {"STAGED": staged},
                f"template <class Tm>\n  FS_HD static constexpr auto model() {{ return {model}; }}")
    return program(f"mean losses, relu2 {d}-{h}, {lanes} lane(s)", "losses", "mean_losses", made,
                   rolled=rolled, local=rolled * 8 * rows(lanes), lanes=lanes)


def linear_losses(d, *, staged):
    """Sums of squared residuals of linear predictors."""
    return program(f"linear losses, d={d}", "losses", "linear_losses",
                   spec({"D": d}, {"STAGED": staged}), rolled=d > 80, local=(d > 80) * 8 * d)
