// What one call computes, in plain pointers: no framework, no allocation.
//
// Letters: N batch, K training pictures, C channels, P positions of the h x w grid, R rank.
#pragma once

#include <cstddef>
#include <cstdint>

namespace mahalanobis {

enum class Number { float32, float16, bfloat16 };
enum class Factorisation { triangular, low_rank };

// (N, C, h, w) with any strides, counted in elements.
struct Features {
  const void* data;
  Number number;
  std::ptrdiff_t batch, channels, height, width;
  std::ptrdiff_t batch_stride, channel_stride, row_stride, column_stride;
};

// One Gaussian per position. d^2 of y = x - mean is
//   triangular: |W y|^2, W the inverse Cholesky factor, packed as layout.hpp says;
//   low rank:   sum_k weights[k] z[k]^2 + tail |y' - U z|^2, with y' = scale * y and z = U^T y'.
struct Model {
  Factorisation factorisation;
  Number number;            // of `factor`
  const void* factor;       // triangular (P, layout::packed(C)), low rank (P, R, layout::row(C))
  const float* mean;        // (P, C)
  const float* scale;       // (C,), low rank only
  const float* weights;     // (P, R), low rank only
  const float* tail;        // (P,), low rank only
  std::ptrdiff_t channels, positions, rank;
};

struct Problem {
  Features features;
  Model model;
  float* out;  // (N, P) distances
};

// One axis of an upsampling: every pixel is a weighted sum of `taps` neighbouring cells, the first of which is first[i].
struct Axis {
  const float* weights;  // (pixels, taps)
  const std::int32_t* first;  // (pixels,)
  std::int32_t pixels, cells, taps;
};

// Grids (N, h, w) of numbers >= 0 to maps (N, H, W) and their maxima (N,).
struct Upsampling {
  const float* grids;
  Axis rows, columns;
  std::ptrdiff_t batch;
  float* maps;
  float* scores;
};

// Mean and scatter, the sum of (x - mean)(x - mean)^T, of samples (K, C, P).
struct Moments {
  const float* samples;
  std::ptrdiff_t count, channels, positions;
  std::ptrdiff_t sample_stride, channel_stride, position_stride;  // in elements
  double* mean;     // (P, C)
  double* scatter;  // (P, C (C + 1) / 2): upper triangles, row after row
};

// W with W^T W = (scale * scatter + diag(eps))^-1, packed as layout.hpp says.
struct Whiten {
  const double* scatter;  // (P, C (C + 1) / 2)
  const double* eps;      // (C,)
  double scale;
  std::ptrdiff_t channels, positions;
  float* factor;  // (P, layout::packed(C))
};

}  // namespace mahalanobis
