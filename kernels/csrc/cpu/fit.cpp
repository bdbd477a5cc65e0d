// Moments of samples and inverse Cholesky factors in float64, position by position. Compiled once per instruction set.
//
// A BLAS would do, but NumPy's one starts threads of its own for every small matrix; here threads share the positions.
#include "isa.hpp"
#include "vector.hpp"

namespace {

namespace layout = mahalanobis::layout;
using mahalanobis::kSampleBlock;
using mahalanobis::padded;

constexpr std::ptrdiff_t kDoubles = kLanes / 2;
constexpr std::ptrdiff_t kColumns = 2 * kDoubles;  // of a block held in registers
constexpr std::ptrdiff_t kRows = kLanes == 16 ? 8 : 4;
constexpr std::ptrdiff_t kBlock = 16;  // rows eliminated at a time; a multiple of kRows and kColumns

inline Double load_double(const double* p) { return *reinterpret_cast<const UnalignedDouble*>(p); }
inline void add_to(double* p, Double v) { *reinterpret_cast<UnalignedDouble*>(p) += v; }

// d[i][j] += sign sum_k a[k][i] b[k][j] for one block; all matrices have rows of n values.
inline void update_block(double* d, const double* a, const double* b, std::ptrdiff_t n, std::ptrdiff_t depth,
                         double sign) {
  Double sum[kRows][2] = {};
  for (std::ptrdiff_t k = 0; k < depth; ++k, a += n, b += n) {
    const Double left = load_double(b), right = load_double(b + kDoubles);
    for (int i = 0; i < kRows; ++i) {
      sum[i][0] += left * a[i];
      sum[i][1] += right * a[i];
    }
  }
  for (int i = 0; i < kRows; ++i) {
    add_to(d + i * n, sum[i][0] * sign);
    add_to(d + i * n + kDoubles, sum[i][1] * sign);
  }
}

// d += sign x^T x, in rows [first, n) and columns from the diagonal on.
inline void update_upper(double* d, const double* x, std::ptrdiff_t n, std::ptrdiff_t depth, std::ptrdiff_t first,
                         double sign) {
  for (std::ptrdiff_t i = first; i < n; i += kRows)
    for (std::ptrdiff_t j = i / kColumns * kColumns; j < n; j += kColumns)
      update_block(d + i * n + j, x + i, x + j, n, depth, sign);
}

inline void subtract(double* __restrict to, const double* __restrict from, double factor, std::ptrdiff_t count) {
  for (std::ptrdiff_t j = 0; j < count; ++j) to[j] -= factor * from[j];
}

inline void scale(double* __restrict v, double factor, std::ptrdiff_t count) {
  for (std::ptrdiff_t j = 0; j < count; ++j) v[j] *= factor;
}

// u: the upper triangle of a symmetric matrix, to U with U^T U equal to it. False where a pivot is lost in the rounding
// errors of its `diagonal` before elimination: the matrix is not positive definite.
inline bool cholesky(double* u, const double* diagonal, std::ptrdiff_t n) {
  for (std::ptrdiff_t block = 0; block < n; block += kBlock) {
    for (std::ptrdiff_t r = block; r < block + kBlock; ++r) {
      double* row = u + r * n;
      for (std::ptrdiff_t k = block; k < r; ++k) subtract(row + r, u + k * n + r, u[k * n + r], n - r);
      if (!(row[r] > 1e-13 * diagonal[r])) return false;
      scale(row + r, 1.0 / __builtin_sqrt(row[r]), n - r);
    }
    update_upper(u, u + block * n, n, kBlock, block + kBlock, -1.0);
  }
  return true;
}

// w: zeros, to the lower triangle W with W U^T = 1.
inline void invert(const double* u, double* w, std::ptrdiff_t n) {
  for (std::ptrdiff_t block = 0; block < n; block += kBlock) {
    for (std::ptrdiff_t r = block; r < block + kBlock; ++r) {
      w[r * n + r] = 1.0;
      for (std::ptrdiff_t k = block; k < r; ++k) subtract(w + r * n, w + k * n, u[k * n + r], k + 1);
      scale(w + r * n, 1.0 / u[r * n + r], r + 1);
    }
    const std::ptrdiff_t end = block + kBlock;
    for (std::ptrdiff_t i = end; i < n; i += kRows)
      for (std::ptrdiff_t j = 0; j < end; j += kColumns)
        update_block(w + i * n + j, u + block * n + i, w + block * n + j, n, kBlock, -1.0);
  }
}

// w (rows of n values) as layout.hpp says.
inline void pack(const double* w, std::ptrdiff_t n, std::ptrdiff_t channels, float* to) {
  for (std::ptrdiff_t p = 0; p < layout::panels(channels); ++p) {
    const layout::Panel panel = layout::panel(channels, p);
    const std::ptrdiff_t end = panel.full + panel.half;  // columns, and one past the last row
    for (std::ptrdiff_t j = 0; j < end; ++j) {
      const std::ptrdiff_t first = end - (j < panel.full ? layout::panel_rows : layout::half_rows);
      for (std::ptrdiff_t i = first; i < end; ++i) *to++ = i < 0 ? 0.0f : static_cast<float>(w[i * n + j]);
    }
  }
}

// The upper triangle of d, packed.
inline void pack_upper(const double* d, std::ptrdiff_t n, std::ptrdiff_t channels, double* to) {
  for (std::ptrdiff_t i = 0; i < channels; ++i, to += channels - i + 1)
    std::memcpy(to, d + i * n + i, sizeof(double) * static_cast<std::size_t>(channels - i));
}

// One position's mean and scatter from its samples (K, C); block and d are scratch.
inline void position_moments(const float* samples, const mahalanobis::Moments& job, std::ptrdiff_t p, double* block,
                             double* d) {
  const std::ptrdiff_t channels = job.channels, n = padded(channels);
  double* mean = job.mean + p * channels;
  for (std::ptrdiff_t c = 0; c < channels; ++c) mean[c] = 0.0;
  for (std::ptrdiff_t k = 0; k < job.count; ++k)
    for (std::ptrdiff_t c = 0; c < channels; ++c) mean[c] += samples[k * channels + c];
  for (std::ptrdiff_t c = 0; c < channels; ++c) mean[c] /= static_cast<double>(job.count);

  std::memset(block, 0, sizeof(double) * static_cast<std::size_t>(kSampleBlock * n));
  std::memset(d, 0, sizeof(double) * static_cast<std::size_t>(n * n));
  for (std::ptrdiff_t k = 0; k < job.count; k += kSampleBlock) {
    const std::ptrdiff_t depth = job.count - k < kSampleBlock ? job.count - k : kSampleBlock;
    for (std::ptrdiff_t i = 0; i < depth; ++i)
      for (std::ptrdiff_t c = 0; c < channels; ++c) block[i * n + c] = samples[(k + i) * channels + c] - mean[c];
    update_upper(d, block, n, depth, 0, 1.0);
  }
  pack_upper(d, n, channels, job.scatter + p * (channels * (channels + 1) / 2));
}

}  // namespace

