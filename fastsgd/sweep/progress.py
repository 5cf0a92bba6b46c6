"""Owns how far a sweep is, by its markers."""

from dataclasses import dataclass
from datetime import datetime

import numpy as np

from ..spec.record import Record

RECENT = 300.0  # seconds over which the pace is taken


@dataclass(frozen=True)
class Progress(Record):
    """How far a sweep is.

    ranges, done: of them; networks, networks_done, lost; steps: network-steps done; seconds: that workers spent on them
    rate: network-steps a second of all workers, lately; left: seconds that what is missing will take at that pace, None
        if nobody knows
    """

    ranges: int
    done: int
    networks: int
    networks_done: int
    lost: int
    steps: int
    seconds: float
    rate: float | None
    left: float | None

    def __str__(self):
        lines = [f"ranges    {self.done} of {self.ranges} done",
                 f"networks  {self.networks_done} of {self.networks} done, {self.lost} lost",
                 f"steps     {self.steps:.4g} network-steps in {self.seconds:.4g} s of work"]
        if self.rate:
            lines.append(f"pace      {self.rate:.3g} network-steps a second")
        if self.left is not None and self.done < self.ranges:
            lines.append(f"left      about {in_words(self.left)}")
        return "\n".join(lines)


def in_words(seconds):
    """A time in words."""
    for unit, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.3g} seconds"


def of(store):
    """The Progress of a store."""
    records = [record for record in map(store.marker, sorted(store.done())) if record is not None]
    ends = np.array([datetime.fromisoformat(record["date"]).timestamp() for record in records])
    begins = ends - [record["seconds"] for record in records]
    rate = left = None
    done = sum(record["networks"] for record in records)
    if len(records):
        recent = ends >= ends.max() - RECENT
        span = max(ends.max() - begins[recent].min(), 1e-3)
        rate = sum(record["steps"] for record, now in zip(records, recent, strict=True) if now) / span
        pace = sum(record["networks"] for record, now in zip(records, recent, strict=True) if now) / span
        left = (store.sweep.networks - done) / pace
    return Progress(len(store.names), len(records), store.sweep.networks, done,
                    sum(record["lost"] for record in records), sum(record["steps"] for record in records),
                    round(sum(record["seconds"] for record in records), 3), rate, left)
