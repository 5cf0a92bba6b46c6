"""Owns which program serves a run on a card: loop, lanes of a team, where state and data lie, what they need."""

from dataclasses import dataclass

import numpy as np

from ...cuda import program as programs
from ...errors import BackendUnavailable, PlanError
from ...lowering import contract, own
from ...native import native

REGISTERS = 64 << 10  # of a multiprocessor, 32 bits each
THREAD_REGISTERS = 255  # that a thread can have
ROLLED = 310  # estimated registers from which on the state goes to local memory; a few fewer are spilled
SPARE = {"diagonal": 40, "relu2": 48}  # for draws, addresses, intermediate values: a fit to NVRTC 13 for sm_90
FORGONE = {"diagonal": 40, "relu2": 35}  # that a kernel can do without for a block more: what was faster on an H200
INPUT_REGISTERS = 64  # registers that an input may take
STAGED = 72 << 10  # bytes of data in shared memory, so that three blocks still fit
COPIED = 48 << 10  # bytes of all copies of the data, so that four do
RESERVED = 1 << 10  # bytes of shared memory that a card keeps for itself, of every block
ROWS_BYTES = 64 << 10  # of local memory a thread; the card sets aside as much for every thread it could run
LOCAL_SHARE = 0.5  # of a card's free memory that rows in local memory may take
RESIDENT = 2048  # threads of a multiprocessor
BLOCKS = (32, 64, 128, 256)  # threads that may work on a network together in the general loop


