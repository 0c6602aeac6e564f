// One exact JumpReLU step on the pairs (row, latent) that have a gradient.
//
// A gradient lives where a pre-activation is above its threshold or inside the
// kernel around it; nothing else is touched. Three phases: rows in parallel
// (select, decode, error, its dot products), a counting sort of the pairs by
// latent, latents in parallel (gradients of two weight rows in scratch memory,
// then projection, Adam and unit norm in place). Work is cut into chunks whose
// sizes do not depend on the number of threads, and every sum over chunks goes
// in their order: the same bits on one core and on many.

#ifndef JUMPRELU_OPS_NATIVE_STEP_H_
#define JUMPRELU_OPS_NATIVE_STEP_H_

#include <cstdint>
#include <functional>

namespace jumprelu {

// Calls `work(chunk)` for every chunk in [0, chunks), on any threads, and
// returns when all are done.
using ParallelFor = std::function<void(
    int64_t chunks, const std::function<void(int64_t)>& work)>;

struct Sizes {
  int64_t batch, latents, d_in, d_out;
};

// What stands fixed for a run.
struct Settings {
  float bandwidth;
  // Whether the encoder sees the inputs minus b_dec.
  bool pre_encoder_bias;
  // Whether the penalty is coefficient * (L0 / target - 1)^2, not * L0.
  bool target_l0;
  // Adam. In float, 1 - b2 would be wrong in the fifth digit.
  double b2;
  float eps;
};

struct Inputs {
  const float* pre_acts;   // [batch, latents]
  const float* inputs;     // [batch, d_in]
  const float* targets;    // [batch, d_out]
  const bool* keep;        // [batch]
  const float* threshold;  // [latents]
  const float* b_dec;      // [d_out]
  const float* encoder;    // [latents, d_in]
  const float* decoder;    // [latents, d_out]
  float coefficient, target;
  // Learning rate of this step; 1 - b2^t.
  float learning_rate, correction;
  // Steps that were taken before this one in which nu may have decayed.
  int32_t clock;
};

// What is written of the matrices; their rows are latents.
struct Matrices {
  // Whether the memory of `Inputs` is updated here in place, or gradients are
  // written, only where they are not zero.
  bool update;
  float* encoder;     // [latents, d_in]
  float* decoder;     // [latents, d_out]
  float* nu_encoder;  // [latents, d_in]
  float* nu_decoder;  // [latents, d_out]
  // [latents]: the clock up to which a row's nu has decayed.
  int32_t* touched;
};

struct Found {
  float* b_enc;      // [latents]: gradient
  float* b_dec;      // [d_out]: gradient
  float* threshold;  // [latents]: gradient to the linear threshold
  int32_t* fired;    // [latents]: kept rows on which a latent was active
  float* reconstruction;  // mean squared norm of the error over kept rows
  float* l0;              // mean active latents over kept rows
  bool* ok;               // whether all was finite: without it, no update
};

void Step(const Sizes& sizes, const Settings& settings, const Inputs& inputs,
          const Matrices& matrices, const Found& found,
          const ParallelFor& parallel);

// Second moments of both matrices, and up to when each row's have decayed.
struct Moments {
  float* encoder;          // [latents, d_in]
  float* decoder;          // [latents, d_out]
  const int32_t* touched;  // [latents]
};

// Lets the rows that were left alone decay up to `clock`.
void CatchUp(int64_t latents, int64_t d_in, int64_t d_out, int32_t clock,
             double b2, const Moments& moments, const ParallelFor& parallel);

}  // namespace jumprelu

#endif  // JUMPRELU_OPS_NATIVE_STEP_H_
