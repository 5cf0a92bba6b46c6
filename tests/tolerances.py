"""Owns every tolerance of the suite: relative error of weights against the float64 truth, per dtype, and where from."""

# Weights after some tens of steps in a stable regime: rounding of one step is 2**-24 or 2**-53, growth is under 100.
WEIGHTS = {"float32": 2e-5, "float64": 1e-13}
# Metrics are float64 throughout, whatever the run's dtype.
METRIC = 1e-11
# The paper's printed digits: "to at least five digits".
PAPER = 5e-6
# The same where the authors computed in float32, whose own rounding moves the fifth to sixth digit.
PAPER_FLOAT32 = 5e-5
# Laws that hold exactly in real arithmetic, followed over 1e3 to 1e4 steps in float64.
LAW = 1e-9
# Elementary functions against 42 digits, in units in the last place: a little above the largest error seen, which
# csrc/core/math.h states.
ULPS = {("exp", "float32"): 1.1, ("log", "float32"): 1.0, ("tanh", "float32"): 2.6, ("erf", "float32"): 1.1,
        ("sigmoid", "float32"): 2.5, ("softplus", "float32"): 2.8, ("exp", "float64"): 1.1, ("log", "float64"): 2.1,
        ("tanh", "float64"): 2.6, ("erf", "float64"): 1.2, ("sigmoid", "float64"): 2.3, ("softplus", "float64"): 2.7}
# A gradient or Jacobian read from one step, relative to its largest entry: rounding of sums of some tens of terms.
GRADIENT = 1e-12
# A Hessian from fourth-order differences of such gradients at a distance of 1e-5: 1e-15 / 1e-5, and room for sums.
HESSIAN = 1e-9
# The same equation written twice and followed for some tens of steps in float64.
EQUATION = 1e-10
# Losses and activations at one point in float64.
VALUE = 1e-13
# Instructions of a loop above what this version takes: counts repeat to a thousandth, the rest is for other builds.
INSTRUCTIONS = 0.03