@dataclass(frozen=True)
class Chosen:
    """A program, lanes of a team, bytes of dynamic shared memory, stride of a row of X, and memory on the card.

    at_once: networks that run at a time, if not all; a thread or block that has finished one takes the next
    rows: bytes of global memory of a network that runs, for which shared memory has no room
    packs: whether a lane's inputs are loaded 16 bytes at a time; copies: of the data in shared memory
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
    copies: int = 1

    def threads(self, networks):
        """Threads of a launch."""
        return min(networks, self.at_once) * self.lanes

    def scratch(self, networks):
        """Bytes for the rows of those that run."""
        return min(networks, self.at_once) * self.rows


def why_not(work):
    """None, or a sentence saying why there is no program for this run."""
    if in_fused_loop(work) or work.unknown:
        return work.unknown
    if work.only_on_cpu:
        return work.only_on_cpu
    if not _own(work):
        return None
    if "teacher" in _own(work):
        return "it has no kernel for a teacher of your own"
    try:
        why = own.why_not(work.run, native())  # the same text is compiled and checked on the CPU first
    except BackendUnavailable as error:
        return str(error)
    size = work.item * _general_rows(work) if why is None else 0
    if size > ROWS_BYTES:
        return (f"what is traced has a thread a network, which holds at most {ROWS_BYTES >> 10} KiB of rows, here "
                f"{size / 1024:.1f}")
    return why


def _own(work):
    """{what: Program} of what of a run is traced."""
    return {what: part.program for what, part in own.parts(work.run).items()}


def choose(work, N, card, tuning):
    """The Chosen of a run on a card. Raises PlanError for a team that is not possible."""
    return (_fused if in_fused_loop(work) else _general)(work, N, card, tuning)


def in_fused_loop(work):
    """Whether the card's fused loop runs it: as the CPU's does, or with a rule that moves each parameter by itself.

    The CPU has its general loop for the latter; the bits are the same.
    """
    return work.fused or work.carries


def _network_bytes(work):
    """What a network has on a card from launch to launch."""
    network = work.P * work.item * (1 + len(work.buffers)) + 8 + 8 + 8 + work.item + 4
    network += sum(a[0].nbytes for a in work.fresh_each.values())
    numbers = len(work.hyper) + len(work.constants) + work.losses + 3 * work.groups
    return network + numbers * work.item + len(work.noises) * (work.item + 4)


def _where(work, size, staged):
    """Where the data lie, for people."""
    if staged:
        return f"data staged in {size / 1024:.1f} KiB of shared memory"
    return "data read through the caches" if work.n else "samples made on the way"


def local_bytes(each, card):
    """Bytes that a card sets aside where a thread has `each` of local memory: for every thread that it could run."""
    return each * card.processors * RESIDENT


def _stages(work, size, card):
    return 0 < size <= min(STAGED, card.shared) and not (work.fresh or work.streamed or work.sets)


# ---- the fused loop


class Layout:
    """What a team of `lanes` keeps in registers for a run of the fused loop."""

    def __init__(self, work, lanes):
        family, d, h, hidden_bias, _ = work.form.fused
        self.family, self.lanes, self.spreads = family, lanes, family == "diagonal"
        self.inputs = d + hidden_bias
        axis = -(-(d if self.spreads else h) // lanes)
        self.rows = 2 * axis if self.spreads else axis * (self.inputs + 1) + 1
        self.size = axis if self.spreads else self.inputs
        self.residuals = 0 if self.spreads else axis
        self.partials = programs.partials(d if self.spreads else h)
        self.batches = work.full or work.batch > 1
        self.divides = any(work.traits[name] for name in ("adam", "rmsprop", "adagrad"))  # which takes long
        self.words = work.item // 4
        self.holds = self.size * self.words <= INPUT_REGISTERS
        self.pack = 4 // self.words if self.holds else 1  # numbers that a lane loads at once, 16 bytes
        self.packs = self.size // self.pack + 1  # of a row: a lane's inputs, and behind them the label
        self.slot = self.pack * (lanes if self.spreads else 1)  # numbers that a team loads at once
        held = self.size * (1 if self.batches else 2) if self.holds else 0
        sums = min(8, self.partials // lanes)
        more = len(work.buffers) + (self.batches or not work.plain)  # arrays beside the parameters
        spare = SPARE[family] + (0 if self.spreads else 2 * self.inputs)
        self.registers = (self.rows * (1 + more) + self.residuals + held + sums) * self.words + spare

    def blocks(self, most):
        """Blocks of a multiprocessor that registers are to leave room for; `most`: that shared memory has room for."""
        room, forgone = REGISTERS // programs.THREADS, FORGONE[self.family]
        blocks = max(1, room // self.registers)
        few = not self.batches and (blocks == 3 or (blocks == 4 and self.divides)) and blocks < most
        return blocks + (few and room // (self.registers - forgone) > blocks)

    @property
    def stride(self):
        """Numbers apart of rows of X: slots in odd number, so that few rows lie in the same banks."""
        return self.slot * (self.packs | 1)

    def copies(self, size):
        """Copies of data of `size` bytes that shared memory is to hold.

        A load of 16 bytes a lane is answered for eight lanes at a time. With a copy for each of their teams, in banks
        of its own, no team waits for another. Where a team reads whole inputs they are few loads, and not worth it.
        """
        most = 8 // min(8, self.lanes) if self.pack > 1 and self.spreads else 1
        return next(copies for copies in (8, 4, 2, 1) if copies <= most and copies * size <= max(size, COPIED))

    def place(self, X, y):
        """Rows [n, stride] of samples X [n, inputs], y [n, 1], zeros behind."""
        lanes, packs = self.slot // self.pack, self.packs | 1
        rows = np.zeros((len(X), packs * self.slot), X.dtype)
        rows[:, :X.shape[1]] = X
        rows[:, self.size * lanes:(self.size + 1) * lanes] = y
        return rows.reshape(len(X), packs, self.pack, lanes).swapaxes(2, 3).reshape(len(X), self.stride)


def _fused(work, N, card, tuning):
    family, d, h, hidden_bias, output_bias = work.form.fused
    most = programs.partials(d if family == "diagonal" else h)
    layouts = [Layout(work, 1 << k) for k in range(most.bit_length())]
    if tuning.team is not None:
        layouts = [layout for layout in layouts if layout.lanes == tuning.team]
        if not layouts:
            raise PlanError(f"tuning: team={tuning.team} given; legal for this run on a card are "
                            + ", ".join(str(1 << k) for k in range(most.bit_length())))
        layout, why = layouts[0], "as asked for"
    else:
        layout, why = _best(layouts, N, card)
    rolled = layout.registers > ROLLED
    item = work.item
    size = work.n * max(1, work.sets) * layout.stride * item
    staged = _stages(work, size, card)
    copies = layout.copies(size) if staged else 0
    blocks = 1 if rolled else layout.blocks(card.shared // (copies * size + RESERVED))
    sizes = (d,) if family == "diagonal" else (d, h, hidden_bias, output_bias)
    made = programs.fused(family, sizes, work.dtype, lanes=layout.lanes, blocks=blocks, holds=layout.holds,
                          copies=copies, batches=layout.batches, full=work.full, table=work.tabled, rolled=rolled,
                          sets=work.sets > 0, losses=work.losses, **_carried(work))
    local = local_bytes(layout.rows * item, card) if rolled else 0
    state = "local memory" if rolled else f"about {min(layout.registers, THREAD_REGISTERS)} registers a thread"
    why = f"{layout.lanes} lane(s) a network, {why}; state in {state}; {_where(work, max(1, copies) * size, staged)}"
    return Chosen(made, layout.lanes, copies * size, layout.stride, size, _network_bytes(work), why, local,
                  packs=layout.holds, copies=max(1, copies))


def _carried(work):
    """More arguments of a program whose rule is not plain."""
    return {} if work.plain else {"update": work.update_text, "buffers": len(work.buffers)}


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


def _model_text(form):
    """C++ of a model's shape, for csrc/cuda/general.h; without a form it is what was traced."""
    return "fs::own::Model<Tm>{}" if form is None else form.text()


