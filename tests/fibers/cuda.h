// Owns CUDA's words for g++: a kernel's threads are fibers of one CPU thread, so the kernels' own source runs in tests.
// The machine beneath the words is fibers.cpp.
#pragma once
#include <cstddef>
#include <cstdint>

#define __device__
#define __host__
#define __global__
#define __forceinline__ inline
#define FS_HD inline
#define __launch_bounds__(...)

namespace fibers {

struct Index {
  unsigned x, y, z;
};
struct Place {
  Index thread, block, block_size, grid_size;
  unsigned lane;
  char* shared;
};
extern bool backwards;  // whether the last fiber of a block goes first
const Place& here();    // of the fiber that runs
void wait();            // let another fiber run
void barrier();         // until the whole block is here
// All lanes of the mask put in a word; the words of the warp are returned.
const uint64_t* exchange(unsigned mask, uint64_t word);
// Run a kernel over a grid; null, or what went wrong.
const char* run(unsigned grid, unsigned threads, size_t shared, void (*body)(const void*), const void* job);

template <class T>
inline T shuffle(unsigned mask, T value, unsigned from) {
  uint64_t word = 0;
  __builtin_memcpy(&word, &value, sizeof value);
  word = exchange(mask, word)[from % 32];
  __builtin_memcpy(&value, &word, sizeof value);
  return value;
}

}  // namespace fibers

#define threadIdx (fibers::here().thread)
#define blockIdx (fibers::here().block)
#define blockDim (fibers::here().block_size)
#define gridDim (fibers::here().grid_size)
#define FS_DYN_SHARED(T, name) T* name = reinterpret_cast<T*>(fibers::here().shared)
#define FS_ENTRY(threads, blocks, Job, call)                                                                  \
  static void fastsgd(const Job& job) { call; }                                                               \
  extern "C" size_t fastsgd_job() { return sizeof(Job); }                                                     \
  extern "C" void fastsgd_backwards(int yes) { fibers::backwards = yes; }                                     \
  extern "C" const char* fastsgd_launch(unsigned grid, unsigned size, size_t shared, const void* job) {       \
    return fibers::run(grid, size, shared, [](const void* p) { fastsgd(*static_cast<const Job*>(p)); }, job); \
  }

inline void __syncthreads() { fibers::barrier(); }
inline void __syncwarp(unsigned mask = ~0u) { fibers::exchange(mask, 0); }
template <class T>
inline T __shfl_xor_sync(unsigned mask, T value, int by) {
  return fibers::shuffle(mask, value, fibers::here().lane ^ unsigned(by));
}
template <class T>
inline T __shfl_sync(unsigned mask, T value, int from, int width = 32) {
  return fibers::shuffle(mask, value,
                         (fibers::here().lane & ~unsigned(width - 1)) | (unsigned(from) % unsigned(width)));
}
inline unsigned __ballot_sync(unsigned mask, int yes) {
  const uint64_t* word = fibers::exchange(mask, yes != 0);
  unsigned bits = 0;
  for (unsigned lane = 0; lane < 32; ++lane)
    if (mask >> lane & 1) bits |= unsigned(word[lane]) << lane;
  return bits;
}
inline int __any_sync(unsigned mask, int yes) { return __ballot_sync(mask, yes) != 0; }
