"""Owns the words that cross languages, as places in tuples.

Written by `make contract`; fastsgd/lowering/words.py says whose the words are.
"""

import triton.language as tl

# HYPERS and the rule's flags after them
WEIGHT_DECAY = tl.constexpr(0)
BALANCE_PENALTY = tl.constexpr(1)
AVERAGE = tl.constexpr(2)
CLIP_VALUE = tl.constexpr(3)
CLIP_NORM = tl.constexpr(4)
LOCALISATION = tl.constexpr(5)
LABEL_ALPHA = tl.constexpr(6)
GRADIENT_ALPHA = tl.constexpr(7)
MOMENTUM = tl.constexpr(8)
DAMPENING = tl.constexpr(9)
BETA1 = tl.constexpr(10)
BETA2 = tl.constexpr(11)
EPSILON = tl.constexpr(12)
RHO = tl.constexpr(13)
NORMALISED = tl.constexpr(14)
DECOUPLED = tl.constexpr(15)
GROUPED = tl.constexpr(16)
NESTEROV = tl.constexpr(17)
ADAM = tl.constexpr(18)
UNIT = tl.constexpr(19)
SIGN = tl.constexpr(20)
LION = tl.constexpr(21)
RMSPROP = tl.constexpr(22)
ADAGRAD = tl.constexpr(23)
MUON = tl.constexpr(24)
FUNCTION = tl.constexpr(25)

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
