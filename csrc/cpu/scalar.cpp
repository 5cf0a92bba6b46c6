// Owns the compiled instances of scalar layouts, one network at a time and no team, which nothing chooses by itself:
// compiled quickly (setup.py), since their bits are those of the others.
#include "advance.h"

template fs::i64 fs::bytes_of<true>(const fs::Job<float>&);
template fs::i64 fs::bytes_of<true>(const fs::Job<double>&);
template void fs::advance_living<true>(const fs::Job<float>&, const std::vector<fs::i64>&);
template void fs::advance_living<true>(const fs::Job<double>&, const std::vector<fs::i64>&);
