"""Owns the kernels of norms of pairs of vectors: parameter norm, imbalance, support of u * v."""

import numpy as np

from .registry import Kernels, named

NORMS = ("ParameterNorm", "Balancedness", "L0")  # as core/metrics numbers them


class Norms(Kernels):
    """Of networks u * v alone, those that the fused loop has."""

    def on_host(self, metric, host, weights):
        if not _pairs(host.work):
            return None
        both = host.work.form.parts(np.ascontiguousarray(weights, dtype=np.float64))
        return host.module.diagonal_norms(both, getattr(metric, "threshold", 0.0))[NORMS.index(named(metric))]

    def on_card(self, metric, work, card, host):
        if not _pairs(work):
            return None
        from . import programs, task

        made = programs.program(f"norms, d={work.d}", "losses", "norms",
                                programs.spec({"D": work.d, "WHICH": NORMS.index(named(metric))}, {}))
        return task.task(made, np.zeros(1), 0, 0, task.parts(work), 1, "its own sums in float64",
                         number=getattr(metric, "threshold", 0.0))

    def units(self, metric, work):
        return ("metric.norm", {"parameter": work.P}) if _pairs(work) else None


def _pairs(work):
    return work.linear and work.fused_form is not None
