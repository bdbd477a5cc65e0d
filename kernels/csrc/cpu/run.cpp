#include "run.hpp"

#include <algorithm>
#include <atomic>
#include <memory>
#include <new>
#include <stdexcept>
#include <system_error>
#include <thread>

#include "isa.hpp"
#include "tile.hpp"

namespace mahalanobis {
namespace {

struct Copy {
  const char* name;
  bool supported;
  decltype(baseline::map)* map;
  decltype(baseline::moments)* moments;
  decltype(baseline::whiten)* whiten;
};

const std::vector<Copy>& copies() {
  static const std::vector<Copy> all = {
#if defined(MAHALANOBIS_X86)
      {"avx512",
       __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq"),
       avx512::map, avx512::moments, avx512::whiten},
      {"avx2", __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"), avx2::map, avx2::moments,
       avx2::whiten},
#endif
      {"baseline", true, baseline::map, baseline::moments, baseline::whiten},
  };
  return all;
}

const Copy& find(const std::string& isa) {
  for (const Copy& copy : copies())
    if (copy.supported && isa == copy.name) return copy;
  throw std::invalid_argument("isa: '" + isa + "' is not supported by this machine");
}

struct Free {
  void operator()(char* p) const { ::operator delete[](p, std::align_val_t{64}); }
};
using Buffer = std::unique_ptr<char[], Free>;

// Calls work(index, scratch) for every index below `count`, on up to `threads` threads with scratch memory each, which
// is allocated before any work begins.
template <class Work>
void parallel(std::ptrdiff_t count, int threads, std::ptrdiff_t scratch_bytes, const Work& work) {
  std::vector<Buffer> scratch(static_cast<std::size_t>(std::min<std::ptrdiff_t>(threads, count)));
  for (Buffer& buffer : scratch)
    buffer.reset(new (std::align_val_t{64}) char[static_cast<std::size_t>(scratch_bytes)]);
  std::atomic<std::ptrdiff_t> next{0};
  const auto share = [&](char* memory) {
    for (std::ptrdiff_t i; (i = next.fetch_add(1, std::memory_order_relaxed)) < count;) work(i, memory);
  };
  std::vector<std::thread> helpers;
  helpers.reserve(scratch.size());
  try {
    for (std::size_t i = 1; i < scratch.size(); ++i) helpers.emplace_back(share, scratch[i].get());
  } catch (const std::system_error&) {
    // The machine refuses another thread: those that started, and this one, do the work.
  }
  if (count > 0) share(scratch[0].get());
  for (std::thread& helper : helpers) helper.join();
}

// Positions a tile: whole cache lines of features, or fewer where there would be too few tiles for the threads.
std::ptrdiff_t tile_positions(std::ptrdiff_t positions, int threads) {
  return std::clamp<std::ptrdiff_t>((positions + threads - 1) / threads, 1, kTilePositions);
}

}  // namespace

std::vector<std::string> instruction_sets() {
  std::vector<std::string> names;
  for (const Copy& copy : copies())
    if (copy.supported) names.emplace_back(copy.name);
  return names;
}

void run(const Problem& problem, int threads, const std::string& isa) {
  const auto map = find(isa).map;
  const std::ptrdiff_t positions = problem.model.positions, batch = problem.features.batch;
  if (batch == 0 || positions == 0) return;
  const std::ptrdiff_t size = tile_positions(positions, threads);
  const Scratch s = scratch(problem);
  const std::ptrdiff_t bytes = parts(s.pictures, s.row, s.position).end * static_cast<std::ptrdiff_t>(sizeof(float));
  parallel((positions + size - 1) / size, threads, bytes, [&](std::ptrdiff_t index, char* memory) {
    const std::ptrdiff_t p = index * size;
    for (std::ptrdiff_t n = 0; n < batch; n += s.pictures)
      map(problem, {p, std::min(size, positions - p), n, std::min(s.pictures, batch - n), s.row, s.position},
          reinterpret_cast<float*>(memory));
  });
}

void run(const Moments& job, int threads, const std::string& isa) {
  const auto moments = find(isa).moments;
  if (job.positions == 0) return;
  const std::ptrdiff_t size = tile_positions(job.positions, threads);
  parallel((job.positions + size - 1) / size, threads, moments_scratch(job, size),
           [&](std::ptrdiff_t index, char* memory) {
             moments(job, index * size, std::min(index * size + size, job.positions), memory);
           });
}

std::ptrdiff_t run(const Whiten& job, int threads, const std::string& isa) {
  const auto whiten = find(isa).whiten;
  std::atomic<std::ptrdiff_t> singular{0};
  parallel(job.positions, threads, whiten_scratch(job), [&](std::ptrdiff_t position, char* memory) {
    if (!whiten(job, position, memory)) singular.fetch_add(1, std::memory_order_relaxed);
  });
  return singular.load();
}

}  // namespace mahalanobis
