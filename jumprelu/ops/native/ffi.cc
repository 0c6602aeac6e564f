// `Step`, `CatchUp` and `Digest` as custom calls of XLA, on XLA's threads.

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <mutex>
#include <vector>

#include "digest.h"
#include "encode.h"
#include "step.h"
#include "xla/ffi/api/ffi.h"

namespace jumprelu {

namespace ffi = ::xla::ffi;

// The progress of one parallel loop, shared by the caller and XLA's threads. It
// is reference counted, because a thread may start after the loop has ended,
// when `work` no longer exists. Such a thread finds no chunk left and reads
// nothing else.
struct Pool {
  // The number of the next chunk.
  std::atomic<int64_t> next{0};
  // The number of finished chunks, guarded by `mutex`.
  int64_t done = 0;
  std::mutex mutex;
  std::condition_variable all_done;
};

// Runs chunks until none is left, and adds their number to `pool.done`.
void TakeChunks(Pool& pool, int64_t chunks,
                const std::function<void(int64_t)>& work) {
  int64_t taken = 0;
  for (int64_t i; (i = pool.next.fetch_add(1)) < chunks; ++taken) work(i);
  if (taken == 0) return;
  std::lock_guard<std::mutex> lock(pool.mutex);
  pool.done += taken;
  if (pool.done == chunks) pool.all_done.notify_all();
}

// Returns a parallel loop on the calling thread and on XLA's threads.
ParallelFor OnThreads(ffi::ThreadPool threads) {
  return [threads](int64_t chunks, const std::function<void(int64_t)>& work) {
    auto pool = std::make_shared<Pool>();
    const int64_t helpers = std::min(threads.num_threads(), chunks) - 1;
    // The pointer is valid in every chunk, because the caller waits for all
    // chunks before `work` is destroyed.
    const std::function<void(int64_t)>* shared = &work;
    for (int64_t i = 0; i < helpers; ++i) {
      ffi::ThreadPool(threads).Schedule(
          [pool, chunks, shared] { TakeChunks(*pool, chunks, *shared); });
    }
    TakeChunks(*pool, chunks, work);
    std::unique_lock<std::mutex> lock(pool->mutex);
    pool->all_done.wait(lock, [&] { return pool->done == chunks; });
  };
}

// Types of operands and results.
using Vector = ffi::Buffer<ffi::F32, 1>;
using Matrix = ffi::Buffer<ffi::F32, 2>;
using Scalar = ffi::Buffer<ffi::F32, 0>;
using Counts = ffi::Buffer<ffi::S32, 1>;
using Clock = ffi::Buffer<ffi::S32, 0>;
using Flag = ffi::Buffer<ffi::PRED, 0>;
using Flags = ffi::Buffer<ffi::PRED, 1>;
using Words = ffi::Buffer<ffi::U32, 2>;
using Numbers = ffi::Buffer<ffi::S32, 2>;
template <typename T>
using Result = ffi::Result<T>;

bool Is(const Matrix& matrix, int64_t rows, int64_t columns) {
  return matrix.dimensions()[0] == rows && matrix.dimensions()[1] == columns;
}

bool Is(const Vector& vector, int64_t size) {
  return vector.dimensions()[0] == size;
}

bool CanEncode(const Sizes& sizes) {
  return EncodeKernel()[0] && sizes.d_in < kTooWide;
}

// Copies an operand to its result, unless XLA gave both the same memory.
template <typename T>
void Carry(const T& operand, Result<T>& result) {
  if (operand.untyped_data() != result->untyped_data()) {
    std::memcpy(result->untyped_data(), operand.untyped_data(),
                operand.size_bytes());
  }
}

ffi::Error RunStep(
    ffi::ThreadPool threads,
    // Operands.
    Matrix pre_acts, Vector b_enc, Matrix inputs, Matrix targets, Flags keep,
    Vector threshold, Vector b_dec,
    // Coefficient, target L0, learning rate and Adam's correction.
    Vector numbers, Clock clock, Matrix encoder, Matrix decoder,
    Matrix nu_encoder, Matrix nu_decoder, Counts touched,
    // Results; the first five may share the memory of operands.
    Result<Matrix> out_encoder, Result<Matrix> out_decoder,
    Result<Matrix> out_nu_encoder, Result<Matrix> out_nu_decoder,
    Result<Counts> out_touched, Result<Vector> grad_b_enc,
    Result<Vector> grad_b_dec, Result<Vector> grad_threshold,
    Result<Counts> fired, Result<Scalar> reconstruction, Result<Scalar> l0,
    Result<Flag> ok, Result<Clock> overflow,
    // Attributes.
    bool update, bool pre_encoder_bias, bool target_l0, float bandwidth,
    double b2, float eps, float clip) {
  const Sizes sizes = {inputs.dimensions()[0], encoder.dimensions()[0],
                       inputs.dimensions()[1], targets.dimensions()[1]};
  // Pre-activations or the bias, from which the step encodes, have no entries.
  const bool encode = Is(pre_acts, sizes.batch, 0) && CanEncode(sizes);
  const bool fit =
      (encode ? Is(b_enc, sizes.latents)
              : Is(pre_acts, sizes.batch, sizes.latents)) &&
      Is(targets, sizes.batch, sizes.d_out) &&
      keep.dimensions()[0] == sizes.batch && Is(threshold, sizes.latents) &&
      Is(b_dec, sizes.d_out) && Is(numbers, 4) &&
      Is(encoder, sizes.latents, sizes.d_in) &&
      Is(decoder, sizes.latents, sizes.d_out) &&
      Is(nu_encoder, sizes.latents, sizes.d_in) &&
      Is(nu_decoder, sizes.latents, sizes.d_out) &&
      touched.dimensions()[0] == sizes.latents &&
      (!pre_encoder_bias || sizes.d_in == sizes.d_out);
  if (!fit) {
    return ffi::Error::InvalidArgument(
        "jumprelu_step: the operands' shapes do not fit each other");
  }
  Carry(nu_encoder, out_nu_encoder);
  Carry(nu_decoder, out_nu_decoder);
  Carry(touched, out_touched);
  if (update) {
    Carry(encoder, out_encoder);
    Carry(decoder, out_decoder);
  } else {
    std::memset(out_encoder->untyped_data(), 0, out_encoder->size_bytes());
    std::memset(out_decoder->untyped_data(), 0, out_decoder->size_bytes());
  }
  const float* number = numbers.typed_data();
  Inputs in = {encode ? nullptr : pre_acts.typed_data(),
               encode ? b_enc.typed_data() : nullptr,
               inputs.typed_data(), targets.typed_data(), keep.typed_data(),
               threshold.typed_data(), b_dec.typed_data(),
               update ? out_encoder->typed_data() : encoder.typed_data(),
               update ? out_decoder->typed_data() : decoder.typed_data(),
               number[0], number[1], number[2], number[3],
               clock.typed_data()[0]};
  Step(sizes, {bandwidth, pre_encoder_bias, target_l0, b2, eps, clip}, in,
       {update, out_encoder->typed_data(), out_decoder->typed_data(),
        out_nu_encoder->typed_data(), out_nu_decoder->typed_data(),
        out_touched->typed_data()},
       {grad_b_enc->typed_data(), grad_b_dec->typed_data(),
        grad_threshold->typed_data(), fired->typed_data(),
        reconstruction->typed_data(), l0->typed_data(), ok->typed_data(),
        overflow->typed_data()},
       OnThreads(threads));
  return ffi::Error::Success();
}

ffi::Error RunCatchUp(ffi::ThreadPool threads, Matrix nu_encoder,
                      Matrix nu_decoder, Counts touched, Clock clock,
                      Result<Matrix> out_encoder, Result<Matrix> out_decoder,
                      double b2) {
  const int64_t latents = touched.dimensions()[0];
  const int64_t d_in = nu_encoder.dimensions()[1];
  const int64_t d_out = nu_decoder.dimensions()[1];
  if (!Is(nu_encoder, latents, d_in) || !Is(nu_decoder, latents, d_out)) {
    return ffi::Error::InvalidArgument(
        "jumprelu_catch_up: the operands' shapes do not fit each other");
  }
  Carry(nu_encoder, out_encoder);
  Carry(nu_decoder, out_decoder);
  CatchUp(latents, d_in, d_out, clock.typed_data()[0], b2,
          {out_encoder->typed_data(), out_decoder->typed_data(),
           touched.typed_data()},
          OnThreads(threads));
  return ffi::Error::Success();
}

// The pairs of each row in the order of latents. A row with more pairs than the
// results have room for is cut; `counts` has the number of its pairs.
ffi::Error RunEncode(ffi::ThreadPool threads, Matrix inputs, Matrix encoder,
                     Vector b_enc, Vector threshold, Result<Numbers> latents,
                     Result<Matrix> values, Result<Counts> counts,
                     Result<Counts> candidates, float bandwidth) {
  const Sizes sizes = {inputs.dimensions()[0], encoder.dimensions()[0],
                       inputs.dimensions()[1], 0};
  const int64_t room = values->dimensions()[1];
  if (!Is(encoder, sizes.latents, sizes.d_in) || !Is(b_enc, sizes.latents) ||
      !Is(threshold, sizes.latents) || !CanEncode(sizes)) {
    return ffi::Error::InvalidArgument(
        "jumprelu_encode: the operands' shapes do not fit each other, or have"
        " too many dimensions, or this CPU has no integer kernel");
  }
  const std::unique_ptr<bool[]> keep(new bool[sizes.batch]);
  std::fill(keep.get(), keep.get() + sizes.batch, true);
  Settings settings = {};
  settings.bandwidth = bandwidth;
  Inputs in = {};
  in.b_enc = b_enc.typed_data();
  in.inputs = inputs.typed_data();
  in.keep = keep.get();
  in.threshold = threshold.typed_data();
  in.encoder = encoder.typed_data();
  const Encoding encoding = Encode(sizes, settings, in, OnThreads(threads));
  int32_t* const count = counts->typed_data();
  std::fill(count, count + sizes.batch, 0);
  std::memset(latents->untyped_data(), 0, latents->size_bytes());
  std::memset(values->untyped_data(), 0, values->size_bytes());
  for (const auto& chunk : encoding.chunks) {
    for (const Encoded& pair : chunk) {
      const int64_t place = count[pair.row]++;
      if (place >= room) continue;
      latents->typed_data()[pair.row * room + place] = pair.latent;
      values->typed_data()[pair.row * room + place] = pair.value;
    }
  }
  std::copy(encoding.candidates.begin(), encoding.candidates.end(),
            candidates->typed_data());
  return ffi::Error::Success();
}

// The arrays have any types of 32 bits and any shape, because XLA would copy them
// to change their types or shapes.
ffi::Error RunDigest(ffi::ThreadPool threads, Words prefixes,
                     ffi::RemainingArgs operands, Result<Words> sums,
                     Result<Flags> finite) {
  const ffi::Error misfit = ffi::Error::InvalidArgument(
      "jumprelu_digest: the shapes do not fit each other");
  const int64_t rows = prefixes.dimensions()[0];
  const int64_t count = static_cast<int64_t>(operands.size());
  if (count == 0 || rows == 0 || prefixes.dimensions()[1] != kSalts ||
      sums->dimensions()[0] != count || sums->dimensions()[1] != kSalts ||
      finite->dimensions()[0] != count) {
    return misfit;
  }
  int64_t columns = 0;
  std::vector<const uint32_t*> arrays;
  for (int64_t i = 0; i < count; ++i) {
    auto array = operands.get<ffi::AnyBuffer>(i);
    if (!array) return array.error();
    if (i == 0) columns = static_cast<int64_t>(array->element_count()) / rows;
    if (array->size_bytes() != rows * columns * sizeof(uint32_t)) return misfit;
    arrays.push_back(static_cast<const uint32_t*>(array->untyped_data()));
  }
  const std::vector<DigestResult> results =
      Digest(arrays, prefixes.typed_data(), rows, columns, OnThreads(threads));
  for (int64_t i = 0; i < count; ++i) {
    std::copy(results[i].sums, results[i].sums + kSalts,
              sums->typed_data() + kSalts * i);
    finite->typed_data()[i] = results[i].finite;
  }
  return ffi::Error::Success();
}

}  // namespace jumprelu

