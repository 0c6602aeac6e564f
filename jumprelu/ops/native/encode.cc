#include "encode.h"

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <mutex>

#include "integer_tiles.h"
#include "loops.h"

namespace jumprelu {
namespace {

constexpr int64_t kPanels = 4;  // in a chunk

// Magnitudes of a row's largest entry for which the row is rounded. A product of
// two such rows does not overflow.
constexpr float kSmall = 1e-30f, kLarge = 1e15f;

// Returns an upper bound on the relative error of a float32 sum of d terms.
double SumError(int64_t d) { return (static_cast<double>(d) + 8) * 0x1p-23; }

// Returns a double rounded to float, away from the nearest if that is lower.
float RoundUp(double x) {
  return std::nextafter(static_cast<float>(x),
                        std::numeric_limits<float>::infinity());
}

// A rounded row: its scale, and upper bounds on the norm of the row, of its
// rounded values, and of their difference.
struct Bounds {
  float scale, norm, rounded, error;
};

// Returns the inverse of a row's scale.
float Inverse(float largest, int32_t levels) {
  return largest < kSmall ? 0 : static_cast<float>(levels) / largest;
}

// Returns the bounds of a row of d entries, whose sums are in multiples of its
// scale.
Bounds BoundsOf(const IntegerSums& sums, float largest, int32_t levels,
                int64_t d) {
  const float infinity = std::numeric_limits<float>::infinity();
  // `largest` ignores NaN, which the sum does not.
  if (!(largest < kLarge) || !std::isfinite(sums.squares)) {
    return {0, infinity, 0, infinity};
  }
  if (largest < kSmall) {
    // Smaller numbers may be flushed to 0, also in `largest`.
    const float norm = RoundUp((1.01 * largest + FLT_MIN) * std::sqrt(d));
    return {0, norm, 0, norm};
  }
  const float scale = largest / static_cast<float>(levels);
  const double up = 1 + SumError(d), norm = std::sqrt(sums.squares);
  // The error of a row's multiples of the scale, relative to the row.
  const double rounding = 1e-6;
  return {scale, RoundUp(scale * norm * (up + rounding)),
          RoundUp(scale * std::sqrt(sums.integer_squares) * up),
          RoundUp(scale * (std::sqrt(sums.errors) * up + rounding * norm))};
}

// The kept rows of a batch, rounded.
struct Rows {
  int64_t count;                // a multiple of the rows of a tile
  int64_t stride;               // bytes of a row
  std::vector<int32_t> number;  // of the kept rows, in the batch
  std::vector<const float*> x;  // the kept rows
  // Of each row: the scale, the error with that of float32 sums, and the norm of
  // the rounded row.
  std::vector<float> scale, error, rounded;
  std::unique_ptr<uint8_t[]> integers;
  std::unique_ptr<float[]> shifted;  // the inputs minus b_dec, if needed
};

// y = a - b.
JUMPRELU_CLONES void Subtract(const float* __restrict a,
                              const float* __restrict b, float* __restrict y,
                              int64_t n) {
#pragma omp simd
  for (int64_t k = 0; k < n; ++k) y[k] = a[k] - b[k];
}

// Rounds the kept rows of the inputs, minus b_dec with a pre-encoder bias.
Rows RoundRows(const IntegerKernel& kernel, const Sizes& sizes,
               const Settings& settings, const Inputs& in,
               const ParallelFor& parallel) {
  const int64_t d = sizes.d_in;
  Rows rows;
  for (int64_t row = 0; row < sizes.batch; ++row) {
    if (!in.keep[row]) continue;
    rows.number.push_back(static_cast<int32_t>(row));
    rows.x.push_back(in.inputs + row * d);
  }
  const int64_t kept = static_cast<int64_t>(rows.number.size());
  rows.count = (kept + kernel.rows - 1) / kernel.rows * kernel.rows;
  rows.stride = IntegerStride(d);
  rows.scale.assign(rows.count, 0);
  rows.error.assign(rows.count, 0);
  rows.rounded.assign(rows.count, 0);
  rows.integers.reset(new uint8_t[rows.count * rows.stride]);
  if (settings.pre_encoder_bias) rows.shifted.reset(new float[kept * d]);
  const int64_t size = 32;
  parallel((rows.count + size - 1) / size, [&](int64_t chunk) {
    const int64_t end = std::min((chunk + 1) * size, rows.count);
    for (int64_t i = chunk * size; i < end; ++i) {
      uint8_t* integers = rows.integers.get() + i * rows.stride;
      if (i >= kept) {
        std::memset(integers, 0, rows.stride);
        continue;
      }
      if (rows.shifted) {
        float* shifted = rows.shifted.get() + i * d;
        Subtract(rows.x[i], in.b_dec, shifted, d);
        rows.x[i] = shifted;
      }
      const float largest = Largest(rows.x[i], d);
      const Bounds bounds = BoundsOf(
          RoundRow(rows.x[i], Inverse(largest, kernel.row_levels), d,
                   kernel.zero, integers),
          largest, kernel.row_levels, d);
      rows.scale[i] = bounds.scale;
      // Plus the errors of the pre-activation in float32, and of the test.
      rows.error[i] = RoundUp(bounds.error + (SumError(d) + 3e-6) * bounds.norm);
      rows.rounded[i] = bounds.rounded;
    }
  });
  return rows;
}

// Returns the limit that a pre-activation without its bias must reach. It is
// NaN, which each pre-activation reaches, if bias or threshold are not finite.
float Limit(const Inputs& in, float half, int64_t latent) {
  const double threshold = in.threshold[latent], bias = in.b_enc[latent];
  if (!std::isfinite(threshold) || !std::isfinite(bias)) return NAN;
  const double slack =
      1e-6 * (std::fabs(threshold) + half + std::fabs(bias)) + 1e-35;
  return -RoundUp(-(threshold - half - bias - slack));
}

// The memory of one chunk of latents.
struct Scratch {
  Scratch(int64_t stride, int64_t rows)
      : integers(stride * kPanel),
        candidates(rows * kPanel),
        per_row(rows),
        x(rows),
        products(rows) {}
  std::vector<uint8_t> integers;
  // Of each latent of the panel, the candidate rows.
  std::vector<int32_t> candidates;
  int64_t counts[kPanel];
  // The number of candidates of each row.
  std::vector<int32_t> per_row;
  // Of one latent: the candidate rows, and their products with its weights.
  std::vector<const float*> x;
  std::vector<float> products;
};

// Rounds the `latents` encoder rows of a panel.
PanelBounds RoundPanel(const IntegerKernel& kernel, const Sizes& sizes,
                       const Inputs& in, float half, int64_t first,
                       int64_t latents, uint8_t* integers) {
  const int64_t d = sizes.d_in;
  PanelBounds panel = {};
  if (latents < kPanel) std::memset(integers, 0, IntegerStride(d) * kPanel);
  for (int64_t k = 0; k < latents; ++k) {
    const float* w = in.encoder + (first + k) * d;
    const float largest = Largest(w, d);
    const IntegerSums sums =
        RoundLatent(w, Inverse(largest, kernel.latent_levels), d,
                    integers + k * kGroup);
    const Bounds bounds = BoundsOf(sums, largest, kernel.latent_levels, d);
    panel.scale[k] = bounds.scale;
    panel.norm[k] = bounds.norm;
    panel.error[k] = bounds.error;
    panel.offset[k] = kernel.zero * sums.integers;
    panel.limit[k] = Limit(in, half, first + k);
  }
  return panel;
}

// Collects the candidates of a panel.
void FindCandidates(const IntegerKernel& kernel, const Rows& rows,
                    const PanelBounds& panel, int64_t latents,
                    Scratch* scratch) {
  const int64_t kept = static_cast<int64_t>(rows.number.size());
  const uint32_t real = (1u << latents) - 1;
  alignas(64) int32_t tile[kMaxRows * kPanel];
  uint32_t masks[kMaxRows];
  for (int64_t row = 0; row < rows.count; row += kernel.rows) {
    kernel.multiply(rows.integers.get() + row * rows.stride, rows.stride,
                    reinterpret_cast<const int8_t*>(scratch->integers.data()),
                    tile);
    kernel.compare(tile, panel, rows.scale.data() + row,
                   rows.error.data() + row, rows.rounded.data() + row, masks);
    for (int64_t k = 0; k < kernel.rows && row + k < kept; ++k) {
      for (uint32_t mask = masks[k] & real; mask; mask &= mask - 1) {
        const int latent = __builtin_ctz(mask);
        scratch->candidates[latent * rows.count + scratch->counts[latent]++] =
            static_cast<int32_t>(row + k);
        ++scratch->per_row[row + k];
      }
    }
  }
}

using Float8 = float __attribute__((vector_size(32)));

// Computes the products of w and N rows. The order of each sum does not depend
// on N.
template <int N>
JUMPRELU_INLINE void Products(const float* w, const float* const* x, int64_t d,
                              float* result) {
  Float8 sums[N] = {};
  int64_t k = 0;
  for (; k + 8 <= d; k += 8) {
    Float8 a, b;
    std::memcpy(&a, w + k, sizeof(a));
#pragma GCC unroll 8
    for (int i = 0; i < N; ++i) {
      std::memcpy(&b, x[i] + k, sizeof(b));
      sums[i] += a * b;
    }
  }
  for (int i = 0; i < N; ++i) {
    const Float8 s = sums[i];
    float sum = ((s[0] + s[4]) + (s[2] + s[6])) +
                ((s[1] + s[5]) + (s[3] + s[7]));
    for (int64_t j = k; j < d; ++j) sum += w[j] * x[i][j];
    result[i] = sum;
  }
}

// Computes the products of w and any number of rows.
JUMPRELU_CLONES void AllProducts(const float* w, const float* const* x,
                                 int64_t count, int64_t d, float* result) {
  int64_t i = 0;
  for (; i + 8 <= count; i += 8) Products<8>(w, x + i, d, result + i);
  for (; i + 4 <= count; i += 4) Products<4>(w, x + i, d, result + i);
  for (; i < count; ++i) Products<1>(w, x + i, d, result + i);
}

// Appends the selected pairs among a latent's candidates.
void AppendSelected(const Inputs& in, const Rows& rows, float half, int64_t d,
                    int64_t latent, const int32_t* candidates, int64_t count,
                    Scratch* scratch, std::vector<Encoded>* pairs) {
  for (int64_t i = 0; i < count; ++i) scratch->x[i] = rows.x[candidates[i]];
  AllProducts(in.encoder + latent * d, scratch->x.data(), count, d,
              scratch->products.data());
  for (int64_t i = 0; i < count; ++i) {
    const float value = scratch->products[i] + in.b_enc[latent];
    if (!Selected(value, in.threshold[latent], -half)) continue;
    pairs->push_back({static_cast<int32_t>(latent), rows.number[candidates[i]],
                      value});
  }
}

// Encodes the panels [first, last), and returns the candidates of each row.
std::vector<int32_t> EncodePanels(const IntegerKernel& kernel,
                                  const Sizes& sizes, const Settings& settings,
                                  const Inputs& in, const Rows& rows,
                                  int64_t first, int64_t last,
                                  std::vector<Encoded>* pairs) {
  const float half = settings.bandwidth / 2;
  const int64_t kept = static_cast<int64_t>(rows.number.size());
  Scratch scratch(rows.stride, rows.count);
  bool crowded = false;
  for (int64_t panel = first; panel < last; ++panel) {
    const int64_t latent = panel * kPanel;
    const int64_t latents = std::min(kPanel, sizes.latents - latent);
    std::fill(scratch.counts, scratch.counts + kPanel, 0);
    if (crowded) {
      // Integers would not save much, and change no result.
      for (int64_t k = 0; k < latents; ++k) {
        int32_t* candidates = scratch.candidates.data() + k * rows.count;
        for (int64_t i = 0; i < kept; ++i) candidates[i] = static_cast<int>(i);
        scratch.counts[k] = kept;
      }
      for (int64_t i = 0; i < kept; ++i) scratch.per_row[i] += latents;
    } else {
      const PanelBounds bounds =
          RoundPanel(kernel, sizes, in, half, latent, latents,
                     scratch.integers.data());
      FindCandidates(kernel, rows, bounds, latents, &scratch);
    }
    int64_t candidates = 0;
    for (int64_t k = 0; k < latents; ++k) {
      candidates += scratch.counts[k];
      AppendSelected(in, rows, half, sizes.d_in, latent + k,
                     scratch.candidates.data() + k * rows.count,
                     scratch.counts[k], &scratch, pairs);
    }
    crowded = 2 * candidates > latents * kept;
  }
  return std::move(scratch.per_row);
}

}  // namespace

const char* EncodeKernel() {
  const IntegerKernel* kernel = ChosenKernel();
  return kernel ? kernel->name : "";
}

Encoding Encode(const Sizes& sizes, const Settings& settings, const Inputs& in,
                const ParallelFor& parallel) {
  const IntegerKernel& kernel = *ChosenKernel();
  const Rows rows = RoundRows(kernel, sizes, settings, in, parallel);
  const int64_t panels = (sizes.latents + kPanel - 1) / kPanel;
  const int64_t count = (panels + kPanels - 1) / kPanels;
  Encoding result;
  result.chunks.resize(count);
  result.candidates.assign(sizes.batch, 0);
  std::mutex mutex;
  parallel(count, [&](int64_t i) {
    const std::vector<int32_t> per_row = EncodePanels(
        kernel, sizes, settings, in, rows, i * kPanels,
        std::min((i + 1) * kPanels, panels), &result.chunks[i]);
    const std::lock_guard<std::mutex> lock(mutex);
    for (size_t row = 0; row < rows.number.size(); ++row) {
      result.candidates[rows.number[row]] += per_row[row];
    }
  });
  return result;
}

int32_t Crowded(const Encoding& encoding, int64_t latents) {
  int32_t rows = 0;
  for (const int64_t count : encoding.candidates) rows += 4 * count > latents;
  return rows;
}

}  // namespace jumprelu
