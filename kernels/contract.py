"""Owns the words that cross languages, as places in tuples.

Written by `make contract`; fastsgd/lowering/contract.py says whose the words are.
"""

import triton.language as tl

# HYPERS and the rule's flags after them
WEIGHT_DECAY = tl.constexpr(0)
BALANCE_PENALTY = tl.constexpr(1)
AVERAGE = tl.constexpr(2)
MOMENTUM = tl.constexpr(3)
BETA1 = tl.constexpr(4)
BETA2 = tl.constexpr(5)
EPSILON = tl.constexpr(6)
RHO = tl.constexpr(7)
NORMALISED = tl.constexpr(8)
NESTEROV = tl.constexpr(9)
DECOUPLED = tl.constexpr(10)
ADAM = tl.constexpr(11)
UNIT = tl.constexpr(12)
SIGN = tl.constexpr(13)
LION = tl.constexpr(14)
RMSPROP = tl.constexpr(15)
ADAGRAD = tl.constexpr(16)

# activations
IDENTITY = tl.constexpr(0)
RELU = tl.constexpr(1)
LEAKY = tl.constexpr(2)
ABS = tl.constexpr(3)
SQUARE = tl.constexpr(4)
TANH = tl.constexpr(5)
ERF = tl.constexpr(6)
SIGMOID = tl.constexpr(7)
SOFTPLUS = tl.constexpr(8)

# streams of draws, and of `lost` what is no step
ORDER = tl.constexpr(0)
LABEL_NOISE = tl.constexpr(1)
INIT = tl.constexpr(2)
INPUTS = tl.constexpr(3)
PERMUTATION = tl.constexpr(4)
GRADIENT_NOISE = tl.constexpr(5)
UNSETTLED = tl.constexpr(-2)
