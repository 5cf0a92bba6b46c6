"""Owns a simulation of the claims of many workers: crashes, slow disks, caches, clocks that disagree; nothing computes.

`python claims_simulated.py [WORKERS [RANGES [SEED]]]` prints what happened.
"""

import heapq
import random
import sys

from fastsgd.sweep.claims import Claims

STALE = 240.0
WORK = (1.0, 6.0)  # seconds that a range takes
CRASH, PAUSE = 0.01, 0.004  # odds that a worker dies, or stops for longer than STALE, in a range
LAG = 3.0  # seconds by which a listing may be out of date
LOOK = 60.0  # seconds until a worker that found nothing free looks again
RESTART = 60.0  # seconds until another worker is started for one that died


class Disk:
    """The folder of claims as one worker sees it: its listings are old, what it makes is made at once or refused."""

    def __init__(self, world, lag):
        self.world, self.lag, self.refused = world, lag, 0

    def __str__(self):
        return f"disk {id(self)}"

    def names(self):
        then = self.world.now - self.lag
        return [name for name, (made, _) in self.world.claims.items() if made <= then]

    def make(self, name, text):
        if name in self.world.claims:
            self.refused += 1
            self.world.refused += 1
            return False
        self.world.claims[name] = self.world.now, text
        return True

    def stamp(self, name):
        """Signs of life, as old as the last that has come through."""
        made, who = self.world.claims[name]
        alive = self.world.silent.get(who, self.world.now)
        return int((min(alive, self.world.now - self.lag) - made) // (STALE / 6))

    def text(self, name):
        return self.world.claims[name][1]

    def touch(self, name):
        pass


class World:
    """Everything: the time, the claims, what is done, who has fallen silent."""

    def __init__(self, workers, ranges, seed=0):
        self.rng, self.now, self.events, self.count = random.Random(seed), 0.0, [], 0
        self.names = [f"r{k:06d}" for k in range(ranges)]
        self.claims, self.silent, self.finished = {}, {}, {}
        self.refused = self.crashes = self.pauses = self.twice = self.taken = 0
        self.missing = dict.fromkeys(self.names)
        for _ in range(workers):
            self.start(self.rng.uniform(0, 30))

    def start(self, when):
        me = f"w{self.count}"
        self.count += 1
        rate, offset = self.rng.uniform(0.99, 1.01), self.rng.uniform(-1e6, 1e6)  # of a clock that nobody set
        claims = Claims(Disk(self, self.rng.uniform(0, LAG)), STALE, clock=lambda: offset + rate * self.now,
                        rng=random.Random(me), me=me, dead=lambda text: False)
        self.at(when, self.look, claims)

    def at(self, when, what, *given):
        heapq.heappush(self.events, (when, self.rng.random(), what, given))

    def look(self, claims):
        """A worker looks for a range."""
        claim = claims.take(lambda: list(self.missing))
        if claim is None:
            if self.missing:
                self.at(self.now + LOOK, self.look, claims)
            return
        self.taken += claim[1] > 0
        seconds, fate = self.rng.uniform(*WORK), self.rng.random()
        if fate < CRASH:
            self.crashes += 1
            self.silent[claims.me] = self.now + seconds * self.rng.random()
            self.start(self.now + RESTART)
            return
        if fate < CRASH + PAUSE:  # it stands still, and then goes on as if nothing had been
            self.pauses += 1
            self.silent[claims.me] = self.now
            seconds += self.rng.uniform(0.5, 3) * STALE
        self.at(self.now + seconds, self.end, claims, claim[0])

    def end(self, claims, name):
        self.silent.pop(claims.me, None)
        self.twice += name in self.finished
        self.finished[name] = self.now
        self.missing.pop(name, None)
        self.look(claims)

    def run(self):
        while self.events:
            self.now, _, what, given = heapq.heappop(self.events)
            what(*given)
        return self


if __name__ == "__main__":
    given = [int(word) for word in sys.argv[1:]]
    workers, ranges, seed = [*given, *(1000, 2000, 0)[len(given):]]
    world = World(workers, ranges, seed).run()
    print(f"{workers} workers, {ranges} ranges: {len(world.finished)} done in {world.now:.0f} s, {world.twice} of them "
          f"twice; {world.crashes} crashes, {world.pauses} pauses, {world.taken} claims taken over, {world.refused} "
          "refused")
