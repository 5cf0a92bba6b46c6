"""Owns when a feature counts as constant over the samples, and which correlations make copies of two features."""

import math

EPS = 2.0**-52  # of float64, in which lengths and correlations are computed
OWN = 16  # eps of the features' own dtype
SHARE = 1 / 8  # eps of float64 a unit


def constant_within(eps, units=0):
    """Largest |phi - mean| / |phi|, norms over the samples, of a feature phi that is constant but for rounding.

    eps: of the dtype in which the features were computed
    units: h, if each row of h features was divided by its length; else 0
    A feature that is constant in exact arithmetic carries its own rounding, a few eps, and that of the length it was
    divided by. A sum of h squares, one after the other, errs by up to h/2 eps if all errors have one sign; its root by
    half of that; equal units, the worst seen, by some h/20. The mean is corrected once, so that its own rounding,
    n eps, comes in squared. A feature that really varies by more than the bound keeps its correlations.
    """
    return OWN * eps + SHARE * units * EPS


def least_correlation(tau):
    """What |rho| must exceed to make a copy: tau, and nothing does for tau = 1, though rounding takes |rho| above 1."""
    return tau if tau < 1 else math.inf
