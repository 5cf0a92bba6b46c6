"""fastsgd: thousands to millions of small networks, each trained by its own per-sample SGD, inside one fused kernel."""

from importlib import import_module

from . import data, functional, linalg, losses, metrics, models, orders, rules, sweep
from .checkpoint import Checkpoint, resume
from .errors import BackendUnavailable, FastsgdError, PlanError, SlowBackendWarning, SpecError
from .plan import plan
from .result import Result, concat
from .spec.noise import GradientNoise, LabelNoise
from .spec.planned import Plan, Tuning
from .spec.problem import Dataset
from .spec.run import Run
from .spec.save import Floor, SaveAt
from .spec.schedule import Cosine, StepSize, StepTable, Warmup
from .sweep import Keep, Sweep, reduce
from .train import train

__version__ = "0.1.0"
_LAZY = ("lr_schedulers", "modules")  # these import torch, so they are imported when first named

__all__ = [
    "BackendUnavailable", "Checkpoint", "Cosine", "Dataset", "FastsgdError", "Floor", "GradientNoise", "Keep",
    "LabelNoise", "Plan", "PlanError", "Result", "Run", "SaveAt", "SlowBackendWarning", "SpecError", "StepSize",
    "StepTable", "Sweep", "Tuning", "Warmup", "__version__", "concat", "data", "functional", "linalg", "losses",
    "lr_schedulers", "metrics", "models", "modules", "orders", "plan", "reduce", "resume", "rules", "sweep", "train",
]


def __getattr__(name):
    if name in _LAZY:
        return import_module(f".{name}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted(__all__)
