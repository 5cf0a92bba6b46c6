// Owns what programs for fibers have in common: compiled once, with the library beneath them, and only named in each.
// It halves the compile of a general program. A function that is not listed here is compiled where it is used.
#pragma once
#include "cuda.h"

#include "cuda/general.h"
#include "cuda/metrics/jacobi.h"

#ifndef FS_SHARED_HERE
#define FS_SHARED_HERE extern
#endif
#define FS_SHARED(...) FS_SHARED_HERE template decltype(__VA_ARGS__) __VA_ARGS__

#define FS_OF_A_MODEL(T, Tm, ...)                                                                                 \
  FS_SHARED_HERE template void __VA_ARGS__::forward(const Vec<T, 1>*, Columns<Tm>, Vec<T, 1>*, Vec<T, 1>*) const; \
  FS_SHARED_HERE template void __VA_ARGS__::vjp(const Vec<T, 1>*, Columns<Tm>, const Vec<T, 1>*, Vec<T, 1>*,      \
                                                Accumulate<Vec<T, 1>>) const

#define FS_OF_A_TEAM(T, Tm)                          \
  FS_SHARED(update<Tm, Vec<T, 1>>);                  \
  FS_SHARED(perturbed<Tm, Vec<T, 1>>);               \
  FS_SHARED(orthogonalise<Tm, Vec<T, 1>>);           \
  FS_SHARED(fresh_inputs<Tm, T, 1>);                 \
  FS_OF_A_MODEL(T, Tm, Product<Tm>);                 \
  FS_OF_A_MODEL(T, Tm, Dense<Tm, Activation::RELU>); \
  FS_OF_A_MODEL(T, Tm, Dense<Tm, Activation::TANH>); \
  FS_OF_A_MODEL(T, Tm, Dense<Tm, Activation::ERF>);  \
  FS_OF_A_MODEL(T, Tm, Dense<Tm, Activation::LEAKY>)

#define FS_OF_A_NUMBER(T)                                                                                           \
  FS_SHARED_HERE template struct Vec<T, 1>;                                                                         \
  FS_SHARED_HERE template struct Numbers<Vec<T, 1>>;                                                                \
  FS_SHARED_HERE template struct Accumulate<Vec<T, 1>>;                                                             \
  FS_SHARED_HERE template Draws::Draws(const Launch<T>&, i64);                                                      \
  FS_SHARED_HERE template u32 Loss<T>::dloss(const Vec<T, 1>*, const Vec<T, 1>*, int, Vec<T, 1>*) const;            \
  FS_SHARED_HERE template u32 Loss<T>::dloss(const Vec<T, 1>*, const Vec<T, 1>*, int, Vec<T, 1>*, const Vec<T, 1>*) \
      const;                                                                                                        \
  FS_SHARED(exp<T, 1>);                                                                                             \
  FS_SHARED(erf<T, 1>);                                                                                             \
  FS_SHARED(tanh<T, 1>);                                                                                            \
  FS_SHARED(softplus<T, 1>);                                                                                        \
  FS_SHARED(sigmoid<T, 1>);                                                                                         \
  FS_SHARED(activate<Vec<T, 1>>);                                                                                   \
  FS_SHARED(stable<T, 1>);                                                                                          \
  FS_SHARED(signs<T, 1>);                                                                                           \
  FS_SHARED(normals<T, 1>)

namespace fs {

FS_SHARED(philox<1>);
FS_SHARED(sincos_turns<1>);
FS_SHARED(draw_normals<1>);
FS_SHARED(draw_uniforms<1>);
FS_SHARED(log<double, 1>);
FS_OF_A_NUMBER(float);
FS_OF_A_NUMBER(double);
template <class T>
using Alone = Team<T, 1, 1>;
template <class T>
using Warp = Together<T, 32>;
template <class T>
using TwoWarps = Together<T, 64>;
FS_OF_A_TEAM(float, Alone<float>);
FS_OF_A_TEAM(float, Warp<float>);
FS_OF_A_TEAM(float, TwoWarps<float>);
FS_OF_A_TEAM(double, Alone<double>);
FS_OF_A_TEAM(double, Warp<double>);
FS_OF_A_TEAM(double, TwoWarps<double>);
FS_SHARED(jacobi_singular_values<Warps<1>>);
FS_SHARED(jacobi_singular_values<Warps<7>>);
FS_SHARED(jacobi_singular_values<Warps<8>>);

}  // namespace fs
