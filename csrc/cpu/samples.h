// Owns what the time loop reads for one group of networks: draws and step sizes prepared ahead, and the sample in hand.
#pragma once
#include "../core/job.h"
#include "../core/sample.h"
#include "draws.h"

namespace fs {

constexpr int WINDOW = 64;  // steps prepared at once: draws of the window t / WINDOW, step sizes from any t on

template <class T>
struct Data {  // copied out of the job, so that stores to parameters cannot seem to change it
  const T *X, *y;
  i64 stride;
  const T* quads;

  explicit Data(const Job<T>& job) : X(job.X), y(job.y), stride(job.stride), quads(job.quads) {}
};

// So many of the steps from t on are done at once: to where draws of the next window are needed, which is `early` steps
// before its first, and at most `most`.
inline int steps_at_once(i64 t, i64 t1, i64 most, int early) {
  int part = int(WINDOW - (t + early) % WINDOW);
  if (part > t1 - t) part = int(t1 - t);
  return part > most ? int(most) : part;
}

// Moves those of `count` groups in which a network lives to the front, and returns how many they are; moved(to, from)
// takes along what lies beside them.
template <class Group, class Moved>
int living_first(Group* group, int count, Moved moved) {
  int left = 0;
  for (int a = 0; a < count; ++a)
    if (group[a].alive) {
      const Group q = group[a];
      moved(left, a);
      group[a] = group[left], group[left++] = q;
    }
  return left;
}

// Whether there is a way to turn rows of four numbers into columns of G lanes.
template <class T, int G>
constexpr bool turns_quads = sizeof(T) * G == 32;
// Rows `which` of quads [n, 4] as columns.
inline void turn_quads(const float* quads, const u32* which, Vec<float, 8> (&c)[4]) {
  typedef float F4 __attribute__((vector_size(16), may_alias, aligned(4)));
  typedef int I8 __attribute__((vector_size(32)));
  F8 r[4];  // rows k and k + 4
  FS_UNROLL
  for (int k = 0; k < 4; ++k) {
    const F4 low = *reinterpret_cast<const F4*>(quads + 4 * i64(which[k]));
    const F4 high = *reinterpret_cast<const F4*>(quads + 4 * i64(which[k + 4]));
    r[k] = __builtin_ia32_vinsertf128_ps256(__builtin_ia32_ps256_ps(low), high, 1);
  }
  const I8 low = {0, 8, 1, 9, 4, 12, 5, 13}, high = {2, 10, 3, 11, 6, 14, 7, 15};
  const I8 left = {0, 1, 8, 9, 4, 5, 12, 13}, right = {2, 3, 10, 11, 6, 7, 14, 15};
  const F8 a = __builtin_shuffle(r[0], r[1], low), b = __builtin_shuffle(r[2], r[3], low);
  const F8 d = __builtin_shuffle(r[0], r[1], high), e = __builtin_shuffle(r[2], r[3], high);
  c[0].a = __builtin_shuffle(a, b, left), c[1].a = __builtin_shuffle(a, b, right);
  c[2].a = __builtin_shuffle(d, e, left), c[3].a = __builtin_shuffle(d, e, right);
}
inline void turn_quads(const double* quads, const u32* which, Vec<double, 4> (&c)[4]) {
  FS_UNROLL
  for (int k = 0; k < 4; ++k) c[k] = Vec<double, 4>::loadu(quads + 4 * i64(which[k]));
  transpose<2>(c);
}

template <class T>
u32 id(const Job<T>& job, i64 k) {
  return u32(job.common >= 0 ? job.common : job.ids[k]);
}
template <class T>
u32 replayed(const Job<T>& job, i64 k, i64 t, i64 b) {
  return job.indices[((job.index_rows > 1 ? k : 0) * (job.t1 - job.t0) + t - job.t0) * job.batch + b];
}
// 2 c of a network's squared loss, and beyond which a residual makes it lost.
template <class T>
T dloss_of(const Job<T>& job, i64 k) {
  return job.losses ? job.losses[2 * k + 1] + job.losses[2 * k + 1] : job.dloss;
}
template <class T>
T bound_of(const Job<T>& job, i64 k) {
  return job.losses ? job.losses[2 * k] : job.bound;
}
// The row at which a network's own data set begins.
template <class T>
u32 begin(const Job<T>& job, i64 k) {
  return job.first ? u32(job.first[k]) : 0;
}
// Indices `to` [count, OWN] in the networks' own data sets become rows.
template <int OWN, class T>
void begun(const Job<T>& job, const i64* positions, i64 count, u32* to) {
  if (!job.first) return;
  for (int g = 0; g < OWN; ++g) {
    const u32 first = begin(job, positions[g]);
    for (i64 k = 0; k < count; ++k) to[k * OWN + g] += first;
  }
}

// Draws of the window of steps that t is in, for the networks at `positions` [OWN]: to [WINDOW, OWN].
template <int OWN, class T>
void draw_window(const Job<T>& job, const Keys& keys, const i64* positions, i64 t, u32* to) {
  const i64 first = t / WINDOW * WINDOW;
  if (job.indices) {
    for (i64 step = t; step < first + WINDOW && step < job.t1; ++step)
      for (int g = 0; g < OWN; ++g)
        to[(step - first) * OWN + g] = replayed(job, positions[g], step, 0) + begin(job, positions[g]);
    return;
  }
  u32 network[OWN];
  for (int g = 0; g < OWN; ++g) network[g] = id(job, positions[g]);
  const u32 block = u32(first / 4), n = u32(job.n);
  if constexpr (OWN == 1) draw_steps(keys, block, WINDOW / 4, *network, n, to);
  else
    for (int k = 0; k < WINDOW / 4; ++k) draw_networks<OWN>(keys, block + k, network, 0, n, to + 4 * k * OWN, OWN);
  begun<OWN>(job, positions, WINDOW, to);
}

// Draws of the block of four steps that t is in, for every item of a batch: to [4, batch, OWN].
template <int OWN, class T>
void draw_batch(const Job<T>& job, const Keys& keys, const i64* positions, i64 t, u32* to) {
  const i64 B = job.batch;
  if (job.indices) {
    for (i64 step = t; step < t / 4 * 4 + 4 && step < job.t1; ++step)
      for (i64 b = 0; b < B; ++b)
        for (int g = 0; g < OWN; ++g)
          to[(step % 4 * B + b) * OWN + g] = replayed(job, positions[g], step, b) + begin(job, positions[g]);
    return;
  }
  u32 network[OWN];
  for (int g = 0; g < OWN; ++g) network[g] = id(job, positions[g]);
  const u32 block = u32(t / 4), n = u32(job.n);
  if constexpr (OWN == 1) {
    i64 b = 0;
    for (; b + 8 <= B; b += 8) draw_items(keys, block, *network, u32(b), n, to + b, B);
    u32 drawn[4][8];
    if (b < B) draw_items(keys, block, *network, u32(b), n, drawn[0], 8);
    for (int q = 0; b < B && q < 4; ++q)
      for (int k = 0; k < int(B - b); ++k) to[q * B + b + k] = drawn[q][k];
  } else {
    for (i64 b = 0; b < B; ++b) draw_networks<OWN>(keys, block, network, u32(b), n, to + b * OWN, B * OWN);
  }
  begun<OWN>(job, positions, 4 * B, to);
}

// -eta of steps t .. t + count - 1 for the networks at `positions` [G]: to [count, G].
template <int G, class T>
void step_sizes(const Job<T>& job, const i64* positions, i64 t, int count, T* to) {
  const T* multiplier[G];
  alignas(64) T base[G];
  bool same = true;
  for (int g = 0; g < G; ++g) {
    base[g] = -job.base[positions[g]];
    multiplier[g] = job.multiplier + job.row[positions[g]] * (job.t1 - job.t0) + (t - job.t0);
    same &= multiplier[g] == multiplier[0];
  }
  if (same) {  // one schedule: whole vectors
    using B = Vec<T, G>;
    for (int s = 0; s < count; ++s) (B::load(base) * B::set(multiplier[0][s])).store(to + s * G);
  } else {
    for (int g = 0; g < G; ++g)
      for (int s = 0; s < count; ++s) to[s * G + g] = base[g] * multiplier[g][s];
  }
}

constexpr i64 NEAR = 1 << 18;  // bytes of data that stay in a near cache
// Ask for a row of so many numbers before it is needed.
template <class T>
void ask_for(const T* row, i64 count) {
  for (i64 byte = 0; byte < count * i64(sizeof(T)); byte += 64)
    __builtin_prefetch(reinterpret_cast<const char*>(row) + byte);
}

// Looked at as a whole number, for a call that used vectors would cost the loop it is called from the registers that it
// keeps them in.
template <class T>
bool finite(const T& x) {
  using Word = typename word_of<T>::type;
  constexpr Word exponent = sizeof(T) == 4 ? Word(0x7F800000u) : Word(0x7FF0000000000000u);
  Word bits;
  __builtin_memcpy(&bits, &x, sizeof bits);
  return (bits & exponent) != exponent;
}

// ONE_ROW: all networks of a vector see the same sample, so that a row of X is read where it lies.
template <class Tm, bool ONE_ROW>
struct Samples {
  using T = typename Tm::T;
  using V = typename Tm::V;
  static constexpr int G = Tm::networks, OWN = ONE_ROW ? 1 : G;  // networks, and samples a step

