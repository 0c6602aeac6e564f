#include "step.h"

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <cstring>
#include <memory>
#include <vector>

#include "encode.h"
#include "loops.h"

namespace jumprelu {
namespace {

constexpr int64_t kRows = 16;     // in a chunk of the first phase
constexpr int64_t kLatents = 64;  // in a chunk of the last phase

// A selected pair.
struct Pair {
  int32_t latent, row;
  float value;  // the pre-activation
  // The derivative of the reconstruction loss with respect to the latent.
  float slope;
};

// The results of a chunk of rows.
struct RowsResult {
  std::vector<Pair> pairs;
  std::vector<float> b_dec;  // sum of the scaled errors
  double loss = 0;           // sum of the squared errors
  int64_t active = 0;        // number of active pairs
  bool finite = true;
};

// The selected pairs of one row, in the memory of others.
struct RowPairs {
  const int32_t* latents;
  const float* values;
  int64_t count;
};

// Selected pairs in the order of rows, and of latents within a row.
struct ByRow {
  // [batch + 1]: the index of each row's first pair, and the end.
  std::vector<int64_t> start;
  std::vector<int32_t> latents;
  std::vector<float> values;  // pre-activations

  RowPairs Row(int64_t row) const {
    const int64_t first = start[row];
    return {latents.data() + first, values.data() + first,
            start[row + 1] - first};
  }
};

ByRow SortByRow(const Encoding& encoding, int64_t batch) {
  ByRow sorted;
  sorted.start.assign(batch + 1, 0);
  for (const auto& chunk : encoding.chunks) {
    for (const Encoded& pair : chunk) ++sorted.start[pair.row + 1];
  }
  for (int64_t i = 0; i < batch; ++i) sorted.start[i + 1] += sorted.start[i];
  sorted.latents.resize(sorted.start[batch]);
  sorted.values.resize(sorted.start[batch]);
  std::vector<int64_t> next(sorted.start.begin(), sorted.start.end() - 1);
  for (const auto& chunk : encoding.chunks) {
    for (const Encoded& pair : chunk) {
      const int64_t place = next[pair.row]++;
      sorted.latents[place] = pair.latent;
      sorted.values[place] = pair.value;
    }
  }
  return sorted;
}

// Selects the pairs of one row among its pre-activations. `latents` has room for
// latents + 1, and `values` for latents.
JUMPRELU_INLINE RowPairs SelectRow(const Sizes& sizes, const Settings& settings,
                                   const Inputs& in, int64_t row,
                                   int32_t* latents, float* values) {
  const float* pre_acts = in.pre_acts + row * sizes.latents;
  const int64_t count = Select(pre_acts, in.threshold,
                               -(settings.bandwidth / 2), sizes.latents,
                               latents);
  for (int64_t i = 0; i < count; ++i) values[i] = pre_acts[latents[i]];
  return {latents, values, count};
}

// Grows each vector to hold `count` items, and the item that a loop writes
// before it decides whether the item counts.
template <typename... Vectors>
void MakeRoom(int64_t count, Vectors*... vectors) {
  const size_t size = static_cast<size_t>(count) + 1;
  (vectors->resize(std::max(vectors->size(), size)), ...);
}

// Room for the pairs of one row.
struct RowScratch {
  // Of all pairs: decoder rows, and slopes.
  std::vector<const float*> decoder_rows;
  std::vector<float> slopes;
  // Of active pairs: pre-activations and decoder rows.
  std::vector<float> active_values;
  std::vector<const float*> active_rows;

