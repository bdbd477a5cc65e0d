// d^2 = sum_k weights[k] z[k]^2 + tail |y - U z|^2, z = U^T y, for one position.
//
// A block of rows of U is read once from memory, used for z, and used again from the cache for the residual.
#pragma once

#include "../layout.hpp"
#include "fetch.hpp"
#include "vector.hpp"

namespace {

constexpr int kBlock = 4;  // rows of U at a time
constexpr int kBlockPictures = kLanes == 4 ? 1 : 2;

// z[M][K] += y[M] . u[K], L channels at a time, in [first, row).
template <int L, class T, int K, int M>
inline std::ptrdiff_t project(const T* u, std::ptrdiff_t row, Ahead ahead, const float* y, float (&z)[M][K],
                              std::ptrdiff_t first) {
  Float<L> dot[M][K] = {};
  for (; first + L <= row; first += L) {
    ahead.fetch(first / L);
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

// residual[M] -= sum_k z[M][k] u[k], L channels at a time, in [first, row).
template <int L, class T, int K, int M>
inline std::ptrdiff_t subtract(const T* u, std::ptrdiff_t row, Ahead ahead, const float (&z)[M][K], float* residual,
                               std::ptrdiff_t first) {
  for (; first + L <= row; first += L) {
    ahead.fetch(first / L);
    Float<L> r[M];
    for (int m = 0; m < M; ++m) r[m] = load<L>(residual + m * row + first);
    for (int k = 0; k < K; ++k) {
      const Float<L> basis = load<L>(u + k * row + first);
      for (int m = 0; m < M; ++m) r[m] -= basis * z[m][k];
    }
    for (int m = 0; m < M; ++m) store<L>(residual + m * row + first, r[m]);
  }
  return first;
}

// K rows of U with M of the pictures, fetching their share of the K rows after these, half of it in each loop.
template <class T, int K, int M>
inline void rows_times(const T* u, const float* weights, std::ptrdiff_t row, Ahead ahead, const float* y,
                       float* residual, float* out) {
  float z[M][K] = {};
  std::ptrdiff_t done = project<kLanes, T, K, M>(u, row, ahead, y, z, 0);
  if constexpr (kLanes > 8) project<8, T, K, M>(u, row, Ahead{}, y, z, done);
  for (int m = 0; m < M; ++m)
    for (int k = 0; k < K; ++k) out[m] += weights[k] * z[m][k] * z[m][k];
  ahead.next += row / kLanes * ahead.step;
  done = subtract<kLanes, T, K, M>(u, row, ahead, z, residual, 0);
  if constexpr (kLanes > 8) subtract<8, T, K, M>(u, row, Ahead{}, z, residual, done);
}

template <class T, int K, int M>
inline void pictures_times(const T* u, const float* weights, std::ptrdiff_t row, std::ptrdiff_t first,
                           std::ptrdiff_t pictures, const float* y, float* residual, float* out) {
  constexpr std::ptrdiff_t pass = K * kLanes * sizeof(T) / 2;  // bytes of U for a pass of one of the loops
  const char* next = reinterpret_cast<const char*>(u + K * row);
  for (; first + M <= pictures; first += M) {
    const Ahead ahead{next + 2 * (row / kLanes) * pass * first / pictures, pass * M / pictures};
    rows_times<T, K, M>(u, weights, row, ahead, y + first * row, residual + first * row, out + first);
  }
  if constexpr (M > 1) pictures_times<T, K, M / 2>(u, weights, row, first, pictures, y, residual, out);
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
    pictures_times<T, kBlock, kBlockPictures>(u + k * row, weights + k, row, 0, pictures, y, residual, out);
  for (; k < rank; ++k) pictures_times<T, 1, kBlockPictures>(u + k * row, weights + k, row, 0, pictures, y, residual, out);
  for (std::ptrdiff_t n = 0; n < pictures; ++n) out[n] += tail * squared_norm(residual + n * row, row);
}

}  // namespace
