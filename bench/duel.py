"""Owns a duel: fastsgd against the opponents that somebody names, one of their own among them, by the same protocol."""

import os
from contextlib import ExitStack
from dataclasses import replace

from fastsgd.errors import SpecError
from fastsgd.spec.check import near

from . import cases, opponents, suite
from .harness import Starter
from .peak import Absent

SETTINGS = suite.Settings(rounds=6, compiled=suite.ALL_CASES)
QUICK = replace(SETTINGS, rounds=2, best_of=1, target=0.02)


def chosen(names, against, quick=False):
    """The Settings of a duel. names: of cases; against: names of opponents, or "module:Class". Raises SpecError."""
    names = tuple(names or ("diagonal",))
    for name in names:
        _known(name, cases.CASES, "case")
    for name in against:
        if ":" in name:
            _own(name)
        else:
            _known(name, cases.OPPONENTS, "against")
    return replace(QUICK if quick else SETTINGS, cases=names, opponents=tuple(dict.fromkeys(against)))


def _known(name, legal, field):
    if name not in legal:
        raise SpecError(f"{field}: {name!r} given, expected one of {', '.join(legal)}{near(name, legal)}")


def _own(name):
    """Look at an opponent's class, here, before a process is started for it."""
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (os.getcwd(), os.environ.get("PYTHONPATH"))))
    try:
        made = opponents.provider(name)(1)
    except Absent as error:
        raise SpecError(f"opponent: {name!r} cannot play here ({error})") from None
    except (ImportError, AttributeError, TypeError) as error:
        raise SpecError(f"opponent: {name!r} given, expected my_module:Class of a module that can be imported here "
                        f"({error})") from None
    lacks = [verb for verb in ("prepare", "answer") if not callable(getattr(made, verb, None))]
    if lacks:
        raise SpecError(f"opponent: {name!r} has no {' and no '.join(lacks)}; docs/opponents.md says what it needs")


def whole(settings, say=print):
    """Rows of all cases against all opponents, on as many cores as the tables have."""
    cores = min(2, len(os.sched_getaffinity(0)))
    with ExitStack() as stack:
        start = Starter(cores, stack)
        for name in settings.cases:
            yield from suite.against_opponents(cases.CASES[name], start, settings, say)
