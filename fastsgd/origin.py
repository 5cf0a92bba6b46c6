"""Owns where and when something was computed: host, date, and the commit of a checkout."""

import platform
import time
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

GIT = Path(__file__).parents[1] / ".git"


def here() -> dict[str, Any]:
    """{"host", "date" in UTC, "commit" of the checkout that this package is in, or None}."""
    return _where() | {"date": _date(int(time.time()))}


@lru_cache(1)
def _date(second: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime(second))


@cache
def _where() -> dict[str, Any]:
    return {"host": platform.node(), "commit": commit(GIT)}


@cache
def commit(folder: Path) -> str | None:
    """The commit that a .git folder is at, 40 hex digits; None where there is none, or it cannot be read."""
    try:
        head = (folder / "HEAD").read_text().strip()
        if not head.startswith("ref: "):
            return head
        name = head[5:]
        if (folder / name).is_file():
            return (folder / name).read_text().strip()
        packed = (folder / "packed-refs").read_text().splitlines()
        return next((line.split()[0] for line in packed if line.split()[1:] == [name]), None)
    except (OSError, ValueError):
        return None
