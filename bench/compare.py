"""Owns the comparison of two files of rows: two machines, or two commits, measured by the same protocol."""

from fastsgd.errors import SpecError

from . import rows
from .report import NAMES, newest


def text(first, second):
    """A table of the newest run of each file: both rates, and how many times the first's the second's are."""
    sides = []
    for path in (first, second):
        try:
            made = rows.read(path)
        except (OSError, ValueError) as error:
            raise SpecError(f"compare: {str(path)!r} cannot be read ({error})") from None
        if not made or set(rows.COLUMNS) - set(made[0]):
            raise SpecError(f"compare: {str(path)!r} has no rows of `fastsgd bench`")
        sides.append(newest(made))
    a, b = ({_key(row): row for row in side if row["metric"] == "rate"} for side in sides)
    lines = [("case", "cores", "who", "unit", "A", "B", "B / A")]
    for key in a:
        if key in b:
            one, other = float(a[key]["median"]), float(b[key]["median"])
            case, cores, who, unit = key[:4]
            lines.append((case, cores, NAMES.get(who, who), unit, f"{one:.3g}", f"{other:.3g}",
                          f"{other / one:.3g}{_doubt(a[key], b[key])}"))
    widths = [max(len(str(line[k])) for line in lines) for k in range(len(lines[0]))]
    out = [f"{letter}: {side[0]['machine']}, {side[0]['isa']}, commit {side[0]['commit']}, {side[0]['date']}"
           for letter, side in zip("AB", sides, strict=True)]
    out += ["  ".join(str(cell).ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
            for line in lines]
    for letter, only in (("A", set(a) - set(b)), ("B", set(b) - set(a))):
        if only:
            out.append(f"in {letter} alone: " + ", ".join(sorted(f"{case} {who}" for case, _, who, *_ in only)))
    if any(line[-1].endswith("~") for line in lines):
        out.append("~: the bands of the rounds overlap, so the ratio may as well be 1")
    return "\n".join(out)


def _key(row):
    return row["case"], row["cores"], row["provider"], row["unit"], row["dtype"]


def _doubt(a, b):
    """A mark where the bands of two rates overlap."""
    apart = float(a["high"]) < float(b["low"]) or float(b["high"]) < float(a["low"])
    return "" if apart else " ~"
