// Owns how the general loop calls what was traced and compiled elsewhere: a model, a loss, a penalty, a rule.
//
// On a CPU they are functions of a library of their own, one for plain numbers and one for vectors. On a card they are
// part of the program.
#pragma once
#include "vec.h"

namespace fs {

// The addresses of a function: of numbers, and of vectors.
struct Entry {
  const void* of[2];
  FS_HD explicit operator bool() const { return of[0]; }
  template <class F, class V>
  FS_HD F as() const {
    return reinterpret_cast<F>(const_cast<void*>(of[sizeof(V) > 8]));
  }
};

struct TracedShape {
  int P, inputs, outputs, residuals;
  Entry forward, vjp;
};

// to += the gradient of a penalty at w; residuals: numbers that it writes on the way.
struct TracedPenalty {
  int residuals;
  Entry vjp;
};

// Parameters begin .. end - 1 of the P move, and what they carry.
struct TracedRule {
  int state, numbers;  // arrays [P] that it carries; numbers that it takes: step size, step, its constants
  Entry move;
};

template <class V>
using TracedForward = void (*)(const V* w, const V* x, V* residuals, V* out);
template <class V>
using TracedVjp = void (*)(const V* w, const V* x, const V* g, V* residuals, V* to);
template <class V, class T>
using TracedDloss = u32 (*)(const V* f, const V* y, T bound, V* g);
template <class V>  // with numbers of each network, its bound first
using TracedOwnDloss = u32 (*)(const V* f, const V* y, const V* own, V* g);
template <class V>
using TracedPenaltyVjp = void (*)(const V* w, V* residuals, V* to);
template <class V>
using TracedMove = void (*)(int begin, int end, int P, const bool* fixed, V* w, const V* g, V* state, const V* numbers);

}  // namespace fs
