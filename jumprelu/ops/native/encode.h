// The pre-activations of the pairs that a step needs, without all the others.
//
// A pair (row, latent) is selected if its pre-activation is active, near or
// non-finite (`step.h`). Few pairs are. All pre-activations are therefore first
// bounded by a product of integers, and only the candidates, which could be
// selected by that bound, are computed in float32.
//
// Let x be an input row and w an encoder row. Both are rounded to multiples of a
// scale of their own: x' = s q and w' = t p, with integers q and p of 7 or 8
// bits. By the Cauchy-Schwarz inequality,
//
//   |x.w - x'.w'|  <=  |x - x'| |w| + |x'| |w - w'|,
//
// and x'.w' = s t (q.p), where q.p is exact: products and sums are integers that
// do not overflow. Three more errors are bounded, generously:
//
// * the errors of the norms and of the scales, which are computed in float32.
//   Norms are rounded up (`kUp`). They are computed from multiples of the scale,
//   which neither overflow nor underflow.
// * the error of the float32 pre-activation itself, at most about d 2^-24 |x|
//   |w| in any order of summation. So a candidate is what float32 could select,
//   not only what exact arithmetic would.
// * the rounding of the test, relative to |x| |w|, to the bias and to the
//   threshold, and an absolute term for underflow.
//
// A row of numbers that are too large or too small for its scale, or not finite,
// gets the integers 0 and an error that is its norm, or infinite. The test is
// negated, so that NaN is a candidate.
//
// A candidate's pre-activation is the same, bit for bit, however many candidates
// there are: the order of its sum depends on d alone. It differs from XLA's
// product in the order of summation, so that a pre-activation within float32's
// error of a limit may be on its other side.

#ifndef JUMPRELU_OPS_NATIVE_ENCODE_H_
#define JUMPRELU_OPS_NATIVE_ENCODE_H_

#include <cstdint>
#include <vector>

#include "step.h"

namespace jumprelu {

// A pair and its pre-activation.
struct Encoded {
  int32_t latent, row;
  float value;
};

struct Encoding {
  // By chunk of latents: the selected pairs of kept rows, in the order of
  // latents, and of rows within a latent.
  std::vector<std::vector<Encoded>> chunks;
  // By row: the number of pre-activations that were computed in float32.
  std::vector<int32_t> candidates;
};

// Returns the number of rows for which more than a quarter of the
// pre-activations were computed in float32.
int32_t Crowded(const Encoding& encoding, int64_t latents);

// Returns the name of the integer kernel that this CPU has; "" if none is faster
// than a product in float32.
const char* EncodeKernel();

// The number of dimensions from which on sums of integers could overflow.
constexpr int64_t kTooWide = 1 << 16;

// Returns the selected pairs of a batch, from `b_enc` and not from `pre_acts`.
Encoding Encode(const Sizes& sizes, const Settings& settings, const Inputs& in,
                const ParallelFor& parallel);

}  // namespace jumprelu

#endif  // JUMPRELU_OPS_NATIVE_ENCODE_H_
