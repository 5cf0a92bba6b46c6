// Owns the words that differ between the three compilers of the kernels: nvcc, NVRTC, and g++ with threads as fibers.
//
// A program is one kernel: FS_ENTRY(threads, blocks, Job, call) defines `fastsgd`, which takes a Job by value. Dynamic
// shared memory is declared by FS_DYN_SHARED. The fibers' header defines both, and the words of CUDA, before this one.
#pragma once
#include "../core/macros.h"

#define FS_DEVICE __device__ __forceinline__

#if !defined(FS_ENTRY)
#define FS_ENTRY(threads, blocks, Job, call) \
  extern "C" __global__ void __launch_bounds__(threads, blocks) fastsgd(const __grid_constant__ Job job) { call; }
#define FS_DYN_SHARED(T, name)                              \
  extern __shared__ __align__(16) unsigned char fs_bytes[]; \
  T* name = reinterpret_cast<T*>(fs_bytes)
#endif

namespace fs {

// A if YES, else B.
template <bool YES, class A, class B>
struct Choice {
  using type = A;
};
template <class A, class B>
struct Choice<false, A, B> {
  using type = B;
};
template <bool YES, class A, class B>
using Either = typename Choice<YES, A, B>::type;

FS_DEVICE i64 thread_number() { return i64(blockIdx.x) * blockDim.x + threadIdx.x; }
FS_DEVICE i64 thread_count() { return i64(gridDim.x) * blockDim.x; }
constexpr unsigned WARP = 0xFFFFFFFFu;  // all lanes; no thread leaves its warp before the others

}  // namespace fs
