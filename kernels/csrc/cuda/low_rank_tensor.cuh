// The tensor-core path of the two-term form: groups of 16 to 64 pictures, 8 of them an operand, 16 rows of U at a time.
//
// z = U^T residual and residual -= U z are both products of 16 x 16 values of U with 16 x 8 floats of shared memory; in the
// second the values stand transposed. A lane would need others of them than it holds, so each warp puts the rows of its
// channels into shared memory, where they are read both ways. Warps share a position's channels, 16 at a time, and meet to
// add up z.
#pragma once

#include "tf32.cuh"
#include "tile.cuh"

namespace mahalanobis {

constexpr int kHalves = kTensorRows / kDepth;  // operands that are as deep as U's rows, or as wide as 16 channels, together
static_assert(kTensorRows == kTensorChannels && kHalves == 2);

// 16 rows of U at the warp's channels into shared memory, (rows, stride); zeros outside. Four lanes take 16 channels.
template <class T>
MAHALANOBIS_DEVICE void stage_rows(const T* u, int rows, int row_values, const Plan& plan, const Warp& own, int stride,
                                   float* out) {
  constexpr int ahead = 4;  // blocks of 16 channels in flight
  const int row = own.lane / 4, step = plan.warps * kTensorChannels;
  for (int first = own.part * kTensorChannels; first < plan.channels; first += ahead * step) {
    Packed<T, 4> piece[ahead][kHalves];
#pragma unroll
    for (int b = 0; b < ahead; ++b)
#pragma unroll
      for (int h = 0; h < kHalves; ++h) {
        const int r = row + h * kDepth, c = first + b * step + own.lane % 4 * 4;
        piece[b][h] = stream_if<T, 4>(r < rows && c < row_values, u + static_cast<std::ptrdiff_t>(r) * row_values + c);
      }
#pragma unroll
    for (int b = 0; b < ahead; ++b)
#pragma unroll
      for (int h = 0; h < kHalves; ++h) {
        const int c = first + b * step;
        float value[4];
        widen<T, 4>(piece[b][h], value);
        if (c < plan.channels) store4(out + (row + h * kDepth) * stride + c + own.lane % 4 * 4, value);
      }
  }
  device::sync_warp();
}

// z (16 rows, pictures) = the warp's part of U^T residual, into shared memory.
template <class T, int Tiles>
MAHALANOBIS_DEVICE void project(const float* u, int u_stride, const float* residual, int stride, const Plan& plan,
                                const Warp& own, float* out, int out_stride) {
  const int g = own.lane / 4, t = own.lane % 4;
  float z[Tiles][4] = {};
  for (int c = own.part * kTensorChannels; c < plan.channels; c += plan.warps * kTensorChannels) {
    Left<T> a[kHalves];
#pragma unroll
    for (int h = 0; h < kHalves; ++h) {
      const float* at = u + g * u_stride + c + h * kDepth + t;
      a[h] = left<T>({at[0], at[kDepth * u_stride], at[4], at[kDepth * u_stride + 4]});
    }
    const float* y = residual + (c + t) * stride + g;
#pragma unroll
    for (int n = 0; n < Tiles; ++n) {
      float part[4] = {};
#pragma unroll
      for (int h = 0; h < kHalves; ++h) {
        const float* upper = y + h * kDepth * stride + n * kTilePictures;
        multiply<T>(part, a[h], right(upper[0], upper[4 * stride]));
      }
#pragma unroll
      for (int i = 0; i < 4; ++i) z[n][i] += part[i];
    }
  }
#pragma unroll
  for (int n = 0; n < Tiles; ++n)
#pragma unroll
    for (int i = 0; i < 4; ++i) out[(g + i / 2 * kDepth) * out_stride + n * kTilePictures + 2 * t + i % 2] = z[n][i];
}

// residual -= U z at the warp's channels, and squares[tile] += weights z^2: the lane's rows, of picture g.
template <class T, int Tiles>
MAHALANOBIS_DEVICE void subtract(const float* u, int u_stride, const float* z, int z_stride, const float* weights, int rows,
                                 float* residual, int stride, const Plan& plan, const Warp& own, float (&squares)[Tiles]) {
  constexpr int together = Tiles < 4 ? Tiles : 4;  // tiles whose z fits into registers
  const int g = own.lane / 4, t = own.lane % 4;
#pragma unroll
  for (int first = 0; first < Tiles; first += together) {
    Right b[together][kHalves];
#pragma unroll
    for (int h = 0; h < kHalves; ++h) {
      const int row = h * kDepth + 2 * t;  // and the next: neighbouring rows, so that lanes meet different banks
      const float upper = own.part == 0 && row < rows ? weights[row] : 0.0f;
      const float lower = own.part == 0 && row + 1 < rows ? weights[row + 1] : 0.0f;
#pragma unroll
      for (int n = 0; n < together; ++n) {
        const float* at = z + row * z_stride + (first + n) * kTilePictures + g;
        b[n][h] = right(at[0], at[z_stride]);
        squares[first + n] += upper * at[0] * at[0] + lower * at[z_stride] * at[z_stride];
      }
    }
    for (int c = own.part * kTensorChannels; c < plan.channels; c += plan.warps * kTensorChannels) {
      Left<T> a[kHalves];
#pragma unroll
      for (int h = 0; h < kHalves; ++h) {
        const float* at = u + (h * kDepth + 2 * t) * u_stride + c + g;
        a[h] = left<T>({at[0], at[kDepth], at[u_stride], at[u_stride + kDepth]});
      }
      float* to = residual + (c + g) * stride + first * kTilePictures + 2 * t;
#pragma unroll
      for (int n = 0; n < together; ++n) {
        float part[4] = {};
#pragma unroll
        for (int h = 0; h < kHalves; ++h) multiply<T>(part, a[h], b[n][h]);
#pragma unroll
        for (int i = 0; i < 4; ++i) to[i / 2 * kDepth * stride + n * kTilePictures + i % 2] -= part[i];
      }
    }
  }
  device::sync_warp();
}

// z summed over the warps of a position, parts (warps, size), into `total` (size).
MAHALANOBIS_DEVICE void add_warps(const float* parts, int size, const Plan& plan, const Warp& own, float* total) {
  for (int i = own.part * kLanes + own.lane; i < size; i += plan.warps * kLanes) {
    float sum = 0.0f;
    for (int w = 0; w < plan.warps; ++w) sum += parts[w * size + i];
    total[i] = sum;
  }
}

template <class T, int Tiles>
MAHALANOBIS_DEVICE void low_rank_tensor(const Problem& problem, const Plan& plan) {
  constexpr int pictures = Tiles * kTilePictures, stride = pictures + kTensorPadding, z_stride = pictures + kRowPadding;
  constexpr int size = kTensorRows * z_stride;
  const Tile t = tile(problem, plan);
  const Model& m = problem.model;
  const Warp own = warp(plan);
  const Place place{plan.stride, stride, 1};
  const int u_stride = plan.channels + kRowPadding;
  float* y = device::shared();
  float* rows = y + plan.positions * plan.stride;                    // (positions, 16, u_stride)
  float* totals = rows + plan.positions * kTensorRows * u_stride;    // (positions, size)
  float* parts = totals + plan.positions * size;                     // (positions, warps, size); none for one warp
  float* sums = parts + (plan.warps > 1 ? plan.positions * plan.warps * size : 0);  // (warps, pictures)
  gather(problem, plan, t, place, y);
  device::sync_block();

  const bool exists = own.position < t.positions;
  const std::ptrdiff_t p = exists ? t.first_position + own.position : 0;
  const T* factor = static_cast<const T*>(m.factor) + p * static_cast<std::ptrdiff_t>(plan.factor_values);
  const int row_values = static_cast<int>(layout::row(m.channels)), rank = static_cast<int>(m.rank);
  float* residual = y + own.position * plan.stride;
  float* u = rows + own.position * kTensorRows * u_stride;
  float* total = totals + own.position * size;
  float* part = plan.warps > 1 ? parts + own.index * size : total;
  float squares[Tiles] = {};  // of pictures g
  for (int k = 0; k < rank; k += kTensorRows) {
    const int left_over = exists ? rank - k : 0;
    stage_rows(factor + static_cast<std::ptrdiff_t>(k) * row_values, left_over, row_values, plan, own, u_stride, u);
    project<T, Tiles>(u, u_stride, residual, stride, plan, own, part, z_stride);
    if (plan.warps > 1) {
      device::sync_block();
      add_warps(parts + own.position * plan.warps * size, size, plan, own, total);
      device::sync_block();
    } else {
      device::sync_warp();
    }
    subtract<T, Tiles>(u, u_stride, total, z_stride, m.weights + p * m.rank + k, left_over, residual, stride, plan, own,
                       squares);
  }
  const float tail = exists ? m.tail[p] : 0.0f;
  for (int c = own.part * kTensorChannels; c < plan.channels; c += plan.warps * kTensorChannels)
#pragma unroll
    for (int n = 0; n < Tiles; ++n) {
      float rest = 0.0f;
#pragma unroll
      for (int i = own.lane % 4; i < kTensorChannels; i += 4) {
        const float r = residual[(c + i) * stride + n * kTilePictures + own.lane / 4];
        rest += r * r;
      }
      squares[n] += tail * rest;
    }
#pragma unroll
  for (int n = 0; n < Tiles; ++n) {
    const float sum = group_sum<4>(squares[n]);
    if (own.lane % 4 == 0) sums[own.index * pictures + n * kTilePictures + own.lane / 4] = sum;
  }
  finish(problem, plan, t, sums);
}

}  // namespace mahalanobis
