// d^2 = |W y|^2 by a warp, its share of the panels of one position, read from memory in order and once.
//
// Vector path, up to 8 pictures: a load of 16 bytes is a few rows of one column, and the lanes of a warp take neighbouring
// loads, so a warp reads 512 bytes in a row. Each lane adds its rows of its columns; the lanes of a row add up at the end
// of a panel. A value is used by one lane only, so shared memory or asynchronous copies could save nothing.
//
// Tensor-core path (tensor.cuh), more pictures: panels of 16 rows are the matrix units' 16 x 8 left operands as they lie
// in memory, for which row of a panel is which row of the operand does not matter to a sum of squares.
#pragma once

#include "tile.cuh"

namespace mahalanobis {

// Panels have 16 to C columns: warps take them longest first, and back and forth.
MAHALANOBIS_DEVICE int panel_of(int round, int warp, int warps, int panels) {
  return panels - 1 - (round * warps + (round % 2 == 0 ? warp : warps - 1 - warp));
}

// Visits the warp's panels of its position, as (first value, layout::Panel).
template <class T, class Visit>
MAHALANOBIS_DEVICE void each_panel(const Problem& problem, const Plan& plan, const Tile& t, const Warp& own, Visit visit) {
  if (own.position >= t.positions) return;
  const std::ptrdiff_t channels = problem.model.channels;
  const int panels = static_cast<int>(layout::panels(channels));
  const T* factor = static_cast<const T*>(problem.model.factor) +
                    (t.first_position + own.position) * static_cast<std::ptrdiff_t>(plan.factor_values);
  for (int round = 0; round * plan.warps < panels; ++round) {
    const int index = panel_of(round, own.part, plan.warps, panels);
    if (index >= 0) visit(factor + layout::start(channels, index), layout::panel(channels, index));
  }
}

// How a warp's 16-byte loads cover columns of 16 rows.
template <class T>
struct Cover {
  static constexpr int values = 16 / static_cast<int>(sizeof(T));      // rows of a load
  static constexpr int lanes = layout::panel_rows / values;            // of a column
  static constexpr int columns = kLanes / lanes;                       // of a warp
};

// z[picture][row] += a few rows of a column times its channel of M pictures.
template <class T, int M>
MAHALANOBIS_DEVICE void column_times(const Words<4>& column, const float* y, float (&z)[M * Cover<T>::values]) {
  constexpr int rows = Cover<T>::values;
  float w[rows], value[M];
  widen<T, rows>(column, w);
  if constexpr (M % 4 == 0) {
#pragma unroll
    for (int m = 0; m < M; m += 4) load4(y + m, value + m);
  } else {
#pragma unroll
    for (int m = 0; m < M; ++m) value[m] = y[m];
  }
#pragma unroll
  for (int m = 0; m < M; ++m)
#pragma unroll
    for (int r = 0; r < rows; ++r) z[m * rows + r] += w[r] * value[m];
}

// The lane's share of the squares of one panel, of picture lane * M / 32. y: (channels, M) of the position.
template <class T, int M, int Ahead>
MAHALANOBIS_DEVICE float panel_squares(const T* w, layout::Panel panel, const float* y, int lane) {
  using C = Cover<T>;
  const int row = lane % C::lanes, first = lane / C::lanes;
  const int full = static_cast<int>(panel.full), half = static_cast<int>(panel.half);
  const bool lower = row >= C::lanes / 2 && first < half;  // the last columns have their lower 8 rows only
  const T* last = w + full * layout::panel_rows + first * layout::half_rows + (row - C::lanes / 2) * C::values;
  const Words<4> ending = stream_if<T, C::values>(lower, last);
  float z[M * C::values] = {};
  w += lane * C::values;
  y += first * M;
  for (int j = 0; j < full; j += Ahead * C::columns) {
    Words<4> column[Ahead];
#pragma unroll
    for (int i = 0; i < Ahead; ++i) {
      const int at = j + i * C::columns;
      column[i] = stream_if<T, C::values>(at + first < full, w + at * layout::panel_rows);
    }
#pragma unroll
    for (int i = 0; i < Ahead; ++i)
      if (const int at = j + i * C::columns; at < full) column_times<T, M>(column[i], y + at * M, z);
  }
  if (lower) column_times<T, M>(ending, y + full * M, z);
  constexpr int high = kLanes / 2, low = C::lanes, count = M * C::values;
  float sums[kept(count, high, low)];
  share_sums<high, low>(z, lane, sums);
  float squares = 0.0f;
#pragma unroll
  for (float sum : sums) squares += sum * sum;
  return (lane & copies(count, high, low)) == 0 ? squares : 0.0f;
}

template <class T, int M>
MAHALANOBIS_DEVICE void triangular_vector(const Problem& problem, const Plan& plan) {
  constexpr int sums_held = M * Cover<T>::values;
  constexpr int ahead = sums_held >= 64 ? 3 : sums_held >= 32 ? 4 : 8;  // loads in flight: what registers are left for
  const Tile t = tile(problem, plan);
  const Warp own = warp(plan);
  const Place place{plan.stride, M, 1};
  float* y = device::shared();
  float* sums = y + plan.positions * plan.stride;
  gather(problem, plan, t, place, y);
  device::sync_block();
  float squares = 0.0f;
  each_panel<T>(problem, plan, t, own, [&](const T* w, layout::Panel panel) {
    squares += panel_squares<T, M, ahead>(w, panel, y + own.position * place.position, own.lane);
  });
  squares = group_sum<kLanes / M>(squares);
  if (own.lane % (kLanes / M) == 0) sums[own.index * M + own.lane * M / kLanes] = squares;
  finish(problem, plan, t, sums);
}

}  // namespace mahalanobis
