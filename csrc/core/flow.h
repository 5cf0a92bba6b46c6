// Owns the parameters of gradient flow, dw/dt = -grad L(w), and its Runge-Kutta pair: Dormand and Prince, orders 5, 4.
#pragma once
#include "general.h"

namespace fs {

// On top of a job of the general loop, whose step sizes are lengths of time here.
template <class T>
struct FlowJob {
  GeneralJob<T> all;
  const T *rtol, *atol;  // [N] an error of atol + rtol |w| is tolerated
  i64 most;              // steps of the pair in a stretch, beyond which a network is lost
  T* carried;            // [N, CARRIED, P] of which the first of each P is used: the pair's step size, and how many of
                         // its steps were taken and refused
  static constexpr int CARRIED = 3;
};

// The last stage of a step is the first of the next.
struct DormandPrince {
  static constexpr int STAGES = 7;
  // Stage s is at w - h sum_j A[s][j] k_j; the last one is the step itself.
  static constexpr double A[STAGES][STAGES - 1] = {{},
                                                   {1. / 5},
                                                   {3. / 40, 9. / 40},
                                                   {44. / 45, -56. / 15, 32. / 9},
                                                   {19372. / 6561, -25360. / 2187, 64448. / 6561, -212. / 729},
                                                   {9017. / 3168, -355. / 33, 46732. / 5247, 49. / 176, -5103. / 18656},
                                                   {35. / 384, 0, 500. / 1113, 125. / 192, -2187. / 6784, 11. / 84}};
  // What the step differs by from that of order 4.
  static constexpr double E[STAGES] = {-71. / 57600, 0, 71. / 16695, -71. / 1920, 17253. / 339200, -22. / 525, 1. / 40};
  static constexpr double SAFETY = 0.9, LEAST = 0.2, MOST = 10, POWER = -0.2;  // of a factor between steps
};

}  // namespace fs
