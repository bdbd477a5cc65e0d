// A GPU for tests: the threads of a block are fibers of one CPU thread, and the lanes of a warp wait for each other where
// they exchange values. Shared memory is a block of the heap of exactly the size asked for, full of NaN, so that a
// sanitizer sees every access outside of it. Fibers show no races between warps.
#pragma once

#include <sanitizer/common_interface_defs.h>
#include <ucontext.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <memory>
#include <vector>

#include "numbers.cuh"

#define __global__
#define __grid_constant__
#define __launch_bounds__(...)
#define MAHALANOBIS_DEVICE static inline

namespace host {

constexpr int kStackBytes = 256 << 10;

struct Barrier {
  int arrived = 0;
  long passed = 0;
};

// What a lane shows the others of its warp.
struct Shown {
  float value[6];
};

struct Warp {
  Barrier barrier;
  Shown shown[2][32];  // exchanges take turns: nobody writes what somebody may still read
};

struct Fiber {
  ucontext_t context;
  std::unique_ptr<char[]> stack{new char[kStackBytes]};
  void* sanitizer = nullptr;
  int turn = 0;
  bool done = false;
};

struct Block {
  std::vector<Fiber> fibers;
  std::vector<Warp> warps;
  Barrier barrier;
  std::unique_ptr<float[]> shared;
  int index = 0, current = 0, idle = 0;
  ucontext_t outside;
  void* outside_sanitizer = nullptr;
  const void* outside_stack = nullptr;
  std::size_t outside_bytes = 0;
  void (*body)(void*) = nullptr;
  void* arguments = nullptr;
};

inline Block* block = nullptr;

inline Fiber& fiber() { return block->fibers[static_cast<std::size_t>(block->current)]; }
inline Warp& warp() { return block->warps[static_cast<std::size_t>(block->current / 32)]; }

// To the next fiber that is not done, or out of the block.
inline void leave(bool done) {
  Fiber& from = fiber();
  const int count = static_cast<int>(block->fibers.size());
  int next = block->current;
  for (int step = 1; step <= count; ++step) {
    next = (block->current + step) % count;
    if (!block->fibers[static_cast<std::size_t>(next)].done) break;
  }
  void** kept = done ? nullptr : &from.sanitizer;  // a fiber that ends gives its record back
  if (block->fibers[static_cast<std::size_t>(next)].done) {
    __sanitizer_start_switch_fiber(kept, block->outside_stack, block->outside_bytes);
    setcontext(&block->outside);
  }
  if (next == block->current) return;
  block->current = next;
  Fiber& to = fiber();
  __sanitizer_start_switch_fiber(kept, to.stack.get(), kStackBytes);
  swapcontext(&from.context, &to.context);
  __sanitizer_finish_switch_fiber(from.sanitizer, nullptr, nullptr);
}

inline void wait(Barrier& barrier, int parties) {
  const long passed = barrier.passed;
  if (++barrier.arrived == parties) {
    barrier.arrived = 0;
    ++barrier.passed;
    block->idle = 0;
    return;
  }
  while (barrier.passed == passed) {
    if (++block->idle > 4 * static_cast<int>(block->fibers.size())) {
      std::fprintf(stderr, "block %d: a barrier that not all threads reach\n", block->index);
      std::abort();
    }
    leave(false);
  }
}

inline void start() {
  const void* bottom = nullptr;
  std::size_t bytes = 0;
  __sanitizer_finish_switch_fiber(nullptr, &bottom, &bytes);
  if (block->outside_stack == nullptr) {
    block->outside_stack = bottom;
    block->outside_bytes = bytes;
  }
  block->body(block->arguments);
  fiber().done = true;
  block->idle = 0;
  leave(true);
}

inline void run_block(int index, int threads, std::size_t shared_bytes) {
  block->index = index;
  block->current = 0;
  block->shared.reset(new float[shared_bytes / sizeof(float)]);
  std::fill_n(block->shared.get(), shared_bytes / sizeof(float), std::numeric_limits<float>::quiet_NaN());
  block->warps.assign(static_cast<std::size_t>(threads / 32), Warp{});
  for (Fiber& f : block->fibers) {
    f.done = false;
    f.turn = 0;
    getcontext(&f.context);
    f.context.uc_stack = {f.stack.get(), 0, kStackBytes};
    f.context.uc_link = nullptr;
    makecontext(&f.context, start, 0);
  }
  __sanitizer_start_switch_fiber(&block->outside_sanitizer, fiber().stack.get(), kStackBytes);
  swapcontext(&block->outside, &fiber().context);
  __sanitizer_finish_switch_fiber(block->outside_sanitizer, nullptr, nullptr);
}

inline void run(int blocks, int threads, std::size_t shared_bytes, void (*body)(void*), void* arguments) {
  Block all;
  all.fibers = std::vector<Fiber>(static_cast<std::size_t>(threads));
  all.body = body;
  all.arguments = arguments;
  block = &all;
  for (int i = 0; i < blocks; ++i) run_block(i, threads, shared_bytes);
  block = nullptr;
}

// Shows values to the warp, waits for all lanes, and gives what they show.
inline const Shown* show(const Shown& mine) {
  Shown* turn = warp().shown[fiber().turn ^= 1];
  turn[block->current % 32] = mine;
  wait(warp().barrier, 32);
  return turn;
}

}  // namespace host

