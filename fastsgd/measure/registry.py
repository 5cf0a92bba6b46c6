"""Owns which kernels a metric has: a subject is a file beside this one, found by the name of a metric's class."""

from functools import cache

from ..shelf import on_demand
from ..spec.kinds import kind_of


class Kernels:
    """The kernels of a subject's metrics, and what they cost. None says that the metric's own definition serves."""

    def on_host(self, metric, host, weights):
        """Records [M, ...] float64 of networks with weights [M, P], by the CPU's module; host: a `host.Host`."""

    def on_card(self, metric, work, card, host):
        """The `task.Task` of a metric on a card; host: a Host or, to ask for sizes and words alone, None."""

    def on_tiles(self, metric, work):
        """A function of (`tiles.Tiles`, metric, rows [M, width] of the Triton backend) that gives the records."""

    def explain(self, metric, work, module):
        """A sentence for the plan, None where there is nothing to say; PlanError for a method that it lacks."""

    def explain_tiles(self, metric, work):
        """The same of the Triton backend; None leaves it to the host's sentence."""

    def units(self, metric, work):
        """(line of the cost table, {unit: how many} a network) of the host's kernel."""


SUBJECTS = {  # {file of this folder, imported for a metric of its: {class there: the metrics whose kernels it has}}
    "jacobians": {"Grams": ("NTK",), "Jacobians": ("JacobianRank", "JacobianSpectrum")},
    "losses": {"MeanLosses": ("TrainLoss", "TestLoss")},
    "norms": {"Norms": ("ParameterNorm", "Balancedness", "L0")},
    "sparsity": {"Sparsity": ("FeatureSparsity",), "Units": ("DistinctUnits", "ActivationDensity")},
}
HOME = {metric: kernels for subject in SUBJECTS.values() for kernels, metrics in subject.items() for metric in metrics}
_found = on_demand(__package__, SUBJECTS)
_NONE = Kernels()


def kernels_of(metric):
    """The Kernels of a metric, those of nothing where it has none."""
    name = named(metric)
    return _made(HOME[name]) if name in HOME else _NONE


@cache
def _made(kernels):
    return _found(kernels)()


def named(metric):
    """The name of the class of fastsgd that a metric computes as, None if its mathematics are its own."""
    kind = kind_of(metric)
    return kind and kind.__name__
