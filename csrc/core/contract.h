// Owns the words that cross languages: members of enums, and what Python calls them.
// Written by `make contract`; fastsgd/lowering/words.py says whose the words are.
#pragma once

// clang-format off
#define FS_FORM_WORDS DENSE, PRODUCT, POWER, AUTOENCODER, POPULATION, TRACED
#define FS_FORM_NAMES "dense", "product", "power", "autoencoder", "population", "traced"
#define FS_LOSS_WORDS SQUARED, LOGISTIC, HINGE, CROSS_ENTROPY, OUTPUT, TRACED
#define FS_LOSS_NAMES "squared", "logistic", "hinge", "cross_entropy", "output", "traced"
#define FS_ACTIVATION_WORDS IDENTITY, RELU, LEAKY, ABS, SQUARE, TANH, ERF, SIGMOID, SOFTPLUS
#define FS_ACTIVATION_NAMES "identity", "relu", "leaky", "abs", "square", "tanh", "erf", "sigmoid", "softplus"
#define FS_NOISE_WORDS GAUSSIAN, RADEMACHER, STABLE
#define FS_NOISE_NAMES "gaussian", "rademacher", "stable"
#define FS_INPUT_WORDS GAUSSIAN, SPARSE
#define FS_INPUT_NAMES "gaussian", "sparse"
#define FS_PERTURB_WORDS NONE, BATCH, SAMPLE
#define FS_PERTURB_NAMES "none", "batch", "sample"
#define FS_HYPER_WORDS WEIGHT_DECAY, BALANCE_PENALTY, AVERAGE, CLIP_VALUE, CLIP_NORM, LOCALISATION, LABEL_ALPHA, \
  GRADIENT_ALPHA, MOMENTUM, DAMPENING, BETA1, BETA2, EPSILON, RHO
#define FS_HYPER_NAMES "weight_decay", "balance_penalty", "average", "clip_value", "clip_norm", "localisation", \
  "label_alpha", "gradient_alpha", "momentum", "dampening", "beta1", "beta2", "epsilon", "rho"
#define FS_FLAG_WORDS NORMALISED, DECOUPLED, GROUPED, NESTEROV, ADAM, UNIT, SIGN, LION, RMSPROP, ADAGRAD, MUON, \
  FUNCTION
#define FS_FLAG_NAMES "normalised", "decoupled", "grouped", "nesterov", "adam", "unit", "sign", "lion", "rmsprop", \
  "adagrad", "muon", "function"
#define FS_STREAMS ORDER = 0, LABEL_NOISE = 1, INIT = 2, INPUTS = 3, PERMUTATION = 4, GRADIENT_NOISE = 5
#define FS_UNSETTLED -2
// clang-format on
