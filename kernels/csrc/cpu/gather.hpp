// Features of a few positions, transposed: (n, C, positions) -> y (positions, n, C), minus the mean.
#pragma once

#include "../problem.hpp"
#include "tile.hpp"
#include "vector.hpp"

namespace {

using mahalanobis::Features;
using mahalanobis::Model;
using mahalanobis::Number;
using mahalanobis::Tile;

// Offsets, in elements, of the tile's positions in the grid.
struct Offsets {
  std::ptrdiff_t at[mahalanobis::kTilePositions];
  bool contiguous;
};

inline Offsets offsets(const Features& f, const Tile& t) {
  Offsets o;
  o.contiguous = t.positions == mahalanobis::kTilePositions;
  for (std::ptrdiff_t i = 0; i < t.positions; ++i) {
    const std::ptrdiff_t p = t.first_position + i;
    o.at[i] = p / f.width * f.row_stride + p % f.width * f.column_stride;
    o.contiguous = o.contiguous && o.at[i] == o.at[0] + i;
  }
  return o;
}

template <class T>
inline void transpose(const Features& f, const Tile& t, float* y) {
  const Offsets o = offsets(f, t);
  const T* data = static_cast<const T*>(f.data) + t.first_picture * f.batch_stride;
  for (std::ptrdiff_t n = 0; n < t.pictures; ++n) {
    const T* source = data + n * f.batch_stride;
    float* row = y + n * t.row;
    for (std::ptrdiff_t c = 0; c < f.channels; ++c, source += f.channel_stride) {
      if (o.contiguous) {
        for (int i = 0; i < mahalanobis::kTilePositions; ++i) row[i * t.position + c] = scalar(source[o.at[0] + i]);
      } else {
        for (std::ptrdiff_t i = 0; i < t.positions; ++i) row[i * t.position + c] = scalar(source[o.at[i]]);
      }
    }
  }
}

inline void centre(const Model& m, const Tile& t, float* y) {
  for (std::ptrdiff_t i = 0; i < t.positions; ++i) {
    const float* __restrict mean = m.mean + (t.first_position + i) * m.channels;
    for (std::ptrdiff_t n = 0; n < t.pictures; ++n) {
      float* __restrict row = y + i * t.position + n * t.row;
      for (std::ptrdiff_t c = 0; c < m.channels; ++c) row[c] -= mean[c];
      if (m.scale == nullptr) continue;
      const float* __restrict scale = m.scale;
      for (std::ptrdiff_t c = 0; c < m.channels; ++c) row[c] *= scale[c];
      for (std::ptrdiff_t c = m.channels; c < t.row; ++c) row[c] = 0.0f;
    }
  }
}

inline void gather(const Features& f, const Model& m, const Tile& t, float* y) {
  switch (f.number) {
    case Number::float32: transpose<float>(f, t, y); break;
    case Number::float16: transpose<Half16>(f, t, y); break;
    case Number::bfloat16: transpose<Brain16>(f, t, y); break;
  }
  centre(m, t, y);
}

}  // namespace
