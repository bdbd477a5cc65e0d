// kernels._cpu: the map on NumPy arrays. The Python side has checked meaning; here every size is checked again, so
// that no call can read or write outside its arrays.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <optional>
#include <stdexcept>
#include <string>

#include "cpu/run.hpp"
#include "layout.hpp"
#include "problem.hpp"

namespace nb = nanobind;
using namespace mahalanobis;

namespace {

using Features4 = nb::ndarray<nb::ro, nb::ndim<4>, nb::device::cpu>;
using Factor = nb::ndarray<nb::ro, nb::device::cpu, nb::c_contig>;
using Floats = nb::ndarray<const float, nb::device::cpu, nb::c_contig>;
using Out = nb::ndarray<float, nb::ndim<2>, nb::device::cpu, nb::c_contig>;

// 16-bit numbers travel as uint16: NumPy cannot hand out ml_dtypes arrays.
Number number(const std::string& name, nb::dlpack::dtype dtype) {
  if (name == "float32" && dtype == nb::dtype<float>()) return Number::float32;
  if (name == "float16" && dtype == nb::dtype<std::uint16_t>()) return Number::float16;
  if (name == "bfloat16" && dtype == nb::dtype<std::uint16_t>()) return Number::bfloat16;
  throw std::invalid_argument("numbers: expected float32, or float16/bfloat16 as uint16, got '" + name + "'");
}

void expect(std::size_t got, std::ptrdiff_t expected, const char* what) {
  if (got != static_cast<std::size_t>(expected))
    throw std::invalid_argument(std::string(what) + ": expected " + std::to_string(expected) + " values, got " +
                                std::to_string(got));
}

Features features(const Features4& x, const std::string& name) {
  const auto size = [&](std::size_t i) { return static_cast<std::ptrdiff_t>(x.shape(i)); };
  return {x.data(), number(name, x.dtype()), size(0), size(1), size(2), size(3),
          x.stride(0), x.stride(1), x.stride(2), x.stride(3)};
}

void map(const Features4& x, const std::string& x_number, const Factor& factor, const std::string& factor_number,
         const Floats& mean, const std::optional<Floats>& scale, const std::optional<Floats>& weights,
         const std::optional<Floats>& tail, const Out& out, int threads, const std::string& isa) {
  const Features f = features(x, x_number);
  const std::ptrdiff_t positions = f.height * f.width;
  Model m{Factorisation::triangular, number(factor_number, factor.dtype()), factor.data(), mean.data(), nullptr,
          nullptr, nullptr, f.channels, positions, 0};
  expect(mean.size(), positions * f.channels, "mean");
  if (scale && weights && tail) {
    m.factorisation = Factorisation::low_rank;
    m.scale = scale->data();
    m.weights = weights->data();
    m.tail = tail->data();
    m.rank = positions == 0 ? 0 : static_cast<std::ptrdiff_t>(weights->size()) / positions;
    expect(scale->size(), f.channels, "scale");
    expect(weights->size(), positions * m.rank, "weights");
    expect(tail->size(), positions, "tail");
    expect(factor.size(), positions * m.rank * layout::row(f.channels), "factor");
  } else {
    expect(factor.size(), positions * layout::packed(f.channels), "factor");
  }
  expect(out.size(), f.batch * positions, "out");
  if (threads < 1) throw std::invalid_argument("threads: expected at least 1, got " + std::to_string(threads));
  nb::gil_scoped_release release;
  run({f, m, out.data()}, threads, isa);
}

}  // namespace

NB_MODULE(_cpu, module) {
  module.doc() = "The Mahalanobis map on the CPU.";
  module.def("instruction_sets", &instruction_sets, "Instruction sets of this build that this machine has, best first.");
  module.def("map", &map, nb::arg("features"), nb::arg("features_number"), nb::arg("factor"), nb::arg("factor_number"),
             nb::arg("mean"), nb::arg("scale").none(), nb::arg("weights").none(), nb::arg("tail").none(),
             nb::arg("out").noconvert(), nb::arg("threads"), nb::arg("isa"),
             "Distances of features (N, C, h, w) into out (N, P).");
}
