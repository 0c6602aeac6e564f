// One exact JumpReLU step on the pairs (row, latent) that have a gradient.
//
// A pair has a gradient if its pre-activation is above the threshold or inside
// the kernel around it; other pairs are skipped. A step has three phases:
//
//   1. Rows in parallel: selection, decoding, error and its dot products.
//   2. A counting sort of the pairs by latent.
//   3. Latents in parallel: gradients of two weight rows in scratch memory,
//      then projection, Adam and unit norm in place.
//
// Results have the same bits on any number of threads, because the sizes of
// chunks do not depend on it and sums over chunks are in the order of chunks.

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

// The constants of a run.
struct Settings {
  float bandwidth;
  // Whether the encoder sees the inputs minus b_dec.
  bool pre_encoder_bias;
  // Whether the penalty is coefficient * (L0 / target - 1)^2, not * L0.
  bool target_l0;
  // Constants of Adam. In float, 1 - b2 would be wrong in the fifth digit.
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
  // The learning rate of this step, and 1 - b2^t.
  float learning_rate, correction;
  // Earlier steps of the segment that were not skipped.
  int32_t clock;
};

// The arrays that a step writes, with one row for each latent.
struct Matrices {
  // Whether the step updates the weights of `Inputs` in place. Otherwise
  // `encoder` and `decoder` receive the gradients; rows without one are not
  // written.
  bool update;
  float* encoder;     // [latents, d_in]
  float* decoder;     // [latents, d_out]
  float* nu_encoder;  // [latents, d_in]
  float* nu_decoder;  // [latents, d_out]
  // [latents]: the clock up to which a row's nu has decayed.
  int32_t* touched;
};

// The other results of a step.
struct StepResult {
  float* b_enc;      // [latents]: gradient
  float* b_dec;      // [d_out]: gradient
  float* threshold;  // [latents]: gradient with respect to the linear one
  int32_t* fired;    // [latents]: kept rows on which a latent was active
  float* reconstruction;  // mean squared norm of the error over kept rows
  float* l0;              // mean active latents over kept rows
  bool* ok;               // whether the step was finite; otherwise no update
};

void Step(const Sizes& sizes, const Settings& settings, const Inputs& inputs,
          const Matrices& matrices, const StepResult& result,
          const ParallelFor& parallel);

// The second moments of both matrices.
struct Moments {
  float* encoder;          // [latents, d_in]
  float* decoder;          // [latents, d_out]
  const int32_t* touched;  // [latents]: as in `Matrices`
};

// Decays the second moments of all rows up to `clock`.
void CatchUp(int64_t latents, int64_t d_in, int64_t d_out, int32_t clock,
             double b2, const Moments& moments, const ParallelFor& parallel);

}  // namespace jumprelu

#endif  // JUMPRELU_OPS_NATIVE_STEP_H_
