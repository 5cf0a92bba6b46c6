"""The shelf of metrics, one subject a file."""

from .base import Metric
from .feature_sparsity import FeatureSparsity
from .jacobian_rank import JacobianRank
from .losses import TestLoss, TrainLoss
from .norms import L0, Balancedness, ParameterNorm

__all__ = ["L0", "Balancedness", "FeatureSparsity", "JacobianRank", "Metric", "ParameterNorm", "TestLoss", "TrainLoss"]
