"""Owns the low level for other tools: arrays of parameters moved where they lie, and measured; no records, no files.

Networks are rows of one array, params [N, P], in the order of `model.shapes()`. Arrays may be NumPy, torch on the CPU,
JAX on the CPU, or anything else with DLPack; what comes back is of the kind that `params` is.
"""

from .advance import advance_, fresh_buffers, start
from .measures import accuracy, feature_sparsity, jacobian_rank, jacobian_spectrum, loss, measure, predict

__all__ = ["accuracy", "advance_", "feature_sparsity", "fresh_buffers", "jacobian_rank", "jacobian_spectrum", "loss",
           "measure", "predict", "start"]


def __dir__() -> list[str]:
    return __all__
