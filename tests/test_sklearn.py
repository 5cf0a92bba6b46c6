"""Estimators for scikit-learn, where it is there."""

import numpy as np
import pytest

pytest.importorskip("sklearn", minversion="1.6")

from sklearn.base import clone
from sklearn.datasets import make_moons
from sklearn.utils.estimator_checks import parametrize_with_checks

from fastsgd.sklearn import SGDEnsembleClassifier, SGDEnsembleRegressor

SMALL = {"n_networks": 8, "widths": (16,), "steps": 1500}


@parametrize_with_checks([SGDEnsembleRegressor(**SMALL), SGDEnsembleClassifier(**SMALL)])
def test_the_checks_of_scikit_learn(estimator, check):
    check(estimator)


def test_a_network_that_is_lost_has_no_say():
    X = np.linspace(-1, 1, 30)[:, None]
    y = np.sin(3 * X[:, 0])
    steps = np.array([0.05] * 7 + [1e8])
    fitted = SGDEnsembleRegressor(**SMALL, step_size=steps, random_state=0).fit(X, y)
    assert (fitted.lost_ >= 0).sum() == 1 and fitted.score(X, y) > 0.9
    mean, deviation = fitted.predict(X, return_std=True)
    assert mean.shape == deviation.shape == (30,) and (deviation >= 0).all()
    with pytest.raises(ValueError, match="all 8 networks were lost"):
        clone(fitted).set_params(step_size=1e8).fit(X, y)
    with pytest.raises(ValueError, match="step_size"):
        clone(fitted).set_params(step_size=-1.0).fit(X, y)


def test_classes_that_no_line_parts():
    X, y = make_moons(200, noise=0.1, random_state=0)
    fitted = SGDEnsembleClassifier(**SMALL, random_state=0).fit(X, y)
    assert fitted.score(X, y) > 0.95
    np.testing.assert_allclose(fitted.predict_proba(X).sum(axis=1), 1)


@pytest.mark.parametrize(("given", "message"), (
    ({"n_networks": 0}, "^n_networks: 0 given"), ({"widths": (0,)}, "^widths: 0 given"),
    ({"activation": "gelu6"}, "^activation: 'gelu6' given"), ({"batch_size": 0}, "^batch_size: 0 given"),
    ({"momentum": 1.5}, r"^momentum: 1.5 is outside \[0, 1\)"), ({"threads": 0}, "^threads: 0 given"),
    ({"step_size": -1}, "^step_size: -1.0 is outside"), ({"steps": "x"}, "^steps: 'x' given")))
def test_messages_have_the_names_of_the_estimator(given, message):
    with pytest.raises(ValueError, match=message):
        SGDEnsembleRegressor(**SMALL | given).fit(np.eye(3), np.arange(3.0))