  T* rate;             // [WINDOW, G] -eta
  u32* index;          // [WINDOW, OWN] row of a step as `at` says
  const T* row;        // the sample in hand, if it is one row,
  V *columns, *spare;  // or one sample a network as columns [width], and room for the next
  int width;           // inputs that the model reads

  static i64 bytes(int width) {
    return (ONE_ROW ? 0 : 2 * width * sizeof(V)) + WINDOW * (G * sizeof(T) + OWN * sizeof(u32));
  }
  void lay_out(char* p, int width_) {
    width = width_;
    columns = reinterpret_cast<V*>(p), spare = columns + width;
    rate = reinterpret_cast<T*>(ONE_ROW ? columns : spare + width);
    index = reinterpret_cast<u32*>(rate + WINDOW * G);
    for (int k = 0; k < WINDOW * OWN; ++k) index[k] = 0;  // past the end of a replay any sample will do, if it exists
  }

  auto input() const {
    if constexpr (ONE_ROW) return Row<Tm>{row};
    else return Columns<Tm>{columns};
  }
  V rates(int s) const {
    if constexpr (G == 1) return V::set(rate[s]);
    else return V::load(rate + s * G);
  }

  // Take the samples at `which` [OWN] in hand, and return their labels. What `input` gave before stays readable.
  V fetch(const Data<T>& data, const u32* which) {
    if constexpr (ONE_ROW) {
      const i64 i = *which;
      row = data.X + i * data.stride;
      return V::set(data.y[i]);
    } else {
      if constexpr (turns_quads<T, G>)
        if (data.quads) return fetch_quads(data, which);
      fetch_columns(data, which);
      V label;
      FS_UNROLL
      for (int g = 0; g < G; ++g) reinterpret_cast<T*>(&label)[g] = data.y[which[g]];
      return label;
    }
  }
  V fetch_quads(const Data<T>& data, const u32* which) {
    V c[4], *const to = spare;
    turn_quads(data.quads, which, c);
    spare = columns, columns = to;
    to[0] = c[0];
    if (width == 1) return c[1];
    to[1] = c[1];
    if (width == 2) return c[2];
    to[2] = c[2];
    return c[3];
  }
  void fetch_columns(const Data<T>& data, const u32* which) {
    if constexpr (G == 1) {  // a lone network reads its row where it lies
      columns = const_cast<V*>(reinterpret_cast<const V*>(data.X + *which * data.stride));
      return;
    }
    V* to = spare;
    spare = columns, columns = to;
    for (int j = 0; j < width; j += G) {  // rows of X are padded to whole vectors
      V r[G];
      FS_UNROLL
      for (int g = 0; g < G; ++g) r[g] = V::loadu(data.X + which[g] * data.stride + j);
      transpose<G / 2>(r);
      FS_UNROLL
      for (int k = 0; k < G; ++k)
        if (j + k < width) to[j + k] = r[k];
    }
  }

  // Where the draws of a step lie in `index`.
  static int at(i64 t) { return int(u32(t) % WINDOW) * OWN; }
};

}  // namespace fs
