// The kernels as C functions: pointers to device memory and a stream. They allocate nothing and do not wait, so they may
// be captured into a graph. Every function returns a CUDA error, 0 for success.
#include "kernels.cu"
#include "plan.hpp"

#if defined(__CUDACC__)
#include <cuda_runtime.h>
#endif

namespace {

using mahalanobis::Number;
using mahalanobis::Path;
using mahalanobis::Plan;
using mahalanobis::Problem;
using mahalanobis::Upsampling;

using Kernel = void (*)(Problem, Plan);

// By path, storage and log2 of the pictures.
#define MAHALANOBIS_ROW(storage)                                                                       \
  {{vector_##storage##_1, vector_##storage##_2, vector_##storage##_4, vector_##storage##_8},          \
   {nullptr, tensor_##storage##_16, tensor_##storage##_32, tensor_##storage##_64},                    \
   {low_rank_##storage##_1, low_rank_##storage##_2, low_rank_##storage##_4, low_rank_##storage##_8},   \
   {nullptr, low_rank_tensor_##storage##_16, low_rank_tensor_##storage##_32, low_rank_tensor_##storage##_64}}

Kernel kernel(const Problem& problem, const Plan& plan) {
  static const Kernel table[3][4][4] = {MAHALANOBIS_ROW(float32), MAHALANOBIS_ROW(float16), MAHALANOBIS_ROW(bfloat16)};
  const int unit = on_tensor_cores(plan.path) ? 8 : 1;
  int row = 0;
  while (unit << row < plan.pictures) ++row;
  return table[static_cast<int>(problem.model.number)][static_cast<int>(plan.path)][row];
}

cudaError_t describe(mahalanobis::Device& device) {
  int current = 0, major = 0, minor = 0;
  cudaError_t error = cudaGetDevice(&current);
  const auto ask = [&](int& value, cudaDeviceAttr attribute) {
    if (error == cudaSuccess) error = cudaDeviceGetAttribute(&value, attribute, current);
  };
  ask(device.multiprocessors, cudaDevAttrMultiProcessorCount);
  ask(device.shared_per_block, cudaDevAttrMaxSharedMemoryPerBlockOptin);
  ask(device.shared_per_multiprocessor, cudaDevAttrMaxSharedMemoryPerMultiprocessor);
  ask(major, cudaDevAttrComputeCapabilityMajor);
  ask(minor, cudaDevAttrComputeCapabilityMinor);
  device.fast_tf32 = mahalanobis::fast_tf32(major, minor);
  return error;
}

}  // namespace

extern "C" {

// Distances of a problem; see problem.hpp. cudaErrorInvalidValue where it has more than 2048 channels.
cudaError_t mahalanobis_map(const Problem* problem, cudaStream_t stream) {
  if (problem->features.batch == 0 || problem->model.positions == 0) return cudaSuccess;
  mahalanobis::Device device{};
  if (const cudaError_t error = describe(device); error != cudaSuccess) return error;
  Plan plan{};
  if (!mahalanobis::plan(*problem, device, plan)) return cudaErrorInvalidValue;
  const Kernel chosen = kernel(*problem, plan);
  const cudaError_t error =
      cudaFuncSetAttribute(chosen, cudaFuncAttributeMaxDynamicSharedMemorySize, plan.shared_bytes);
  if (error != cudaSuccess) return error;
  Problem by_value = *problem;
  void* arguments[] = {&by_value, &plan};
  return cudaLaunchKernel(chosen, dim3(plan.blocks), dim3(mahalanobis::threads(plan)), arguments, plan.shared_bytes,
                          stream);
}

// Maps and scores of grids.
cudaError_t mahalanobis_upsample(const Upsampling* upsampling, cudaStream_t stream) {
  const int blocks = mahalanobis::upsampling_blocks(*upsampling);
  if (blocks == 0) return cudaSuccess;
  const auto batch = static_cast<std::size_t>(upsampling->batch);
  const cudaError_t error = cudaMemsetAsync(upsampling->scores, 0, batch * sizeof(float), stream);
  if (error != cudaSuccess) return error;
  Upsampling by_value = *upsampling;
  void* arguments[] = {&by_value};
  return cudaLaunchKernel(upsample_maps, dim3(blocks), dim3(256), arguments,
                          mahalanobis::upsampling_shared(*upsampling), stream);
}

}  // extern "C"
