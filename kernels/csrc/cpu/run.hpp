// The kernels on the CPU: which instruction set, and how the work is spread over threads.
//
// `threads` >= 1, the caller's included; `isa` is one of instruction_sets(), else std::invalid_argument is thrown.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "../problem.hpp"

namespace mahalanobis {

// The instruction sets that this build has and this machine supports, best first.
std::vector<std::string> instruction_sets();

void run(const Problem& problem, int threads, const std::string& isa);
void run(const Moments& job, int threads, const std::string& isa);

// The number of positions whose matrix is singular; their factors are left as they were.
std::ptrdiff_t run(const Whiten& job, int threads, const std::string& isa);

}  // namespace mahalanobis