namespace mahalanobis::MAHALANOBIS_ISA {

void moments(const Moments& job, std::ptrdiff_t first, std::ptrdiff_t last, void* scratch) {
  const std::ptrdiff_t n = padded(job.channels), positions = last - first, values = job.count * job.channels;
  double* block = static_cast<double*>(scratch);
  double* d = block + kSampleBlock * n;
  float* samples = reinterpret_cast<float*>(d + n * n);  // (positions, K, C)
  for (std::ptrdiff_t k = 0; k < job.count; ++k)
    for (std::ptrdiff_t c = 0; c < job.channels; ++c) {
      const float* source =
          job.samples + k * job.sample_stride + c * job.channel_stride + first * job.position_stride;
      float* to = samples + k * job.channels + c;
      for (std::ptrdiff_t i = 0; i < positions; ++i) to[i * values] = source[i * job.position_stride];
    }
  for (std::ptrdiff_t i = 0; i < positions; ++i) position_moments(samples + i * values, job, first + i, block, d);
}

bool whiten(const Whiten& job, std::ptrdiff_t position, void* scratch) {
  const std::ptrdiff_t channels = job.channels, n = padded(channels);
  double* u = static_cast<double*>(scratch);
  double *w = u + n * n, *diagonal = w + n * n;
  std::memset(u, 0, sizeof(double) * static_cast<std::size_t>(2 * n * n));
  const double* scatter = job.scatter + position * (channels * (channels + 1) / 2);
  for (std::ptrdiff_t i = 0; i < channels; ++i) {
    for (std::ptrdiff_t j = i; j < channels; ++j) u[i * n + j] = job.scale * *scatter++;
    u[i * n + i] += job.eps[i];
  }
  for (std::ptrdiff_t i = channels; i < n; ++i) u[i * n + i] = 1.0;
  for (std::ptrdiff_t i = 0; i < n; ++i) diagonal[i] = u[i * n + i];
  if (!cholesky(u, diagonal, n)) return false;
  invert(u, w, n);
  pack(w, n, channels, job.factor + position * layout::packed(channels));
  return true;
}

}  // namespace mahalanobis::MAHALANOBIS_ISA