// Returns the name of the kernel with which `jumprelu_step` encodes, or "".
extern "C" __attribute__((visibility("default"))) const char*
jumprelu_encode_kernel() {
  return jumprelu::EncodeKernel();
}

XLA_FFI_DEFINE_HANDLER_SYMBOL(
    jumprelu_step, jumprelu::RunStep,
    xla::ffi::Ffi::Bind()
        .Ctx<xla::ffi::ThreadPool>()
        .Arg<jumprelu::Matrix>()   // pre_acts
        .Arg<jumprelu::Vector>()   // b_enc
        .Arg<jumprelu::Matrix>()   // inputs
        .Arg<jumprelu::Matrix>()   // targets
        .Arg<jumprelu::Flags>()    // keep
        .Arg<jumprelu::Vector>()   // threshold
        .Arg<jumprelu::Vector>()   // b_dec
        .Arg<jumprelu::Vector>()   // numbers
        .Arg<jumprelu::Clock>()    // clock
        .Arg<jumprelu::Matrix>()   // encoder
        .Arg<jumprelu::Matrix>()   // decoder
        .Arg<jumprelu::Matrix>()   // nu_encoder
        .Arg<jumprelu::Matrix>()   // nu_decoder
        .Arg<jumprelu::Counts>()   // touched
        .Ret<jumprelu::Matrix>()   // encoder, or its gradient
        .Ret<jumprelu::Matrix>()   // decoder, or its gradient
        .Ret<jumprelu::Matrix>()   // nu_encoder
        .Ret<jumprelu::Matrix>()   // nu_decoder
        .Ret<jumprelu::Counts>()   // touched
        .Ret<jumprelu::Vector>()   // gradient of b_enc
        .Ret<jumprelu::Vector>()   // gradient of b_dec
        .Ret<jumprelu::Vector>()   // gradient of the threshold
        .Ret<jumprelu::Counts>()   // fired
        .Ret<jumprelu::Scalar>()   // reconstruction
        .Ret<jumprelu::Scalar>()   // l0
        .Ret<jumprelu::Flag>()     // ok
        .Ret<jumprelu::Clock>()    // overflow
        .Attr<bool>("update")
        .Attr<bool>("pre_encoder_bias")
        .Attr<bool>("target_l0")
        .Attr<float>("bandwidth")
        .Attr<double>("b2")
        .Attr<float>("eps")
        .Attr<float>("clip"));

