// How a factor lies in memory; kernels/layout.py packs it so, and any kernel may read it so.
//
// Triangular (C x C, row i has columns 0..i): panels of 16 rows, columns within a panel one after the other, so that
// a column of a panel is one 64-byte line of float32. Zero rows fill the *first* panel when 16 does not divide C.
// The last 8 columns of a panel touch its lower 8 rows only, and only those are stored.
//
// Low rank (R x C): rows of C values, zero-padded to a multiple of 8.
// Functions are static: see cpu/vector.hpp.
#pragma once

#include <cstddef>

namespace mahalanobis::layout {

constexpr int panel_rows = 16;
constexpr int half_rows = 8;

static constexpr std::ptrdiff_t panels(std::ptrdiff_t channels) { return (channels + panel_rows - 1) / panel_rows; }

// The columns of a panel: `full` of 16 rows, then `half` of 8 rows.
struct Panel {
  std::ptrdiff_t full, half;
};

static constexpr std::ptrdiff_t values(Panel p) { return p.full * panel_rows + p.half * half_rows; }

static constexpr Panel panel(std::ptrdiff_t channels, std::ptrdiff_t index) {
  const std::ptrdiff_t columns = channels - panel_rows * (panels(channels) - 1 - index);
  return columns > half_rows ? Panel{columns - half_rows, half_rows} : Panel{0, columns};
}

static constexpr std::ptrdiff_t packed(std::ptrdiff_t channels) {
  std::ptrdiff_t total = 0;
  for (std::ptrdiff_t i = 0; i < panels(channels); ++i) total += layout::values(panel(channels, i));
  return total;
}

// Values before a panel. From the second panel on, each has 16 columns more than the one before.
static constexpr std::ptrdiff_t start(std::ptrdiff_t channels, std::ptrdiff_t index) {
  if (index == 0) return 0;
  const std::ptrdiff_t between = index - 1, columns = panel(channels, 1).full + half_rows;
  const std::ptrdiff_t all_columns = between * columns + panel_rows * between * (between - 1) / 2;
  const std::ptrdiff_t left_out = between * half_rows * half_rows;
  return layout::values(panel(channels, 0)) + all_columns * panel_rows - left_out;
}

static constexpr std::ptrdiff_t row(std::ptrdiff_t channels) { return (channels + 7) / 8 * 8; }

}  // namespace mahalanobis::layout
