// Owns threads over vectors of networks in the general loop, and predictions of many networks at many points.
#pragma once
#include "advance.h"
#include "general.h"

namespace fs {

template <class T, int W>
void advance_lanes(const GeneralJob<T>& all, const std::vector<i64>& living) {
  const auto model = family<T, W>(all.shape);
  const auto teacher = all.fresh.teacher ? family<T, W>(*all.fresh.teacher) : nullptr;
  const i64 each = apart(General<T, W>::bytes(all, *model, teacher.get())), count = i64(living.size());
  const int threads = busy(all.job.threads, (count + W - 1) / W);
  Scratch scratch(each * threads);
#pragma omp parallel num_threads(threads)
  {
    General<T, W> loop(all, *model, teacher.get(), scratch.p + each * omp_get_thread_num());
#pragma omp for schedule(dynamic)
    for (i64 first = 0; first < count; first += W)
      loop.run(living.data() + first, int(count - first < W ? count - first : W));
  }
}

template <class T>
void advance_general(const GeneralJob<T>& all) {
  std::vector<i64> living;
  for (i64 k = 0; k < all.job.N; ++k)
    if (all.job.lost[k] < 0) living.push_back(k);
  if (living.empty()) return;
  if (all.job.layout.lanes == WIDTH<T>) advance_lanes<T, WIDTH<T>>(all, living);
  else if (all.job.layout.lanes == 1) advance_lanes<T, 1>(all, living);
  else throw std::invalid_argument("internal: no such layout");
}

template <class T>
i64 general_bytes(const GeneralJob<T>& all) {
  const auto teacher = all.fresh.teacher ? family<T, WIDTH<T>>(*all.fresh.teacher) : nullptr;
  return General<T, WIDTH<T>>::bytes(all, *family<T, WIDTH<T>>(all.shape), teacher.get());
}

}  // namespace fs
