#include "run.hpp"

#include <algorithm>
#include <atomic>
#include <memory>
#include <new>
#include <stdexcept>
#include <system_error>
#include <thread>

#include "tile.hpp"

namespace mahalanobis {

using TileFunction = void(const Problem&, const Tile&, float*);

#if defined(MAHALANOBIS_X86)
TileFunction avx512, avx2;
#endif
TileFunction baseline;

namespace {

struct InstructionSet {
  const char* name;
  TileFunction* tile;
  bool supported;
};

const std::vector<InstructionSet>& table() {
  static const std::vector<InstructionSet> sets = {
#if defined(MAHALANOBIS_X86)
      {"avx512", avx512,
       __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq")},
      {"avx2", avx2, __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")},
#endif
      {"baseline", baseline, true},
  };
  return sets;
}

TileFunction* find(const std::string& isa) {
  for (const InstructionSet& set : table())
    if (set.supported && isa == set.name) return set.tile;
  throw std::invalid_argument("isa: '" + isa + "' is not supported by this machine");
}

struct Free {
  void operator()(float* p) const { ::operator delete[](p, std::align_val_t{64}); }
};
using Buffer = std::unique_ptr<float[], Free>;

Buffer allocate(std::ptrdiff_t values) {
  return Buffer{new (std::align_val_t{64}) float[static_cast<std::size_t>(values)]};
}

// Positions a tile: whole cache lines, or fewer where there would be too few tiles for the threads.
std::ptrdiff_t tile_positions(std::ptrdiff_t positions, int threads) {
  return std::clamp<std::ptrdiff_t>((positions + threads - 1) / threads, 1, kTilePositions);
}

// Takes tiles until none is left.
void work(const Problem& problem, TileFunction* tile_function, std::ptrdiff_t size, std::atomic<std::ptrdiff_t>& next,
          float* memory) {
  const Scratch s = scratch(problem);
  const std::ptrdiff_t positions = problem.model.positions, batch = problem.features.batch;
  for (std::ptrdiff_t p; (p = size * next.fetch_add(1, std::memory_order_relaxed)) < positions;)
    for (std::ptrdiff_t n = 0; n < batch; n += s.pictures)
      tile_function(problem, {p, std::min(size, positions - p), n, std::min(s.pictures, batch - n), s.row, s.position},
                    memory);
}

}  // namespace

std::vector<std::string> instruction_sets() {
  std::vector<std::string> names;
  for (const InstructionSet& set : table())
    if (set.supported) names.emplace_back(set.name);
  return names;
}

void run(const Problem& problem, int threads, const std::string& isa) {
  TileFunction* tile_function = find(isa);
  const std::ptrdiff_t positions = problem.model.positions;
  if (problem.features.batch == 0 || positions == 0) return;
  const std::ptrdiff_t size = tile_positions(positions, threads);
  const auto workers = static_cast<std::size_t>(std::min<std::ptrdiff_t>(threads, (positions + size - 1) / size));

  const Scratch s = scratch(problem);
  std::vector<Buffer> memory(workers);
  for (Buffer& buffer : memory) buffer = allocate(parts(s.pictures, s.row, s.position).end);
  std::atomic<std::ptrdiff_t> next{0};
  std::vector<std::thread> helpers;
  helpers.reserve(workers);
  try {
    for (std::size_t i = 1; i < workers; ++i)
      helpers.emplace_back([&, i] { work(problem, tile_function, size, next, memory[i].get()); });
  } catch (const std::system_error&) {
    // The machine refuses another thread: those that started, and this one, do the work.
  }
  work(problem, tile_function, size, next, memory[0].get());
  for (std::thread& helper : helpers) helper.join();
}

}  // namespace mahalanobis
