"""Owns the bytes of a store's arrays: zarr v3 arrays whose every shard is one file, written whole and by rename."""

import json
from math import prod
from pathlib import Path

import numpy as np

from ..errors import BackendUnavailable
from ..files import whole

NOT_DONE = -2  # in `lost`, of a network that nobody has computed


def needed():
    """(numcodecs, google_crc32c). Raises BackendUnavailable without them."""
    try:
        import google_crc32c
        import numcodecs
    except ImportError as error:
        raise BackendUnavailable(f"sweeps need zarr >= 3.1.3, which brings what is missing here ({error.name}): "
                                 "pip install 'fastsgd[sweep]'") from None
    return numcodecs, google_crc32c


def array(shape, shard, chunk, dtype, dims):
    """The text of zarr.json of an array.

    shape: of the array; shard, chunk: of its first axis, the others whole; dtype: "float64", ...; dims: names of axes
    """
    item = np.dtype(dtype)
    fill = NOT_DONE if item.kind == "i" else "NaN"
    codecs = [{"name": "bytes", "configuration": {"endian": "little"}},
              {"name": "blosc", "configuration": {"typesize": item.itemsize, "cname": "lz4", "clevel": 5,
                                                  "shuffle": "shuffle", "blocksize": 0}}, {"name": "crc32c"}]
    inner = {"chunk_shape": [chunk, *shape[1:]], "codecs": codecs, "index_location": "end",
             "index_codecs": [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}]}
    return _text({"shape": list(shape), "data_type": str(item), "fill_value": fill,
                  "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [shard, *shape[1:]]}},
                  "chunk_key_encoding": {"name": "default", "configuration": {"separator": "."}},
                  "codecs": [{"name": "sharding_indexed", "configuration": inner}], "attributes": {},
                  "dimension_names": list(dims), "zarr_format": 3, "node_type": "array", "storage_transformers": []})


def group(attributes):
    """The text of zarr.json of a group."""
    return _text({"attributes": attributes, "zarr_format": 3, "node_type": "group"})


def _text(record):
    return (json.dumps(record, indent=1) + "\n").encode()


def key(number, axes):
    """File name of a shard."""
    return ".".join(["c", str(number), *["0"] * (axes - 1)])


def encoded(values, rows, chunk):
    """The bytes of a shard that holds `values` [n <= rows, ...]; rows after them are as never written."""
    numcodecs, crc32c = needed()
    codec = numcodecs.Blosc(cname="lz4", clevel=5, shuffle=numcodecs.Blosc.SHUFFLE)
    fill = NOT_DONE if values.dtype.kind == "i" else np.nan
    parts, index, at = [], np.full((rows // chunk, 2), 2**64 - 1, "<u8"), 0
    for k in range(-(-len(values) // chunk)):
        part = values[k * chunk:(k + 1) * chunk]
        if len(part) < chunk:
            part = np.concatenate([part, np.full((chunk - len(part), *values.shape[1:]), fill, values.dtype)])
        data = bytes(codec.encode(np.ascontiguousarray(part, part.dtype.newbyteorder("<"))))
        parts += [data, int(crc32c.value(data)).to_bytes(4, "little")]
        index[k] = at, len(data) + 4
        at += len(data) + 4
    tail = index.tobytes()
    return b"".join([*parts, tail, int(crc32c.value(tail)).to_bytes(4, "little")])


def decoded(data, rows, chunk, shape, dtype):
    """The values [rows, ...] of a shard's bytes. Raises ValueError where they are damaged."""
    numcodecs, crc32c = needed()
    index_bytes = rows // chunk * 16
    tail, check = data[-index_bytes - 4:-4], data[-4:]
    if len(data) < index_bytes + 4 or int(crc32c.value(tail)).to_bytes(4, "little") != check:
        raise ValueError("its index is damaged")
    out = np.full((rows, *shape), NOT_DONE if np.dtype(dtype).kind == "i" else np.nan, dtype)
    for k, (at, size) in enumerate(np.frombuffer(tail, "<u8").reshape(-1, 2).tolist()):
        if at == 2**64 - 1:
            continue
        part = data[at:at + size]
        if len(part) != size or int(crc32c.value(part[:-4])).to_bytes(4, "little") != part[-4:]:
            raise ValueError("a chunk is damaged")
        flat = np.frombuffer(numcodecs.Blosc().decode(part[:-4]), np.dtype(dtype).newbyteorder("<"))
        if flat.size != chunk * prod(shape):
            raise ValueError("a chunk has another size")
        out[k * chunk:(k + 1) * chunk] = flat.reshape(chunk, *shape)
    return out


def write(path, data):
    """Write a file whole or not at all. Raises OSError where the system refuses."""
    with whole(Path(path)) as file:
        file.write(data)
