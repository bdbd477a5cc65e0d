// Everything that only a GPU can do, as small functions: the kernels are plain C++ around them. Compiled by nvcc or NVRTC
// they are instructions; compiled by a C++ compiler they come from tests/kernels/cuda/host.hpp, where a block's threads
// are fibers and a warp's lanes meet at every exchange. So the tests run the kernels themselves, under sanitizers.
#pragma once

#include <cstdint>

#include "numbers.cuh"

#if !defined(__CUDACC__)
#include "host.hpp"
#else

#define MAHALANOBIS_DEVICE __device__ __forceinline__

namespace mahalanobis::device {

MAHALANOBIS_DEVICE int thread() { return static_cast<int>(threadIdx.x); }
MAHALANOBIS_DEVICE int threads() { return static_cast<int>(blockDim.x); }
MAHALANOBIS_DEVICE int block() { return static_cast<int>(blockIdx.x); }

MAHALANOBIS_DEVICE void sync_block() { __syncthreads(); }
MAHALANOBIS_DEVICE void sync_warp() { __syncwarp(); }

// The block's dynamic shared memory.
MAHALANOBIS_DEVICE float* shared() {
  extern __shared__ float4 mahalanobis_shared[];
  return reinterpret_cast<float*>(mahalanobis_shared);
}

// The value of the lane whose number differs in these bits; every lane of the warp calls it.
MAHALANOBIS_DEVICE float exchange(float value, int bits) { return __shfl_xor_sync(0xffffffffu, value, bits); }

// The greatest value of the warp; every lane calls it and gets it.
MAHALANOBIS_DEVICE int warp_max(int value) { return __reduce_max_sync(0xffffffffu, value); }

// Factors are read once: they pass the first-level cache by and leave it to the features.
MAHALANOBIS_DEVICE void stream(const void* p, Words<4>& out) {
  asm("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
      : "=r"(out.word[0]), "=r"(out.word[1]), "=r"(out.word[2]), "=r"(out.word[3])
      : "l"(p));
}
MAHALANOBIS_DEVICE void stream(const void* p, Words<2>& out) {
  asm("ld.global.nc.L1::no_allocate.v2.u32 {%0, %1}, [%2];" : "=r"(out.word[0]), "=r"(out.word[1]) : "l"(p));
}
MAHALANOBIS_DEVICE void stream(const void* p, Words<1>& out) {
  asm("ld.global.nc.L1::no_allocate.u32 %0, [%1];" : "=r"(out.word[0]) : "l"(p));
}

MAHALANOBIS_DEVICE float from_bits(std::uint32_t bits) { return __uint_as_float(bits); }
MAHALANOBIS_DEVICE int to_bits(float x) { return __float_as_int(x); }
MAHALANOBIS_DEVICE float from_half(std::uint16_t bits) {
  float x;
  asm("cvt.f32.f16 %0, %1;" : "=f"(x) : "h"(bits));
  return x;
}
MAHALANOBIS_DEVICE float square_root(float x) { return __fsqrt_rn(x); }
MAHALANOBIS_DEVICE void atomic_max(int* at, int value) { atomicMax(at, value); }

// x rounded to the 11 significant bits of tf32.
MAHALANOBIS_DEVICE float to_tf32(float x) {
  std::uint32_t bits;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(x));
  return __uint_as_float(bits);
}

// c (16 x 8) += a (16 x 8) b (8 x 8) by the warp. Lane (g, t) = (lane / 4, lane % 4) holds a at rows g, g + 8 of columns t
// (a[0], a[1]) and t + 4 (a[2], a[3]); b at rows t, t + 4 of column g; c at rows g (c[0], c[1]) and g + 8 of columns
// 2 t, 2 t + 1.
MAHALANOBIS_DEVICE void multiply_tf32(float (&c)[4], const float (&a)[4], const float (&b)[2]) {
  asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(__float_as_uint(a[0])), "r"(__float_as_uint(a[1])), "r"(__float_as_uint(a[2])), "r"(__float_as_uint(a[3])),
        "r"(__float_as_uint(b[0])), "r"(__float_as_uint(b[1])));
}

}  // namespace mahalanobis::device

#endif
