// How a problem is spread over a GPU: which kernel, the block's shape, its shared memory. Pure arithmetic on the host, so
// that the C library, the Python package and the tests take the same plan.
#pragma once

#include "../layout.hpp"
#include "../problem.hpp"

namespace mahalanobis {

constexpr int kWarps = 8;            // of a block
constexpr int kWarpChannels = 512;   // of a low-rank row, per warp
constexpr int kTensorPadding = 8;    // floats after the pictures of a channel: lanes of an operand meet different banks
constexpr int kTensorRows = 16;      // of a low-rank factor at a time, on tensor cores
constexpr int kTensorChannels = 16;  // of them at a time
constexpr int kRowPadding = 4;       // floats after such a row, and after its pictures, for the banks as well
constexpr int kVectorPictures = 8;   // the most of the vector path
constexpr int kMaxChannels = 2048;
constexpr int kStripRows = 8;        // of a map, per block of the upsampling

enum class Path { vector, tensor, low_rank, low_rank_tensor };

// Whether a path runs on tensor cores, and the one that does without and takes any shape.
static constexpr bool on_tensor_cores(Path path) { return path == Path::tensor || path == Path::low_rank_tensor; }
static constexpr Path without_tensor_cores(Path path) {
  return path == Path::tensor ? Path::vector : path == Path::low_rank_tensor ? Path::low_rank : path;
}

struct Device {
  int multiprocessors;
  int shared_per_block, shared_per_multiprocessor;  // bytes
  bool fast_tf32;
};

// Whether a chip's tf32 products are several times as fast as its float32 ones: data-centre chips are built so. On others
// both are equally fast, and three of the one cost more than the one of the other that they replace.
static constexpr bool fast_tf32(int major, int minor) { return minor == 0 && (major == 8 || major == 9 || major == 10); }

struct Plan {
  Path path;
  int pictures;   // of a block: the kernel's template argument
  int positions;  // of a block
  int warps;      // of a position
  int groups;     // of pictures
  int channels;   // rows of y in shared memory, some of them zero
  int stride;     // floats of shared memory from one position to the next
  int factor_values;  // of one position
  int blocks, shared_bytes;
};

static constexpr int round_up(int value, int step) { return (value + step - 1) / step * step; }

static constexpr int divide_up(std::ptrdiff_t value, int step) { return static_cast<int>((value + step - 1) / step); }

static inline Path path(const Problem& problem, const Device& device) {
  const bool low_rank = problem.model.factorisation == Factorisation::low_rank;
  if (device.fast_tf32 && problem.features.batch > kVectorPictures) return low_rank ? Path::low_rank_tensor : Path::tensor;
  return low_rank ? Path::low_rank : Path::vector;
}

// The plan of one block shape; it need not fit the device.
static inline Plan shape(const Problem& problem, Path path, int pictures, int positions) {
  const int channels = static_cast<int>(problem.model.channels);
  Plan p{path, pictures, positions, kWarps / positions, divide_up(problem.features.batch, pictures), 0, 0, 0, 0, 0};
  int sums = kWarps * pictures;
  if (path == Path::low_rank) {
    p.warps = divide_up(channels, kWarpChannels);
    p.channels = round_up(channels, 128);  // 4 per lane
    p.stride = p.channels * pictures;
    p.factor_values = static_cast<int>(problem.model.rank * layout::row(channels));
    sums = positions * p.warps * pictures * (1 + 3 * 4);  // and z of 4 rows: two of them, and their total
  } else if (path == Path::low_rank_tensor) {
    p.channels = round_up(channels, kTensorChannels);
    p.stride = p.channels * (pictures + kTensorPadding) + 4;
    p.factor_values = static_cast<int>(problem.model.rank * layout::row(channels));
    const int z = kTensorRows * (pictures + kRowPadding), parts = p.warps > 1 ? p.warps : 0;
    sums += positions * (kTensorRows * (p.channels + kRowPadding) + (1 + parts) * z);  // and rows of U, z and its parts
  } else {
    const int row = path == Path::tensor ? pictures + kTensorPadding : pictures;
    p.channels = round_up(channels, 8);  // as far as zeros at the end of a panel are multiplied
    p.stride = round_up(p.channels * row, 4) + 4;
    p.factor_values = static_cast<int>(layout::packed(channels));
  }
  p.blocks = divide_up(problem.model.positions, positions) * p.groups;
  p.shared_bytes = (positions * p.stride + sums) * static_cast<int>(sizeof(float));
  return p;
}

static constexpr std::ptrdiff_t item_bytes(Number number) { return number == Number::float32 ? 4 : 2; }

// Bytes that all blocks fetch through the second-level cache if they run in full waves: the factor once per group of
// pictures, features in whole sectors of 32 bytes.
static inline double cost(const Problem& problem, const Device& device, const Plan& plan) {
  const double sector = 32.0, item = static_cast<double>(item_bytes(problem.features.number));
  const double run = problem.features.channel_stride == 1 ? sector : plan.positions * item;
  const double wasted = run < sector ? sector / run : 1.0;
  const double factor = static_cast<double>(plan.factor_values) * item_bytes(problem.model.number);
  const double features = static_cast<double>(plan.pictures) * problem.model.channels * item * wasted;
  const int fit = device.shared_per_multiprocessor / (plan.shared_bytes + 1024);
  const int slots = device.multiprocessors * (fit < 1 ? 1 : fit < 2 ? fit : 2);
  const double waves = divide_up(plan.blocks, slots);
  return waves * slots * plan.positions * (factor + features) * (fit < 2 ? 1.5 : 1.0);  // one block cannot hide its start
}

// The cheapest shape of a path that fits; false where none does.
static inline bool cheapest(const Problem& problem, const Device& device, Path way, Plan& best) {
  const int smallest = on_tensor_cores(way) ? 16 : 1, largest = on_tensor_cores(way) ? 64 : kVectorPictures;
  bool found = false;
  for (int pictures = smallest; pictures <= largest; pictures *= 2) {
    for (int positions = 1; positions <= kWarps; positions *= 2) {
      const Plan one = shape(problem, way, pictures, positions);
      if (positions * one.warps > kWarps || one.shared_bytes > device.shared_per_block) continue;
      if (found && cost(problem, device, one) >= cost(problem, device, best)) continue;
      best = one;
      found = true;
    }
    if (pictures >= problem.features.batch) break;
  }
  return found;
}

// False where the problem is too large for the device. Very many channels leave no room for an operand's 16 pictures.
static inline bool plan(const Problem& problem, const Device& device, Plan& best) {
  if (problem.model.channels > kMaxChannels) return false;
  const Path way = path(problem, device);
  return cheapest(problem, device, way, best) || cheapest(problem, device, without_tensor_cores(way), best);
}

// Blocks, and bytes of shared memory, of the upsampling.
static inline int upsampling_blocks(const Upsampling& u) {
  return static_cast<int>(u.batch) * divide_up(u.rows.pixels, kStripRows);
}
static inline int upsampling_shared(const Upsampling& u) {
  return kStripRows * u.columns.cells * static_cast<int>(sizeof(float));
}

static inline int threads(const Plan& plan) { return 32 * plan.positions * plan.warps; }

}  // namespace mahalanobis
