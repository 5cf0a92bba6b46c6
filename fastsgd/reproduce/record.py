"""Owns what a reproduction hands back: a table, a figure, labelled results, and a verdict on each claim."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Verdict:
    """Whether a published claim was found again.

    claim: the claim, in a sentence
    holds: True, False, or None where the numbers do not decide
    evidence: the numbers, in a sentence
    """

    claim: str
    holds: bool | None
    evidence: str

    def text(self) -> str:
        """One line: yes, no or open; the claim; the numbers."""
        return f"[{ {True: 'yes', False: ' no', None: 'open'}[self.holds]}] {self.claim}: {self.evidence}"


@dataclass(frozen=True, eq=False)
class Reproduction:
    """One row of the catalogue, done.

    name, title: of the row
    table: text, our numbers beside the published ones, the fraction lost
    verdicts: on each qualitative claim, those that do not hold included
    results {kind: fs.Result, or the curves of a deep row}: everything that was computed
    draw: function of a path; writes the figure there
    """

    name: str
    title: str
    table: str
    verdicts: tuple
    results: dict
    draw: object

    def text(self) -> str:
        """The table and the verdicts."""
        return "\n".join([self.table, "", *(verdict.text() for verdict in self.verdicts)])

    def data(self) -> dict:
        """What `text` says, for other programs: {"name", "title", "table", "verdicts": [{"claim", "holds", ...}]}."""
        return {"name": self.name, "title": self.title, "table": self.table,
                "verdicts": [{"claim": one.claim, "holds": one.holds, "evidence": one.evidence}
                             for one in self.verdicts]}
