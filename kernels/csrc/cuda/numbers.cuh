// Stored numbers, and registers that hold a few of them.
#pragma once

#include <cstdint>

namespace mahalanobis {

struct Half16 {
  std::uint16_t bits;
};
struct Brain16 {
  std::uint16_t bits;
};

// What one load brings: 4, 8 or 16 bytes.
template <int N>
struct alignas(4 * N) Words {
  std::uint32_t word[N];
};

// The same for float32 that is used as such: C++ allows to read floats through it, through words it does not.
struct alignas(16) Floats {
  float value[4];
};

template <class T, int Count>
using Packed = Words<Count * static_cast<int>(sizeof(T)) / 4>;

}  // namespace mahalanobis
