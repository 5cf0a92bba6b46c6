// Owns the compiled instances of the general loop and of gradient flow for float32.
#include "flow.h"

template void fs::advance_general<float>(const fs::GeneralJob<float>&);
template void fs::advance_flow<float>(const fs::FlowJob<float>&);
template fs::i64 fs::general_bytes<float>(const fs::GeneralJob<float>&);
template std::unique_ptr<fs::Family<float, 1>> fs::family<float, 1>(const fs::FamilyShape&);
