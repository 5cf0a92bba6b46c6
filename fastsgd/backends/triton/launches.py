"""Owns launches of the Triton kernels: networks a program, warps, tables of samples, arguments."""

from dataclasses import replace

import numpy as np

from ...errors import PlanError
from ...models.form import power_of_two
from ...portable import interpreted, kernel
from . import layout, tuned

BLOCK = 1024  # entries of a table that one program makes
WARPS = 4  # of a program that makes a table
REGISTERS = 1 << 16  # of an NVIDIA multiprocessor
MOST_WARPS = 8  # more leave a lane too few registers
MOST_TOGETHER = 1024  # networks in a program
BUDGET = 96  # 32-bit numbers of state a lane, of 255 registers
DRAWING = 5  # 32-bit numbers a parameter whose Gaussian noise is being made, in float64


def options(warps, target=None, crowded=False):
    """Options of a launch or compile: fused multiply-adds are those that are written, and large programs do not spill.

    Left to itself, NVIDIA's assembler spills a little to fit one more program of several warps, or a crowded one, on a
    multiprocessor.
    target: "cuda" or "hip"; by default what torch is built for; crowded: see below
    """
    if target is None:
        import torch

        target = "hip" if torch.version.hip else "cuda"
    most = {"maxnreg": min(255, REGISTERS // (32 * warps))} if (warps > 1 or crowded) and target == "cuda" else {}
    return {"num_warps": warps, "enable_fp_fusion": False, **most}


def registers(work):
    """32-bit numbers that a network keeps: parameters; where it has them gradient, buffers, SAM's point, noise."""
    copies = 1 if _one_sample(work) else 2 + len(work.buffers) + (work.traits["perturb"] != "none")
    gaussian = getattr(work.noises.get("gradient_noise"), "kind", "") == "gaussian"
    return work.packing.width * (work.item // 4 * copies + DRAWING * gaussian)


def too_large(work):
    """None, or a sentence saying that a network does not fit a program's registers."""
    most = BUDGET * 32 * MOST_WARPS
    if registers(work) <= most:
        return None
    return (f"one network keeps {registers(work)} 32-bit numbers, padded to powers of two, and the registers of a "
            f"program of {MOST_WARPS} warps hold {most}")


def warps_of(numbers):
    """The fewest warps of a program that hold so many 32-bit numbers."""
    return power_of_two(-(-numbers // (BUDGET * 32)))


def rule_of_thumb(work):
    """(networks, warps): the fewest warps that hold a network, and more networks where one would leave lanes idle.

    It does not depend on N, so that a network's sums are the same in any company. A network of several outputs spreads
    over lanes by itself.
    """
    packed = work.packing
    warps = warps_of(registers(work))
    across = packed.layout[0][2]  # numbers along the lanes: four a lane of a vector, one a lane of a matrix
    idle = 1 if len(packed.shape) > 4 or work.outputs > 1 else (32 if packed.layout[0][1] else 128) // across
    most = 2 if work.noise_on_one_label else 32  # of more, the one sample would be exchanged through shared memory
    return max(1, min(idle, most)), warps


def fits(work, networks, warps):
    """Whether a program of so many warps holds so many networks in its registers, with room for what a step needs."""
    return warps <= MOST_WARPS and networks * registers(work) <= BUDGET * 32 * warps


def crowded(work, networks, warps):
    """Whether the state of a rule that is not plain, or of several outputs, takes more than a third of a budget."""
    return (not work.plain_but_for_labels or work.outputs > 1) and 3 * networks * registers(work) > BUDGET * 32 * warps


def choose(work, N, tuning, launch):
    """(Tuning with networks and warps, why); `launch` as `tuned.pick` wants it."""
    asked = {name: getattr(tuning, name) for name in ("networks", "warps") if getattr(tuning, name) is not None}
    for name, value in asked.items():
        most = {"networks": MOST_TOGETHER, "warps": 32}[name]
        if value != power_of_two(value) or value > most:
            raise PlanError(f"tuning.{name}: {value} given, expected a power of two, at most {most}")
    if interpreted():
        networks, warps = min(power_of_two(N), MOST_TOGETHER), 1
        why = "one wide program is what the interpreter is fast at"
    elif asked:
        networks, warps = rule_of_thumb(work)
    else:
        rule = rule_of_thumb(work)
        (networks, warps), why = tuned.pick(work, N, rule, lambda n, w: fits(work, n, w), launch)
    networks, warps = asked.get("networks", networks), asked.get("warps", warps)
    return replace(tuning, networks=networks, warps=warps), "as asked for" if asked else why


def constants(work, tuning, common):
    """(kernel, {its constexpr arguments}) of a work, of which `common`: one sample order serves all networks."""
    packed, module, one = work.packing, kernel("train"), _one_sample(work)
    form, noise = kernel(f"models.{packed.module}"), work.noises.get("label_noise")
    more = {} if one else {"ONE": _one(work), "BLOCKS": layout.blocks(work), **layout.rule(work)}
    return module.one_sample if one else module.batches, more | {
        "INPUTS": form.inputs, "VALUE": form.value, "VJP": form.vjp, "SHAPE": packed.shape,
        "LAYOUT": packed.layout, "WIDTH": packed.width, "STRIDE": power_of_two(work.d), "LOSS": layout.loss(work),
        "NOISE": noise.kind if noise else "none", "DRAWS": _draws(work), "COMMON": common, "BN": tuning.networks}


def train(state, segment):
    """Move a state over a Segment."""
    import torch

    plan, work, tuning = state.plan, state.plan.work, state.plan.tuning
    order_ids, common = _order_ids(state)
    indices = state.ids
    if segment.indices is not None:
        indices = torch.from_numpy(segment.indices.astype(np.int32)).to(state.device)
        common = len(indices) == 1
    elif not _draws(work) or work.noise_on_one_label:
        indices = table(state, segment, order_ids)
    lost = torch.from_numpy(state.lost).to(state.device)
    multiplier, noise, gradient_noise = (_multiplier(state, values) for values in (
        segment.multiplier, segment.noise.get("label_noise"), segment.noise.get("gradient_noise")))
    function, fixed = constants(work, tuning, common or work.full)
    more = {} if _one_sample(work) else {
        "buffers": state.buffers, "hyper": state.hyper, "gradient_noise": state.gradient_noise[0],
        "gradient_noise_row": state.gradient_noise[1], "gradient_noise_multiplier": gradient_noise}
    function[(-(-plan.N // tuning.networks),)](
        state.W, lost, state.ids, order_ids, state.base, state.row, multiplier, state.X, state.y, indices, *state.sigma,
        noise, state.numbers, plan.N, segment.t0 // 4, segment.t0 % 4, segment.t1 - segment.t0, work.batch, work.n,
        work.run.seed, **more, **fixed, **options(tuning.warps, crowded=crowded(work, tuning.networks, tuning.warps)))
    state.lost[:] = lost.cpu().numpy()


def _one_sample(work):
    """Whether a step applies the derivative of its one sample as it comes."""
    return not work.full and work.batch == 1 and work.plain_but_for_labels


def _one(work):
    """ONE of kernels/train.batches: whose sample has noise on its label, in a full step."""
    if not work.noise_on_one_label:
        return "none"
    return "own" if work.network is None else "common"


def _draws(work):
    """Whether the driver needs no table: it draws, or takes all samples."""
    return work.full or (_one_sample(work) and work.order == "replace")


def _order_ids(state):
    """(whose orders are drawn [N] or [1], whether all networks share one)."""
    import torch

    network = state.plan.work.network
    if network is None:
        return state.ids, False
    return torch.tensor([network], dtype=torch.int64, device=state.device), True


def _multiplier(state, values):
    """A schedule [Q, steps] on the device; without a noise there must be an array, which no network reads."""
    import torch

    return state.numbers if values is None else torch.from_numpy(values).to(state.device)


def table_bytes(plan):
    """Bytes of one step in such a table as `table` makes; 0 where there is none."""
    work = plan.work
    if work.order == "table" or (_draws(work) and not work.noise_on_one_label):
        return 0
    return 4 * (1 if work.full else work.batch) * (plan.N if work.network is None else 1)


def table(state, segment, order_ids):
    """Sample indices [rows, steps, B] int32 of a segment, made on the device."""
    import torch

    work, module = state.plan.work, kernel("orders")
    steps, batch, n, rows = segment.t1 - segment.t0, 1 if work.full else work.batch, work.n, len(order_ids)
    out = torch.empty((rows, steps, batch), dtype=torch.int32, device=state.device)
    if work.order == "replace":
        count = rows * batch * -(-(segment.t0 % 4 + steps) // 4)
        module.drawn[(-(-count // BLOCK),)](out, order_ids, count, steps, batch, n, segment.t0 // 4, segment.t0 % 4,
                                            work.run.seed, BLOCK=BLOCK, **options(WARPS))
    else:
        half = ((n - 1).bit_length() + 1) // 2  # the least s with 4^s >= n
        module.distinct[(-(-out.numel() // BLOCK),)](
            out, order_ids, out.numel(), steps, batch, n, -(-n >> half), half, segment.t0, work.run.seed, work.epoch,
            EPOCHS=work.order == "epochs", ROUNDS=24 if n <= 64 else 12, BLOCK=BLOCK, **options(WARPS))
    return out
