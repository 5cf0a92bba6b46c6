"""Owns files: one npz with a text header, written whole or not at all."""

import json
import os
import tempfile
import zipfile
from pathlib import Path

import numpy as np

from .errors import SpecError

FORMAT = 1


def write(path, header, arrays):
    """Write `header` (JSON-able dict) and named arrays to `path`; an interrupted write leaves the old file."""
    path = Path(path)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            np.savez(file, header=np.array(json.dumps({"format": FORMAT} | header)), **arrays)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def read(path, kind):
    """(header, {name: array}) of a file that `write` made with header["kind"] == kind. Raises SpecError otherwise."""
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = dict(file)
        header = json.loads(str(arrays.pop("header")))
    except FileNotFoundError:
        raise SpecError(f"path: there is no file {str(path)!r}") from None
    except (KeyError, ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise SpecError(f"path: {str(path)!r} is no fastsgd file ({error})") from None
    if header.get("format") != FORMAT or header.get("kind") != kind:
        raise SpecError(f"path: {str(path)!r} is a {header.get('kind')} of format {header.get('format')}, expected a "
                        f"{kind} of format {FORMAT}")
    return header, arrays


def _umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask
