"""Owns the rows that are measured on a card: each is written as soon as it is known, with the card's name."""

import os
import platform
import time
from functools import cache
from importlib import metadata
from pathlib import Path

import fastsgd as fs
from bench.rows import append, conditions
from fastsgd.cuda import card as cards

PATH = Path(__file__).parents[1] / "data" / "gpu.csv"
FIELDS = ("card", "versions", "commit", "when", "case", "N", "T", "side", "what", "value", "low", "high", "notes")


def keep(case, side, what, values, N="", T="", notes=""):
    """Append a row to the file CARD_ROWS (bench/data/gpu.csv) and print it.

    values: one number a repetition; the row has their median, least and largest
    """
    values = sorted(values)
    value, low, high = (f"{x:.5g}" for x in (values[len(values) // 2], values[0], values[-1]))
    row = _shared() | {"case": case, "N": N, "T": T, "side": side, "what": what, "notes": notes, "value": value,
                       "low": low, "high": high}
    append([row], os.environ.get("CARD_ROWS") or PATH, FIELDS)
    print(f"{case}, N={N}, T={T}: {side}: {value} ({low} .. {high}) {what} {notes}".rstrip(),
          flush=True)


def attempt(function, *arguments, **fields):
    """Call a function; what fails is printed as a gap, and what comes after it is measured all the same."""
    try:
        function(*arguments, **fields)
    except Exception as error:
        what = ", ".join(str(argument)[:60] for argument in arguments)
        print(f"GAP {function.__name__}({what}): {type(error).__name__}: {str(error)[:600]}", flush=True)


@cache
def _shared():
    return {"card": cards.cards(None)[0].name, "versions": versions(), "commit": conditions()["commit"],
            "when": time.strftime("%Y-%m-%dT%H:%MZ", time.gmtime())}


def versions():
    """What the rows were measured with."""
    def of(name):
        try:
            return f"{name} {metadata.version(name)}"
        except metadata.PackageNotFoundError:
            return f"no {name}"

    return ", ".join([f"fastsgd {fs.__version__}", *map(of, ("numpy", "torch", "triton", "jax")),
                      f"python {platform.python_version()}"])
