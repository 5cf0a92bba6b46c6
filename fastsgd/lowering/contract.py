"""Owns the words that cross languages, in the order of their numbers.

Written by `make contract`; fastsgd/lowering/words.py says whose the words are.
"""

ALIVE, UNSETTLED = -1, -2  # of `lost`, where it is no step
HYPERS = ("weight_decay", "balance_penalty", "average", "clip_value", "clip_norm", "localisation", "label_alpha",
          "gradient_alpha", "momentum", "dampening", "beta1", "beta2", "epsilon", "rho")
BUFFERS = ("point", "average", "momentum", "first_moment", "second_moment")
FLAGS = ("normalised", "decoupled", "grouped", "nesterov", "adam", "unit", "sign", "lion", "rmsprop", "adagrad",
         "muon", "function")
PERTURBS = ("none", "batch", "sample")
NOISES = ("gaussian", "rademacher", "stable")
