"""Owns choices of networks and warps that were measured on a card: candidates, timing, and the cache on disk."""

import hashlib
import json
import os
import time
from contextlib import suppress
from functools import cache
from pathlib import Path

import numpy as np

from ...files import cache_folder, keep
from ...models.form import power_of_two
from ...portable import kernels
from ...spec.planned import Plan, Segment, Tuning
from . import layout

STEPS, REPEATS, MOST_NETWORKS = 64, 3, 1 << 16  # of one timing
WORTH = 1e10  # parameter updates below which a run is over before a measurement would be


def pick(work, N, rule, most, launch):
    """((networks, warps), why): the cached choice of this card, a measured one, or the rule's.

    rule: (networks, warps) without a measurement; most: (networks, warps) -> whether a program can hold them
    launch(plan, segment): run a Segment to its end on the card, from the plan's start
    """
    card = name_of_card(work.run.device)
    if card is None or os.environ.get("FASTSGD_TRITON_TUNE", "auto") == "off":
        return rule, "by rule, not measured"
    path = cache_folder() / "triton" / f"{key(work, N, card)}.json"
    known = read(path)
    if known is not None:
        return known, f"measured before on {card}, kept in {path}"
    if float(work.run.steps) * N * work.P < WORTH:
        return rule, "by rule; the run is too short to be worth measuring"
    times = {choice: seconds(work, N, choice, launch) for choice in candidates(rule, most)}
    best = min(times, key=times.get)
    write(path, best, times, card)
    return best, f"the fastest of {len(times)} measured on {card}, kept in {path}"


def name_of_card(device):
    """The name of a run's card, None without one."""
    import torch

    return torch.cuda.get_device_name(device or "cuda") if torch.cuda.is_available() else None


def candidates(rule, most):
    """Choices [(networks, warps), ...] around the rule's: up to four times its networks and twice its warps."""
    networks, warps = rule
    near = [(max(1, int(networks * more)), warps * wider) for wider in (1, 2) for more in (0.5, 1, 2, 4)]
    return list(dict.fromkeys([rule, *(choice for choice in near if most(*choice))]))


@cache
def source_hash():
    """What every kernel's text hashes to, with Triton's version."""
    import triton

    digest = hashlib.sha256(triton.__version__.encode())
    for path in sorted(Path(kernels().__file__).parent.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def key(work, N, card):
    """What names a choice: the kernels, the shape of the work, the card. Sizes that only scale it count in octaves."""
    packed, noise = work.packing, work.noises.get("label_noise")
    shape = (source_hash(), card, packed.module, packed.shape, packed.layout, work.dtype, layout.loss(work), work.order,
             work.network is None, noise and noise.kind, tuple(layout.rule(work).values()), work.full,
             power_of_two(work.batch), power_of_two(work.n), min(power_of_two(N), MOST_NETWORKS))
    return hashlib.sha256(repr(shape).encode()).hexdigest()[:32]


def read(path):
    """(networks, warps) from a file of `write`, None if there is none or it does not hold that."""
    try:
        kept = json.loads(path.read_text())
        choice = kept["networks"], kept["warps"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return choice if all(type(x) is int and 0 < x == power_of_two(x) for x in choice) else None


def write(path, choice, times, card):
    """Keep a choice; a cache that cannot be written is no reason to stop."""
    text = json.dumps({"networks": choice[0], "warps": choice[1], "card": card,
                       "seconds": {f"{n} x {w}": round(t, 6) for (n, w), t in times.items()}}, indent=1)
    with suppress(OSError):
        keep(path, f"{text}\n".encode())


def seconds(work, N, choice, launch):
    """Least time of a launch of STEPS steps at a step size so small that no network is lost."""
    run, N, batch = work.run, min(N, MOST_NETWORKS), work.batch
    ids, row, one = np.arange(N), np.zeros(N, np.int32), np.ones((1, STEPS), run.dtype)
    explicit = np.zeros((1, STEPS, batch), np.uint32) if hasattr(run.order, "table") else None
    noises = {name: (np.zeros(N), row, None) for name in run.rule.noises()}
    numbers = {name: np.resize(a, N) for name, a in run.rule.numbers().items()}
    tuning = Tuning(networks=choice[0], warps=choice[1])
    small = np.full((N, run.model.P), 1e-3, run.dtype)
    plan = Plan(run=run, backend="triton", reasons=(), ids=ids, keys=ids, start=small, base=np.full(N, 1e-20), row=row,
                table=None, saves=None, tuning=tuning, numbers=numbers, noises=noises,
                work=work, each=np.ones((N, work.groups, 3)) if work.groups else None)
    segment = Segment(0, STEPS, one, explicit, dict.fromkeys(noises, one))
    best = float("inf")
    launch(plan, segment)  # compiles
    for _ in range(REPEATS):
        began = time.perf_counter()
        launch(plan, segment)
        best = min(best, time.perf_counter() - began)
    return best
