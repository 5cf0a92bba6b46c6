"""The shelf of metrics for any torch.nn.Module, one a file. Importing it imports torch."""

from .feature_sparsity import FeatureSparsity, LayerSparsity
from .jacobian_rank import JacobianRank, JacobianSpectrum
from .recorder import Recorder

__all__ = ["FeatureSparsity", "JacobianRank", "JacobianSpectrum", "LayerSparsity", "Recorder"]