XLA_FFI_DEFINE_HANDLER_SYMBOL(
    jumprelu_catch_up, jumprelu::RunCatchUp,
    xla::ffi::Ffi::Bind()
        .Ctx<xla::ffi::ThreadPool>()
        .Arg<jumprelu::Matrix>()   // nu_encoder
        .Arg<jumprelu::Matrix>()   // nu_decoder
        .Arg<jumprelu::Counts>()   // touched
        .Arg<jumprelu::Clock>()    // clock
        .Ret<jumprelu::Matrix>()   // nu_encoder
        .Ret<jumprelu::Matrix>()   // nu_decoder
        .Attr<double>("b2"));

XLA_FFI_DEFINE_HANDLER_SYMBOL(jumprelu_encode, jumprelu::RunEncode,
                              xla::ffi::Ffi::Bind()
                                  .Ctx<xla::ffi::ThreadPool>()
                                  .Arg<jumprelu::Matrix>()   // inputs
                                  .Arg<jumprelu::Matrix>()   // encoder
                                  .Arg<jumprelu::Vector>()   // b_enc
                                  .Arg<jumprelu::Vector>()   // threshold
                                  .Ret<jumprelu::Numbers>()  // latents
                                  .Ret<jumprelu::Matrix>()   // values
                                  .Ret<jumprelu::Counts>()   // counts
                                  .Ret<jumprelu::Counts>()   // candidates
                                  .Attr<float>("bandwidth"));

XLA_FFI_DEFINE_HANDLER_SYMBOL(jumprelu_digest, jumprelu::RunDigest,
                              xla::ffi::Ffi::Bind()
                                  .Ctx<xla::ffi::ThreadPool>()
                                  .Arg<jumprelu::Words>()  // prefixes
                                  .RemainingArgs()         // arrays
                                  .Ret<jumprelu::Words>()  // sums
                                  .Ret<jumprelu::Flags>());  // finite
