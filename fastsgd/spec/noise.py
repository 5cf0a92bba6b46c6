"""Owns the noises a rule may add: to the labels of its samples, or to its gradient."""

from ..errors import SpecError
from .check import as_array, one_of, per_network, what_is
from .draws import NOISES
from .record import Record, record
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


@record()
class LabelNoise(Record):
    """Fresh noise on labels at every step: y_i becomes y_i + sigma_t z_i.

    sigma: standard deviation, a number or [N] >= 0, an fs.StepSize (a base with decays and warm-up, as for step sizes),
        or a table [1, T] or [N, T]
    kind: "gaussian", z ~ N(0, 1); "rademacher", z = +-1 with equal odds; or "stable", z symmetric and alpha-stable, of
        characteristic function exp(-|t|^alpha): sigma is then its scale. It has a variance for alpha = 2 alone, which
        is 2 there
    alpha [] or [N]: in [0.1, 2], of "stable" noise; 1 is Cauchy's
    on: "batch", every sample of the step has its own noise; or "one", a full-batch step is taken on clean labels, and
        the noise of one random sample i adds grad loss(h(x_i), y_i + sigma z) - grad loss(h(x_i), y_i) to the gradient
        (label noise as in arXiv 2006.08680, for GD)
    """

    sigma: object
    kind: str = "gaussian"
    on: str = "batch"
    alpha: object = None

    def __post_init__(self):
        object.__setattr__(self, "sigma", amplitude(self.sigma, "label_noise.sigma"))
        _kind(self, "label_noise")
        one_of(self.on, "label_noise.on", ("batch", "one"))


@record()
class GradientNoise(Record):
    """Fresh noise on the gradient at every step: g becomes g + sigma_t z, z [P] independent in every parameter.

    sigma, kind, alpha: as in `LabelNoise`
    """

    sigma: object
    kind: str = "gaussian"
    alpha: object = None

    def __post_init__(self):
        object.__setattr__(self, "sigma", amplitude(self.sigma, "gradient_noise.sigma"))
        _kind(self, "gradient_noise")


def _kind(record, field):
    """Check what kind of numbers a noise draws."""
    one_of(record.kind, f"{field}.kind", KINDS)
    if (record.kind == "stable") != (record.alpha is not None):
        raise SpecError(f"{field}.alpha: " + (
            "missing; kind='stable' needs it, in [0.1, 2]" if record.alpha is None else
            f"given, but {record.kind} noise has none; it belongs to kind='stable'"))
    if record.alpha is not None:
        object.__setattr__(record, "alpha", per_network(record.alpha, f"{field}.alpha", 0.1, high=2))


def noise(value, field, kind):
    """None or a noise record of the given class; a bare amplitude becomes one."""
    if value is None or isinstance(value, kind):
        return value
    if isinstance(value, (LabelNoise, GradientNoise)):
        raise SpecError(f"{field}: {what_is(value)} given, expected {kind.__name__}")
    return kind(value)
