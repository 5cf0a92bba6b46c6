"""Owns which program serves a run on a card: loop, lanes of a team, where state and data lie, what they need."""

from dataclasses import dataclass

import numpy as np

from ..cuda import program as programs
from ..cuda.launch import HYPERS
from ..errors import BackendUnavailable, PlanError
from ..losses import Squared
from ..native import native
from ..rules import SGD, Adam
from ..spec.kinds import kind_of
from ..spec.problem import Dataset, Fresh, Stream
from . import general, traced
from .cpu import fused, one_label, permuted, shape_of

REGISTERS = 64 << 10  # of a multiprocessor, 32 bits each
THREAD_REGISTERS = 255  # that a thread can have
ROLLED = 310  # estimated registers from which on the state goes to local memory; a few fewer are spilled
SPARE = {"diagonal": 40, "relu2": 48}  # for draws, addresses, intermediate values: a fit to NVRTC 13 for sm_90
HELD = 64  # registers that an input may take
STAGED = 72 << 10  # bytes of data in shared memory, so that three blocks still fit
ROWS_BYTES = 64 << 10  # of local memory a thread; the card sets aside as much for every thread it could run
LOCAL_SHARE = 0.5  # of a card's free memory that rows in local memory may take
RESIDENT = 2048  # threads of a multiprocessor
BLOCKS = (32, 64, 128, 256)  # threads that may work on a network together in the general loop
NOISES = {"gaussian": 1, "rademacher": 2}


@dataclass(frozen=True)
class Chosen:
    """A program, lanes of a team, bytes of dynamic shared memory, stride of a row of X, and memory on the card.

    at_once: networks that run at a time, if not all; whoever is done with one takes another
    rows: bytes of global memory of a network that runs, for which shared memory has no room
    packs: whether a lane's inputs are loaded 16 bytes at a time
    local: what the card sets aside for the local memory of all threads that it could run
    """

    program: object
    lanes: int
    shared: int
    stride: int
    data_bytes: int
    network_bytes: int
    why: str
    local: int = 0
    at_once: int = 1 << 40
    rows: int = 0
    packs: bool = False

    def threads(self, networks):
        """Threads of a launch."""
        return min(networks, self.at_once) * self.lanes

    def scratch(self, networks):
        """Bytes for the rows of those that run."""
        return min(networks, self.at_once) * self.rows


def tabled(run):
    """Whether the kernel reads its order from a table."""
    drawn = not run.rule.full or one_label(run.rule)
    return isinstance(run.data, Stream) or (drawn and (permuted(run) or hasattr(run.order, "table")))


def why_not(run):
    """None, or a sentence saying why there is no program for this run."""
    if in_fused_loop(run):
        return None
    why = general.why_not(run, own=True)
    if why or not _own(run):
        return why
    if "teacher" in _own(run):
        return "it has no kernel for a teacher of your own"
    try:
        why = traced.why_not(run, native())  # the same text is compiled and checked on the CPU first
    except BackendUnavailable as error:
        return str(error)
    size = np.dtype(run.dtype).itemsize * _general_rows(run) if why is None else 0
    if size > ROWS_BYTES:
        return (f"what is traced has a thread a network, which holds at most {ROWS_BYTES >> 10} KiB of rows, here "
                f"{size / 1024:.1f}")
    return why


def _own(run):
    """{what: Program} of what of a run is traced."""
    return {what: part.program for what, part in traced.parts(run).items()}


def choose(run, N, card, tuning):
    """The Chosen of a run on a card. Raises PlanError for a team that is not possible."""
    return (_fused if in_fused_loop(run) else _general)(run, N, card, tuning)


def in_fused_loop(run):
    """Whether the fused loop runs it: what the CPU fuses, and one sample a step with a rule that keeps to a parameter.

    The CPU has the general loop for those rules; the bits are the same.
    """
    return fused(run) or _carries(run)


def _carries(run):
    """Whether the fused loop takes a step by core/rules/update.h: SGD with momentum, an average, or decay; Adam."""
    rule, loss = run.rule, run.loss
    return (shape_of(run.model) is not None and kind_of(rule) in (SGD, Adam) and rule.batch(run.data.n) == 1
            and not (rule.plain() or rule.noises() or rule.normalised or rule.penalty)
            and "balance_penalty" not in rule.numbers()
            and kind_of(loss) is Squared and loss.weights is None and kind_of(run.order) is not None
            and kind_of(run.data) in (Dataset, Stream))


