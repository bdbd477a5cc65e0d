// kernels._launch: what has to be launched on a GPU for a problem, as names, numbers and bytes; it runs nothing and needs
// no CUDA, so it is in every build. Pointers are integers here: whoever made them has checked what lies behind.
#include <nanobind/nanobind.h>
#include <nanobind/stl/array.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>

#include <array>
#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string>
#include <tuple>

#include "../problem.hpp"
#include "plan.hpp"

namespace nb = nanobind;
using namespace mahalanobis;

namespace {

using Address = std::uintptr_t;
using Four = std::array<std::ptrdiff_t, 4>;
// Kernel, blocks, threads of a block, bytes of shared memory, arguments.
using Launch = std::tuple<std::string, int, int, int, nb::bytes>;

template <class T>
const T* at(Address address) {
  return reinterpret_cast<const T*>(address);  // NOLINT: device memory
}

Number number(const std::string& name) {
  if (name == "float32") return Number::float32;
  if (name == "float16") return Number::float16;
  if (name == "bfloat16") return Number::bfloat16;
  throw std::invalid_argument("numbers: expected float32, float16 or bfloat16, got '" + name + "'");
}

template <class... T>
nb::bytes bytes(const T&... parts) {
  static_assert(((sizeof(T) % 8 == 0) && ...), "a kernel's parameters lie at multiples of 8 bytes");
  std::string all;
  (all.append(reinterpret_cast<const char*>(&parts), sizeof parts), ...);
  return nb::bytes(all.data(), all.size());
}

template <class T>
T value(const nb::bytes& content) {
  T t;
  if (content.size() != sizeof t) throw std::invalid_argument("arguments: of another problem");
  std::memcpy(&t, content.c_str(), sizeof t);
  return t;
}

nb::bytes problem(Address features, const std::string& features_number, const Four& shape, const Four& strides,
                  Address factor, const std::string& factor_number, Address mean, Address scale, Address weights,
                  Address tail, std::ptrdiff_t rank, Address out) {
  const Features f{at<void>(features), number(features_number), shape[0], shape[1], shape[2], shape[3],
                   strides[0], strides[1], strides[2], strides[3]};
  const Model m{weights == 0 ? Factorisation::triangular : Factorisation::low_rank, number(factor_number),
                at<void>(factor), at<float>(mean), at<float>(scale), at<float>(weights), at<float>(tail),
                f.channels, f.height * f.width, rank};
  return bytes(Problem{f, m, const_cast<float*>(at<float>(out))});
}

std::string kernel(const Problem& p, const Plan& plan) {
  static const char* const paths[] = {"vector", "tensor", "low_rank", "low_rank_tensor"};
  static const char* const storages[] = {"float32", "float16", "bfloat16"};
  return std::string(paths[static_cast<int>(plan.path)]) + "_" + storages[static_cast<int>(p.model.number)] + "_" +
         std::to_string(plan.pictures);
}

Launch map(const nb::bytes& content, int multiprocessors, int shared_per_block, int shared_per_multiprocessor, int major,
           int minor) {
  const Problem p = value<Problem>(content);
  const Device device{multiprocessors, shared_per_block, shared_per_multiprocessor, fast_tf32(major, minor)};
  Plan chosen{};
  if (!plan(p, device, chosen))
    throw std::invalid_argument("channels: expected at most " + std::to_string(kMaxChannels) + ", got " +
                                std::to_string(p.model.channels));
  return {kernel(p, chosen), chosen.blocks, threads(chosen), chosen.shared_bytes, bytes(p, chosen)};
}

Axis axis(Address weights, Address first, int pixels, int cells, int taps) {
  return {at<float>(weights), at<std::int32_t>(first), pixels, cells, taps};
}

Launch upsample(Address grids, std::ptrdiff_t batch, const std::tuple<Address, Address, int, int, int>& rows,
                const std::tuple<Address, Address, int, int, int>& columns, Address maps, Address scores) {
  const Upsampling u{at<float>(grids), std::apply(axis, rows), std::apply(axis, columns), batch,
                     const_cast<float*>(at<float>(maps)), const_cast<float*>(at<float>(scores))};
  return {"upsample_maps", upsampling_blocks(u), 256, upsampling_shared(u), bytes(u)};
}

}  // namespace

NB_MODULE(_launch, module) {
  using nb::arg;
  module.doc() = "What to launch on a GPU for a problem.";
  module.attr("MAX_CHANNELS") = kMaxChannels;
  module.def("problem", &problem, arg("features"), arg("features_number"), arg("shape"), arg("strides"), arg("factor"),
             arg("factor_number"), arg("mean"), arg("scale"), arg("weights"), arg("tail"), arg("rank"), arg("out"),
             "A Problem of problem.hpp, as bytes; absent arrays are 0, strides count elements.");
  module.def("map", &map, arg("problem"), arg("multiprocessors"), arg("shared_per_block"),
             arg("shared_per_multiprocessor"), arg("major"), arg("minor"),
             "Kernel, blocks, threads, bytes of shared memory and arguments of a map.");
  module.def("upsample", &upsample, arg("grids"), arg("batch"), arg("rows"), arg("columns"), arg("maps"), arg("scores"),
             "The same of an upsampling; an axis is its weights, firsts, pixels, cells and taps.");
}
