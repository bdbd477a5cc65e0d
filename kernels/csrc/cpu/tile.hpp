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

// Most pictures of a tile, and the strides of y.
struct Scratch {
  std::ptrdiff_t pictures, row, position;
};

// Where the parts of a worker's memory begin, in floats: y, one position's residual or sums, squared distances.
struct Parts {
  std::ptrdiff_t spare, distances, end;
};

static constexpr Parts parts(std::ptrdiff_t pictures, std::ptrdiff_t row, std::ptrdiff_t position) {
  const std::ptrdiff_t spare = kTilePositions * position;
  const std::ptrdiff_t distances = spare + pictures * row;  // row >= 8, the lanes of a sum
  return {spare, distances, distances + pictures * kTilePositions};
}

static inline Scratch scratch(const Problem& problem) {
  const std::ptrdiff_t row = layout::row(problem.model.channels);
  std::ptrdiff_t pictures = kTileBytes / static_cast<std::ptrdiff_t>(sizeof(float)) / (kTilePositions * row) / 8 * 8;
  if (pictures < 8) pictures = 8;
  if (pictures > problem.features.batch) pictures = problem.features.batch;
  // One line more, or positions could fall into the same cache set.
  return {pictures, row, pictures * row + 16};
}

}  // namespace mahalanobis
