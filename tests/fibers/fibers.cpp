// Owns the machine beneath cuda.h: a block's threads as fibers of one CPU thread, who waits for whom, what may not be.
//
// Blocks run one after another. A fiber runs until it has to wait: at __syncthreads for its block, at a shuffle or vote
// for the lanes that its mask names. So divergence and collectives behave as on a card, and what would be a hang or
// undefined there (a mask that names a lane that has left, a lane outside its own mask, a barrier that not everybody
// reaches) is an error with a sentence. Shared memory is a heap block of the size asked for, filled with 0xCD: the
// address sanitizer guards its ends. Fibers take turns, so memory is always in order; but each runs as far ahead as it
// can, first to last or last to first, so what lacks a barrier reads or overwrites what others have not got to.
#include "cuda.h"

#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <vector>
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

namespace fibers {
namespace {

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

struct Rendezvous {
  unsigned generation = 0, arrived = 0;
};
struct Meeting {  // of the lanes that a mask names; those of other masks meet by themselves
  Rendezvous where;
  uint64_t slot[2][32] = {};  // two sets in turn: one is read while the next exchange writes the other
};
struct Warp {
  std::map<unsigned, Meeting> meeting;  // by mask
  unsigned lanes = 0;                   // those that have not left
};
struct Fiber {
  void* stack_pointer = nullptr;
  Place place{};
  Warp* warp = nullptr;
  Meeting* meeting = nullptr;  // its last, of the mask `mask`
  unsigned mask = 0;
  const Rendezvous* awaited = nullptr;  // while its generation is `generation`, there is nothing to do
  unsigned generation = 0;
  bool done = false;

  bool waits() const { return done || (awaited && awaited->generation == generation); }
};
struct Block {
  std::vector<Fiber> fiber;
  std::vector<Warp> warp;
  Rendezvous barrier;
  unsigned left = 0, idle = 0;
  Fiber* current = nullptr;
  std::unique_ptr<char[]> shared;
  void (*body)(const void*) = nullptr;
  const void* job = nullptr;
  void* launcher = nullptr;
  std::string error;
};
thread_local __attribute__((tls_model("initial-exec"))) Block* block = nullptr;

// Leave all fibers as they are and go back to the launcher with a sentence.
[[noreturn]] void fail(const char* why) {
  block->error = why;
  void* nobody;
  fastsgd_switch(&nobody, block->launcher);
  std::abort();
}

// The next fiber, in turn, that has something to do; the current one last.
void next() {
  Block& b = *block;
  Fiber *const last = b.current, *const first = b.fiber.data(), *const end = first + b.fiber.size();
  Fiber* f = last;
  do {
    if (backwards) f = (f == first ? end : f) - 1;
    else f = f + 1 == end ? first : f + 1;
    if (f->waits()) continue;
    if (f == last) return;
    b.current = f;
    fastsgd_switch(&last->stack_pointer, f->stack_pointer);
    return;
  } while (f != last);
  fail("deadlock: a barrier, shuffle or vote waits for a thread that never comes");
}

void meet(Rendezvous& where, unsigned wanted) {
  block->idle = 0;
  if (++where.arrived == wanted) {
    where.arrived = 0, ++where.generation;
    return;
  }
  Fiber& me = *block->current;
  me.awaited = &where, me.generation = where.generation;
  next();
  me.awaited = nullptr;
}

void begin() {
  Block& b = *block;
  b.body(b.job);
  Fiber& me = *b.current;
  me.done = true, me.warp->lanes &= ~(1u << me.place.lane);
  if (--b.left == 0) {
    void* nobody;
    fastsgd_switch(&nobody, b.launcher);
  }
  if (b.barrier.arrived && b.barrier.arrived == b.left) b.barrier.arrived = 0, ++b.barrier.generation;
  next();
  std::abort();
}

}  // namespace

bool backwards = false;
const Place& here() { return block->current->place; }

// Let another fiber run; one that does nothing else waits for what never comes.
void wait() {
  if (++block->idle > 8 * block->fiber.size() + 64) fail("deadlock: a thread waits for what never comes");
  next();
}

void barrier() { meet(block->barrier, block->left); }

// All lanes of the mask put in a word; the words of the warp are returned.
const uint64_t* exchange(unsigned mask, uint64_t word) {
  Fiber& me = *block->current;
  if (!(mask >> me.place.lane & 1)) fail("shuffle or vote: the calling lane is not in its mask");
  if (mask & ~me.warp->lanes) fail("shuffle or vote: the mask names a lane that has left");
  if (!me.meeting || me.mask != mask) me.meeting = &me.warp->meeting[mask], me.mask = mask;
  uint64_t* slot = me.meeting->slot[me.meeting->where.generation % 2];
  slot[me.place.lane] = word;
  meet(me.meeting->where, unsigned(__builtin_popcount(mask)));
  return slot;
}

// Run a kernel over a grid; null, or what went wrong.
const char* run(unsigned grid, unsigned threads, size_t shared, void (*body)(const void*), const void* job) {
  static thread_local std::string said;
  static thread_local std::vector<std::unique_ptr<char[]>> kept;  // stacks
  Block b;
  block = &b;
  b.body = body, b.job = job;
  b.fiber.resize(threads);
  while (kept.size() < threads) kept.emplace_back(new char[STACK]);
  for (unsigned at = 0; at < grid && b.error.empty(); ++at) {
    b.warp.assign((threads + 31) / 32, Warp());
    b.barrier = Rendezvous();
    b.shared.reset(new char[shared]);
    std::memset(b.shared.get(), 0xCD, shared);
    b.left = threads, b.idle = 0, b.current = &b.fiber[backwards ? threads - 1 : 0];
    for (unsigned k = 0; k < threads; ++k) {
      Fiber& f = b.fiber[k] = Fiber();
      f.place = {{k, 0, 0}, {at, 0, 0}, {threads, 1, 1}, {grid, 1, 1}, k % 32, b.shared.get()};
      f.warp = &b.warp[k / 32], f.warp->lanes |= 1u << k % 32;
      char* stack = kept[k].get();
#if defined(__SANITIZE_ADDRESS__)
      __asan_unpoison_memory_region(stack, STACK);  // the frames of the last block were never unwound
#endif
      const size_t apart = k * 832 % (32 << 10);  // else the tops of all stacks share a few lines of the cache
      void** top = reinterpret_cast<void**>((reinterpret_cast<uintptr_t>(stack) + STACK - apart) & ~uintptr_t(15));
      *--top = nullptr;  // where a return address would be: the alignment that a function expects
      *--top = reinterpret_cast<void*>(&begin);
      for (int r = 0; r < 6; ++r) *--top = nullptr;
      f.stack_pointer = top;
    }
    fastsgd_switch(&b.launcher, b.current->stack_pointer);
  }
  block = nullptr;
  said = b.error;
  return said.empty() ? nullptr : said.c_str();
}

}  // namespace fibers