  void Reserve(int64_t count) {
    MakeRoom(count, &decoder_rows, &slopes, &active_values, &active_rows);
  }
};

// Writes the decoder rows of all pairs, and the operands of the active ones.
// Returns the number of active pairs. Each pair is first written and then
// counted, because a branch for each would often be mispredicted.
JUMPRELU_INLINE int64_t SplitActive(const Sizes& sizes, const Inputs& in,
                                    const RowPairs& pairs,
                                    RowScratch* scratch) {
  int64_t active = 0;
  for (int64_t i = 0; i < pairs.count; ++i) {
    const int64_t latent = pairs.latents[i];
    const float* decoder_row = in.decoder + latent * sizes.d_out;
    scratch->decoder_rows[i] = decoder_row;
    scratch->active_rows[active] = decoder_row;
    scratch->active_values[active] = pairs.values[i];
    active += pairs.values[i] > in.threshold[latent];
  }
  return active;
}

// Phase 1 for the rows [first, last): decodes them, writes their errors times
// `per_row` (2 / kept rows) to `errors`, and collects their selected pairs.
// `encoded` has these pairs, or is null.
JUMPRELU_CLONES void ForwardRows(const Sizes& sizes, const Settings& settings,
                                 const Inputs& in, const ByRow* encoded,
                                 float per_row, int64_t first, int64_t last,
                                 float* errors, RowsResult* result) {
  const int64_t d = sizes.d_out;
  result->b_dec.assign(d, 0.0f);
  const int64_t room = encoded ? 0 : sizes.latents;
  std::unique_ptr<int32_t[]> row_latents(new int32_t[room + 1]);
  std::unique_ptr<float[]> row_values(new float[room]);
  RowScratch scratch;
  for (int64_t row = first; row < last; ++row) {
    if (!in.keep[row]) continue;
    const RowPairs pairs =
        encoded ? encoded->Row(row)
                : SelectRow(sizes, settings, in, row, row_latents.get(),
                            row_values.get());
    scratch.Reserve(pairs.count);
    const int64_t active = SplitActive(sizes, in, pairs, &scratch);
    float* g = errors + row * d;
    std::memcpy(g, in.b_dec, d * sizeof(float));
    AxpyMany(scratch.active_values.data(), scratch.active_rows.data(), active,
             g, d);
    Axpy(-1.0f, in.targets + row * d, g, d);
    const float loss = SumOfSquares(g, d);
    Scale(per_row, g, d);
    Axpy(1.0f, g, result->b_dec.data(), d);
    float check = loss + SumOfSquares(in.inputs + row * sizes.d_in, sizes.d_in);
    DotMany(g, scratch.decoder_rows.data(), pairs.count, d,
            scratch.slopes.data());
    const int64_t before = static_cast<int64_t>(result->pairs.size());
    result->pairs.resize(before + pairs.count);
    Pair* out = result->pairs.data() + before;
    for (int64_t i = 0; i < pairs.count; ++i) {
      const int32_t latent = pairs.latents[i];
      const float slope = scratch.slopes[i], value = pairs.values[i];
      // A threshold that is NaN must make the check non-finite too.
      check += slope * slope + value * value + in.threshold[latent];
      out[i] = {latent, static_cast<int32_t>(row), value, slope};
    }
    result->loss += loss;
    result->active += active;
    result->finite &= std::isfinite(check);
  }
}

// Pairs in the order of latents, and of rows within a latent.
struct ByLatent {
  // [latents + 1]: the index of each latent's first pair, and the end.
  std::vector<int64_t> start;
  std::vector<Pair> pairs;
};

ByLatent SortByLatent(const std::vector<RowsResult>& chunks, int64_t latents) {
  ByLatent sorted;
  sorted.start.assign(latents + 1, 0);
  for (const RowsResult& chunk : chunks) {
    for (const Pair& pair : chunk.pairs) ++sorted.start[pair.latent + 1];
  }
  for (int64_t j = 0; j < latents; ++j) sorted.start[j + 1] += sorted.start[j];
  sorted.pairs.resize(sorted.start[latents]);
  std::vector<int64_t> next(sorted.start.begin(), sorted.start.end() - 1);
  for (const RowsResult& chunk : chunks) {
    for (const Pair& pair : chunk.pairs) {
      sorted.pairs[next[pair.latent]++] = pair;
    }
  }
  return sorted;
}

// The operands of the last phase.
struct Backward {
  const Sizes& sizes;
  const Settings& settings;
  const Inputs& in;
  const ByLatent& sorted;
  const float* errors;
  // The derivative of the loss with respect to the L0 of one row.
  float penalty_slope;
  bool ok;
};

// The memory in which one latent's gradients are computed.
struct Scratch {
  // Gradients of the two weight rows.
  std::vector<float> encoder, decoder;
  // Slopes and pre-activations of the active pairs.
  std::vector<float> slopes, values;
  // Inputs and errors of the active pairs' rows.
  std::vector<const float*> inputs, errors;

