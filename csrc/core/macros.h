// Owns the words that differ between compilers: inlining, unrolling, fixed-width integers without any standard header.
#pragma once

#if !defined(__CUDACC_RTC__)
#include <stddef.h>
#endif

#if defined(__CUDACC_RTC__)  // words of GCC that NVRTC, alone among our compilers, does not know
#define __builtin_memcpy memcpy
#define __builtin_frexp frexp
#define __builtin_ldexp ldexp
#define __builtin_scalbn scalbn
#define __builtin_nan nan
#define __builtin_inf() __longlong_as_double(0x7FF0000000000000ll)
#define __builtin_fabs fabs
#define __builtin_fabsf fabsf
#define __builtin_sqrt __dsqrt_rn
#define __builtin_fma __fma_rn
#endif

#if defined(__CUDACC__)
#define FS_HD __host__ __device__ __forceinline__
#define FS_HD_CALL __host__ __device__ __noinline__
#define FS_APART FS_HD
#define FS_FN __host__ __device__ inline
#define FS_UNROLL _Pragma("unroll")
#define FS_NO_UNROLL _Pragma("unroll 1")
#if defined(FS_ROLLED)
#define FS_UNROLL_ROWS FS_NO_UNROLL
#else
#define FS_UNROLL_ROWS FS_UNROLL
#endif
#else
#if !defined(FS_HD)  // defined as plain inline where quick compiles count more than quick code
#define FS_HD inline __attribute__((always_inline))
#endif
#define FS_HD_CALL __attribute__((noinline))
#define FS_APART __attribute__((noinline))
#define FS_FN inline
#define FS_UNROLL _Pragma("GCC unroll 64")
#define FS_NO_UNROLL _Pragma("GCC unroll 1")
#if defined(FS_SIZES_KNOWN)
#define FS_UNROLL_ROWS _Pragma("GCC unroll 16")
#else
#define FS_UNROLL_ROWS
#endif
#endif
// FS_FN is for functions too long to be always inlined. FS_APART is for those that do far more than a call costs, from
// several places: on a CPU one copy is enough, on a GPU rows would leave the registers for a call. FS_UNROLL_ROWS goes
// before loops over a network's rows: on a GPU they are unrolled, so that the rows are registers, unless FS_ROLLED says
// that there are too many; on a CPU where a loop is compiled for one small network (csrc/compiled).

namespace fs {
using u32 = unsigned int;
using u64 = unsigned long long;
using i32 = int;
using i64 = long long;
static_assert(sizeof(u32) == 4 && sizeof(u64) == 8, "fixed-width integers");

// FS_WORKED(amount) says that about so many vectors were multiplied and added: on a CPU, where a call can be stopped,
// each thread looks now and then whether it was (cpu/threads.h). Elsewhere it is nothing.
#if defined(FS_MODULE)
extern __thread __attribute__((tls_model("initial-exec"))) i64 patience;  // work until the next look
void look();
inline void worked(i64 amount) {
  if (__builtin_expect((patience -= amount) < 0, 0)) look();
}
#define FS_WORKED(amount) fs::worked(amount)
#elif defined(FS_LIBRARY)  // a loop compiled at run time: the module gives a function that is told of its work
static void (*report_work)(i64);
#define FS_WORKED(amount) fs::report_work(amount)
#else
#define FS_WORKED(amount)
#endif
}  // namespace fs
