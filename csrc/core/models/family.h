// Owns the shape of a model of any form that the general loop knows.
#pragma once
#include "../traced.h"
#include "dense_shape.h"
#include "forms.h"

namespace fs {

struct FamilyShape {
  enum Kind { FS_FORM_WORDS } kind;
  DenseShape dense;     // of DENSE
  int n[MOST_NUMBERS];  // of the others, what their structs are made of
  TracedShape traced;   // of TRACED
};

}  // namespace fs
