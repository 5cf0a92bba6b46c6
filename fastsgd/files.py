"""Owns files that are written whole or not at all, and the folder of what may be made again."""

import os
import tempfile
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole(path):
    """A binary file that becomes `path` when the block ends; an interrupted block leaves the old file and no other."""
    path = Path(path)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)  # it is gone already if the interrupt came right after the replacement
        raise


def _umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


def cache_folder():
    """Where programs, measured choices and tables are kept: FASTSGD_CACHE, or fastsgd in the user's cache folder."""
    own = os.environ.get("FASTSGD_CACHE")
    return Path(own) if own else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fastsgd"


def keep(path, data):
    """Write bytes to a file of the cache, whole or not at all, its folders made. Raises OSError where it cannot be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole(path) as file:
        file.write(data)
