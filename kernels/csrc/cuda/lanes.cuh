// Sums across the lanes of a warp.
#pragma once

#include "device.cuh"

namespace mahalanobis {

constexpr int kLanes = 32;

// What is left per lane when `count` numbers are summed over lanes whose numbers differ in bits `high` .. `low`.
static constexpr int kept(int count, int high, int low) {
  for (int bit = high; bit >= low; bit /= 2) count = count > 1 ? count / 2 : 1;
  return count;
}

// The bits of lane numbers that make no difference afterwards: lanes that differ only there hold equal sums.
static constexpr int copies(int count, int high, int low) {
  int bits = 0;
  for (int bit = high; bit >= low; bit /= 2) {
    if (count == 1) bits |= bit;
    count = count > 1 ? count / 2 : 1;
  }
  return bits;
}

// Sums z over the lanes that differ in bits High .. Low, and leaves each of them a share: at every step a lane keeps one
// half of its numbers and gives the other away, so the numbers sent shrink as well. Lanes with the highest bits set keep
// the last of the numbers.
template <int High, int Low, int Count>
MAHALANOBIS_DEVICE void share_sums(const float (&z)[Count], int lane, float (&out)[kept(Count, High, Low)]) {
  if constexpr (High < Low) {
#pragma unroll
    for (int i = 0; i < Count; ++i) out[i] = z[i];
  } else if constexpr (Count == 1) {
    const float next[1] = {z[0] + device::exchange(z[0], High)};
    share_sums<High / 2, Low>(next, lane, out);
  } else {
    const bool upper = (lane & High) != 0;
    float next[Count / 2];
#pragma unroll
    for (int i = 0; i < Count / 2; ++i) {
      const float given = upper ? z[i] : z[i + Count / 2];
      next[i] = (upper ? z[i + Count / 2] : z[i]) + device::exchange(given, High);
    }
    share_sums<High / 2, Low>(next, lane, out);
  }
}

// The sum over groups of `size` neighbouring lanes, a power of two; every lane of a group gets it.
template <int Size>
MAHALANOBIS_DEVICE float group_sum(float x) {
#pragma unroll
  for (int bit = Size / 2; bit > 0; bit /= 2) x += device::exchange(x, bit);
  return x;
}

}  // namespace mahalanobis
