// Owns the compiled instances for float32.
#include "advance.h"

template void fs::advance<float>(const fs::Job<float>&);
template fs::i64 fs::block_bytes<float>(const fs::Job<float>&);
