// The units of work and their scratch memory.
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

// Channels in float64 work, padded to the widest block of columns.
static constexpr std::ptrdiff_t padded(std::ptrdiff_t channels) { return (channels + 15) / 16 * 16; }

constexpr std::ptrdiff_t kSampleBlock = 128;  // samples at a time: 180 KB of 176 channels

static constexpr std::ptrdiff_t moments_scratch(const Moments& job, std::ptrdiff_t positions) {
  const std::ptrdiff_t c = padded(job.channels);
  return (kSampleBlock + c) * c * 8 + positions * job.count * job.channels * 4;
}

static constexpr std::ptrdiff_t whiten_scratch(const Whiten& job) {
  const std::ptrdiff_t c = padded(job.channels);
  return (2 * c + 1) * c * 8;
}

}  // namespace mahalanobis
