// The tensor-core path of d^2 = |W y|^2: groups of 16 to 64 pictures, 8 of them an operand.
//
// tf32 has 11 significant bits, so one product of rounded operands would be wrong by 1e-3. Each float32 is split into two
// tf32 numbers that together hold 22 bits, and three of the four products are added, the smallest first: the error is that
// of float32 sums. bfloat16 triples do not reach that (16 bits of two terms, times a root of the condition number), and
// three terms take six products. A float16 or a bfloat16 *is* a tf32 number: such a factor needs two products.
#pragma once

#include "triangular.cuh"

namespace mahalanobis {

struct Split {
  float big, small;
};

MAHALANOBIS_DEVICE Split split(float x) {
  const float big = device::to_tf32(x);
  return {big, device::to_tf32(x - big)};
}

constexpr int kDepth = 8;  // columns of an operand
constexpr int kTilePictures = 8;

template <class T>
using Pair = Packed<T, 2>;  // rows 2 g and 2 g + 1 of a column

// z[tile] += 8 columns of a panel times 8 channels of the pictures. y: (8 channels, stride) from the first one on.
template <class T, int Tiles>
MAHALANOBIS_DEVICE void columns_times(const Pair<T>& left, const Pair<T>& right, const float* y, int stride, int lane,
                                      float (&z)[Tiles][4]) {
  constexpr bool exact = sizeof(T) == 2;
  float w[2][2], big[4], small[4];
  widen<T, 2>(left, w[0]);
  widen<T, 2>(right, w[1]);
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const Split s = exact ? Split{w[i / 2][i % 2], 0.0f} : split(w[i / 2][i % 2]);
    big[i] = s.big;
    small[i] = s.small;
  }
  y += lane % 4 * stride + lane / 4;
#pragma unroll
  for (int n = 0; n < Tiles; ++n) {
    const Split upper = split(y[n * kTilePictures]), lower = split(y[4 * stride + n * kTilePictures]);
    const float y_big[2] = {upper.big, lower.big}, y_small[2] = {upper.small, lower.small};
    if constexpr (!exact) device::multiply_tf32(z[n], small, y_big);
    device::multiply_tf32(z[n], big, y_small);
    device::multiply_tf32(z[n], big, y_big);
  }
}

// squares[tile] of pictures 2 t and 2 t + 1: the lane's rows of one panel.
template <class T, int Tiles>
MAHALANOBIS_DEVICE void panel_squares(const T* w, layout::Panel panel, const float* y, int stride, int lane,
                                      float (&squares)[Tiles][2]) {
  constexpr int steps = 4;  // of 8 columns in flight
  const int g = lane / 4, t = lane % 4;
  const int full = static_cast<int>(panel.full), half = static_cast<int>(panel.half);
  const T* last = w + full * layout::panel_rows + t * layout::half_rows + 2 * g - layout::half_rows;
  const Pair<T> end_left = stream_if<T, 2>(g >= 4 && t < half, last);
  const Pair<T> end_right = stream_if<T, 2>(g >= 4 && t + 4 < half, last + 4 * layout::half_rows);
  float z[Tiles][4] = {};
  w += t * layout::panel_rows + 2 * g;
  for (int j = 0; j < full; j += steps * kDepth) {
    Pair<T> column[steps][2];
#pragma unroll
    for (int s = 0; s < steps; ++s)
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const int at = j + s * kDepth + i * 4;
        column[s][i] = stream_if<T, 2>(at + t < full, w + at * layout::panel_rows);
      }
#pragma unroll
    for (int s = 0; s < steps; ++s)
      if (const int at = j + s * kDepth; at < full)
        columns_times<T, Tiles>(column[s][0], column[s][1], y + at * stride, stride, lane, z);
  }
  columns_times<T, Tiles>(end_left, end_right, y + full * stride, stride, lane, z);
#pragma unroll
  for (int n = 0; n < Tiles; ++n)
#pragma unroll
    for (int i = 0; i < 2; ++i) squares[n][i] += z[n][i] * z[n][i] + z[n][i + 2] * z[n][i + 2];
}

template <class T, int Tiles>
MAHALANOBIS_DEVICE void triangular_tensor(const Problem& problem, const Plan& plan) {
  constexpr int pictures = Tiles * kTilePictures, stride = pictures + kTensorPadding;
  const Tile t = tile(problem, plan);
  const int lane = device::thread() % kLanes, warp = device::thread() / kLanes;
  const int position = warp / plan.warps;
  const Place place{plan.stride, stride, 1};
  float* y = device::shared();
  float* sums = y + plan.positions * plan.stride;
  gather(problem, plan, t, place, y);
  device::sync_block();
  float squares[Tiles][2] = {};
  if (position < t.positions) {
    const std::ptrdiff_t channels = problem.model.channels;
    const int panels = static_cast<int>(layout::panels(channels));
    const T* factor = static_cast<const T*>(problem.model.factor) +
                      (t.first_position + position) * static_cast<std::ptrdiff_t>(plan.factor_values);
    for (int round = 0; round * plan.warps < panels; ++round) {
      const int index = panel_of(round, warp % plan.warps, plan.warps, panels);
      if (index < 0) continue;
      panel_squares<T, Tiles>(factor + layout::start(channels, index), layout::panel(channels, index),
                              y + position * place.position, stride, lane, squares);
    }
  }
#pragma unroll
  for (int n = 0; n < Tiles; ++n)
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const float column[1] = {squares[n][i]};
      float sum[1];
      share_sums<kLanes / 2, 4>(column, lane, sum);  // over the lanes of a picture, all g
      if (lane < 4) sums[warp * pictures + n * kTilePictures + 2 * lane + i] = sum[0];
    }
  finish(problem, plan, t, sums);
}

}  // namespace mahalanobis
