// The unit of work: a few positions times a few pictures, and its scratch memory.
#pragma once

#include <cstddef>

#include "../layout.hpp"
#include "../problem.hpp"

namespace mahalanobis {

constexpr std::ptrdiff_t kTilePositions = 16;  // a cache line of float32 features
constexpr std::ptrdiff_t kTileBytes = 256 << 10;

struct Tile {
  std::ptrdiff_t first_position, positions;
  std::ptrdiff_t first_picture, pictures;
  std::ptrdiff_t row;       // floats from one picture to the next
  std::ptrdiff_t position;  // floats from one position to the next
};

// Floats of scratch that a worker needs for tiles of `pictures` pictures: y, and one residual.
struct Scratch {
  std::ptrdiff_t pictures, row, position;
  constexpr std::ptrdiff_t values() const { return kTilePositions * position + pictures * (row + 8); }
};

static inline Scratch scratch(const Problem& problem) {
  const std::ptrdiff_t row = layout::row(problem.model.channels);
  std::ptrdiff_t pictures = kTileBytes / static_cast<std::ptrdiff_t>(sizeof(float)) / (kTilePositions * row) / 8 * 8;
  if (pictures < 8) pictures = 8;
  if (pictures > problem.features.batch) pictures = problem.features.batch;
  // One line more, or positions could fall into the same cache set.
  return {pictures, row, pictures * row + 16};
}

}  // namespace mahalanobis
