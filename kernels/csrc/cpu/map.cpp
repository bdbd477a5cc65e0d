// The map, tile by tile. Compiled once per instruction set; MAHALANOBIS_ISA names the copy.
#include "gather.hpp"
#include "isa.hpp"
#include "low_rank.hpp"
#include "triangular.hpp"
#include "vector.hpp"

namespace {

using mahalanobis::Factorisation;
using mahalanobis::Problem;

template <class T>
inline void position(const Problem& problem, const Tile& tile, std::ptrdiff_t p, const float* y, float* spare,
                     float* d2) {
  const Model& m = problem.model;
  const T* factor = static_cast<const T*>(m.factor);
  if (m.factorisation == Factorisation::triangular) {
    factor += p * layout::packed(m.channels);
    triangular(factor, m.channels, y, tile.row, tile.pictures, reinterpret_cast<HalfFloat*>(spare), d2);
  } else {
    factor += p * m.rank * tile.row;
    low_rank(factor, m.weights + p * m.rank, m.tail[p], m.rank, y, tile.row, tile.pictures, spare, d2);
  }
}

template <class T>
inline void positions(const Problem& problem, const Tile& tile, float* scratch, float* spare, float* d2) {
  for (std::ptrdiff_t i = 0; i < tile.positions; ++i)
    position<T>(problem, tile, tile.first_position + i, scratch + i * tile.position, spare, d2 + i * tile.pictures);
}

}  // namespace

namespace mahalanobis::MAHALANOBIS_ISA {

void map(const Problem& problem, const Tile& tile, float* scratch) {
  const Parts at = parts(tile.pictures, tile.row, tile.position);
  float *spare = scratch + at.spare, *d2 = scratch + at.distances;
  switch (problem.features.number) {
    case Number::float32: gather<float>(problem.features, problem.model, tile, scratch); break;
    case Number::float16: gather<Half16>(problem.features, problem.model, tile, scratch); break;
    case Number::bfloat16: gather<Brain16>(problem.features, problem.model, tile, scratch); break;
  }
  switch (problem.model.number) {
    case Number::float32: positions<float>(problem, tile, scratch, spare, d2); break;
    case Number::float16: positions<Half16>(problem, tile, scratch, spare, d2); break;
    case Number::bfloat16: positions<Brain16>(problem, tile, scratch, spare, d2); break;
  }
  for (std::ptrdiff_t n = 0; n < tile.pictures; ++n) {
    float* out = problem.out + (tile.first_picture + n) * problem.model.positions + tile.first_position;
    for (std::ptrdiff_t i = 0; i < tile.positions; ++i) out[i] = __builtin_sqrtf(d2[i * tile.pictures + n]);
  }
}

}  // namespace mahalanobis::MAHALANOBIS_ISA
