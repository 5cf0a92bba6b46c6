// Owns what a step draws besides its samples: noise, and inputs made on the way, one network a lane.
#pragma once
#include "../normal.h"

namespace fs {

struct Inputs {
  enum Kind { FS_INPUT_WORDS } kind;
  double density;  // of SPARSE
};

// The two standard normals of a block, rounded to T: draws 2 block and 2 block + 1 of (seed, id, stream, item).
template <class T, int W>
FS_HD_CALL void normals(u64 seed, const u32* id, u32 block, Stream stream, u32 item, Vec<T, W> (&z)[2]) {
  u32 c[4][W];
  alignas(64) double pair[2][W];
  for (int g = 0; g < W; ++g) c[0][g] = block, c[1][g] = id[g], c[2][g] = stream, c[3][g] = item;
  draw_normals<W>(seed, c, pair[0], W);
  for (int q = 0; q < 2; ++q) z[q] = rounded<T, W>(pair[q]);
}

// The four signs of a block, +1 or -1: draws 4 block .. 4 block + 3 of (seed, id, stream, item).
template <class T, int W>
FS_HD_CALL void signs(u64 seed, const u32* id, u32 block, Stream stream, u32 item, Vec<T, W> (&z)[4]) {
  u32 c[4][W];
  alignas(64) double sign[W];
  for (int g = 0; g < W; ++g) c[0][g] = block, c[1][g] = id[g], c[2][g] = stream, c[3][g] = item;
  philox<W>(c, seed);
  for (int q = 0; q < 4; ++q) {
    for (int g = 0; g < W; ++g) sign[g] = sign_of(c[q][g]);
    z[q] = rounded<T, W>(sign);
  }
}

// The symmetric stable number of a block, of characteristic function exp(-|t|^alpha): the formula of Chambers, Mallows
// and Stuck (J. Am. Stat. Assoc. 71, 1976), with angle phi = pi (u - 1/2) and w = -log v of the block's uniforms,
//   z = sin(alpha phi) / cos(phi)^(1 / alpha) * (cos((1 - alpha) phi) / w)^((1 - alpha) / alpha),
// formed as the exponential of its logarithm, so that nothing overflows on the way.
template <class T, int W>
FS_HD_CALL void stable(u64 seed, const u32* id, u32 block, Stream stream, u32 item, Vec<T, W> alpha, Vec<T, W>& z) {
  constexpr int D = W % DOUBLES == 0 ? DOUBLES : 1;
  using V = Vec<double, D>;
  u32 c[4][W];
  alignas(64) double pair[2][W], own[W];
  for (int g = 0; g < W; ++g) c[0][g] = block, c[1][g] = id[g], c[2][g] = stream, c[3][g] = item;
  for (int g = 0; g < W; ++g) own[g] = double(reinterpret_cast<const T*>(&alpha)[g]);
  draw_uniforms<W>(seed, c, pair[0], W);
  constexpr double MOST = 1 - 0x1p-53;  // where a uniform is 1, the logarithm of 0 would follow
  const V one = V::set(1), half = V::set(0.5);
  for (int k = 0; k < W; k += D) {
    const V a = V::load(own + k), from = at_most(V::load(pair[0] + k), MOST) - half;
    const V w = -log(at_most(V::load(pair[1] + k), MOST)), turn = half * abs(from), rest = one - a;
    V sin, cos, none, beside;
    sincos_turns(a * turn, sin, none);
    sincos_turns(turn, none, cos);
    sincos_turns(abs(rest) * turn, none, beside);
    const V size = exp(log(sin) - log(cos) / a + rest / a * (log(beside) - log(w))), out = signed_like(size, from);
    __builtin_memcpy(pair[0] + k, &out, sizeof out);
  }
  z = rounded<T, W>(pair[0]);
}

struct NoiseKind {
  enum Kind { FS_NOISE_WORDS };
};

// Draws that a block of four words gives.
FS_HD constexpr int draws_of_block(NoiseKind::Kind kind) {
  return kind == NoiseKind::RADEMACHER ? 4 : kind == NoiseKind::STABLE ? 1 : 2;
}

// They, for each lane; alpha: of stable ones.
template <class T, int W>
FS_HD void noise_block(NoiseKind::Kind kind, u64 seed, const u32* id, u32 block, Stream stream, u32 item,
                       Vec<T, W> alpha, Vec<T, W>* z) {
  if (kind == NoiseKind::GAUSSIAN) normals<T, W>(seed, id, block, stream, item, *reinterpret_cast<Vec<T, W>(*)[2]>(z));
  else if (kind == NoiseKind::STABLE) stable<T, W>(seed, id, block, stream, item, alpha, *z);
  else signs<T, W>(seed, id, block, stream, item, *reinterpret_cast<Vec<T, W>(*)[4]>(z));
}

// Inputs x [d] of item b of step t, times `scale` if there is one; density [W] of SPARSE. Gaussian: coordinates 2k and
// 2k + 1 are the pair of block t, item b ceil(d/2) + k. Sparse: coordinate j is v where u < density, else 0, with u and
// v those of block t, item b d + j.
template <class Tm, class T, int W>
FS_HD void fresh_inputs(Inputs::Kind kind, const double* density, const Vec<T, W>* scale, u64 seed, const u32* id,
                        i64 t, u32 b, int d, Vec<T, W>* x) {
  const bool gaussian = kind == Inputs::GAUSSIAN;
  const int each = gaussian ? 2 : 1;
  Tm::sync();
  for (int j = each * Tm::first(); j < d; j += each * Tm::step()) {
    if (gaussian) {
      Vec<T, W> z[2];
      normals<T, W>(seed, id, u32(t), INPUTS, b * u32((d + 1) / 2) + u32(j / 2), z);
      x[j] = scale ? *scale * z[0] : z[0];
      if (j + 1 < d) x[j + 1] = scale ? *scale * z[1] : z[1];
      continue;
    }
    u32 c[4][W];
    alignas(64) double pair[2][W];
    for (int g = 0; g < W; ++g) c[0][g] = u32(t), c[1][g] = id[g], c[2][g] = INPUTS, c[3][g] = b * u32(d) + u32(j);
    draw_uniforms<W>(seed, c, pair[0], W);
    for (int g = 0; g < W; ++g) pair[0][g] = pair[0][g] < density[g] ? pair[1][g] : 0;
    x[j] = rounded<T, W>(pair[0]);
    if (scale) x[j] = *scale * x[j];
  }
  Tm::sync();
}

}  // namespace fs
