// The launch file and all kernels for the CPU, with the few functions of CUDA's runtime that it calls.
#include "host.hpp"

#include <algorithm>
#include <tuple>
#include <utility>

using cudaStream_t = void*;
enum cudaError_t { cudaSuccess = 0, cudaErrorInvalidValue = 1 };
enum cudaDeviceAttr {
  cudaDevAttrMultiProcessorCount,
  cudaDevAttrMaxSharedMemoryPerBlockOptin,
  cudaDevAttrMaxSharedMemoryPerMultiprocessor,
  cudaDevAttrComputeCapabilityMajor,
  cudaDevAttrComputeCapabilityMinor,
};
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize };
struct dim3 {
  int x;
  explicit dim3(int x) : x(x) {}
};

namespace {

int attributes[5] = {};

cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  *value = attributes[attribute];
  return cudaSuccess;
}
template <class Kernel>
cudaError_t cudaFuncSetAttribute(Kernel, cudaFuncAttribute, int bytes) {
  return bytes <= attributes[cudaDevAttrMaxSharedMemoryPerBlockOptin] ? cudaSuccess : cudaErrorInvalidValue;
}
cudaError_t cudaMemsetAsync(void* at, int value, std::size_t bytes, cudaStream_t) {
  std::memset(at, value, bytes);
  return cudaSuccess;
}

template <class... A, std::size_t... I>
void call(void (*kernel)(A...), void** arguments, std::index_sequence<I...>) {
  kernel(*static_cast<A*>(arguments[I])...);
}

template <class... A>
cudaError_t cudaLaunchKernel(void (*kernel)(A...), dim3 blocks, dim3 threads, void** arguments, std::size_t shared_bytes,
                             cudaStream_t) {
  using Call = std::pair<void (*)(A...), void**>;
  Call one{kernel, arguments};
  host::run(
      blocks.x, threads.x, shared_bytes,
      [](void* p) {
        const Call& c = *static_cast<Call*>(p);
        call(c.first, c.second, std::index_sequence_for<A...>{});
      },
      &one);
  return cudaSuccess;
}

}  // namespace

#include "launch.cu"

extern "C" void describe_device(const int* values) { std::copy_n(values, 5, attributes); }
