// Owns the compiled instances of the general loop for float32.
#include "general.h"

template void fs::advance_general<float>(const fs::GeneralJob<float>&);
template fs::i64 fs::general_bytes<float>(const fs::GeneralJob<float>&);
template std::unique_ptr<fs::Family<float, 1>> fs::family<float, 1>(const fs::FamilyShape&);
