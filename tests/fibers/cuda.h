// Owns CUDA's words for g++: a kernel's threads are fibers of one CPU thread, so the kernels' own source runs in tests.
//
// Blocks run one after another. A fiber runs until it has to wait: at __syncthreads for its block, at a shuffle or vote
// for the lanes that its mask names. So divergence and collectives behave as on a card, and what would be a hang or
// undefined there (a mask that names a lane that has left, a lane outside its own mask, a barrier that not everybody
// reaches) is an error with a sentence. Shared memory is a heap block of the size asked for, filled with 0xCD: the
// address sanitizer guards its ends. Fibers take turns, so memory is always in order; but each runs as far ahead as it
// can, first to last or last to first, so what lacks a barrier reads or overwrites what others have not got to.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <vector>
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

#define __device__
#define __host__
#define __global__
#define __forceinline__ inline
#define FS_HD inline
#define __launch_bounds__(...)

namespace fibers {

constexpr size_t STACK = 256 << 10;

extern "C" void fastsgd_switch(void** save, void* to);
asm(R"(
.text
.type fastsgd_switch,@function
fastsgd_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp,(%rdi)
  movq %rsi,%rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
)");

struct Index {
  unsigned x, y, z;
};
struct Rendezvous {
  unsigned generation = 0, arrived = 0;
};
struct Fiber {
  void* stack_pointer = nullptr;
  std::unique_ptr<char[]> stack;
  Index index{};
  unsigned lane = 0, warp = 0;
  bool done = false;
};
struct Meeting {  // of the lanes that a mask names; those of other masks meet by themselves
  Rendezvous where;
  uint64_t slot[2][32] = {};  // two sets in turn: one is read while the next exchange writes the other
};
using Warp = std::map<unsigned, Meeting>;
struct Block {
  std::vector<Fiber> fiber;
  std::vector<Warp> warp;
  Rendezvous barrier;
  unsigned current = 0, left = 0, idle = 0;
  Index index{}, size{}, grid{};
  std::unique_ptr<char[]> shared;
  void (*body)(const void*) = nullptr;
  const void* job = nullptr;
  void* launcher = nullptr;
  std::string error;
};
inline thread_local Block* block = nullptr;
inline bool backwards = false;  // whether the last fiber goes first

inline Fiber& self() { return block->fiber[block->current]; }

// Leave all fibers as they are and go back to the launcher with a sentence.
[[noreturn]] inline void fail(const char* why) {
  block->error = why;
  void* nobody;
  fastsgd_switch(&nobody, block->launcher);
  std::abort();
}

// Let another fiber run.
inline void wait() {
  Block& b = *block;
  const unsigned count = unsigned(b.fiber.size());
  if (++b.idle > 8 * count + 64) fail("deadlock: a barrier, shuffle or vote waits for a thread that never comes");
  for (unsigned k = 1; k <= count; ++k) {
    const unsigned next = (b.current + (backwards ? count - k : k)) % count, last = b.current;
    if (b.fiber[next].done) continue;
    if (next != last) {
      b.current = next;
      fastsgd_switch(&b.fiber[last].stack_pointer, b.fiber[next].stack_pointer);
    }
    return;
  }
}
inline void meet(Rendezvous& where, unsigned wanted) {
  const unsigned generation = where.generation;
  block->idle = 0;
  if (++where.arrived == wanted) {
    where.arrived = 0, ++where.generation;
    return;
  }
  while (where.generation == generation) wait();
  block->idle = 0;
}

inline void begin() {
  Block& b = *block;
  b.body(b.job);
  self().done = true;
  b.idle = 0;
  if (--b.left == 0) {
    void* nobody;
    fastsgd_switch(&nobody, b.launcher);
  }
  if (b.barrier.arrived && b.barrier.arrived == b.left) b.barrier.arrived = 0, ++b.barrier.generation;
  wait();
  std::abort();
}

// All lanes of the mask put in a word; the words of the warp are returned.
inline const uint64_t* exchange(unsigned mask, uint64_t word) {
  Block& b = *block;
  Fiber& me = self();
  if (!(mask >> me.lane & 1)) fail("shuffle or vote: the calling lane is not in its mask");
  const unsigned first = me.warp * 32;
  for (unsigned lane = 0; lane < 32; ++lane)
    if (mask >> lane & 1 && (first + lane >= b.fiber.size() || b.fiber[first + lane].done))
      fail("shuffle or vote: the mask names a lane that has left");
  Meeting& meeting = b.warp[me.warp][mask];
  uint64_t* slot = meeting.slot[meeting.where.generation % 2];
  slot[me.lane] = word;
  meet(meeting.where, unsigned(__builtin_popcount(mask)));
  return slot;
}
template <class T>
inline T shuffle(unsigned mask, T value, unsigned from) {
  uint64_t word = 0;
  std::memcpy(&word, &value, sizeof value);
  word = exchange(mask, word)[from % 32];
  std::memcpy(&value, &word, sizeof value);
  return value;
}

// Run a kernel over a grid; null, or what went wrong.
inline const char* run(unsigned grid, unsigned threads, size_t shared, void (*body)(const void*), const void* job) {
  static thread_local std::string said;
  Block b;
  block = &b;
  b.size = {threads, 1, 1}, b.grid = {grid, 1, 1}, b.body = body, b.job = job;
  b.fiber.resize(threads);
  for (auto& f : b.fiber) f.stack.reset(new char[STACK]);
  for (unsigned at = 0; at < grid && b.error.empty(); ++at) {
    b.index = {at, 0, 0};
    b.warp.assign((threads + 31) / 32, Warp());
    b.barrier = Rendezvous();
    b.shared.reset(new char[shared]);
    std::memset(b.shared.get(), 0xCD, shared);
    b.left = threads, b.idle = 0, b.current = backwards ? threads - 1 : 0;
    for (unsigned k = 0; k < threads; ++k) {
      Fiber& f = b.fiber[k];
      f.index = {k, 0, 0}, f.lane = k % 32, f.warp = k / 32, f.done = false;
#if defined(__SANITIZE_ADDRESS__)
      __asan_unpoison_memory_region(f.stack.get(), STACK);  // the frames of the last block were never unwound
#endif
      void** top = reinterpret_cast<void**>((reinterpret_cast<uintptr_t>(f.stack.get()) + STACK) & ~uintptr_t(15));
      *--top = nullptr;  // where a return address would be: the alignment that a function expects
      *--top = reinterpret_cast<void*>(&begin);
      for (int r = 0; r < 6; ++r) *--top = nullptr;
      f.stack_pointer = top;
    }
    fastsgd_switch(&b.launcher, b.fiber[b.current].stack_pointer);
  }
  block = nullptr;
  said = b.error;
  return said.empty() ? nullptr : said.c_str();
}

}  // namespace fibers

