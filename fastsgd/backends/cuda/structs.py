"""Owns the structs that cross to the kernels, field by field as csrc/cuda/*.h declare them; every field has 8 bytes."""

import ctypes

import numpy as np

from ...lowering.contract import HYPERS


def _struct(name, pointers_and_counts, unsigned=(), doubles=()):
    kinds = {**dict.fromkeys(unsigned, ctypes.c_uint64), **dict.fromkeys(doubles, ctypes.c_double)}
    fields = [(field, kinds.get(field, ctypes.c_int64)) for field in pointers_and_counts.split()]
    return type(name, (ctypes.Structure,), {"_fields_": fields})


def number(value, dtype):
    """A Number of csrc/cuda/launch.h: the bits of a value in a dtype, in a word of eight bytes."""
    return int(np.array([value, 0], dtype).view(np.uint64)[0])


# csrc/cuda/launch.h. Arrays are addresses on the card, 0 for none.
Launch = _struct("Launch", """
    positions count ids W buffers lost base row t0 t1 multiplier X y n stride batch first indices index_rows common seed
    dloss bound """ + " ".join(HYPERS) + """
    label_base label_row label_multiplier gradient_base gradient_row gradient_multiplier loss_weights teacher_weights
    fixed ends each counts count_rows losses constants scratch factor density scale teachers""",
                 unsigned=("seed", "dloss", "bound", "factor"))

# csrc/cuda/metrics/launch.h
MetricLaunch = _struct("MetricLaunch", "W N out X n stride scratch each number", doubles=("number",))

# csrc/cuda/metrics/read.h
ReadLaunch = _struct("ReadLaunch", "W positions N reads out")

# csrc/cuda/orders.h
OrderLaunch = _struct("OrderLaunch", "ids N t0 t1 batch n epoch seed out", unsigned=("seed",))
