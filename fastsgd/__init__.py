"""fastsgd: thousands to millions of small networks, each trained by its own per-sample SGD, inside one fused kernel."""

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

from .shelf import Package

if TYPE_CHECKING:
    from . import data, functional, linalg, losses, lr_schedulers, metrics, models, modules, orders, rules, stops, sweep
    from .checkpoint import Checkpoint, resume
    from .companions import Companions, companions
    from .errors import BackendUnavailable, FastsgdError, PlanError, SlowBackendWarning, SpecError
    from .extend import extend, fork
    from .flow import flow
    from .polish import Polished, polish
    from .result import Result, concat
    from .spec.noise import GradientNoise, LabelNoise
    from .spec.planned import Groups, Plan, Tuning
    from .spec.problem import Dataset
    from .spec.run import Run
    from .spec.save import Floor, SaveAt
    from .spec.schedule import Cosine, StepSize, StepTable, Warmup
    from .sweep import Keep, Sweep, reduce
    from .train import plan, train

__version__ = "0.1.0"

__all__ = [
    "BackendUnavailable", "Checkpoint", "Companions", "Cosine", "Dataset", "FastsgdError", "Floor", "GradientNoise",
    "Groups", "Keep", "LabelNoise", "Plan", "PlanError", "Polished", "Result", "Run", "SaveAt", "SlowBackendWarning",
    "SpecError", "StepSize", "StepTable", "Sweep", "Tuning", "Warmup", "__version__", "companions", "concat", "data",
    "extend", "flow", "fork", "functional", "linalg", "losses", "lr_schedulers", "metrics", "models", "modules",
    "orders", "plan", "polish", "reduce", "resume", "rules", "stops", "sweep", "train",
]

_FROM = {  # where each name is; it is imported when somebody asks for it. Other names are modules of the package
    "checkpoint": ("Checkpoint", "resume"), "companions": ("Companions", "companions"),
    "errors": ("BackendUnavailable", "FastsgdError", "PlanError", "SlowBackendWarning", "SpecError"),
    "extend": ("extend", "fork"), "flow": ("flow",), "polish": ("Polished", "polish"),
    "result": ("Result", "concat"),
    "spec.noise": ("GradientNoise", "LabelNoise"),
    "spec.planned": ("Groups", "Plan", "Tuning"), "spec.problem": ("Dataset",), "spec.run": ("Run",),
    "spec.save": ("Floor", "SaveAt"), "spec.schedule": ("Cosine", "StepSize", "StepTable", "Warmup"),
    "sweep": ("Keep", "Sweep", "reduce"), "train": ("plan", "train"),
}
_homes = {name: module for module, names in _FROM.items() for name in names}


def __getattr__(name: str) -> Any:
    try:
        module = import_module(f".{_homes.get(name, name)}", __name__)
    except ModuleNotFoundError as error:
        if error.name != f"{__name__}.{name}":  # something that a module of ours needs is not installed
            raise
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
    value = getattr(module, name) if name in _homes else module
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__


sys.modules[__name__].__class__ = Package
