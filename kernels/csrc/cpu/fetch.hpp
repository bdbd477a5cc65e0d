// Memory that will be needed soon, fetched at an even pace while the processor works on what it has.
#pragma once

#include <cstddef>

namespace {

// `step` bytes from `next` on with every pass of a loop; step 0 fetches nothing.
struct Ahead {
  const char* next;
  std::ptrdiff_t step;

  // Kept out of the linker's reach: see vector.hpp.
  __attribute__((always_inline)) void fetch(std::ptrdiff_t pass) const {
    if (step != 0) __builtin_prefetch(next + pass * step);
  }
};

}  // namespace
