"""Owns estimators for scikit-learn: ensembles of small networks, a tool written on top of `fs.functional`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from . import functional
from .errors import FastsgdError
from .losses import CrossEntropy, Squared
from .models import MLP
from .rules import SGD

if TYPE_CHECKING:
    from typing_extensions import Self  # of typing from Python 3.11 on

__all__ = ["SGDEnsembleClassifier", "SGDEnsembleRegressor"]


class _Ensemble(BaseEstimator):
    """What both estimators share: many networks, each trained by its own order of samples, averaged.

    n_networks: N >= 1; widths: of hidden layers; activation: of fs.models.MLP
    step_size: a number or [N]; steps: of each network; batch_size: samples a step
    momentum, weight_decay: as in fs.rules.SGD
    random_state: None, int or RandomState, of starts and sample orders
    threads: 1 .. 4096, by default all
    Inputs are scaled to mean 0 and deviation 1. A network that is lost has no say; if all are, `fit` raises ValueError.
    After `fit`: model_, params_ [N, P], lost_ [N] (the step at which a network was lost, -1 if none), n_features_in_
    """

    def __init__(self, n_networks: int = 32, widths: int | tuple[int, ...] = (32,), activation: str = "tanh",
                 step_size: Any = 0.05, steps: int = 4000, batch_size: int = 4, momentum: float = 0.0,
                 weight_decay: float = 0.0, random_state: Any = None, threads: int | None = None) -> None:
        self.n_networks = n_networks
        self.widths = widths
        self.activation = activation
        self.step_size = step_size
        self.steps = steps
        self.batch_size = batch_size
        self.momentum = momentum
        self.weight_decay = weight_decay
        self.random_state = random_state
        self.threads = threads

    def _train(self, X: Any, y: Any, outputs: int, loss: Any) -> Self:
        self._mean = X.mean(axis=0)
        spread = X.std(axis=0)
        self._spread = np.where(spread > 0, spread, 1.0)
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        try:
            self.model_ = MLP(X.shape[1], self.widths, outputs, self.activation)
            rule = SGD(batch_size=self.batch_size, momentum=self.momentum, weight_decay=self.weight_decay)
            self.params_ = functional.start(self.model_, self.n_networks, seed=seed, dtype="float64")
            self.lost_ = functional.advance_(
                self.model_, self.params_, self._scaled(X), y, step_size=self.step_size, steps=self.steps, rule=rule,
                loss=loss, seed=seed, buffers=functional.fresh_buffers(rule, self.params_), threads=self.threads)
        except FastsgdError as error:
            raise ValueError(_ours(str(error))) from error
        if (self.lost_ >= 0).all():
            raise ValueError(f"all {len(self.lost_)} networks were lost; give a smaller step_size")
        return self

    def _scaled(self, X: np.ndarray) -> np.ndarray:
        return (X - self._mean) / self._spread

    def _outputs(self, X: Any) -> np.ndarray:
        """Outputs [N', n] or [N', n, o] of the networks that were not lost."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float64, reset=False)
        return self.model_.predict(self.params_[self.lost_ < 0], self._scaled(X))


def _ours(message: str) -> str:
    """A message with the name that its field has here: "model.widths: ..." becomes "widths: ..."."""
    field, colon, rest = message.partition(":")
    return f"{ {'networks': 'n_networks'}.get(field, field.rpartition('.')[2])}{colon}{rest}"


FIELDS = (_Ensemble.__doc__ or "").partition("\n")[2].strip()


class SGDEnsembleRegressor(RegressorMixin, _Ensemble):
    __doc__ = f"""Mean of an ensemble of small networks, each trained by its own SGD on the squared loss.

    {FIELDS}
    """

    def fit(self, X: Any, y: Any) -> Self:
        """Train on X [n, d], y [n]."""
        X, y = validate_data(self, X, y, dtype=np.float64, y_numeric=True)
        y = y.astype(np.float64)
        self._y_mean, self._y_spread = y.mean(), y.std() or 1.0
        return self._train(X, (y - self._y_mean) / self._y_spread, 1, Squared())

    def predict(self, X: Any, return_std: bool = False) -> Any:
        """Mean [n] over networks, and with `return_std` their standard deviation [n]."""
        each = self._outputs(X) * self._y_spread + self._y_mean
        return (each.mean(axis=0), each.std(axis=0)) if return_std else each.mean(axis=0)


class SGDEnsembleClassifier(ClassifierMixin, _Ensemble):
    __doc__ = f"""Mean probabilities of an ensemble of small networks, each trained by its own SGD on the cross-entropy.

    {FIELDS}, classes_
    """

    def fit(self, X: Any, y: Any) -> Self:
        """Train on X [n, d], y [n], labels of two classes or more."""
        X, y = validate_data(self, X, y, dtype=np.float64)
        check_classification_targets(y)
        self.classes_, index = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"y: holds one class, {self.classes_[0]}; a classifier needs two classes or more")
        return self._train(X, index, len(self.classes_), CrossEntropy())

    def predict_proba(self, X: Any) -> np.ndarray:
        """Probabilities [n, classes], the mean over networks."""
        f = self._outputs(X)
        e = np.exp(f - f.max(axis=2, keepdims=True))
        return (e / e.sum(axis=2, keepdims=True)).mean(axis=0)

    def predict(self, X: Any) -> np.ndarray:
        """The likeliest class [n]."""
        likeliest = self.predict_proba(X).argmax(axis=1)
        return self.classes_[likeliest]
