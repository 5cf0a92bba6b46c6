"""Owns what the machine tells of energy: counters of the processor's packages, or the reason why there are none."""

from pathlib import Path

POWERCAP = Path("/sys/class/powercap")


class Meter:
    """Joules around each side's rounds. why_not: None, or why this machine does not tell."""

    def __init__(self, folder=POWERCAP):
        self.counters = sorted(folder.glob("*:?/energy_uj")) if folder.exists() else []
        self.why_not, self.spent = None, {}
        try:
            if not self.counters:
                self.why_not = f"no counter under {folder}"
            else:
                self.joules()
        except OSError as error:
            self.why_not = f"{self.counters[0]} cannot be read ({error.strerror})"

    def joules(self):
        """[packages] counters, which wrap around."""
        return [int(path.read_text()) / 1e6 for path in self.counters]

    def around(self, side, best_of):
        """Measure a side's round, and keep the joules that all its calls took together."""
        before = None if self.why_not else self.joules()
        side.measure(best_of)
        if before:
            used = sum(after - start for after, start in zip(self.joules(), before, strict=True))
            if used >= 0:
                self.spent.setdefault(side.name, []).append((used, best_of * side.N * side.T))

    def of(self, side):
        """[(joules, network-steps)] of a side's rounds."""
        return self.spent.get(side.name, [])
