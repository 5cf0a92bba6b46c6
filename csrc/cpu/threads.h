// Owns threads: how the pieces of a call are dealt out to them, and how a call that takes long hears Ctrl-C.
//
// A call may take minutes. Wherever a thread has done some work it says how much (`worked`), and after some tens of
// microseconds' worth it looks: the thread that Python called asks Python twenty times a second whether a signal has
// come, the others read a flag. If one has, every thread leaves its work where it is by an exception, and the caller
// gets Python's. What the call writes to is half done then, and worth nothing.
#pragma once
#include <atomic>
#include <functional>

#include "../core/macros.h"

namespace fs {

// A signal's handler has raised, and Python has its exception: what a call ends with then.
struct Raised {};

// What a loop that was compiled elsewhere says of its work.
inline void work_elsewhere([[maybe_unused]] i64 amount) { FS_WORKED(amount); }

// f(thread) on so many threads; 0 is the caller's. The first exception of any is thrown. The caller has dropped the
// GIL.
void on_threads(int threads, const std::function<void(int)>& f);

// The pieces first = 0, step, 2 step, .. below count of a call.
class Pieces {
  static constexpr i64 OWN = 4096;  // work of a piece that does not say what it does
  std::atomic<i64> next{0};
  const i64 count, step;

 public:
  Pieces(i64 count_, i64 step_) : count(count_), step(step_) {}
  // f(first) for the pieces that this thread gets: each is for the thread that is free first.
  template <class F>
  void each(F f) {
    for (i64 first; (first = next.fetch_add(step, std::memory_order_relaxed)) < count;) {
      f(first);
      FS_WORKED(OWN);
    }
  }
  // The next piece, -1 when there is none, for a thread that works on several at a time.
  i64 take() {
    const i64 first = next.fetch_add(step, std::memory_order_relaxed);
    return first < count ? first : -1;
  }
};

// Threads for `pieces` of work: one that has nothing to do costs more to wake than a short run takes.
inline int busy(int threads, i64 pieces) { return pieces < threads ? int(pieces) : threads; }

// body(thread, pieces) on so many threads, for each to prepare its memory and then to take pieces.
template <class Body>
void deal(int threads, i64 count, i64 step, Body body) {
  Pieces pieces(count, step);
  on_threads(busy(threads, (count + step - 1) / step), [&](int thread) { body(thread, pieces); });
}

}  // namespace fs
