// Tiles of integer products, and the rounding of rows to integers.
//
// A panel holds the integers of 16 latents in the order [d / 4][16][4], so that
// an instruction multiplies four successive entries of many latents at once. The
// integers of an input row are stored plus `zero`, as unsigned bytes.

#ifndef JUMPRELU_OPS_NATIVE_INTEGER_TILES_H_
#define JUMPRELU_OPS_NATIVE_INTEGER_TILES_H_

#include <cstdint>

namespace jumprelu {

constexpr int64_t kPanel = 16;   // latents
constexpr int64_t kGroup = 4;    // entries of a latent that are contiguous
constexpr int64_t kMaxRows = 8;  // of a tile

// Returns the bytes of a rounded row, which end with zeros.
inline int64_t IntegerStride(int64_t d) { return (d + 7) / 8 * 8; }

// Sums over a row in multiples of its scale: of the squares of its entries, of
// the integers, and of the errors, and of the integers themselves.
struct IntegerSums {
  float squares, integer_squares, errors;
  int32_t integers;
};

// What the test needs of each latent of a panel.
struct alignas(64) PanelBounds {
  // The scale, the norm, the norm of the rounding error, and the limit of the
  // pre-activation without its bias.
  float scale[kPanel], norm[kPanel], error[kPanel], limit[kPanel];
  // `zero` times the sum of the integers.
  int32_t offset[kPanel];
};

struct IntegerKernel {
  const char* name;
  // The rows of a tile.
  int64_t rows;
  // The largest integers of input rows and of latents.
  int32_t row_levels, latent_levels;
  // What is added to the integers of rows.
  int32_t zero;
  // Multiplies rows, `stride` bytes apart, and a panel: writes [rows][kPanel].
  void (*multiply)(const uint8_t* rows, int64_t stride, const int8_t* panel,
                   int32_t* tile);
  // Writes a mask of the candidates of each row of a tile. `scale`, `error` and
  // `rounded` have a number for each row.
  void (*compare)(const int32_t* tile, const PanelBounds& panel,
                  const float* scale, const float* error, const float* rounded,
                  uint32_t* masks);
};

// Returns the best kernel of this CPU, or null. A kernel is only returned if it
// agrees with a plain loop, which the first call tests. The environment variable
// JUMPRELU_INTEGER_KERNEL overrides the choice: "none", or "plain" for the loop.
const IntegerKernel* ChosenKernel();

// Returns the largest magnitude of a row, apart from NaN.
float Largest(const float* x, int64_t d);

// Rounds entries times `inverse`, the inverse of the scale, to bytes, and adds
// `zero` to each.
IntegerSums RoundRow(const float* x, float inverse, int64_t d, int32_t zero,
                     uint8_t* bytes);

// Rounds entries to the bytes of one latent in a panel. `bytes` is the latent's
// first one.
IntegerSums RoundLatent(const float* w, float inverse, int64_t d,
                        uint8_t* bytes);

}  // namespace jumprelu

#endif  // JUMPRELU_OPS_NATIVE_INTEGER_TILES_H_