def _general_rows(work):
    """Numbers that the general loop keeps for a network, as csrc/cuda/general.h lays them out."""
    perturb = work.traits["perturb"]
    arrays = 1 + (not work.straight) + (perturb != "none") + (perturb == "sample") + len(work.buffers)
    teacher = 0 if work.teacher is None else work.run.data.teacher.P + work.teacher.residuals
    traced = _own(work)
    residuals = traced["model"].rows if work.form is None else work.form.residuals
    residuals = max(residuals, traced["penalty"].rows if "penalty" in traced else 0)
    own = 3 * work.groups + work.scratch + _rule_numbers(work) + work.losses
    return arrays * work.P + residuals + work.d + teacher + own


def _rule_numbers(work):
    """Numbers that a traced rule takes, 0 without one: step size, step, and its constants."""
    return 2 + len(work.constants) if work.traits["function"] else 0


def _general(work, N, card, tuning):
    item, rows = work.item, _general_rows(work)
    lanes, why = _general_lanes(work, N, card, rows * item)
    if tuning.team is not None:
        lanes, why = tuning.team, "as asked for"
        if _own(work) and lanes != 1:
            raise PlanError(f"tuning: team={tuning.team} given; what is traced has a thread a network")
        if lanes not in (1, *BLOCKS) or (lanes == 1 and rows * item > ROWS_BYTES):
            raise PlanError(f"tuning: team={tuning.team} given; the general loop has a thread a network (1, up to "
                            f"{ROWS_BYTES >> 10} KiB of rows, here {rows * item / 1024:.1f}) or a block of "
                            f"{', '.join(map(str, BLOCKS))} threads")
    stride, shared_rows = work.d | 1, rows * item + 16
    shares = lanes > 1 and shared_rows <= card.shared
    size = work.n * max(1, work.sets) * (stride + work.labels) * item
    staged = lanes == 1 and _stages(work, size, card)
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
    return Chosen(_general_program(work, lanes, rows, shares, staged), lanes, shared, stride, size,
                  _network_bytes(work), f"{why}; {_where(work, size, staged)}", **more)


def _blocks(size, card):
    """Blocks that a multiprocessor has at a time, of threads whose rows and data take `size` bytes.

    As many as its first-level cache has rows for; cache and shared memory are one. With more, every row would come from
    the card's memory at every step. Where the cache holds not one, many blocks hide that latency.
    """
    return min(card.shared // size or RESIDENT, RESIDENT // programs.THREADS)


def block(widest):
    """Threads that work together on a network whose longest axis has `widest` items."""
    return next((threads for threads in BLOCKS if threads >= widest), BLOCKS[-1])


def _general_lanes(work, N, card, size):
    """(threads a network, why)."""
    if _own(work):
        return 1, "what is traced has a thread a network"
    widest = work.form.longest
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


def _general_program(work, lanes, rows, shares, staged):
    data, traced = work.run.data, _own(work)
    kinds = {name: 1 + contract.NOISES.index(record.kind) for name, record in work.noises.items()}
    return programs.general(
        _model_text(work.form), work.dtype, lanes=lanes, rows=rows, shares=shares,
        teacher=work.teacher and work.teacher.text(), update=work.update_text, loss=work.loss, labels=work.labels,
        buffers=len(work.buffers), plain=work.straight, full=work.full, table=work.tabled, staged=staged,
        sets=work.sets > 0 and work.n > 0,
        inputs=f"fs::Inputs::{data.inputs.upper()}, {work.density!r}" if work.fresh else None,
        own_inputs=bool(work.fresh_each),
        label_noise=kinds.get("label_noise", 0), gradient_noise=kinds.get("gradient_noise", 0),
        one=work.noise_on_one_label, groups=work.groups, scratch=work.scratch, ragged=work.ragged,
        own="".join(program.text for program in traced.values()),
        own_loss="loss" in traced, penalty_rows=traced["penalty"].rows if "penalty" in traced else None,
        rule_numbers=_rule_numbers(work), losses=work.losses)
