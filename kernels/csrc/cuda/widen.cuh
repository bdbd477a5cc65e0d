// Stored numbers to float32, exactly.
#pragma once

#include "device.cuh"
#include "numbers.cuh"

namespace mahalanobis {

MAHALANOBIS_DEVICE float widen(float x) { return x; }
MAHALANOBIS_DEVICE float widen(Half16 x) { return device::from_half(x.bits); }
MAHALANOBIS_DEVICE float widen(Brain16 x) { return device::from_bits(static_cast<std::uint32_t>(x.bits) << 16); }

template <class T>
struct Tag {};

MAHALANOBIS_DEVICE void widen_word(Tag<float>, std::uint32_t word, float* out) { out[0] = device::from_bits(word); }
MAHALANOBIS_DEVICE void widen_word(Tag<Half16>, std::uint32_t word, float* out) {
  out[0] = device::from_half(static_cast<std::uint16_t>(word));
  out[1] = device::from_half(static_cast<std::uint16_t>(word >> 16));
}
MAHALANOBIS_DEVICE void widen_word(Tag<Brain16>, std::uint32_t word, float* out) {
  out[0] = device::from_bits(word << 16);
  out[1] = device::from_bits(word & 0xffff0000u);
}

template <class T, int Count>
MAHALANOBIS_DEVICE void widen(const Packed<T, Count>& packed, float (&out)[Count]) {
  constexpr int per_word = 4 / static_cast<int>(sizeof(T));
#pragma unroll
  for (int i = 0; i < Count / per_word; ++i) widen_word(Tag<T>{}, packed.word[i], out + i * per_word);
}

// `Count` stored numbers from `p` on, or zeros.
template <class T, int Count>
MAHALANOBIS_DEVICE Packed<T, Count> stream_if(bool wanted, const T* p) {
  Packed<T, Count> packed = {};
  if (wanted) device::stream(p, packed);
  return packed;
}

}  // namespace mahalanobis
