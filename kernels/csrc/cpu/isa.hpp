// What every instruction set's copy of the kernels offers; run.cpp picks a copy at run time.
#pragma once

#include <cstddef>

#include "../problem.hpp"
#include "tile.hpp"

#define MAHALANOBIS_COPY(isa)                                                                                      \
  namespace mahalanobis::isa {                                                                                     \
  /* One tile of the map. scratch: parts(...).end floats on a 64-byte boundary. */                                 \
  void map(const Problem&, const Tile&, float* scratch);                                                           \
  /* Moments at positions [first, last) of the job. scratch: moments_scratch(job, last - first) bytes, as above. */ \
  void moments(const Moments&, std::ptrdiff_t first, std::ptrdiff_t last, void* scratch);                          \
  /* The factor of one position; false where the matrix is singular. scratch: whiten_scratch(job) bytes. */        \
  bool whiten(const Whiten&, std::ptrdiff_t position, void* scratch);                                              \
  }

#if defined(MAHALANOBIS_X86)
MAHALANOBIS_COPY(avx512)
MAHALANOBIS_COPY(avx2)
#endif
MAHALANOBIS_COPY(baseline)
