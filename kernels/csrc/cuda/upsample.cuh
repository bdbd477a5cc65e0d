// Grids of distances to maps of pixels and their maxima: map = Y grid X^T, Y and X banded, by strips of a picture's rows.
#pragma once

#include "../problem.hpp"
#include "device.cuh"
#include "plan.hpp"

namespace mahalanobis {

// tall[row][cell] = Y grid for the strip's rows.
MAHALANOBIS_DEVICE void stretch_rows(const Upsampling& u, const float* grid, int first_row, int rows, float* tall) {
  const int cells = u.columns.cells;
  for (int i = device::thread(); i < rows * cells; i += device::threads()) {
    const int row = i / cells, x = i % cells;
    const float* weights = u.rows.weights + static_cast<std::ptrdiff_t>(first_row + row) * u.rows.taps;
    const float* from = grid + static_cast<std::ptrdiff_t>(u.rows.first[first_row + row]) * cells + x;
    float sum = 0.0f;
    for (int k = 0; k < u.rows.taps; ++k) sum += weights[k] * from[k * cells];
    tall[i] = sum;
  }
}

// map = tall X^T; the greatest of the thread's pixels, as bits. Distances are not negative, so their bits order as they
// do, and a NaN without its sign is above infinity: the maximum of integers passes it on, that of floats would not.
MAHALANOBIS_DEVICE int stretch_columns(const Upsampling& u, const float* tall, int rows, float* map) {
  int most = 0;
  for (int x = device::thread(); x < u.columns.pixels; x += device::threads()) {
    const float* weights = u.columns.weights + static_cast<std::ptrdiff_t>(x) * u.columns.taps;
    const float* from = tall + u.columns.first[x];
    for (int row = 0; row < rows; ++row) {
      float sum = 0.0f;
      for (int k = 0; k < u.columns.taps; ++k) sum += weights[k] * from[row * u.columns.cells + k];
      map[static_cast<std::ptrdiff_t>(row) * u.columns.pixels + x] = sum;
      const int bits = device::to_bits(sum) & 0x7fffffff;
      most = bits > most ? bits : most;
    }
  }
  return most;
}

// One strip of kStripRows rows of one picture. Scores are zero before the launch.
MAHALANOBIS_DEVICE void upsample(const Upsampling& u) {
  const int strips = divide_up(u.rows.pixels, kStripRows);
  const std::ptrdiff_t picture = device::block() / strips;
  const int first_row = device::block() % strips * kStripRows;
  const int rows = u.rows.pixels - first_row < kStripRows ? u.rows.pixels - first_row : kStripRows;
  float* tall = device::shared();
  stretch_rows(u, u.grids + picture * u.rows.cells * u.columns.cells, first_row, rows, tall);
  device::sync_block();
  float* map = u.maps + (picture * u.rows.pixels + first_row) * u.columns.pixels;
  const int most = device::warp_max(stretch_columns(u, tall, rows, map));
  if (device::thread() % 32 == 0) device::atomic_max(reinterpret_cast<int*>(u.scores + picture), most);
}

}  // namespace mahalanobis
