"""The shelf of metrics, one subject a file; a file is imported when a name of its is asked for."""

from typing import TYPE_CHECKING

from ..shelf import on_demand

if TYPE_CHECKING:
    from .base import Custom, Metric
    from .coefficients import DistanceToTeacher, Gain, LinearCoefficients, LpNorm
    from .committee import GeneralisationError, Overlaps, TeacherOverlaps
    from .feature_sparsity import FeatureSparsity, feature_sparsity
    from .flow import FlowSteps
    from .hessian import GradientNorm, HessianTrace, Sharpness
    from .jacobian_rank import JacobianRank, JacobianSpectrum
    from .kernels import NTK, GradientCount, GradientOuterProduct, JacobianSquaredNorm, KernelDistance, NTKEigenvalue
    from .losses import TestLoss, TrainLoss
    from .norms import L0, Balancedness, DistanceTravelled, ParameterNorm
    from .predictions import FittedFunction, Predictions, TestAccuracy, TrainAccuracy
    from .spectra import CountAbove, EffectiveRank, FeatureRank, NuclearNorm, SchattenQuasiNorm, SpectrumEntropy
    from .two_layer import CosineAlignment, Kinks, NeuronBalance
    from .units import ActivationDensity, ActiveUnits, DistinctUnits, PatternDistance

__all__ = [
    "L0", "NTK", "ActivationDensity", "ActiveUnits", "Balancedness", "CosineAlignment", "CountAbove", "Custom",
    "DistanceToTeacher", "DistanceTravelled", "DistinctUnits", "EffectiveRank", "FeatureRank", "FeatureSparsity",
    "FittedFunction", "FlowSteps", "Gain", "GeneralisationError", "GradientCount", "GradientNorm",
    "GradientOuterProduct", "HessianTrace", "JacobianRank", "JacobianSpectrum", "JacobianSquaredNorm",
    "KernelDistance", "Kinks", "LinearCoefficients", "LpNorm", "Metric", "NTKEigenvalue", "NeuronBalance",
    "NuclearNorm", "Overlaps", "ParameterNorm", "PatternDistance", "Predictions", "SchattenQuasiNorm", "Sharpness",
    "SpectrumEntropy", "TeacherOverlaps", "TestAccuracy", "TestLoss", "TrainAccuracy", "TrainLoss",
    "feature_sparsity",
]

__getattr__ = on_demand(__name__, {
    "base": ("Custom", "Metric"), "coefficients": ("DistanceToTeacher", "Gain", "LinearCoefficients", "LpNorm"),
    "committee": ("GeneralisationError", "Overlaps", "TeacherOverlaps"),
    "feature_sparsity": ("FeatureSparsity", "feature_sparsity"), "flow": ("FlowSteps",),
    "hessian": ("GradientNorm", "HessianTrace", "Sharpness"), "jacobian_rank": ("JacobianRank", "JacobianSpectrum"),
    "kernels": ("NTK", "GradientCount", "GradientOuterProduct", "JacobianSquaredNorm", "KernelDistance",
                "NTKEigenvalue"),
    "losses": ("TestLoss", "TrainLoss"), "norms": ("L0", "Balancedness", "DistanceTravelled", "ParameterNorm"),
    "predictions": ("FittedFunction", "Predictions", "TestAccuracy", "TrainAccuracy"),
    "spectra": ("CountAbove", "EffectiveRank", "FeatureRank", "NuclearNorm", "SchattenQuasiNorm", "SpectrumEntropy"),
    "two_layer": ("CosineAlignment", "Kinks", "NeuronBalance"),
    "units": ("ActivationDensity", "ActiveUnits", "DistinctUnits", "PatternDistance"),
})


def __dir__() -> list[str]:
    return __all__
