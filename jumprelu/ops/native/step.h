// One exact JumpReLU step on the pairs (row, latent) that have a gradient.
//
// The formulas are those of `ops/active_pairs.py`. A pair is active if its
// pre-activation is above the threshold, and near if it is inside the kernel
// around the threshold. Pairs that are neither are skipped, the others are
// called selected. A step has three phases:
//
//   1. Rows in parallel: selects pairs among the pre-activations, unless
//      `encode.h` has selected them; decodes the row, and computes its error and
//      the slopes of its pairs (error times decoder row).
//   2. A counting sort of the pairs by latent.
//   3. Latents in parallel: computes the gradients of a latent's two weight
//      rows in scratch memory. Then it updates the rows in place, with the
//      decoder row at unit norm.
//
// Results have the same bits on any number of threads, because the sizes of
// chunks are constant and the results of chunks are added in a fixed order.

#ifndef JUMPRELU_OPS_NATIVE_STEP_H_
#define JUMPRELU_OPS_NATIVE_STEP_H_

#include <cstdint>
#include <functional>

namespace jumprelu {

// A parallel loop: calls `work(i)` for every i in [0, chunks), on any threads,
// and returns when all calls are done.
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
  // Constants of Adam. b2 is a double, because 1 - b2 would be wrong in the
  // fifth digit in float.
  double b2;
  float eps;
  // The largest root mean square of a row's update, divided by the learning
  // rate; 0 for no limit.
  float clip;
};

struct Inputs {
  // [batch, latents], or null: then the step encodes, with `b_enc`.
  const float* pre_acts;
  const float* b_enc;      // [latents], or null
  const float* inputs;     // [batch, d_in]
  const float* targets;    // [batch, d_out]
  const bool* keep;        // [batch]
  const float* threshold;  // [latents]
  const float* b_dec;      // [d_out]
  const float* encoder;    // [latents, d_in]
  const float* decoder;    // [latents, d_out]
  // The weight of the penalty, and the L0 that it aims at.
  float coefficient, target;
  // The learning rate of this step, and 1 - b2^t, where t is the number of this
  // step in the run, from 1.
  float learning_rate, correction;
  // The number of earlier steps of the segment that were not skipped.
  int32_t clock;
};

// The arrays that a step writes, with one row for each latent.
struct Matrices {
  // Whether the step updates in place. `encoder` and `decoder` are then the
  // weights of `Inputs`. Otherwise they receive the gradients, nothing else of
  // this struct is written, and rows without a gradient are not written.
  bool update;
  float* encoder;     // [latents, d_in]
  float* decoder;     // [latents, d_out]
  float* nu_encoder;  // [latents, d_in]
  float* nu_decoder;  // [latents, d_out]
  // [latents]: the value of `Inputs::clock` up to which a row's nu has decayed.
  int32_t* touched;
};

// The other results of a step.
struct StepResult {
  float* b_enc;      // [latents]: gradient
  float* b_dec;      // [d_out]: gradient
  float* threshold;  // [latents]: gradient
  // [latents]: the number of kept rows on which each latent was active.
  int32_t* fired;
  // Mean squared norm of the error over kept rows.
  float* reconstruction;
  // Mean number of active latents over kept rows.
  float* l0;
  // Whether the step was finite. If it was not, `Matrices` is not updated.
  bool* ok;
  // The number of rows for which more than a quarter of the pre-activations were
  // computed in float32, if the step encodes; otherwise 0.
  int32_t* overflow;
};

// Takes one step: updates `matrices` or computes their gradients, and writes
// all of `result`.
void Step(const Sizes& sizes, const Settings& settings, const Inputs& inputs,
          const Matrices& matrices, const StepResult& result,
          const ParallelFor& parallel);

// The second moments of both matrices.
struct Moments {
  float* encoder;          // [latents, d_in]
  float* decoder;          // [latents, d_out]
  const int32_t* touched;  // [latents]: the same as in `Matrices`
};

// Decays the second moments of all rows up to `clock`. The caller must then set
// all entries of `touched` to `clock`.
void CatchUp(int64_t latents, int64_t d_in, int64_t d_out, int32_t clock,
             double b2, const Moments& moments, const ParallelFor& parallel);

}  // namespace jumprelu

#endif  // JUMPRELU_OPS_NATIVE_STEP_H_
