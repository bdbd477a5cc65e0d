// Features of a few positions, transposed, minus the mean: (n, C, positions) -> y (positions, n, C).
#pragma once

#include "../problem.hpp"
#include "tile.hpp"
#include "vector.hpp"

namespace {

using mahalanobis::Features;
using mahalanobis::kTilePositions;
using mahalanobis::Model;
using mahalanobis::Number;
using mahalanobis::Tile;

constexpr std::ptrdiff_t kAhead = 16;  // channels; each is a cache line, or a part of two, far from the last one

// Offsets, in elements, of the tile's positions in the grid.
struct Offsets {
  std::ptrdiff_t at[kTilePositions];
  bool contiguous;  // a whole tile, one after the other
};

inline Offsets offsets(const Features& f, const Tile& t) {
  Offsets o;
  o.contiguous = t.positions == kTilePositions;
  for (std::ptrdiff_t i = 0; i < t.positions; ++i) {
    const std::ptrdiff_t p = t.first_position + i;
    o.at[i] = p / f.width * f.row_stride + p % f.width * f.column_stride;
    o.contiguous = o.contiguous && o.at[i] == o.at[0] + i;
  }
  return o;
}

// One channel at all positions of the tile.
template <class T>
inline void channel(const T* source, const Offsets& o, const Model& m, const Tile& t, std::ptrdiff_t c, float* y) {
  const float* mean = m.mean + t.first_position * m.channels + c;
  const float scale = m.scale == nullptr ? 1.0f : m.scale[c];
  for (std::ptrdiff_t i = 0; i < t.positions; ++i)
    y[i * t.position + c] = (scalar(source[o.at[i]]) - mean[i * m.channels]) * scale;
}

// Four channels at the contiguous positions of a whole tile.
template <class T>
inline void four_channels(const T* source, std::ptrdiff_t stride, const Model& m, const Tile& t, std::ptrdiff_t c,
                          float* y) {
  const float* mean = m.mean + t.first_position * m.channels + c;
  const Float<4> scale = m.scale == nullptr ? Float<4>{1.0f, 1.0f, 1.0f, 1.0f} : load<4>(m.scale + c);
  for (std::ptrdiff_t i = 0; i < kTilePositions; i += 4) {
    Float<4> v[4];
    for (int k = 0; k < 4; ++k) v[k] = load<4>(source + k * stride + i);
    transpose(v);
    for (int k = 0; k < 4; ++k)
      store<4>(y + (i + k) * t.position + c, (v[k] - load<4>(mean + (i + k) * m.channels)) * scale);
  }
}

template <class T>
inline void gather(const Features& f, const Model& m, const Tile& t, float* y) {
  const Offsets o = offsets(f, t);
  for (std::ptrdiff_t n = t.first_picture; n < t.first_picture + t.pictures; ++n, y += t.row) {
    const T* source = static_cast<const T*>(f.data) + n * f.batch_stride;
    std::ptrdiff_t c = 0;
    for (; o.contiguous && c + 4 <= f.channels; c += 4) {
      const T* four = source + c * f.channel_stride + o.at[0];
      for (int k = 0; k < 4; ++k) {
        const T* ahead = four + (kAhead + k) * f.channel_stride;
        __builtin_prefetch(ahead);
        __builtin_prefetch(ahead + kTilePositions - 1);
      }
      four_channels(four, f.channel_stride, m, t, c, y);
    }
    for (; c < f.channels; ++c) channel(source + c * f.channel_stride, o, m, t, c, y);
    for (; c < t.row; ++c)
      for (std::ptrdiff_t i = 0; i < t.positions; ++i) y[i * t.position + c] = 0.0f;
  }
}

}  // namespace