#define threadIdx (fibers::self().index)
#define blockIdx (fibers::block->index)
#define blockDim (fibers::block->size)
#define gridDim (fibers::block->grid)
#define FS_DYN_SHARED(T, name) T* name = reinterpret_cast<T*>(fibers::block->shared.get())
#define FS_ENTRY(threads, blocks, Job, call)                                                                  \
  static void fastsgd(const Job& job) { call; }                                                               \
  extern "C" size_t fastsgd_job() { return sizeof(Job); }                                                     \
  extern "C" void fastsgd_backwards(int yes) { fibers::backwards = yes; }                                     \
  extern "C" const char* fastsgd_launch(unsigned grid, unsigned size, size_t shared, const void* job) {       \
    return fibers::run(grid, size, shared, [](const void* p) { fastsgd(*static_cast<const Job*>(p)); }, job); \
  }

inline void __syncthreads() { fibers::meet(fibers::block->barrier, fibers::block->left); }
inline void __syncwarp(unsigned mask = ~0u) { fibers::exchange(mask, 0); }
template <class T>
inline T __shfl_xor_sync(unsigned mask, T value, int by) {
  return fibers::shuffle(mask, value, fibers::self().lane ^ unsigned(by));
}
template <class T>
inline T __shfl_sync(unsigned mask, T value, int from, int width = 32) {
  return fibers::shuffle(mask, value,
                         (fibers::self().lane & ~unsigned(width - 1)) | (unsigned(from) % unsigned(width)));
}
inline unsigned __ballot_sync(unsigned mask, int yes) {
  const uint64_t* word = fibers::exchange(mask, yes != 0);
  unsigned bits = 0;
  for (unsigned lane = 0; lane < 32; ++lane)
    if (mask >> lane & 1) bits |= unsigned(word[lane]) << lane;
  return bits;
}
inline int __any_sync(unsigned mask, int yes) { return __ballot_sync(mask, yes) != 0; }
