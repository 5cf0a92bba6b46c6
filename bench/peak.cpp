// Owns the ceilings of the machine: most fused multiply-adds a second in registers, and copy bandwidth.
// Parallel over threads; each keeps independent chains a <- a * b + c in vector registers, more of them than
// latency (4 to 5 cycles) times pipes (2), so that no chain waits for itself.
// Vectors are the compiler's own: to read immintrin.h takes it longer than all the rest.
#include <cstdlib>
#include <cstring>

typedef float Eight __attribute__((vector_size(32)));
typedef float Sixteen __attribute__((vector_size(64)));

__attribute__((target("avx2,fma"), noinline)) static float chains_256(long loops) {
  constexpr int C = 12;
  Eight a[C], b = Eight{} + 0.999f, c = Eight{} + 0.001f;
  for (int k = 0; k < C; ++k) a[k] = Eight{} + (0.5f + 0.01f * k);
  for (long t = 0; t < loops; ++t)
#pragma GCC unroll 12
    for (int k = 0; k < C; ++k) a[k] = a[k] * b + c;
  for (int k = 1; k < C; ++k) a[0] += a[k];
  return a[0][0];
}

__attribute__((target("avx512f"), noinline)) static float chains_512(long loops) {
  constexpr int C = 24;
  Sixteen a[C], b = Sixteen{} + 0.999f, c = Sixteen{} + 0.001f;
  for (int k = 0; k < C; ++k) a[k] = Sixteen{} + (0.5f + 0.01f * k);
  for (long t = 0; t < loops; ++t)
#pragma GCC unroll 24
    for (int k = 0; k < C; ++k) a[k] = a[k] * b + c;
  for (int k = 1; k < C; ++k) a[0] += a[k];
  return a[0][0];
}

static volatile float kept;

extern "C" int has_width(int bits) {
  return bits == 512 ? __builtin_cpu_supports("avx512f") != 0
                     : __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

// Flops done by `threads` threads that go `loops` times around their chains.
extern "C" double fma_flops(int bits, long loops, int threads) {
#pragma omp parallel for num_threads(threads) schedule(static, 1)
  for (int thread = 0; thread < threads; ++thread) kept = bits == 512 ? chains_512(loops) : chains_256(loops);
  return 2.0 * (bits == 512 ? 24 * 16 : 12 * 8) * double(loops) * threads;
}

// Bytes read plus bytes written by `threads` threads that each copy 64 MiB `loops` times.
extern "C" double copy_bytes(long loops, int threads) {
  constexpr size_t size = 64u << 20;
  static char* memory = nullptr;
  static int held = 0;
  if (held < threads) {
    std::free(memory);
    memory = static_cast<char*>(std::malloc(2 * threads * size));
    std::memset(memory, 1, 2 * threads * size);
    held = threads;
  }
#pragma omp parallel for num_threads(threads) schedule(static, 1)
  for (int thread = 0; thread < threads; ++thread)
    for (long t = 0; t < loops; ++t) {
      char *to = memory + 2 * thread * size, *from = to + size;
      std::memcpy(to, from, size);
      kept = to[size_t(t * 4099) % size];
    }
  return 2.0 * double(size) * double(loops) * threads;
}
