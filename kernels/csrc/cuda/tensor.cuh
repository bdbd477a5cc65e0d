// The tensor-core path of d^2 = |W y|^2: groups of 16 to 64 pictures, 8 of them an operand.
#pragma once

#include "tf32.cuh"
#include "triangular.cuh"

namespace mahalanobis {

constexpr int kSteps = 4;  // of 8 columns in flight

template <class T>
using Pair = Packed<T, 2>;  // rows 2 g and 2 g + 1 of a column

// z[tile] += 8 columns a step times their channels of the pictures, for the steps before `columns`. y: (channels, stride)
// from the first one on.
template <class T, int Steps, int Tiles>
MAHALANOBIS_DEVICE void columns_times(const Pair<T> (&column)[Steps][2], int columns, const float* y, int stride, int lane,
                                      float (&z)[Tiles][4]) {
  Left<T> w[Steps];
#pragma unroll
  for (int s = 0; s < Steps; ++s) {
    float pair[2][2];
    widen<T, 2>(column[s][0], pair[0]);
    widen<T, 2>(column[s][1], pair[1]);
    w[s] = left<T>({pair[0][0], pair[0][1], pair[1][0], pair[1][1]});
  }
  y += lane % 4 * stride + lane / 4;
#pragma unroll
  for (int n = 0; n < Tiles; ++n) {
    float part[4] = {};
#pragma unroll
    for (int s = 0; s < Steps; ++s) {
      const float* upper = y + s * kDepth * stride + n * kTilePictures;
      if (s * kDepth < columns) multiply<T>(part, w[s], right(upper[0], upper[4 * stride]));
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) z[n][i] += part[i];
  }
}

// squares[tile] of pictures 2 t and 2 t + 1: the lane's rows of one panel.
template <class T, int Tiles>
MAHALANOBIS_DEVICE void panel_squares(const T* w, layout::Panel panel, const float* y, int stride, int lane,
                                      float (&squares)[Tiles][2]) {
  const int g = lane / 4, t = lane % 4;
  const int full = static_cast<int>(panel.full), half = static_cast<int>(panel.half);
  const T* last = w + full * layout::panel_rows + t * layout::half_rows + 2 * g - layout::half_rows;
  const Pair<T> end[1][2] = {{stream_if<T, 2>(g >= 4 && t < half, last),
                              stream_if<T, 2>(g >= 4 && t + 4 < half, last + 4 * layout::half_rows)}};
  float z[Tiles][4] = {};
  w += t * layout::panel_rows + 2 * g;
  for (int j = 0; j < full; j += kSteps * kDepth) {
    Pair<T> column[kSteps][2];
#pragma unroll
    for (int s = 0; s < kSteps; ++s)
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const int at = j + s * kDepth + i * 4;
        column[s][i] = stream_if<T, 2>(at + t < full, w + at * layout::panel_rows);
      }
    columns_times<T>(column, full - j, y + j * stride, stride, lane, z);
  }
  columns_times<T>(end, kDepth, y + full * stride, stride, lane, z);
#pragma unroll
  for (int n = 0; n < Tiles; ++n)
#pragma unroll
    for (int i = 0; i < 2; ++i) squares[n][i] += z[n][i] * z[n][i] + z[n][i + 2] * z[n][i + 2];
}

template <class T, int Tiles>
MAHALANOBIS_DEVICE void triangular_tensor(const Problem& problem, const Plan& plan) {
  constexpr int pictures = Tiles * kTilePictures, stride = pictures + kTensorPadding;
  const Tile t = tile(problem, plan);
  const Warp own = warp(plan);
  const Place place{plan.stride, stride, 1};
  float* y = device::shared();
  float* sums = y + plan.positions * plan.stride;
  gather(problem, plan, t, place, y);
  device::sync_block();
  float squares[Tiles][2] = {};
  each_panel<T>(problem, plan, t, own, [&](const T* w, layout::Panel panel) {
    panel_squares<T, Tiles>(w, panel, y + own.position * place.position, stride, own.lane, squares);
  });
#pragma unroll
  for (int n = 0; n < Tiles; ++n)
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const float column[1] = {squares[n][i]};
      float sum[1];
      share_sums<kLanes / 2, 4>(column, own.lane, sum);  // over the lanes of a picture, all g
      if (own.lane < 4) sums[own.index * pictures + n * kTilePictures + 2 * own.lane + i] = sum[0];
    }
  finish(problem, plan, t, sums);
}

}  // namespace mahalanobis
