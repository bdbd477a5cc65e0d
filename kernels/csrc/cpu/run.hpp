// The map on the CPU: which instruction set, and how the work is spread over threads.
#pragma once

#include <string>
#include <vector>

#include "../problem.hpp"

namespace mahalanobis {

// The instruction sets that this build has and this machine supports, best first.
std::vector<std::string> instruction_sets();

// Computes problem.out. `threads` >= 1, the caller's included; `isa` is one of instruction_sets().
// Throws std::invalid_argument for another one.
void run(const Problem& problem, int threads, const std::string& isa);

}  // namespace mahalanobis