  void Reserve(int64_t count) {
    MakeRoom(count, &slopes, &values, &inputs, &errors);
  }
};

// Computes one latent's gradients. Those of b_enc and the threshold are written
// to `result`, those of the two weight rows to `scratch`. Returns the number of
// rows on which the latent was active; if it is 0, weight rows have no gradient
// and `scratch` is not written.
JUMPRELU_INLINE int64_t Accumulate(const Backward& b, int64_t latent,
                                   const StepResult& result, Scratch* scratch) {
  const float threshold = b.in.threshold[latent];
  const float half = b.settings.bandwidth / 2;
  float near_slopes = 0, b_enc = 0;
  int64_t near = 0, fired = 0;
  const int64_t first = b.sorted.start[latent];
  const int64_t last = b.sorted.start[latent + 1];
  scratch->Reserve(last - first);
  for (int64_t i = first; i < last; ++i) {
    const Pair& pair = b.sorted.pairs[i];
    const bool close = std::fabs(pair.value - threshold) < half;
    near_slopes += close ? pair.slope : 0.0f;
    near += close;
    const bool active = pair.value > threshold;
    b_enc += active ? pair.slope : 0.0f;
    scratch->slopes[fired] = pair.slope;
    scratch->values[fired] = pair.value;
    scratch->inputs[fired] = b.in.inputs + pair.row * b.sizes.d_in;
    scratch->errors[fired] = b.errors + pair.row * b.sizes.d_out;
    fired += active;
  }
  result.fired[latent] = static_cast<int32_t>(fired);
  result.b_enc[latent] = b_enc;
  result.threshold[latent] =
      -(threshold * near_slopes + b.penalty_slope * static_cast<float>(near)) /
      b.settings.bandwidth;
  if (!fired) return 0;
  std::fill(scratch->encoder.begin(), scratch->encoder.end(), 0.0f);
  std::fill(scratch->decoder.begin(), scratch->decoder.end(), 0.0f);
  AxpyMany(scratch->values.data(), scratch->errors.data(), fired,
           scratch->decoder.data(), b.sizes.d_out);
  AxpyMany(scratch->slopes.data(), scratch->inputs.data(), fired,
           scratch->encoder.data(), b.sizes.d_in);
  return fired;
}

// Phase 3 for the latents [first, last). `through_encoder` receives the product
// of these encoder rows and the gradient of b_enc. It stays empty without a
// pre-encoder bias.
JUMPRELU_CLONES void BackwardLatents(const Backward& b,
                                     const Matrices& matrices,
                                     const StepResult& result, int64_t first,
                                     int64_t last,
                                     std::vector<float>* through_encoder) {
  const int64_t d_in = b.sizes.d_in, d_out = b.sizes.d_out;
  Scratch scratch;
  scratch.encoder.resize(d_in);
  scratch.decoder.resize(d_out);
  float* g_encoder = scratch.encoder.data();
  float* g_decoder = scratch.decoder.data();
  AdamStep adam = {0, static_cast<float>(1 - b.settings.b2), b.settings.eps,
                   b.in.learning_rate, 1.0f / b.in.correction,
                   b.settings.clip};
  for (int64_t j = first; j < last; ++j) {
    if (!Accumulate(b, j, result, &scratch)) continue;
    if (b.settings.pre_encoder_bias) {
      // The encoder's input was inputs - b_dec, which changes the gradients of
      // the encoder and of b_dec.
      const float b_enc = result.b_enc[j];
      if (through_encoder->empty()) through_encoder->assign(d_out, 0.0f);
      Axpy(b_enc, b.in.encoder + j * d_in, through_encoder->data(), d_in);
      Axpy(-b_enc, b.in.b_dec, g_encoder, d_in);
    }
    float* encoder = matrices.encoder + j * d_in;
    float* decoder = matrices.decoder + j * d_out;
    if (!matrices.update) {
      std::memcpy(encoder, g_encoder, d_in * sizeof(float));
      std::memcpy(decoder, g_decoder, d_out * sizeof(float));
      continue;
    }
    if (!b.ok) continue;
    Axpy(-Dot(g_decoder, decoder, d_out), decoder, g_decoder, d_out);
    const int32_t now = b.in.clock + 1;
    adam.decay = static_cast<float>(
        std::pow(b.settings.b2, now - matrices.touched[j]));
    matrices.touched[j] = now;
    Adam(adam, g_decoder, decoder, matrices.nu_decoder + j * d_out, d_out);
    Adam(adam, g_encoder, encoder, matrices.nu_encoder + j * d_in, d_in);
    const float norm = std::sqrt(SumOfSquares(decoder, d_out));
    Scale(1.0f / std::max(norm, FLT_MIN), decoder, d_out);
  }
}

// `Scale`, compiled for several instruction sets.
JUMPRELU_CLONES void ScaleRow(float a, float* x, int64_t n) { Scale(a, x, n); }

// Returns the number of chunks of at most `size` items.
int64_t Chunks(int64_t count, int64_t size) {
  return (count + size - 1) / size;
}

// Returns the penalty if all latents are active. As in the other backends, it
// must be finite.
float LargestPenalty(const Sizes& sizes, const Settings& settings,
                     const Inputs& in) {
  const float most = static_cast<float>(sizes.latents);
  const float share = settings.target_l0 ? most / in.target : most;
  return in.coefficient * (settings.target_l0 ? share * share : share);
}

}  // namespace

void Step(const Sizes& sizes, const Settings& settings, const Inputs& in,
          const Matrices& matrices, const StepResult& result,
          const ParallelFor& parallel) {
  const int64_t kept = std::count(in.keep, in.keep + sizes.batch, true);
  const float rows = static_cast<float>(std::max<int64_t>(kept, 1));

  // Phase 1: rows.
  ByRow encoded;
  *result.overflow = 0;
  if (!in.pre_acts) {
    const Encoding encoding = Encode(sizes, settings, in, parallel);
    encoded = SortByRow(encoding, sizes.batch);
    *result.overflow = Crowded(encoding, sizes.latents);
  }
  std::unique_ptr<float[]> errors(new float[sizes.batch * sizes.d_out]);
  std::vector<RowsResult> chunks(Chunks(sizes.batch, kRows));
  parallel(chunks.size(), [&](int64_t i) {
    ForwardRows(sizes, settings, in, in.pre_acts ? nullptr : &encoded,
                2.0f / rows, i * kRows,
                std::min((i + 1) * kRows, sizes.batch), errors.get(),
                &chunks[i]);
  });
  double loss = 0;
  int64_t active = 0;
  bool finite = true;
  std::fill(result.b_dec, result.b_dec + sizes.d_out, 0.0f);
  for (const RowsResult& chunk : chunks) {
    loss += chunk.loss;
    active += chunk.active;
    finite &= chunk.finite;
    Axpy(1.0f, chunk.b_dec.data(), result.b_dec, sizes.d_out);
  }
  const float l0 = static_cast<float>(active) / rows;
  *result.reconstruction = static_cast<float>(loss / rows);
  *result.l0 = l0;
  float slope = in.coefficient;
  if (settings.target_l0) slope *= 2 * (l0 / in.target - 1) / in.target;
  finite &= std::isfinite(*result.reconstruction) && std::isfinite(slope) &&
            std::isfinite(LargestPenalty(sizes, settings, in));
  *result.ok = finite;

  // Phase 2: the sort. Phase 3: gradients and the update of latents.
  const ByLatent sorted = SortByLatent(chunks, sizes.latents);
  const Backward backward = {sizes, settings, in, sorted, errors.get(),
                             slope / rows, finite};
  // For each chunk, its part of the product of the encoder and the gradient of
  // b_enc.
  std::vector<std::vector<float>> shares(Chunks(sizes.latents, kLatents));
  parallel(shares.size(), [&](int64_t i) {
    BackwardLatents(backward, matrices, result, i * kLatents,
                    std::min((i + 1) * kLatents, sizes.latents), &shares[i]);
  });
  for (const std::vector<float>& share : shares) {
    if (share.empty()) continue;
    Axpy(-1.0f, share.data(), result.b_dec, sizes.d_out);
  }
}

void CatchUp(int64_t latents, int64_t d_in, int64_t d_out, int32_t clock,
             double b2, const Moments& moments, const ParallelFor& parallel) {
  parallel(Chunks(latents, kLatents), [&](int64_t i) {
    const int64_t last = std::min((i + 1) * kLatents, latents);
    for (int64_t j = i * kLatents; j < last; ++j) {
      const int32_t missed = clock - moments.touched[j];
      if (!missed) continue;
      const float decay = static_cast<float>(std::pow(b2, missed));
      ScaleRow(decay, moments.encoder + j * d_in, d_in);
      ScaleRow(decay, moments.decoder + j * d_out, d_out);
    }
  });
}

}  // namespace jumprelu
