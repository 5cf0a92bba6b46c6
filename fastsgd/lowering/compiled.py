"""Owns time loops compiled for one run: which runs have one, its C++, its library, and what it gains."""

from . import own

FOLDERS = ("core", "cpu", "compiled")  # of headers that a loop may include
NAMES = {name: f"fs_{name}" for name in ("given", "report_to", "bytes", "side", "run")}
SMALL = 600  # parameters up to which loops over them are written out, and a loop of ours gains
FEW_INPUTS = 3  # of a two-layer ReLU network's fused loop, hidden bias included, up to which it gains
# The time of the prebuilt loop over that of the compiled one, on the side of caution. Measured on Zen 3, AVX2, float32:
# 2-20-1 1.15, 1-100-1 1.13, 3-20-1 1.08, 5-20-1 1.01, 10-100-1 0.88; by the general loop 5-10-10-1 1.6, with momentum
# 1.44, Adam 1.08, tanh 1.32, 2-20-1 with momentum 1.65, logistic loss 1.9, products of three 2.1, powers 1.6;
# 10-100-1 with momentum 1.02, 10-64-64-1 0.99. Traced networks in one sweep, on a first EPYC: attention 1.02, tanh and
# sine 1.1, 2-20-1 1.5, polynomials 1.7, 10-100-1 1.4, 10-300-1 1.3
GAIN = {"relu2": 1.08, "adam": 1.07, "steps": 1.3, "sweep": 1.1}
SECONDS = {"relu2": 2.0, "steps": 4.0, "sweep": 2.0}  # that the compiler takes, on the side of caution
CHECK_SECONDS = 0.01  # to load and look


def kind(work):
    """"relu2", the fused loop of a two-layer network; "sweep", a traced network's plain step; "steps", any other loop
    of one sample a step; None without."""
    if work.batch > 1 or work.full:
        return None
    if work.fused:
        return "relu2" if work.fused_form[0] == "relu2" else None
    if not work.stepwise:
        return None
    return "sweep" if work.plain and "model" in own.parts(work.run) else "steps"


def why_none(work, lanes, width):
    """None where a loop can be compiled for a run of so many lanes, else a sentence."""
    if lanes != width:
        return f"a loop is compiled for {width} networks side by side, here there are {lanes}"
    if kind(work) is None:
        if work.fused and work.batch == 1 and not work.full:
            return "all that matters of a diagonal network is known to the prebuilt loop"
        if work.stepwise_but_for_losses and work.losses:
            return "each network has a loss of its own, which the general loop reads; a loop is compiled for one loss"
        return ("a loop is compiled for one given sample a step, without noise, and a rule that moves each parameter "
                "alone")
    return None


def gains(work):
    """What a compiled loop is expected to gain: 1 where nothing was measured."""
    if kind(work) == "relu2":
        _, d, _, hidden_bias, _ = work.fused_form
        return GAIN["relu2"] if d + hidden_bias <= FEW_INPUTS and not work.one_row else 1.0
    if kind(work) == "sweep":
        return GAIN["sweep"]
    return 1.0 if work.P > SMALL else GAIN["adam" if work.traits["adam"] else "steps"]


def pays(work, module, seconds):
    """Whether a compiled loop saves more of the expected seconds than making it takes; and why, in words."""
    gain = gains(work)
    saved = seconds * (1 - 1 / gain)
    if gain == 1:
        return False, "nothing was measured to gain by it"
    if saved <= CHECK_SECONDS:
        return False, "too short a run to gain by it"
    from ..trace import compiler

    ready = compiler.is_kept(unit(work, module), module.isa, FOLDERS)
    cost = CHECK_SECONDS if ready else SECONDS[kind(work)]
    words = f"it would save about {saved:.2g} s of {seconds:.2g}, " + (
        "and is compiled already" if ready else f"compiling takes about {cost:.2g}")
    return saved > cost, words


def library(work, module):
    """The Library of a run's loop. Raises BackendUnavailable where it cannot be compiled."""
    from ..trace import compiler

    return compiler.made(unit(work, module), module.isa, NAMES, FOLDERS)


def unit(work, module):
    """C++ of a run's loop."""
    from ..cuda.program import C_TYPES

    T, W = C_TYPES[work.dtype], module.lanes[work.dtype]
    body, given = (_relu2 if kind(work) == "relu2" else _steps)(work, T, W)
    small = "#define FS_SIZES_KNOWN\n" if work.P <= SMALL else ""
    return (f"#define FS_LIBRARY\n{small}#define FS_VECTOR_BYTES {module.vector_bytes}\n"
            f'#include "compiled/library.h"\n{body}FS_COMPILED(Made, fs::{given}<{T}>)\n')


def _relu2(work, T, W):
    _, *sizes = work.fused_form
    numbers = ", ".join(str(int(size)) for size in sizes)
    own = "true" if work.losses else "false"
    return f"using Made = fs::OneSample<fs::KnownReLU2<fs::Team<{T}, {W}, 1>, {numbers}>, {own}>;\n", "Job"


def _steps(work, T, W):
    parts = {what: part.program for what, part in own.parts(work.run).items() if what in ("model", "loss")}
    texts, residuals, loop, sweep = {what: program.text for what, program in parts.items()}, 0, "Steps", ""
    if kind(work) == "sweep":
        texts["model"] += parts["model"].sweep
        residuals, loop = 2 * parts["model"].rows, "Sweeps"
        sweep = "  template <class Tm>\n  using Sweep = model::Sweep<Tm>;\n"
    structs = "".join(f"namespace {what} {{\nusing namespace fs;\n{text}}}\n" for what, text in texts.items())
    network = "model::Model<Tm>{}" if work.form is None else work.form.text()
    loss = ("fs::KnownTraced<T, loss::Loss<fs::Team<T, W, 1>>>{given.bound}" if work.loss == "traced" else
            f"fs::known_loss<T, fs::Loss<T>::{work.loss.upper()}>(given)")
    return (f"namespace {{\n{structs}struct Spec {{\n  using T = {T};\n"
            f"  static constexpr int W = {W}, LABELS = {work.labels}, RESIDUALS = {residuals};\n{sweep}"
            f"  template <class Tm>\n  FS_HD static constexpr auto model() {{\n    return {network};\n  }}\n"
            f"  FS_HD static constexpr fs::Update update() {{ return {{{work.update_text}}}; }}\n"
            f"  FS_HD static auto loss(const fs::Loss<T>& given) {{ return {loss}; }}\n}};\n"
            f"using Made = fs::{loop}<Spec>;\n}}\n"), "GeneralJob"