namespace mahalanobis::device {

inline int thread() { return host::block->current; }
inline int threads() { return static_cast<int>(host::block->fibers.size()); }
inline int block() { return host::block->index; }
inline void sync_block() { host::wait(host::block->barrier, threads()); }
inline void sync_warp() { host::wait(host::warp().barrier, 32); }
inline float* shared() { return host::block->shared.get(); }

inline float exchange(float value, int bits) {
  const int other = thread() % 32 ^ bits;
  return host::show({{value}})[other].value[0];
}

inline int warp_max(int value) {
  float bits;
  std::memcpy(&bits, &value, sizeof bits);
  const host::Shown* all = host::show({{bits}});
  int most = value;
  for (int lane = 0; lane < 32; ++lane) {
    int other;
    std::memcpy(&other, all[lane].value, sizeof other);
    most = other > most ? other : most;
  }
  return most;
}

template <int N>
inline void stream(const void* p, Words<N>& out) {
  out = *static_cast<const Words<N>*>(p);  // aligned, or UBSan complains as the GPU would
}

inline float from_bits(std::uint32_t bits) {
  float x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}
inline int to_bits(float x) {
  int bits;
  std::memcpy(&bits, &x, sizeof bits);
  return bits;
}
inline float from_half(std::uint16_t bits) {
  _Float16 x;
  std::memcpy(&x, &bits, sizeof x);
  return static_cast<float>(x);
}
inline float square_root(float x) { return std::sqrt(x); }
inline void atomic_max(int* at, int value) { *at = value > *at ? value : *at; }

// To 11 significant bits, ties away from zero.
inline float to_tf32(float x) {
  if (!std::isfinite(x)) return x;
  return from_bits((static_cast<std::uint32_t>(to_bits(x)) + 0x1000u) & ~0x1fffu);
}

// The matrix unit adds exact products and cuts the sum off; it ignores the bits that tf32 has not.
inline float multiply_add_8(float c, const float (&a)[8], const float (&b)[8]) {
  double sum = c;
  for (int k = 0; k < 8; ++k) {
    const std::uint32_t rest = static_cast<std::uint32_t>(to_bits(a[k])) | static_cast<std::uint32_t>(to_bits(b[k]));
    if (std::isfinite(a[k]) && std::isfinite(b[k]) && (rest & 0x1fffu) != 0) {
      std::fprintf(stderr, "operands that are not tf32: %a %a\n", a[k], b[k]);
      std::abort();
    }
    sum += static_cast<double>(a[k]) * b[k];
  }
  const float nearest = static_cast<float>(sum);
  return std::fabs(nearest) > std::fabs(sum) ? std::nextafter(nearest, 0.0f) : nearest;
}

inline void multiply_tf32(float (&c)[4], const float (&a)[4], const float (&b)[2]) {
  const host::Shown* all = host::show({{a[0], a[1], a[2], a[3], b[0], b[1]}});
  const int g = thread() % 32 / 4, t = thread() % 4;
  for (int i = 0; i < 4; ++i) {
    float left[8], right[8];
    for (int k = 0; k < 8; ++k) {
      left[k] = all[g * 4 + k % 4].value[k / 4 * 2 + i / 2];
      right[k] = all[(2 * t + i % 2) * 4 + k % 4].value[4 + k / 4];
    }
    c[i] = multiply_add_8(c[i], left, right);
  }
}

}  // namespace mahalanobis::device
