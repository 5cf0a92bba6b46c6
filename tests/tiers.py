"""Owns what `make test` leaves out and `make test-all` runs: what is long, of cases on slow backends seven in eight."""

from zlib import crc32

import pytest

SLOW = ("cuda", "triton", "reference")  # as fibers, interpreted, by autograd


def some(cases, every=2, first=0):
    """Cases of a parametrization, all but each `every`-th marked long."""
    return [case if k % every == first else long(case) for k, case in enumerate(cases)]


def turns(names, others):
    """(name, one of two others) of each name, which have their turns; with the second one the case is marked long."""
    return [turn for k, name in enumerate(names) for turn in ((name, others[k % 2]), long((name, others[1 - k % 2])))]


def long(case):
    """A case of a parametrization, marked long."""
    if not hasattr(case, "marks"):
        case = pytest.param(*case) if isinstance(case, tuple) else pytest.param(case)
    return case._replace(marks=(*case.marks, pytest.mark.long))


def of_make_test(items):
    """(tests that remain, tests that do not). The first case of every backend stays; of others their names decide."""
    stay, go, seen = [], [], set()
    for item in items:
        given = getattr(item, "callspec", None)
        backend = given and given.params.get("backend")
        kind = item.nodeid.partition("[")[0], backend
        again = backend in SLOW and kind in seen
        seen.add(kind)
        leave = item.get_closest_marker("long") or (again and crc32(item.nodeid.encode()) % 8)
        (go if leave else stay).append(item)
    return stay, go
