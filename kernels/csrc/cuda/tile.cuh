// What one block does: a few neighbouring positions times a group of pictures, on differences from the mean that lie in
// shared memory.
#pragma once

#include "../layout.hpp"
#include "../problem.hpp"
#include "lanes.cuh"
#include "plan.hpp"
#include "widen.cuh"

namespace mahalanobis {

// Where the value of (position, channel, picture) lies in shared memory, in floats.
struct Place {
  int position, channel, picture;
};

struct Tile {
  std::ptrdiff_t first_position;
  int positions;  // that exist, of plan.positions
  std::ptrdiff_t first_picture;
  int pictures;  // that exist, of plan.pictures
};

MAHALANOBIS_DEVICE Tile tile(const Problem& problem, const Plan& plan) {
  const int group = device::block() % plan.groups;  // blocks that run together share factors in the cache
  Tile t;
  t.first_position = static_cast<std::ptrdiff_t>(device::block() / plan.groups) * plan.positions;
  t.first_picture = static_cast<std::ptrdiff_t>(group) * plan.pictures;
  const std::ptrdiff_t positions = problem.model.positions - t.first_position;
  const std::ptrdiff_t pictures = problem.features.batch - t.first_picture;
  t.positions = positions < plan.positions ? static_cast<int>(positions) : plan.positions;
  t.pictures = pictures < plan.pictures ? static_cast<int>(pictures) : plan.pictures;
  return t;
}

// A warp of a block: which position it works for, and which of the position's warps it is.
struct Warp {
  int lane, index, position, part;
};

MAHALANOBIS_DEVICE Warp warp(const Plan& plan) {
  const int index = device::thread() / kLanes;
  return {device::thread() % kLanes, index, index / plan.warps, index % plan.warps};
}

// 4 neighbouring floats of shared memory.
MAHALANOBIS_DEVICE void load4(const float* p, float* x) {
  const Floats four = *reinterpret_cast<const Floats*>(p);
#pragma unroll
  for (int i = 0; i < 4; ++i) x[i] = four.value[i];
}
MAHALANOBIS_DEVICE void store4(float* p, const float* x) { *reinterpret_cast<Floats*>(p) = {{x[0], x[1], x[2], x[3]}}; }

// y = (x - mean) * scale of one tile; zero for channels and pictures that do not exist.
//
// Features are mostly (N, C, h, w): neighbouring threads take neighbouring positions, so that 8 positions use a whole
// sector of 32 bytes. Where channels are neighbours in memory (channels-last), threads take them instead.
template <class T>
MAHALANOBIS_DEVICE void gather(const Problem& problem, const Plan& plan, const Tile& t, const Place& place, float* y) {
  const Features& f = problem.features;
  const Model& m = problem.model;
  const bool last = f.channel_stride == 1;
  const int per_position = device::threads() / plan.positions;  // threads
  const int i = last ? device::thread() / per_position : device::thread() % plan.positions;
  const int first = last ? device::thread() % per_position : device::thread() / plan.positions;
  const std::ptrdiff_t p = t.first_position + i;
  const T* source = static_cast<const T*>(f.data) + t.first_picture * f.batch_stride + p / f.width * f.row_stride +
                    p % f.width * f.column_stride;
  const int channels = i < t.positions ? static_cast<int>(f.channels) : 0;
  for (int c = first; c < plan.channels; c += per_position) {
    const float mean = c < channels ? m.mean[p * m.channels + c] : 0.0f;
    const float scale = c < channels && m.scale != nullptr ? m.scale[c] : 1.0f;
    const T* x = source + c * f.channel_stride;
    float* to = y + i * place.position + c * place.channel;
#pragma unroll 8
    for (int n = 0; n < plan.pictures; ++n)
      to[n * place.picture] = c < channels && n < t.pictures ? (widen(x[n * f.batch_stride]) - mean) * scale : 0.0f;
  }
}

MAHALANOBIS_DEVICE void gather(const Problem& problem, const Plan& plan, const Tile& t, const Place& place, float* y) {
  switch (problem.features.number) {
    case Number::float32: return gather<float>(problem, plan, t, place, y);
    case Number::float16: return gather<Half16>(problem, plan, t, place, y);
    case Number::bfloat16: return gather<Brain16>(problem, plan, t, place, y);
  }
}

// Distances from every warp's share of the squares, sums[warp][picture]; the output is written here, once.
MAHALANOBIS_DEVICE void finish(const Problem& problem, const Plan& plan, const Tile& t, const float* sums) {
  device::sync_block();
  for (int i = device::thread(); i < plan.positions * plan.pictures; i += device::threads()) {
    const int position = i % plan.positions, picture = i / plan.positions;
    if (position >= t.positions || picture >= t.pictures) continue;
    float squared = 0.0f;
    for (int w = 0; w < plan.warps; ++w) squared += sums[(position * plan.warps + w) * plan.pictures + picture];
    problem.out[(t.first_picture + picture) * problem.model.positions + t.first_position + position] =
        device::square_root(squared);
  }
}

}  // namespace mahalanobis
