// Owns the compiled instances of a layout that nothing chooses by itself, one network at a time and no team: compiled
// quickly (setup.py), for its bits are those of the others.
#include "advance.h"

namespace fs {

template <class T>
i64 bytes_scalar(const Job<T>& job) {
  return bytes_of<true>(job);
}
template <class T>
void advance_scalar(const Job<T>& job, const std::vector<i64>& living) {
  advance_living<true>(job, living);
}

template i64 bytes_scalar<float>(const Job<float>&);
template i64 bytes_scalar<double>(const Job<double>&);
template void advance_scalar<float>(const Job<float>&, const std::vector<i64>&);
template void advance_scalar<double>(const Job<double>&, const std::vector<i64>&);

}  // namespace fs
