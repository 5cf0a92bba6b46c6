"""Owns files that are written whole or not at all, and the folder of what may be made again."""

import ctypes
import fcntl
import hashlib
import os
import stat
from contextlib import contextmanager, suppress
from pathlib import Path

from .errors import SpecError

EXCHANGE = 2  # RENAME_EXCHANGE of renameat2
KINDS = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device",
         stat.S_IFBLK: "a device"}


def writable(path, field="path"):
    """Return `path` if a file can be written there; a symbolic link stands for what it leads to.

    Raises SpecError if something is there that is no regular file or may not be changed, if the name is impossible, or
    if its folder is missing or may not be written to.
    """
    _target(path, field)
    return path


def _target(path, field):
    """(the file that `path` leads to, its stat or None if it is new). Raises SpecError; see `writable`."""
    name = os.fspath(path) if isinstance(path, (str, os.PathLike)) else None
    if not isinstance(name, str) or not name:
        raise SpecError(f"{field}: {path!r} given, expected the name of a file")
    try:
        target = Path(os.path.realpath(name))
        there = os.stat(name)
    except FileNotFoundError:
        there = None
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise SpecError(f"{field}: {_short(name)} cannot be the name of a file ({why})") from None
    why = None
    if there is not None and not stat.S_ISREG(there.st_mode):
        why = f"is {KINDS.get(stat.S_IFMT(there.st_mode), 'no regular file')}"
    elif there is not None and not os.access(target, os.W_OK):
        why = "is a file that may not be written to"
    elif not target.parent.is_dir():
        why = "is in a folder that does not exist"
    elif not os.access(target.parent, os.W_OK | os.X_OK):
        why = "is in a folder that cannot be written to"
    if why:
        raise SpecError(f"{field}: {_short(name)} {why}, expected the name of a file")
    return target, there


def _short(name):
    return repr(name) if len(name) < 200 else f"{name[:90]!r}...{name[-90:]!r}"


@contextmanager
def whole(path, previous=None):
    """A binary file that becomes `path` when the block ends; a block that fails or is killed leaves what was there.

    A symbolic link stays and what it leads to is replaced. A file that is replaced hands on its mode, and its owner and
    extended attributes where the system lets it; a new file has the mode that the umask gives.

    previous: name in the same folder under which the file that is replaced stays
    Raises SpecError if `path` is not writable, OSError where the system refuses (a full disk, say).
    """
    target, old = _target(path, "path")
    folder = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        draft = _Draft(folder, f".{hashlib.sha256(target.name.encode(errors='replace')).hexdigest()[:16]}.partial")
        try:
            file = os.fdopen(draft.fd, "wb", closefd=False)
            try:
                yield file
                file.flush()
            finally:
                with suppress(OSError):  # of what the block could not write, which has its own error
                    file.close()
            if old is not None:
                _inherit(draft.fd, target, old)
            os.fsync(draft.fd)
            with _alone(folder):
                draft.publish(target.name, previous)
            with suppress(OSError):  # some file systems sync no folders
                os.fsync(folder)
        finally:
            draft.close()
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(path)  # a full disk does not say which file it is about
        raise
    finally:
        os.close(folder)


