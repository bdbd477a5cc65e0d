// d^2 = |W y|^2 for one position: a packed triangular factor times a few pictures.
#pragma once

#include "../layout.hpp"
#include "fetch.hpp"
#include "vector.hpp"

namespace {

namespace layout = mahalanobis::layout;

// Lanes of one half panel (8 rows) and of a whole one.
constexpr int kHalfVectors = layout::half_rows / kHalfLanes;
constexpr int kPanelVectors = layout::panel_rows / kLanes;
using HalfFloat = Float<kHalfLanes>;

// One panel times M pictures: squares of the 16 rows' products, added to sums[M].
template <class T, int M>
inline void panel_times(const T* w, layout::Panel panel, Ahead ahead, const float* y, std::ptrdiff_t row,
                        HalfFloat* sums) {
  Float<kLanes> z[M][kPanelVectors] = {};
  for (std::ptrdiff_t j = 0; j < panel.full; ++j, w += layout::panel_rows) {
    ahead.fetch(j);
    for (int v = 0; v < kPanelVectors; ++v) {
      const Float<kLanes> column = load<kLanes>(w + v * kLanes);
      for (int m = 0; m < M; ++m) z[m][v] += column * y[m * row + j];
    }
  }
  HalfFloat halves[M][2 * kHalfVectors];
  std::memcpy(halves, z, sizeof z);
  y += panel.full;
  for (std::ptrdiff_t j = 0; j < panel.half; ++j, w += layout::half_rows) {
    for (int v = 0; v < kHalfVectors; ++v) {
      const HalfFloat column = load<kHalfLanes>(w + v * kHalfLanes);
      for (int m = 0; m < M; ++m) halves[m][kHalfVectors + v] += column * y[m * row + j];
    }
  }
  for (int m = 0; m < M; ++m)
    for (const HalfFloat& h : halves[m]) sums[m] += h * h;
}

// A page: the processor's own prefetcher stops at its end, and the columns of a panel go on.
constexpr std::ptrdiff_t kAheadBytes = 4096;

// One panel times all pictures, M at a time, then the rest. Each group fetches its share of the panel after this one;
// where there is one group only, it runs at the pace of the memory and fetches a page ahead.
template <class T, int M>
inline void pictures_times(const T* w, layout::Panel panel, const float* y, std::ptrdiff_t row, std::ptrdiff_t first,
                           std::ptrdiff_t pictures, HalfFloat* sums) {
  constexpr std::ptrdiff_t column = layout::panel_rows * sizeof(T);
  const char* next = reinterpret_cast<const char*>(w + layout::values(panel));
  for (; first + M <= pictures; first += M) {
    const Ahead ahead = pictures > M ? Ahead{next + panel.full * column * first / pictures, column * M / pictures}
                                     : Ahead{reinterpret_cast<const char*>(w) + kAheadBytes, column};
    panel_times<T, M>(w, panel, ahead, y + first * row, row, sums + first);
  }
  if constexpr (M > 1) pictures_times<T, M / 2>(w, panel, y, row, first, pictures, sums);
}

// sums: (pictures,) vectors of scratch; out: (pictures,) squared distances.
template <class T>
inline void triangular(const T* w, std::ptrdiff_t channels, const float* y, std::ptrdiff_t row, std::ptrdiff_t pictures,
                       HalfFloat* sums, float* out) {
  for (std::ptrdiff_t n = 0; n < pictures; ++n) sums[n] = HalfFloat{};
  for (std::ptrdiff_t i = 0; i < layout::panels(channels); ++i) {
    const layout::Panel panel = layout::panel(channels, i);
    pictures_times<T, kPictures>(w, panel, y, row, 0, pictures, sums);
    w += layout::values(panel);
  }
  for (std::ptrdiff_t n = 0; n < pictures; ++n) out[n] = sum(sums[n]);
}

}  // namespace
