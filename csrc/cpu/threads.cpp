// Owns the threads of a call, their ear for signals, and what becomes of them when the process forks.
#include <Python.h>

#include "threads.h"

#include <pthread.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <chrono>
#include <condition_variable>
#include <exception>
#include <mutex>

#if defined(FS_STD_THREADS)  // for ThreadSanitizer, which does not see what OpenMP's barriers order
#include <thread>
#include <vector>
#else
#include <omp.h>
#endif

namespace fs {

__thread i64 patience;

namespace {

using Clock = std::chrono::steady_clock;
constexpr auto EVERY = std::chrono::milliseconds(50);  // between two questions to Python
constexpr i64 PATIENCE = 1 << 17;                      // work between two looks

struct Stopped {};

struct Gil {
  const PyGILState_STATE state = PyGILState_Ensure();
  ~Gil() { PyGILState_Release(state); }
};

// What the threads of one call share.
class Call {
  const bool asks = syscall(SYS_gettid) == getpid();  // Python runs handlers of signals on its main thread alone
  Clock::time_point next = Clock::now() + EVERY;      // when the caller's thread asks again
  std::atomic<bool> stop{false};
  std::mutex mutex;
  std::condition_variable left;
  int others = 0;  // threads besides the caller's that have left
  std::exception_ptr failed;
  bool raised = false;  // whether a signal's handler did; what it raised stays with Python until `finish`

  void ask() {
    if (!asks || stop.load(std::memory_order_relaxed) || Clock::now() < next) return;
    {
      const Gil hold;
      if (PyErr_CheckSignals()) raised = stop = true;
    }
    next = Clock::now() + EVERY;
  }

 public:
  void look(int thread) {
    if (thread == 0) ask();
    if (stop.load(std::memory_order_relaxed)) throw Stopped();
  }
  void fail() {
    const std::lock_guard<std::mutex> lock(mutex);
    if (!failed) failed = std::current_exception();
    stop = true;
  }
  // A thread has no work left. The caller's waits here for the others, for only it can ask.
  void leave(int thread, int threads) {
    std::unique_lock<std::mutex> lock(mutex);
    if (thread > 0) {
      ++others;
      lock.unlock();
      left.notify_one();
      return;
    }
    while (!left.wait_for(lock, EVERY, [&] { return others == threads - 1; })) {
      lock.unlock();
      ask();
      lock.lock();
    }
  }
  void finish() {
    if (raised) throw Raised();
    if (failed) std::rethrow_exception(failed);
  }
};

// The call that a thread works for.
__thread Call* call;
__thread int me;

#if !defined(FS_STD_THREADS)
// A child has its parent's thread alone: a pool of others, kept for the next call, would be waited for in vain.
// OpenMP's is that of torch too, whose calls in a child hang likewise.
void end_pool() { omp_pause_resource_all(omp_pause_hard); }
[[maybe_unused]] const int registered = pthread_atfork(end_pool, nullptr, nullptr);
#endif

}  // namespace

void look() {
  patience = PATIENCE;
  if (call) call->look(me);
}

void on_threads(int threads, const std::function<void(int)>& f) {
  Call shared;
  auto run = [&](int thread, int all) {
    Call* const before = call;  // not null where a signal's handler calls us again
    const int was = me;
    call = &shared, me = thread, patience = PATIENCE;
    try {
      f(thread);
    } catch (const Stopped&) {
    } catch (...) {
      shared.fail();
    }
    call = before, me = was;
    if (all > 1) shared.leave(thread, all);
  };
  if (threads < 2) {
    run(0, 1);
    return shared.finish();
  }
#if defined(FS_STD_THREADS)
  std::vector<std::thread> others;
  for (int thread = 1; thread < threads; ++thread) others.emplace_back(run, thread, threads);
  run(0, threads);
  for (auto& other : others) other.join();
#else
#pragma omp parallel num_threads(threads)
  run(omp_get_thread_num(), omp_get_num_threads());
#endif
  shared.finish();
}

}  // namespace fs
