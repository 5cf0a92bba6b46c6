"""Owns the file format: one npz with a text header and a checksum, written whole or not at all, read with suspicion."""

import json
import os
import re
import stat
import zipfile
from contextlib import contextmanager
from math import prod

import numpy as np

from .errors import SpecError
from .files import whole
from .spec.codec import digest

FORMAT = 2
UNCHECKED = 1  # the format before, which has no checksum
DESCRIPTION = re.compile(  # of an array of numbers or text, as NumPy writes it
    rb"\{ ?'descr': '([<>|=]?[fiuU]\d{1,9})', 'fortran_order': (True|False), 'shape': \(([\d, ]*)\) ?,? ?\} *\n?")
CHUNK, LONGEST = 1 << 20, 10_000  # bytes read at once; bytes of a description
DEFLATED = 1032  # deflate makes a file at most so many times smaller than its content


class Damaged(SpecError):
    """The file was one of ours, or may have been, and is not whole."""


def write(path, header, arrays, previous=None):
    """Write `header` (JSON-able dict) and named arrays to `path`; an interrupted write leaves the old file.

    previous: name in the same folder that a file which is replaced gets
    """
    from . import __version__

    for name in arrays:
        if not name.isprintable():
            raise SpecError(f"file: an array called {name!r} cannot be written, expected a printable name")
    try:
        text = json.dumps({"format": FORMAT, "version": __version__} | header)
    except (TypeError, ValueError, RecursionError) as error:
        raise SpecError(f"file: its header cannot be written ({error})") from None
    members = {"header": np.array(text), "checksum": np.array(digest(text, arrays))} | arrays
    with whole(path, previous) as file, zipfile.ZipFile(file, "w") as archive:
        for name, array in members.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asanyarray(array), allow_pickle=False)


def read(path, kind):
    """(header, {name: array}) of a file that `write` made with header["kind"] == kind.

    Raises SpecError otherwise; Damaged, which is one, where the file may have been whole once.
    """
    require_ours(path)
    with opened(path) as file:
        try:
            arrays = _members(file, (zipfile.ZIP_STORED,))
        except Exception as error:  # zipfile meets damage with a dozen kinds of them
            raise Damaged(f"path: {str(path)!r} is damaged, or no fastsgd file ({_why(error)})") from None
    text, checksum = (str(arrays.pop(name, "")) for name in ("header", "checksum"))
    try:
        header = dict(json.loads(text))
    except (TypeError, ValueError, RecursionError) as error:
        raise SpecError(f"path: {str(path)!r} is no fastsgd file (its header: {_why(error)})") from None
    given = header.get("format")
    if given not in (UNCHECKED, FORMAT) or isinstance(given, bool) or header.get("kind") != kind:
        raise SpecError(f"path: {str(path)!r} is a {header.get('kind')!r:.100} of format {given!r:.100}, expected a "
                        f"{kind} of format {FORMAT}")
    if checksum != (digest(text, arrays) if given == FORMAT else ""):
        raise Damaged(f"path: {str(path)!r} is damaged (its checksum is another)")
    return header, arrays


def require_ours(path):
    """Raise SpecError if a file is plainly no file that `write` made: not even a damaged one."""
    with opened(path) as file:
        start = file.read(4)
    if len(start) == 4 and start not in (b"PK\3\4", b"\0\0\0\0"):
        raise SpecError(f"path: {str(path)!r} is no fastsgd file (it is no archive)")


def numbers(path, field):
    """{name: array} of any npz file of numbers, compressed or not. Raises SpecError if it is none."""
    with opened(path, field) as file:
        try:
            return _members(file, (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
        except Exception as error:
            raise SpecError(f"{field}: cannot read {str(path)!r} as an npz file of numbers ({_why(error)})") from None


def _why(error):
    return f"{type(error).__name__}: {str(error)[:200]}"


def _members(file, methods):
    """{name: array} of an archive. Whatever is wrong raises; memory is asked for after sizes have been checked."""
    out, size = {}, os.fstat(file.fileno()).st_size
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        if sum(info.compress_size for info in members) > size:
            raise ValueError("its members are larger than the file")
        if sum(info.file_size for info in members) > os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"):
            raise ValueError("its arrays are larger than this machine's memory")
        for info in members:
            name, ending = info.filename[:-4], info.filename[-4:]
            if ending != ".npy" or name in out:
                raise ValueError(f"{info.filename!r:.100} is no array, or occurs twice")
            if info.compress_type not in methods or info.flag_bits & 1:
                raise ValueError(f"{info.filename!r:.100} is compressed or encrypted")
            if info.file_size > info.compress_size * (1 if info.compress_type == zipfile.ZIP_STORED else DEFLATED):
                raise ValueError(f"{info.filename!r:.100} cannot be as large as it says")
            with archive.open(info) as member:
                out[name] = _array(member, info.file_size)
    return out


def _array(member, size):
    """The array in an open member of so many bytes."""
    start = member.read(8)
    if start[:6] != b"\x93NUMPY" or start[6:7] not in b"\1\2\3":
        raise ValueError("a member is no NumPy array")
    length = member.read(2 if start[6] == 1 else 4)
    text = member.read(min(int.from_bytes(length, "little"), LONGEST))
    found = DESCRIPTION.fullmatch(text)
    if not found:
        raise ValueError("an array is none of numbers")
    dtype, shape = np.dtype(found[1].decode()), tuple(int(n) for n in found[3].decode().split(",") if n.strip())
    if dtype.itemsize * prod(shape) != size - len(start) - len(length) - len(text):
        raise ValueError("an array has another size than it says")
    fortran = found[2] == b"True"
    array = np.empty(shape[::-1] if fortran else shape, dtype)
    left = memoryview(array.reshape(-1).view(np.uint8)) if array.size else b""
    while len(left):
        part = member.read(min(CHUNK, len(left)))
        if not part:
            raise EOFError("an array ends early")
        left[:len(part)] = part
        left = left[len(part):]
    member.read(1)  # at its end a member's own checksum is compared
    return array.T if fortran else array


@contextmanager
def opened(path, field="path"):
    """A regular file, open for reading. Raises SpecError if there is none; a pipe or a device is not waited for."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise SpecError(f"{field}: there is no file {str(path)!r}") from None
    except (OSError, TypeError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise SpecError(f"{field}: {str(path)!r:.300} cannot be read ({why})") from None
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise SpecError(f"{field}: {str(path)!r} is no regular file")
    with os.fdopen(fd, "rb") as file:
        yield file
