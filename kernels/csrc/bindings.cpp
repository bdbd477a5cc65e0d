// kernels._cpu: the kernels on NumPy arrays. The Python side has checked meaning; here every size is checked again, so
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
using Doubles = nb::ndarray<const double, nb::device::cpu, nb::c_contig>;
using DoublesOut = nb::ndarray<double, nb::device::cpu, nb::c_contig>;
using FloatsOut = nb::ndarray<float, nb::device::cpu, nb::c_contig>;
using Samples = nb::ndarray<const float, nb::ndim<3>, nb::device::cpu>;

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

void expect_threads(int threads) {
  if (threads < 1) throw std::invalid_argument("threads: expected at least 1, got " + std::to_string(threads));
}

Features features(const Features4& x, const std::string& name) {
  const auto size = [&](std::size_t i) { return static_cast<std::ptrdiff_t>(x.shape(i)); };
  return {x.data(), number(name, x.dtype()), size(0), size(1), size(2), size(3),
          x.stride(0), x.stride(1), x.stride(2), x.stride(3)};
}

void map(const Features4& x, const std::string& x_number, const Factor& factor, const std::string& factor_number,
         const Floats& mean, const std::optional<Floats>& scale, const std::optional<Floats>& weights,
         const std::optional<Floats>& tail, const FloatsOut& out, int threads, const std::string& isa) {
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
  expect_threads(threads);
  nb::gil_scoped_release release;
  run(Problem{f, m, out.data()}, threads, isa);
}

void moments(const Samples& samples, const DoublesOut& mean, const DoublesOut& scatter, int threads,
             const std::string& isa) {
  const auto size = [&](std::size_t i) { return static_cast<std::ptrdiff_t>(samples.shape(i)); };
  const std::ptrdiff_t count = size(0), channels = size(1), positions = size(2);
  if (count < 1) throw std::invalid_argument("samples: expected at least 1, got 0");
  expect(mean.size(), positions * channels, "mean");
  expect(scatter.size(), positions * (channels * (channels + 1) / 2), "scatter");
  expect_threads(threads);
  const Moments job{samples.data(), count, channels, positions, samples.stride(0), samples.stride(1),
                    samples.stride(2), mean.data(), scatter.data()};
  nb::gil_scoped_release release;
  run(job, threads, isa);
}

std::ptrdiff_t whiten(const Doubles& scatter, double scale, const Doubles& eps, const FloatsOut& factor, int threads,
                      const std::string& isa) {
  const auto channels = static_cast<std::ptrdiff_t>(eps.size());
  if (channels < 1) throw std::invalid_argument("eps: expected one value per channel, got none");
  const auto positions = static_cast<std::ptrdiff_t>(factor.size()) / layout::packed(channels);
  expect(factor.size(), positions * layout::packed(channels), "factor");
  expect(scatter.size(), positions * (channels * (channels + 1) / 2), "scatter");
  expect_threads(threads);
  const Whiten job{scatter.data(), eps.data(), scale, channels, positions, factor.data()};
  nb::gil_scoped_release release;
  return run(job, threads, isa);
}

}  // namespace

NB_MODULE(_cpu, module) {
  using nb::arg;
  module.doc() = "The kernels on the CPU.";
  module.def("instruction_sets", &instruction_sets, "Instruction sets of this build that this machine has, best first.");
  module.def("packed_values", &layout::packed, arg("channels"), "Values of a packed triangular factor.");
  module.def("row_values", &layout::row, arg("channels"), "Values of a row of a low-rank factor.");
  module.def("map", &map, arg("features"), arg("features_number"), arg("factor").noconvert(), arg("factor_number"),
             arg("mean").noconvert(), arg("scale").none().noconvert(), arg("weights").none().noconvert(),
             arg("tail").none().noconvert(), arg("out").noconvert(), arg("threads"), arg("isa"),
             "Distances of features (N, C, h, w) into out (N, h, w).");
  module.def("moments", &moments, arg("samples").noconvert(), arg("mean").noconvert(), arg("scatter").noconvert(),
             arg("threads"), arg("isa"),
             "Mean (P, C) and upper triangles of the scatter (P, C (C + 1) / 2) of samples (K, C, P).");
  module.def("whiten", &whiten, arg("scatter").noconvert(), arg("scale"), arg("eps").noconvert(),
             arg("factor").noconvert(), arg("threads"), arg("isa"),
             "Packed inverse Cholesky factors of scale * scatter + diag(eps); returns how many were singular.");
}
