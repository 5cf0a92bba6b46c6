// Owns the compiled instances of a layout that nothing chooses by itself, one network at a time and no team: compiled
// quickly (setup.py), for its bits are those of the others.
#include "advance.h"

namespace fs {

template <class T>
i64 bytes_alone(const Job<T>& job) {
  return bytes_of<true>(job);
}
template <class T>
void advance_alone(const Job<T>& job, const std::vector<i64>& living) {
  advance_living<true>(job, living);
}

template i64 bytes_alone<float>(const Job<float>&);
template i64 bytes_alone<double>(const Job<double>&);
template void advance_alone<float>(const Job<float>&, const std::vector<i64>&);
template void advance_alone<double>(const Job<double>&, const std::vector<i64>&);

}  // namespace fs
