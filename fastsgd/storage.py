"""Owns files: one npz with a text header, written whole or not at all."""

import json
import os
import zipfile
from pathlib import Path

import numpy as np

from .errors import SpecError
from .files import whole

FORMAT = 1


def write(path, header, arrays):
    """Write `header` (JSON-able dict) and named arrays to `path`; an interrupted write leaves the old file."""
    with whole(writable(path)) as file:
        np.savez(file, header=np.array(json.dumps({"format": FORMAT} | header)), **arrays)


def writable(path, field="path"):
    """Return `path` if a file can be written there. Raises SpecError if it is a folder or its folder does not exist."""
    if not isinstance(path, (str, os.PathLike)):
        raise SpecError(f"{field}: {path!r} given, expected the name of a file")
    folder = Path(path).absolute().parent
    if not folder.is_dir() or Path(path).is_dir() or not os.access(folder, os.W_OK):
        why = "is a folder" if Path(path).is_dir() else (
            "is in a folder that cannot be written to" if folder.is_dir() else "is in a folder that does not exist")
        raise SpecError(f"{field}: {str(path)!r} {why}, expected the name of a file")
    return path


def read(path, kind):
    """(header, {name: array}) of a file that `write` made with header["kind"] == kind. Raises SpecError otherwise."""
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = dict(file)
        header = dict(json.loads(str(arrays.pop("header"))))
    except FileNotFoundError:
        raise SpecError(f"path: there is no file {str(path)!r}") from None
    except (KeyError, TypeError, ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise SpecError(f"path: {str(path)!r} is no fastsgd file ({error})") from None
    if header.get("format") != FORMAT or header.get("kind") != kind:
        raise SpecError(f"path: {str(path)!r} is a {header.get('kind')} of format {header.get('format')}, expected a "
                        f"{kind} of format {FORMAT}")
    return header, arrays
