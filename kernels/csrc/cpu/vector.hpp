// Vectors of the instruction set that this file is compiled for, and loads that widen to float32.
//
// Everything has internal linkage and nothing of the standard library is instantiated: the linker may keep one copy
// of an inline function for the whole module, and that copy must not hold instructions that the machine lacks.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace {

#if defined(__AVX512F__)
constexpr int kLanes = 16;
constexpr int kPictures = 8;  // pictures whose accumulators fit in registers
#elif defined(__AVX2__)
constexpr int kLanes = 8;
constexpr int kPictures = 4;
#else
constexpr int kLanes = 4;
constexpr int kPictures = sizeof(void*) == 8 ? 4 : 2;
#endif
constexpr int kHalfLanes = kLanes < 8 ? kLanes : 8;

template <int L>
struct Types {
  typedef float Float __attribute__((vector_size(4 * L)));
  typedef float Unaligned __attribute__((vector_size(4 * L), aligned(4), may_alias));
  typedef std::uint32_t Bits __attribute__((vector_size(4 * L)));
  typedef std::uint16_t Short __attribute__((vector_size(2 * L)));
};
template <int L>
using Float = typename Types<L>::Float;

typedef double Double __attribute__((vector_size(4 * kLanes)));
typedef double UnalignedDouble __attribute__((vector_size(4 * kLanes), aligned(8), may_alias));

struct Half16 {
  std::uint16_t bits;
};
struct Brain16 {
  std::uint16_t bits;
};

template <int L>
inline Float<L> load(const float* p) {
  return *reinterpret_cast<const typename Types<L>::Unaligned*>(p);
}

template <int L>
inline void store(float* p, Float<L> v) {
  *reinterpret_cast<typename Types<L>::Unaligned*>(p) = v;
}

template <int L>
inline typename Types<L>::Bits widen(const void* p) {
  typename Types<L>::Short s;
  std::memcpy(&s, p, sizeof s);
  return __builtin_convertvector(s, typename Types<L>::Bits);
}

template <int L>
inline Float<L> load(const Brain16* p) {
  // GCC widens in two halves where one instruction does.
#if defined(__AVX2__)
  if constexpr (L == 8) {
    const __m256i bits = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
    return reinterpret_cast<Float<L>>(_mm256_slli_epi32(bits, 16));
  }
#endif
  return reinterpret_cast<Float<L>>(widen<L>(p) << 16);
}

template <int L>
inline Float<L> load(const Half16* p) {
#if defined(__F16C__)
  if constexpr (L == 8) return reinterpret_cast<Float<L>>(_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
#endif
#if defined(__AVX512F__)
  if constexpr (L == 16) return reinterpret_cast<Float<L>>(_mm512_maskz_cvtph_ps(0xffff, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))));
#endif
  const auto h = widen<L>(p);
  const auto magnitude = (h & 0x7fffu) << 13;
  const auto special = reinterpret_cast<typename Types<L>::Bits>((h & 0x7c00u) == 0x7c00u) & 0x7f800000u;  // inf, NaN
  const auto value = reinterpret_cast<Float<L>>(magnitude) * 0x1p112f;  // rebias the exponent; exact, subnormals too
  return reinterpret_cast<Float<L>>(reinterpret_cast<typename Types<L>::Bits>(value) | special | (h & 0x8000u) << 16);
}

// Four vectors as rows to four as columns.
inline void transpose(Float<4> (&v)[4]) {
#if defined(__clang__) || __GNUC__ >= 12
#define MAHALANOBIS_MIX(a, b, i, j, k, l) __builtin_shufflevector(a, b, i, j, k, l)
#else
#define MAHALANOBIS_MIX(a, b, i, j, k, l) __builtin_shuffle(a, b, Types<4>::Bits{i, j, k, l})
#endif
  const Float<4> a = MAHALANOBIS_MIX(v[0], v[1], 0, 4, 1, 5), b = MAHALANOBIS_MIX(v[0], v[1], 2, 6, 3, 7);
  const Float<4> c = MAHALANOBIS_MIX(v[2], v[3], 0, 4, 1, 5), d = MAHALANOBIS_MIX(v[2], v[3], 2, 6, 3, 7);
  v[0] = MAHALANOBIS_MIX(a, c, 0, 1, 4, 5);
  v[1] = MAHALANOBIS_MIX(a, c, 2, 3, 6, 7);
  v[2] = MAHALANOBIS_MIX(b, d, 0, 1, 4, 5);
  v[3] = MAHALANOBIS_MIX(b, d, 2, 3, 6, 7);
#undef MAHALANOBIS_MIX
}

inline float scalar(float x) { return x; }
inline float scalar(Brain16 x) {
  const std::uint32_t bits = std::uint32_t{x.bits} << 16;
  float f;
  std::memcpy(&f, &bits, sizeof f);
  return f;
}
inline float scalar(Half16 x) {
  const Half16 four[4] = {x, x, x, x};
  return load<4>(four)[0];
}

inline float sum(Float<4> v) { return (v[0] + v[1]) + (v[2] + v[3]); }
template <int L>
inline Float<L / 2> fold(Float<L> v) {
  Float<L / 2> parts[2];
  std::memcpy(parts, &v, sizeof v);
  return parts[0] + parts[1];
}
inline float sum(Float<8> v) { return sum(fold<8>(v)); }
#if defined(__AVX512F__)
inline float sum(Float<16> v) { return sum(fold<16>(v)); }
#endif

}  // namespace
