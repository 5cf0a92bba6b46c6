"""Owns who works on which range: a file for each claim, made exclusively, with no scheduler and no locks.

The claim of a range is the file RANGE.g of the highest generation g. Only one worker can make generation 0; it works on
the range. A claim of a dead process, or one whose file has not changed for `stale` seconds on the reader's own clock,
is taken over by making generation g + 1; no file is renamed or removed, no clock of another machine is believed.
A worker that was only slow does its range a second time, to the same bytes.
"""

import errno
import json
import os
import random
import threading
import time
import uuid
from contextlib import contextmanager, suppress
from pathlib import Path

STALE = 240.0  # seconds
BUSY = set()  # (folder, claim) that this process works on
TRIES = 16  # claims tried before the folder is listed again


class Folder:
    """A folder of claims on a disk that workers share."""

    def __init__(self, path):
        self.path = Path(path)

    def __str__(self):
        return str(self.path.resolve())

    def names(self):
        """Names of all files there."""
        return os.listdir(self.path)

    def make(self, name, text):
        """Make a file with its text at once; False if somebody has made it. Raises OSError where the system refuses."""
        with suppress(OSError):  # not every file system has files without a name, of which a kill leaves nothing
            fd = os.open(self.path, os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o666)
            try:
                os.write(fd, text.encode())
                os.link(f"/proc/self/fd/{fd}", self.path / name, follow_symlinks=True)
                return True
            except FileExistsError:
                return False
            finally:
                os.close(fd)
        draft = self.path / f".{uuid.uuid4().hex}"
        try:
            draft.write_text(text)
            os.link(draft, self.path / name)
            return True
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.EMLINK):
                raise
            return self._opened(name, text)  # a file system without links
        finally:
            with suppress(FileNotFoundError):
                draft.unlink()

    def _opened(self, name, text):
        try:
            with open(self.path / name, "x") as file:
                file.write(text)
            return True
        except FileExistsError:
            return False

    def stamp(self, name):
        """What changes when a claim's owner gives a sign of life."""
        with suppress(OSError):
            return os.stat(self.path / name).st_mtime_ns
        return None

    def text(self, name):
        """What a claim says of its owner."""
        with suppress(OSError, UnicodeDecodeError):
            return (self.path / name).read_text()
        return ""

    def touch(self, name):
        """Give a sign of life."""
        with suppress(OSError):
            os.utime(self.path / name)


class Claims:
    """One worker's view of the claims.

    stale: seconds on the own clock without a sign of life after which a claim is taken over
    me: text that says who makes claims; dead(text): whether the owner whose text this is is known to be gone
    """

    def __init__(self, folder, stale=STALE, clock=time.monotonic, rng=None, me=None, dead=None):
        self.folder, self.stale, self.clock = folder, stale, clock
        self.rng = random.Random() if rng is None else rng
        self.me, self.dead = owner() if me is None else me, gone if dead is None else dead
        self.seen, self.free = {}, []  # {range: (generation, stamp, when first seen)}; ranges that nobody had

    def held(self):
        """{range: newest generation} of all claims."""
        out = {}
        for name in self.folder.names():
            range_, _, generation = name.rpartition(".")
            if range_ and generation.isdecimal():
                out[range_] = max(out.get(range_, 0), int(generation))
        return out

    def take(self, missing):
        """(range, generation) of one of the ranges `missing` that is now ours, None if others work on all of them.

        missing: function that lists the ranges that are not done; it is asked when what was free is used up
        """
        claim = self._free(TRIES)
        if claim is not None:
            return claim
        wanted, held = missing(), self.held()
        self.free = [name for name in wanted if name not in held]
        self.rng.shuffle(self.free)  # workers that all went in order would all ask for the same
        return self._free(len(self.free)) or self._over(wanted, held)

    def _free(self, tries):
        """A claim of generation 0 of one of the ranges that nobody had, None if `tries` have not found one."""
        for _ in range(min(tries, len(self.free))):
            name = self.free.pop()
            if self._make(name, 0):
                return name, 0
        return None

    def _make(self, name, generation):
        claim = str(self.folder), f"{name}.{generation}"
        BUSY.add(claim)
        made = self.folder.make(claim[1], self.me)
        if not made:
            BUSY.discard(claim)
        return made

    def _gone(self, file):
        """Whether a claim's owner is known to be gone, or is this process, which works on something else."""
        text = self.folder.text(file)
        return self.dead(text) or (text == self.me and (str(self.folder), file) not in BUSY)

    def _over(self, wanted, held):
        """Take over a claim of somebody who is gone."""
        wanted = [name for name in wanted if name in held]
        self.rng.shuffle(wanted)
        self.seen = {name: self.seen[name] for name in wanted if name in self.seen}
        for name in wanted:
            file = f"{name}.{held[name]}"
            now, stamp = self.clock(), self.folder.stamp(file)
            generation, before, since = self.seen.get(name, (None, None, now))
            if (generation, before) != (held[name], stamp):
                self.seen[name] = held[name], stamp, now
                since = now
            if (now - since >= self.stale or self._gone(file)) and self._make(name, held[name] + 1):
                return name, held[name] + 1
        return None

    def force(self, name):
        """Claim a range even if another has it: a scheduler gave it to us. Returns its generation."""
        generation = self.held().get(name, -1) + 1
        while not self._make(name, generation):
            generation += 1
        return name, generation

    @contextmanager
    def alive(self, claim):
        """While the block lasts, signs of life are given of a claim (range, generation)."""
        done, name = threading.Event(), "{}.{}".format(*claim)

        def beat():
            while not done.wait(self.stale / 6):
                self.folder.touch(name)

        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            BUSY.discard((str(self.folder), name))
            done.set()
            thread.join()


def owner():
    """Text that says which process this is: machine since its start, process, when that started."""
    import socket

    return json.dumps({"host": socket.gethostname(), "machine": _machine(), "pid": os.getpid(),
                       "started": _started(os.getpid())})


def gone(text):
    """Whether the process that a text of `owner` is about is known to have ended: on this machine one can look."""
    try:
        record = json.loads(text)
        return bool(record["machine"]) and record["machine"] == _machine() and (
            _started(int(record["pid"])) != record["started"])
    except (ValueError, KeyError, TypeError):
        return False


def _machine():
    """This machine's start, and the namespace in which its processes are numbered; "" if it does not say."""
    with suppress(OSError):
        return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()} {os.readlink('/proc/self/ns/pid')}"
    return ""


def _started(pid):
    """When a process started, in ticks since the machine did; None if there is none, or if it is a zombie."""
    with suppress(OSError, IndexError):
        words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return None if words[0] in "ZX" else words[19]
    return None
