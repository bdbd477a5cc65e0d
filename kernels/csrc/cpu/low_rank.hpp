// d^2 = sum_k weights[k] z[k]^2 + tail |y - U z|^2, z = U^T y, for one position.
//
// A block of rows of U is read once from memory, used for z, and used again from the cache for the residual.
#pragma once

#include "../layout.hpp"
#include "vector.hpp"

namespace {

constexpr int kBlock = 4;  // rows of U at a time
constexpr int kBlockPictures = kLanes == 4 ? 1 : 2;

// residual[M] -= sum_k z[M][k] u[k], L channels at a time, in [first, last).
template <int L, class T, int K, int M>
inline std::ptrdiff_t subtract(const T* u, std::ptrdiff_t row, const float (&z)[M][K], float* residual,
                               std::ptrdiff_t first, std::ptrdiff_t last) {
  for (; first + L <= last; first += L) {
    Float<L> r[M];
    for (int m = 0; m < M; ++m) r[m] = load<L>(residual + m * row + first);
    for (int k = 0; k < K; ++k) {
      const Float<L> values = load<L>(u + k * row + first);
      for (int m = 0; m < M; ++m) r[m] -= values * z[m][k];
    }
    for (int m = 0; m < M; ++m) store<L>(residual + m * row + first, r[m]);
  }
  return first;
}

// z[M][K] += y[M] . u[K], L channels at a time.
template <int L, class T, int K, int M>
inline std::ptrdiff_t project(const T* u, std::ptrdiff_t row, const float* y, float (&z)[M][K], std::ptrdiff_t first,
                              std::ptrdiff_t last) {
  Float<L> dot[M][K] = {};
  for (; first + L <= last; first += L) {
    Float<L> values[M];
    for (int m = 0; m < M; ++m) values[m] = load<L>(y + m * row + first);
    for (int k = 0; k < K; ++k) {
      const Float<L> basis = load<L>(u + k * row + first);
      for (int m = 0; m < M; ++m) dot[m][k] += basis * values[m];
    }
  }
  for (int m = 0; m < M; ++m)
    for (int k = 0; k < K; ++k) z[m][k] += sum(dot[m][k]);
  return first;
}

// K rows of U with M pictures.
template <class T, int K, int M>
inline void rows_times(const T* u, const float* weights, std::ptrdiff_t row, const float* y, float* residual,
                       float* out) {
  float z[M][K] = {};
  std::ptrdiff_t done = project<kLanes, T, K, M>(u, row, y, z, 0, row);
  if constexpr (kLanes > 8) project<8, T, K, M>(u, row, y, z, done, row);
  for (int m = 0; m < M; ++m)
    for (int k = 0; k < K; ++k) out[m] += weights[k] * z[m][k] * z[m][k];
  done = subtract<kLanes, T, K, M>(u, row, z, residual, 0, row);
  if constexpr (kLanes > 8) subtract<8, T, K, M>(u, row, z, residual, done, row);
}

template <class T, int K>
inline void block_times(const T* u, const float* weights, std::ptrdiff_t row, std::ptrdiff_t pictures, const float* y,
                        float* residual, float* out) {
  std::ptrdiff_t n = 0;
  for (; n + kBlockPictures <= pictures; n += kBlockPictures)
    rows_times<T, K, kBlockPictures>(u, weights, row, y + n * row, residual + n * row, out + n);
  for (; n < pictures; ++n) rows_times<T, K, 1>(u, weights, row, y + n * row, residual + n * row, out + n);
}

inline float squared_norm(const float* v, std::ptrdiff_t row) {
  Float<kHalfLanes> squares = {};
  for (std::ptrdiff_t c = 0; c < row; c += kHalfLanes) {
    const Float<kHalfLanes> x = load<kHalfLanes>(v + c);
    squares += x * x;
  }
  return sum(squares);
}

// residual: (pictures, row) of scratch; out: (pictures,) squared distances.
template <class T>
inline void low_rank(const T* u, const float* weights, float tail, std::ptrdiff_t rank, const float* y,
                     std::ptrdiff_t row, std::ptrdiff_t pictures, float* residual, float* out) {
  std::memcpy(residual, y, sizeof(float) * static_cast<std::size_t>(pictures * row));
  for (std::ptrdiff_t n = 0; n < pictures; ++n) out[n] = 0.0f;
  std::ptrdiff_t k = 0;
  for (; k + kBlock <= rank; k += kBlock)
    block_times<T, kBlock>(u + k * row, weights + k, row, pictures, y, residual, out);
  for (; k < rank; ++k) block_times<T, 1>(u + k * row, weights + k, row, pictures, y, residual, out);
  for (std::ptrdiff_t n = 0; n < pictures; ++n) out[n] += tail * squared_norm(residual + n * row, row);
}

}  // namespace
