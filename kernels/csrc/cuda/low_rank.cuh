// d^2 = sum_k weights[k] z[k]^2 + tail |y - U z|^2, z = U^T y, by one to four warps a position: the
// vector path, up to 8 pictures a block.
//
// Each value of U is read from memory once and used twice, in z and in the residual, so it has to wait where it is cheap:
// a lane keeps 4 rows of its channels in registers. Its channels of the residual lie in shared memory at addresses that no
// other lane touches, so warps meet only to add up z. z is taken of the residual so far, not of y: the rows are
// orthogonal, so it is the same number, and y need not be kept beside the residual.
#pragma once

#include "tile.cuh"

namespace mahalanobis {

constexpr int kRows = 4;           // of U at a time
constexpr int kBlocks = 4;         // of channels per lane
constexpr int kBlockChannels = 4;  // a lane's neighbouring channels in a block
static_assert(kBlocks * kBlockChannels * kLanes == kWarpChannels);

template <class T>
using Piece = Packed<T, kBlockChannels>;

// 4 rows of U: the lane's channels, the first of which is `channel`; zeros outside.
template <class T>
MAHALANOBIS_DEVICE void load_rows(const T* u, int rows, int row_values, int channel, Piece<T> (&piece)[kRows][kBlocks]) {
#pragma unroll
  for (int k = 0; k < kRows; ++k)
#pragma unroll
    for (int b = 0; b < kBlocks; ++b) {
      const int c = channel + b * kBlockChannels * kLanes;
      piece[k][b] = stream_if<T, kBlockChannels>(k < rows && c < row_values, u + k * row_values + c);
    }
}

// z (M, rows) = the warp's part of U^T residual for a few pictures, into shared memory. residual: the lane's channels of the
// first of them.
template <class T, int M>
MAHALANOBIS_DEVICE void project(const Piece<T> (&piece)[kRows][kBlocks], const float* residual, int stride, int blocks,
                                int lane, float* out) {
  constexpr int count = M * kRows;
  float z[count] = {}, own[1];
#pragma unroll
  for (int b = 0; b < kBlocks; ++b) {
    if (b >= blocks) break;
    float u[kRows][4];
#pragma unroll
    for (int k = 0; k < kRows; ++k) widen<T, 4>(piece[k][b], u[k]);
#pragma unroll
    for (int m = 0; m < M; ++m) {
      float r[4];
      load4(residual + m * stride + b * kBlockChannels * kLanes, r);
#pragma unroll
      for (int k = 0; k < kRows; ++k)
#pragma unroll
        for (int i = 0; i < 4; ++i) z[m * kRows + k] += u[k][i] * r[i];
    }
  }
  share_sums<kLanes / 2, 1>(z, lane, own);
  if (lane % (kLanes / count) == 0) out[lane * count / kLanes] = own[0];
}

// residual -= U z at the lane's channels. z: (M, rows).
template <class T, int M>
MAHALANOBIS_DEVICE void subtract(const Piece<T> (&piece)[kRows][kBlocks], const float* z, float* residual, int stride,
                                 int blocks) {
#pragma unroll
  for (int b = 0; b < kBlocks; ++b) {
    if (b >= blocks) break;
    float u[kRows][4];
#pragma unroll
    for (int k = 0; k < kRows; ++k) widen<T, 4>(piece[k][b], u[k]);
#pragma unroll
    for (int m = 0; m < M; ++m) {
      float r[4], part[kRows];
      load4(z + m * kRows, part);
      load4(residual + m * stride + b * kBlockChannels * kLanes, r);
#pragma unroll
      for (int k = 0; k < kRows; ++k)
#pragma unroll
        for (int i = 0; i < 4; ++i) r[i] -= u[k][i] * part[k];
      store4(residual + m * stride + b * kBlockChannels * kLanes, r);
    }
  }
}

// Adds up z over the warps of a position, into `total` (M, rows) of this warp. z: shared, (warps, M * rows).
template <int M>
MAHALANOBIS_DEVICE void add_warps(const float* z, int warps, int lane, float* total) {
  constexpr int count = M * kRows;
  if (lane < count) {
    float sum = 0.0f;
    for (int w = 0; w < warps; ++w) sum += z[w * count + lane];
    total[lane] = sum;
  }
  device::sync_warp();
}

// |residual|^2 over the warp's channels, of picture lane * M / 32.
template <int M>
MAHALANOBIS_DEVICE float residual_square(const float* residual, int stride, int blocks, int lane) {
  float squares[M] = {};
#pragma unroll
  for (int m = 0; m < M; ++m)
    for (int b = 0; b < blocks; ++b) {
      float r[4];
      load4(residual + m * stride + b * kBlockChannels * kLanes, r);
#pragma unroll
      for (int i = 0; i < 4; ++i) squares[m] += r[i] * r[i];
    }
  float sum[1];
  share_sums<kLanes / 2, 1>(squares, lane, sum);
  return sum[0];
}

template <class T, int M>
MAHALANOBIS_DEVICE void low_rank(const Problem& problem, const Plan& plan) {
  constexpr int count = M * kRows, together = M < 4 ? M : 4;
  const Tile t = tile(problem, plan);
  const Model& m = problem.model;
  const auto [lane, index, position, part] = warp(plan);
  const Place place{plan.stride, 1, plan.channels};
  float* y = device::shared();
  const int warps = plan.positions * plan.warps;
  float* totals = y + plan.positions * plan.stride;  // (warps, count)
  float* parts = totals + warps * count;             // two of (warps, count): one is written while one is read
  float* sums = parts + 2 * warps * count;           // (warps, M)
  gather(problem, plan, t, place, y);
  device::sync_block();

  const int first = part * kWarpChannels + lane * kBlockChannels;
  const int row_values = static_cast<int>(layout::row(m.channels)), rank = static_cast<int>(m.rank);
  const int blocks = (plan.channels - part * kWarpChannels) / (kLanes * kBlockChannels);  // may be more than kBlocks
  const bool exists = position < t.positions;
  const std::ptrdiff_t p = exists ? t.first_position + position : 0;
  const T* u = static_cast<const T*>(m.factor) + p * static_cast<std::ptrdiff_t>(plan.factor_values);
  const float* weights = m.weights + p * m.rank;
  float* residual = y + position * place.position + first;
  float* total = totals + index * count;
  float squares = 0.0f;  // of picture lane * M / 32
  for (int k = 0, turn = 0; k < rank; k += kRows, turn ^= 1) {
    Piece<T> piece[kRows][kBlocks];
    load_rows<T>(u + static_cast<std::ptrdiff_t>(k) * row_values, exists ? rank - k : 0, row_values, first, piece);
    float* mine = parts + turn * warps * count + position * plan.warps * count;
#pragma unroll
    for (int n = 0; n < M; n += together)  // their sums do not fit into registers beside the rows all at once
      project<T, together>(piece, residual + n * plan.channels, plan.channels, blocks, lane,
                           mine + part * count + n * kRows);
    if (plan.warps == 1) {
      device::sync_warp();
    } else {
      device::sync_block();
    }
    add_warps<M>(mine, plan.warps, lane, total);
    const int row = k + lane * count / kLanes % kRows;
    if (part == 0 && lane % (kLanes / count) == 0 && row < rank && exists) {
      const float sum = total[lane * count / kLanes];
      squares += weights[row] * sum * sum;
    }
    subtract<T, M>(piece, total, residual, plan.channels, blocks);
    device::sync_warp();  // before the next `total`
  }
  const float tail = exists ? m.tail[p] : 0.0f;
  const float rest = residual_square<M>(residual, plan.channels, blocks < kBlocks ? blocks : kBlocks, lane);
  if (lane % (kLanes / M) == 0) squares += tail * rest;
  squares = group_sum<kLanes / M>(squares);
  if (lane % (kLanes / M) == 0) sums[index * M + lane * M / kLanes] = squares;
  finish(problem, plan, t, sums);
}

}  // namespace mahalanobis