class _Draft:
    """A file that is being written.

    It has no name until it is published, where the file system has such files. Elsewhere it is called `hidden`, as the
    draft of every writer of the same target: what a killed one left is taken away by the next, and two wait in line.
    """

    def __init__(self, folder, hidden):
        self.folder, self.hidden = folder, hidden
        with suppress(OSError):
            self.fd, self.named = os.open(".", os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o666, dir_fd=folder), False
            if os.path.exists(f"/proc/self/fd/{self.fd}"):  # by which it is given a name
                return
            os.close(self.fd)
        self.fd, self.named = self._claimed(), True

    def _claimed(self):
        """A new file called `hidden`, locked. One that is there is waited for, if its writer lives, and removed."""
        while True:
            try:
                fd, new = os.open(self.hidden, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o666,
                                  dir_fd=self.folder), True
            except FileExistsError:
                try:
                    fd, new = os.open(self.hidden, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self.folder), False
                except FileNotFoundError:
                    continue
            with suppress(OSError):  # some file systems lock nothing
                fcntl.flock(fd, fcntl.LOCK_EX)
            if self._is_at(fd, self.hidden):
                if new:
                    return fd
                os.unlink(self.hidden, dir_fd=self.folder)
            os.close(fd)

    def _is_at(self, fd, name):
        with suppress(FileNotFoundError):
            return os.path.samestat(os.fstat(fd), os.stat(name, dir_fd=self.folder, follow_symlinks=False))
        return False

    def publish(self, name, previous):
        """Give the file its name, in one step; what had it is called `previous` from then on, if that is given."""
        if not self._exists(name):
            self._place(name)
        elif previous is None or self.named or not self._exchanged(name, previous):
            if previous is not None:
                self._keep(name, previous)
            self._place(self.hidden)
            self._move(self.hidden, name)

    def _exchanged(self, name, previous):
        """Place the file so that both names are whole files at any moment; False where the system cannot."""
        self._place(previous)
        if _exchange(self.folder, previous, name):
            return True
        self._move(previous, self.hidden)  # once it has had a name it must keep one
        self.named = True
        return False

    def _keep(self, name, previous):
        """Give the file called `name` the name `previous` too; or instead, where a file can have one name only."""
        with suppress(FileNotFoundError):
            os.unlink(previous, dir_fd=self.folder)
        try:
            os.link(name, previous, src_dir_fd=self.folder, dst_dir_fd=self.folder)
        except OSError:
            self._move(name, previous)

    def _place(self, name):
        """Let the file be called `name`, whatever was."""
        if not self.named:
            with suppress(FileNotFoundError):
                os.unlink(name, dir_fd=self.folder)
            os.link(f"/proc/self/fd/{self.fd}", name, dst_dir_fd=self.folder, follow_symlinks=True)
        elif name != self.hidden:
            self._move(self.hidden, name)

    def _move(self, name, to):
        os.replace(name, to, src_dir_fd=self.folder, dst_dir_fd=self.folder)

    def _exists(self, name):
        with suppress(FileNotFoundError):
            return bool(os.stat(name, dir_fd=self.folder, follow_symlinks=False))
        return False

    def close(self):
        """Let go of the file; an unpublished one is gone."""
        if self._is_at(self.fd, self.hidden):
            os.unlink(self.hidden, dir_fd=self.folder)
        os.close(self.fd)


@contextmanager
def _alone(folder):
    """Only one writer at a time gives names in a folder."""
    with suppress(OSError):  # some file systems lock nothing
        fcntl.flock(folder, fcntl.LOCK_EX)
    try:
        yield
    finally:
        with suppress(OSError):
            fcntl.flock(folder, fcntl.LOCK_UN)


def _exchange(folder, a, b):
    """Exchange two names in one step; False where the system cannot."""
    try:
        return ctypes.CDLL(None).renameat2(folder, os.fsencode(a), folder, os.fsencode(b), EXCHANGE) == 0
    except AttributeError:
        return False


def _inherit(fd, target, old):
    """Give a file the owner, mode and extended attributes of the one that it replaces."""
    mine = os.fstat(fd)
    if (mine.st_uid, mine.st_gid) != (old.st_uid, old.st_gid):
        with suppress(OSError):
            os.fchown(fd, old.st_uid, old.st_gid)
    os.fchmod(fd, stat.S_IMODE(old.st_mode))
    with suppress(OSError):
        for name in os.listxattr(target):
            with suppress(OSError):
                os.setxattr(fd, name, os.getxattr(target, name))


def cache_folder():
    """Where programs, measured choices and tables are kept: FASTSGD_CACHE, or fastsgd in the user's cache folder."""
    own = os.environ.get("FASTSGD_CACHE")
    return Path(own) if own else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fastsgd"


def keep(path, data):
    """Write bytes to a file of the cache, whole or not at all, its folders made. Raises OSError where it cannot be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with whole(path) as file:
            file.write(data)
    except SpecError as error:
        raise OSError(str(error)) from None