def _network_bytes(run):
    """What a network has on a card from launch to launch."""
    item = np.dtype(run.dtype).itemsize
    network = run.model.P * item * (1 + len(run.rule.buffers())) + 8 + 8 + 8 + item + 4
    return network + len(run.rule.numbers()) * item + len(run.rule.noises()) * (item + 4)


def _where(run, size, staged):
    """Where the data lie, for people."""
    if staged:
        return f"data staged in {size / 1024:.1f} KiB of shared memory"
    return "data read through the caches" if run.data.n else "samples made on the way"


def local_bytes(each, card):
    """Bytes that a card sets aside where a thread has `each` of local memory: for every thread that it could run."""
    return each * card.processors * RESIDENT


def _labels(run):
    """Numbers in a row of y."""
    return general.labels(run)


def _stages(run, size, card):
    return 0 < size <= min(STAGED, card.shared) and not isinstance(run.data, (Fresh, Stream))


# ---- the fused loop


class Layout:
    """What a team of `lanes` keeps in registers for a run of the fused loop."""

    def __init__(self, run, lanes):
        model = run.model
        family, d, h, hidden_bias, _ = shape_of(model)
        self.lanes, self.spreads = lanes, family == "diagonal"
        self.inputs = d + hidden_bias
        axis = -(-(d if self.spreads else h) // lanes)
        self.rows = 2 * axis if self.spreads else axis * (self.inputs + 1) + 1
        self.size = axis if self.spreads else self.inputs
        self.kept = 0 if self.spreads else axis
        self.partials = programs.partials(d if self.spreads else h)
        self.batches = run.rule.full or run.rule.batch(run.data.n) > 1
        self.words = np.dtype(run.dtype).itemsize // 4
        self.holds = self.size * self.words <= HELD
        self.packs = self.spreads and self.holds and lanes >= 4  # a row then begins at 16 bytes
        held = self.size * (1 if self.batches else 2) if self.holds else 0
        sums = min(8, self.partials // lanes)
        more = len(run.rule.buffers()) + (self.batches or not run.rule.plain())  # arrays beside the parameters
        spare = SPARE[family] + (0 if self.spreads else 2 * self.inputs)
        self.registers = (self.rows * (1 + more) + self.kept + held + sums) * self.words + spare

    @property
    def label(self):
        """Column of a row's label, behind all inputs; where they are spread, it stands there once for each lane."""
        return self.lanes * self.size if self.spreads else self.inputs

    @property
    def stride(self):
        """Words apart of rows of X, so that the rows of different teams lie in different banks."""
        return self.lanes * (self.size + 1 | 1) if self.spreads else self.inputs + 1 | 1

    def pack(self, rows):
        """Reorder columns of `rows` [n, stride] in place: a lane's inputs that are loaded at once lie side by side."""
        if self.packs:
            pack = 4 // self.words
            whole = self.size // pack * pack * self.lanes
            part = rows[:, :whole].reshape(len(rows), -1, pack, self.lanes)
            rows[:, :whole] = part.swapaxes(2, 3).reshape(len(rows), whole)


def _fused(run, N, card, tuning):
    family, d, h, hidden_bias, output_bias = shape_of(run.model)
    most = programs.partials(d if family == "diagonal" else h)
    layouts = [Layout(run, 1 << k) for k in range(most.bit_length())]
    if tuning.team is not None:
        layouts = [layout for layout in layouts if layout.lanes == tuning.team]
        if not layouts:
            raise PlanError(f"tuning: team={tuning.team} given; legal for this run on a card are "
                            + ", ".join(str(1 << k) for k in range(most.bit_length())))
        layout, why = layouts[0], "as asked for"
    else:
        layout, why = _best(layouts, N, card)
    rolled = layout.registers > ROLLED
    blocks = 1 if rolled else max(1, REGISTERS // (programs.THREADS * layout.registers))
    item = np.dtype(run.dtype).itemsize
    size = run.data.n * layout.stride * item
    staged = _stages(run, size, card)
    sizes = (d,) if family == "diagonal" else (d, h, hidden_bias, output_bias)
    made = programs.fused(family, sizes, run.dtype, lanes=layout.lanes, blocks=blocks, holds=layout.holds,
                          packs=layout.packs, staged=staged, batches=layout.batches, full=run.rule.full,
                          table=tabled(run), rolled=rolled, **_carried(run))
    local = local_bytes(layout.rows * item, card) if rolled else 0
    state = "local memory" if rolled else f"about {min(layout.registers, THREAD_REGISTERS)} registers a thread"
    why = f"{layout.lanes} lane(s) a network, {why}; state in {state}; {_where(run, size, staged)}"
    return Chosen(made, layout.lanes, size if staged else 0, layout.stride, size, _network_bytes(run), why, local,
                  packs=layout.packs)


def _carried(run):
    """What the program of a rule that is not plain is told besides."""
    return {} if run.rule.plain() else {"update": _update(run), "buffers": len(run.rule.buffers())}


def _best(layouts, N, card):
    """(layout, why): the fewest lanes whose registers leave three blocks a multiprocessor, more where networks are few.

    A thread that holds a network does no sums across lanes; but a card with few networks has lanes to spare, and a team
    shortens the chain of operations of a step.
    """
    roomy = [layout for layout in layouts if layout.registers <= REGISTERS // (3 * programs.THREADS)]
    fits = [layout for layout in layouts if layout.registers <= THREAD_REGISTERS]
    at = roomy or fits[-1:] or layouts[-1:]
    threads = card.processors * RESIDENT // 4
    wanted = next((layout for layout in at if N * layout.lanes >= threads), at[-1])
    if wanted is at[0]:
        return wanted, f"the fewest whose registers leave room for three blocks, {N} networks fill the card"
    return wanted, f"{N} networks leave lanes to spare"


# ---- the general loop


def shape_text(model):
    """C++ of a family's shape, for csrc/cuda/general.h."""
    shape = general.family(model)
    if shape is None:
        return "fs::own::Model<Tm>{}"
    kind = shape["family"]
    if kind == "dense":
        return f"fs::Dense<Tm, {_activation(shape)}>{{{dense_text(shape)}}}"
    name, fields = {"product": ("Product", ("d", "depth")), "power": ("Power", ("d", "depth", "on")),
                    "autoencoder": ("Autoencoder", ("d", "h", "on"))}[kind]
    return f"fs::{name}<Tm>{{{', '.join(str(shape[field]) for field in fields)}}}"


def _activation(shape):
    return f"fs::Activation::{shape['activation'].upper()}"


def dense_text(shape):
    """C++ of the fs::DenseShape of a dense network, from what `general.family` says of it."""
    def braced(values):
        return "{" + ", ".join(values) + "}"

    def flags(values):
        return braced("true" if value else "false" for value in values)

    trained = braced((flags(shape["weights_trained"]), flags(shape["biases_trained"])))
    return "fs::DenseShape" + braced((
        str(len(shape["sizes"]) - 1), braced(map(str, shape["sizes"])), flags(shape["bias"]), trained,
        braced(repr(float(c)) for c in shape["multipliers"]), _activation(shape), repr(float(shape["slope"]))))


def _update(run):
    """C++ of the fields of core/rules/update.h's Update."""
    traits, buffers = run.rule.traits(), len(run.rule.buffers())
    uses = sum(1 << HYPERS.index(name) for name in run.rule.numbers())
    words = [f"{uses}u", *(str(bool(traits[name])).lower() for name in ("nesterov", "normalised", "decoupled", "adam")),
             f"fs::Update::{traits['perturb'].upper()}", str(bool(traits["unit"])).lower(), "nullptr", str(buffers)]
    return ", ".join(words)


def _plain(run):
    """Whether a step goes straight into the parameters."""
    return run.rule.plain() and not run.rule.noises() and run.rule.batch(run.data.n) == 1


def kept_numbers(model):
    """Numbers that a family keeps between a forward pass and its derivatives, as its header says."""
    shape = general.family(model)
    if shape["family"] == "dense":
        return 3 * sum(shape["sizes"][1:])
    return shape["h"] + 2 * shape["d"] if shape["family"] == "autoencoder" else 0


def _general_rows(run):
    """Numbers that the general loop keeps for a network, as csrc/cuda/general.h lays them out."""
    perturb, teacher = run.rule.traits()["perturb"], getattr(run.data, "teacher", None)
    arrays = 1 + (not _plain(run)) + (perturb != "none") + (perturb == "sample") + len(run.rule.buffers())
    taught = teacher.P + kept_numbers(teacher) if teacher else 0
    own = _own(run)
    kept = own["model"].rows if "model" in own else kept_numbers(run.model)
    kept = max(kept, own["penalty"].rows if "penalty" in own else 0)
    return arrays * run.model.P + kept + run.data.d + taught


def _general(run, N, card, tuning):
    item, rows = np.dtype(run.dtype).itemsize, _general_rows(run)
    lanes, why = _general_lanes(run, N, card, rows * item)
    if tuning.team is not None:
        lanes, why = tuning.team, "as asked for"
        if _own(run) and lanes != 1:
            raise PlanError(f"tuning: team={tuning.team} given; what is traced has a thread a network")
        if lanes not in (1, *BLOCKS) or (lanes == 1 and rows * item > ROWS_BYTES):
            raise PlanError(f"tuning: team={tuning.team} given; the general loop has a thread a network (1, up to "
                            f"{ROWS_BYTES >> 10} KiB of rows, here {rows * item / 1024:.1f}) or a block of "
                            f"{', '.join(map(str, BLOCKS))} threads")
    stride, shared_rows = run.data.d | 1, rows * item + 16
    shares = lanes > 1 and shared_rows <= card.shared
    size = run.data.n * (stride + _labels(run)) * item
    staged = lanes == 1 and _stages(run, size, card)
    if lanes == 1:
        blocks = _blocks(staged * size + programs.THREADS * rows * item, card)
        where, shared = f"local memory a thread, {blocks} block(s) a multiprocessor at a time", staged * size
        more = {"local": local_bytes(rows * item, card), "at_once": card.processors * blocks * programs.THREADS}
    elif shares:
        where, shared, more = "shared memory a block", shared_rows, {}
    else:
        where, shared = "global memory a block, too much to share", 16
        more = {"rows": rows * item, "at_once": card.processors * (RESIDENT // lanes)}
    why = f"the general loop, {lanes} thread(s) a network, {why}; {rows * item / 1024:.1f} KiB of {where}"
    return Chosen(_general_program(run, lanes, rows, shares, staged), lanes, shared, stride, size, _network_bytes(run),
                  f"{why}; {_where(run, size, staged)}", **more)


def _blocks(size, card):
    """Blocks that a multiprocessor has at a time, of threads whose rows and data take `size` bytes.

    So many as its first-level cache holds, which is one memory with what blocks can share: beyond, every row would come
    from the card's memory at every step. Where it holds none, many hide the latency of that.
    """
    return min(card.shared // size or RESIDENT, RESIDENT // programs.THREADS)


def longest(model):
    """Items of the longest axis that threads can share: the widest layer, or the inputs."""
    shape = general.family(model)
    return max(*shape.get("sizes", ()), shape.get("h", 0), model.d)


def block(widest):
    """Threads that work together on a network whose longest axis has `widest` items."""
    return next((threads for threads in BLOCKS if threads >= widest), BLOCKS[-1])


def _general_lanes(run, N, card, size):
    """(threads a network, why)."""
    if _own(run):
        return 1, "what is traced has a thread a network"
    widest = longest(run.model)
    together = block(widest)
    if size > ROWS_BYTES:
        return together, f"a thread holds at most {ROWS_BYTES >> 10} KiB"
    local = local_bytes(size, card)
    if local > LOCAL_SHARE * card.free():
        return together, f"local memory for all threads would be {local / 2**20:.4g} MiB, too much here"
    if programs.THREADS * size > card.shared:
        return together, f"{programs.THREADS} threads with one each would need more than the first-level cache"
    if N * 32 <= card.processors * RESIDENT // 4 and widest >= 32:
        return together, f"{N} networks leave threads to spare"
    return 1, "no sums across threads"


def _general_program(run, lanes, rows, shares, staged):
    rule, data = run.rule, run.data
    noises, fresh = rule.noises(), isinstance(data, Fresh)
    inputs = f"fs::Inputs::{data.inputs.upper()}, {float(data.density)!r}" if fresh else None
    own = _own(run)
    return programs.general(
        shape_text(run.model), run.dtype, lanes=lanes, rows=rows, shares=shares,
        teacher=shape_text(data.teacher) if fresh and data.teacher is not None else None, update=_update(run),
        loss="traced" if "loss" in own else run.loss.name, labels=_labels(run),
        buffers=len(rule.buffers()), plain=_plain(run), full=rule.full, table=tabled(run), staged=staged, inputs=inputs,
        label_noise=NOISES[noises["label_noise"].kind] if "label_noise" in noises else 0,
        gradient_noise=NOISES[noises["gradient_noise"].kind] if "gradient_noise" in noises else 0,
        one=one_label(rule), own="".join(program.text for program in own.values()), own_loss="loss" in own,
        penalty_rows=own["penalty"].rows if "penalty" in own else None)
