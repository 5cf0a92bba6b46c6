"""Owns what every metric shares: a name, the axes it adds, and a float64 computation from parameters and data."""


class Metric:
    """A number (or array) computed from a network's parameters at saved steps.

    A metric is a frozen dataclass with `name`; `compute` is its definition in float64 and what every backend without
    a kernel of its own runs. Records are float64 [N, S, ...].
    """

    name = None

    def refuse(self, model, data):
        """Return None, or a sentence saying why this model or data set cannot have this metric."""
        return None

    def compute(self, model, params, data, loss):
        """The metric [N, ...] of parameters {name: [N, ...] float64} under `loss` on `data`."""
        raise NotImplementedError
