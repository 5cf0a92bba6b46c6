// Owns the list of forms: headers, and X(kind, struct made of its whole numbers n).
// Written by `make contract`; fastsgd/lowering/words.py says whose the words are.
#pragma once
#include "autoencoder.h"
#include "dense.h"
#include "population.h"
#include "power.h"
#include "product.h"

// clang-format off
#define FS_EACH_FORM(X) \
  X(PRODUCT, (Product<Tm>{n[0], n[1]})) \
  X(POWER, (Power<Tm>{n[0], n[1], n[2]})) \
  X(AUTOENCODER, (Autoencoder<Tm>{n[0], n[1], n[2]})) \
  X(POPULATION, (Population<Tm>{n[0], n[1], n[2], n[3], n[4], n[5], n[6]}))
// clang-format on

namespace fs {
constexpr int MOST_NUMBERS = 7;
}
