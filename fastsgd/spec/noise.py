"""Owns the noises a rule may add: to the labels of its samples, or to its gradient."""

from dataclasses import dataclass

from ..errors import SpecError
from .check import as_array, one_of
from .draws import NOISES
from .record import Record
from .schedule import Constant, Schedule, StepTable

KINDS = tuple(NOISES)


def amplitude(value, field):
    """A number or [N] >= 0, a StepSize, or a table [1, T] or [N, T], as something that compiles to a schedule."""
    if isinstance(value, Schedule):
        return value
    array = as_array(value, field)
    if array.ndim != 2:
        return Constant(array, field)
    try:
        return StepTable(array[0] if len(array) == 1 else array)
    except SpecError as error:
        raise SpecError(str(error).replace("step_size", field).replace("step sizes", "numbers")) from None


def lengths(record, field):
    """{field: number of networks} of an amplitude that belongs to `field`; see `Schedule.lengths`."""
    return {name if name == field else f"{field} ({name})": N for name, N in record.lengths().items()}


@dataclass(frozen=True, eq=False)
class LabelNoise(Record):
    """Fresh noise on labels at every step: y_i becomes y_i + sigma_t z_i.

    sigma: standard deviation, a number or [N] >= 0, an fs.StepSize (a base with decays and warm-up, as for step sizes),
        or a table [1, T] or [N, T]
    kind: "gaussian", z ~ N(0, 1); or "rademacher", z = +-1 with equal odds
    on: "batch", every sample of the step has its own noise; or "one", a full-batch step is taken on clean labels, and
        the noise of one random sample i adds grad loss(h(x_i), y_i + sigma z) - grad loss(h(x_i), y_i) to the gradient
        (label noise as in arXiv 2006.08680, for GD)
    """

    sigma: object
    kind: str = "gaussian"
    on: str = "batch"

    def __post_init__(self):
        object.__setattr__(self, "sigma", amplitude(self.sigma, "label_noise.sigma"))
        one_of(self.kind, "label_noise.kind", KINDS)
        one_of(self.on, "label_noise.on", ("batch", "one"))


@dataclass(frozen=True, eq=False)
class GradientNoise(Record):
    """Fresh noise on the gradient at every step: g becomes g + sigma_t z, z [P] independent in every parameter.

    sigma, kind: as in `LabelNoise`
    """

    sigma: object
    kind: str = "gaussian"

    def __post_init__(self):
        object.__setattr__(self, "sigma", amplitude(self.sigma, "gradient_noise.sigma"))
        one_of(self.kind, "gradient_noise.kind", KINDS)


def noise(value, field, kind):
    """None or a noise record of the given class; a bare amplitude becomes one."""
    if value is None or isinstance(value, kind):
        return value
    if isinstance(value, (LabelNoise, GradientNoise)):
        raise SpecError(f"{field}: {type(value).__name__} given, expected {kind.__name__}")
    return kind(value)
