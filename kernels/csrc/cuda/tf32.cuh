// Products of float32 numbers by tensor cores, as exact as float32 ones.
//
// tf32 has 11 significant bits, so one product of rounded operands would be wrong by 1e-3. Each float32 is split into two
// tf32 numbers that together hold 22 bits, and three of the four products are added, the smallest first. bfloat16 triples
// would not do (16 bits of two terms, times a root of the condition number), and three terms take six products. A float16
// or a bfloat16 *is* a tf32 number: such a factor needs two products.
//
// The unit cuts its sums off instead of rounding them, always towards zero: 3 10^-6 would be lost over 448 channels, 10^-5
// over 1024. So it adds up 16 or 32 channels at most; the sums of those are added outside of it.
#pragma once

#include "widen.cuh"

namespace mahalanobis {

constexpr int kDepth = 8;  // of an operand: columns of the left one, rows of the right one
constexpr int kTilePictures = 8;

struct Split {
  float big, small;
};

MAHALANOBIS_DEVICE Split split(float x) {
  const float big = device::to_tf32(x);
  return {big, device::to_tf32(x - big)};
}

// A left operand of values that are stored as T, a right operand of float32, ordered as in device::multiply_tf32.
template <class T>
struct Left {
  static constexpr bool exact = sizeof(T) == 2;
  float big[4], small[4];
};
struct Right {
  float big[2], small[2];
};

template <class T>
MAHALANOBIS_DEVICE Left<T> left(const float (&x)[4]) {
  Left<T> operand;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const Split s = Left<T>::exact ? Split{x[i], 0.0f} : split(x[i]);
    operand.big[i] = s.big;
    operand.small[i] = s.small;
  }
  return operand;
}

MAHALANOBIS_DEVICE Right right(float upper, float lower) {
  const Split u = split(upper), l = split(lower);
  return {{u.big, l.big}, {u.small, l.small}};
}

// c += a b.
template <class T>
MAHALANOBIS_DEVICE void multiply(float (&c)[4], const Left<T>& a, const Right& b) {
  if constexpr (!Left<T>::exact) device::multiply_tf32(c, a.small, b.big);
  device::multiply_tf32(c, a.big, b.small);
  device::multiply_tf32(c, a.big, b.big);
}

}  // namespace mahalanobis
