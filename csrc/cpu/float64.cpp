// Owns the compiled instances for float64.
#include "advance.h"

template void fs::advance<double>(const fs::Job<double>&);
template fs::i64 fs::block_bytes<double>(const fs::Job<double>&);
