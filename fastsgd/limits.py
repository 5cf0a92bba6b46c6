"""Owns what of the machine this process may use: processors and memory, within its control groups (cgroup v1, v2)."""

import os
from functools import cache
from pathlib import Path

MOST_THREADS = 4096  # an operating system that refuses a thread ends the whole process
ROOT = Path("/")  # of the file system that tells


def processors():
    """How many processors this process may use at a time: those it may run on, and no more than its quota."""
    return max(1, min(len(os.sched_getaffinity(0)), quota(ROOT)))


@cache
def quota(root):
    """Processors that the control groups of this process allow, rounded up; a large number without a limit."""
    least = 1 << 20
    for folder in _groups(root, "cpu"):
        given = _words(folder / "cpu.max") or (_words(folder / "cpu.cfs_quota_us")
                                               + _words(folder / "cpu.cfs_period_us"))
        quota, period = (_number(word) for word in given) if len(given) == 2 else (None, None)
        if quota and period:
            least = min(least, -(-quota // period))
    return least


def memory():
    """Bytes that this process can still take: what the machine and its control groups leave."""
    left = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    available = _named(ROOT / "proc" / "meminfo", "MemAvailable:")
    if available is not None:
        left.append(1024 * available)
    for folder in _groups(ROOT, "memory"):
        for most, used, idle in (("memory.max", "memory.current", "inactive_file"),
                                 ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")):
            limit, taken = (_number(*_words(folder / name)[:1]) for name in (most, used))
            if limit is not None and taken is not None:
                cached = _named(folder / "memory.stat", idle) or 0  # files that make room when it is needed
                left.append(max(0, limit - taken + min(cached, taken)))
    return min(left)


def _groups(root, controller):
    """Folders of this process's control group for a controller, and of all above it."""
    return _folders(root, controller, tuple(_lines(root / "proc" / "self" / "cgroup")))


@cache
def _folders(root, controller, lines):
    """Those that lines of /proc/self/cgroup say."""
    out = []
    for line in lines:
        _, names, path = [*line.split(":", 2), "", ""][:3]
        if names and controller not in names.split(","):
            continue
        top = root / "sys" / "fs" / "cgroup" / names  # v2 has no names
        inside = Path(path.strip().lstrip("/"))
        out += [top / folder for folder in (inside, *inside.parents) if (top / folder).is_dir()]
    return tuple(out)


def _lines(path):
    try:
        return path.read_text().splitlines()
    except (OSError, ValueError):
        return []


def _words(path):
    return " ".join(_lines(path)[:1]).split()


def _named(path, name):
    """The number after `name` in the line of a file that begins with it, None if there is none."""
    for line in _lines(path):
        if line.startswith(name):
            word, number = [*line.split(), "", ""][:2]
            if word == name and _number(number) is not None:
                return _number(number)
    return None


def _number(word=""):
    """A whole number >= 0, None for "max", -1 and other words."""
    return int(word) if word.isascii() and word.isdecimal() and len(word) < 20 else None
