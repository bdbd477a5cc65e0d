// Every kernel under the name by which it is loaded: PATH_STORAGE_PICTURES. This file alone is what nvcc or NVRTC compiles
// to a binary; launch.cu adds the C functions.
#include "low_rank.cuh"
#include "low_rank_tensor.cuh"
#include "tensor.cuh"
#include "triangular.cuh"
#include "upsample.cuh"

// Two blocks of 256 threads a multiprocessor: 128 registers a thread.
#define MAHALANOBIS_KERNEL(name, body, T, n)                                                             \
  extern "C" __global__ void __launch_bounds__(256, 2)                                                   \
      name(const __grid_constant__ mahalanobis::Problem problem, const __grid_constant__ mahalanobis::Plan plan) { \
    mahalanobis::body<T, n>(problem, plan);                                                              \
  }

#define MAHALANOBIS_STORAGE(T, storage)                                          \
  MAHALANOBIS_KERNEL(vector_##storage##_1, triangular_vector, T, 1)              \
  MAHALANOBIS_KERNEL(vector_##storage##_2, triangular_vector, T, 2)              \
  MAHALANOBIS_KERNEL(vector_##storage##_4, triangular_vector, T, 4)              \
  MAHALANOBIS_KERNEL(vector_##storage##_8, triangular_vector, T, 8)              \
  MAHALANOBIS_KERNEL(tensor_##storage##_16, triangular_tensor, T, 2)             \
  MAHALANOBIS_KERNEL(tensor_##storage##_32, triangular_tensor, T, 4)             \
  MAHALANOBIS_KERNEL(tensor_##storage##_64, triangular_tensor, T, 8)             \
  MAHALANOBIS_KERNEL(low_rank_##storage##_1, low_rank, T, 1)                     \
  MAHALANOBIS_KERNEL(low_rank_##storage##_2, low_rank, T, 2)                     \
  MAHALANOBIS_KERNEL(low_rank_##storage##_4, low_rank, T, 4)                     \
  MAHALANOBIS_KERNEL(low_rank_##storage##_8, low_rank, T, 8)                     \
  MAHALANOBIS_KERNEL(low_rank_tensor_##storage##_16, low_rank_tensor, T, 2)      \
  MAHALANOBIS_KERNEL(low_rank_tensor_##storage##_32, low_rank_tensor, T, 4)      \
  MAHALANOBIS_KERNEL(low_rank_tensor_##storage##_64, low_rank_tensor, T, 8)

MAHALANOBIS_STORAGE(float, float32)
MAHALANOBIS_STORAGE(mahalanobis::Half16, float16)
MAHALANOBIS_STORAGE(mahalanobis::Brain16, bfloat16)

extern "C" __global__ void __launch_bounds__(256, 2)
    upsample_maps(const __grid_constant__ mahalanobis::Upsampling upsampling) {
  mahalanobis::upsample(upsampling);
}
