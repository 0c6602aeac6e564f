// The inner loops over one row of a matrix, which the compiler vectorises.

#ifndef JUMPRELU_OPS_NATIVE_LOOPS_H_
#define JUMPRELU_OPS_NATIVE_LOOPS_H_

#include <cfloat>
#include <cmath>
#include <cstdint>

// A function with JUMPRELU_CLONES is compiled for several instruction sets. The
// best one that the machine has is chosen when the library is loaded, so that a
// build also runs on other machines. Functions that it calls need
// JUMPRELU_INLINE, because only inlined code is compiled for all these sets.
// JUMPRELU_INTEGER_CLONES is for integers, which "fma" has no wide vectors of.
#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__)
#define JUMPRELU_CLONES \
  __attribute__((target_clones("avx512f", "fma", "default")))
#define JUMPRELU_INTEGER_CLONES \
  __attribute__((target_clones("avx512f", "avx2", "default")))
#define JUMPRELU_INLINE inline __attribute__((always_inline))
#else
#define JUMPRELU_CLONES
#define JUMPRELU_INTEGER_CLONES
#define JUMPRELU_INLINE inline
#endif

namespace jumprelu {

// y += a x.
JUMPRELU_INLINE void Axpy(float a, const float* __restrict x,
                          float* __restrict y, int64_t n) {
#pragma omp simd
  for (int64_t k = 0; k < n; ++k) y[k] += a * x[k];
}

// y += a[0] x[0] + ... + a[3] x[3], with one read and write of y for all four.
JUMPRELU_INLINE void Axpy4(const float* a, const float* const* x,
                           float* __restrict y, int64_t n) {
  const float *__restrict x0 = x[0], *__restrict x1 = x[1];
  const float *__restrict x2 = x[2], *__restrict x3 = x[3];
  const float a0 = a[0], a1 = a[1], a2 = a[2], a3 = a[3];
#pragma omp simd
  for (int64_t k = 0; k < n; ++k) {
    y[k] += (a0 * x0[k] + a1 * x1[k]) + (a2 * x2[k] + a3 * x3[k]);
  }
}

// y += the sum of a[i] x[i].
JUMPRELU_INLINE void AxpyMany(const float* a, const float* const* x,
                              int64_t count, float* y, int64_t n) {
  int64_t i = 0;
  for (; i + 4 <= count; i += 4) Axpy4(a + i, x + i, y, n);
  for (; i < count; ++i) Axpy(a[i], x[i], y, n);
}

JUMPRELU_INLINE float Dot(const float* __restrict x, const float* __restrict y,
                          int64_t n) {
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t k = 0; k < n; ++k) sum += x[k] * y[k];
  return sum;
}

// result[i] = the dot product of x and y[i], of four vectors at a time, because
// the sums within a register take as long as a short product.
JUMPRELU_INLINE void Dot4(const float* __restrict x, const float* const* y,
                          int64_t n, float* result) {
  const float *__restrict y0 = y[0], *__restrict y1 = y[1];
  const float *__restrict y2 = y[2], *__restrict y3 = y[3];
  float sum0 = 0, sum1 = 0, sum2 = 0, sum3 = 0;
#pragma omp simd reduction(+ : sum0, sum1, sum2, sum3)
  for (int64_t k = 0; k < n; ++k) {
    sum0 += x[k] * y0[k];
    sum1 += x[k] * y1[k];
    sum2 += x[k] * y2[k];
    sum3 += x[k] * y3[k];
  }
  result[0] = sum0;
  result[1] = sum1;
  result[2] = sum2;
  result[3] = sum3;
}

// result[i] = the dot product of x and y[i].
JUMPRELU_INLINE void DotMany(const float* x, const float* const* y,
                             int64_t count, int64_t n, float* result) {
  int64_t i = 0;
  for (; i + 4 <= count; i += 4) Dot4(x, y + i, n, result + i);
  for (; i < count; ++i) result[i] = Dot(x, y[i], n);
}

JUMPRELU_INLINE float SumOfSquares(const float* x, int64_t n) {
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t k = 0; k < n; ++k) sum += x[k] * x[k];
  return sum;
}

// Returns whether a pre-activation is active, near (`step.h`) or non-finite.
// `below` is minus half the bandwidth. The condition is negated, because NaN
// fails every comparison and must be selected.
JUMPRELU_INLINE bool Selected(float pre_act, float threshold, float below) {
  return !((pre_act - threshold <= below) & (pre_act >= -FLT_MAX));
}

// Writes the indices of selected pre-activations, and returns their number.
// Most stretches of 32 contain none and cost only a vectorised check. `index`
// needs room for n + 1, because each index is first written and then counted.
JUMPRELU_INLINE int64_t Select(const float* __restrict pre_acts,
                               const float* __restrict threshold, float below,
                               int64_t n, int32_t* __restrict index) {
  constexpr int64_t kStretch = 32;
  int64_t count = 0;
  for (int64_t start = 0; start < n; start += kStretch) {
    const int64_t end = start + kStretch < n ? start + kStretch : n;
    int any = 0;
#pragma omp simd reduction(| : any)
    for (int64_t k = start; k < end; ++k) {
      any |= Selected(pre_acts[k], threshold[k], below);
    }
    if (!any) continue;
    for (int64_t k = start; k < end; ++k) {
      index[count] = static_cast<int32_t>(k);
      count += Selected(pre_acts[k], threshold[k], below);
    }
  }
  return count;
}

struct AdamStep {
  // The decay of the second moments in this step and in all steps since the
  // row's last update.
  float decay;
  // The weight of the new square: 1 - b2.
  float fresh;
  float eps, learning_rate, inverse_correction;
  // The largest root mean square of a row's step, divided by the learning rate;
  // 0 for no limit.
  float clip;
};

// Returns the learning rate at which a row's step keeps the limit.
JUMPRELU_INLINE float ClippedRate(const AdamStep& adam,
                                  const float* __restrict g,
                                  const float* __restrict nu, int64_t n) {
  const float decay = adam.decay, fresh = adam.fresh, eps = adam.eps;
  const float grow = adam.inverse_correction;
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t k = 0; k < n; ++k) {
    const float v = decay * nu[k] + fresh * (g[k] * g[k]);
    const float step = g[k] / (std::sqrt(v * grow) + eps);
    sum += step * step;
  }
  return adam.learning_rate /
         std::max(1.0f, std::sqrt(sum / n) / adam.clip);
}

// Adam with beta1 = 0 on one row.
JUMPRELU_INLINE void Adam(const AdamStep& adam, const float* __restrict g,
                          float* __restrict w, float* __restrict nu,
                          int64_t n) {
  const float decay = adam.decay, fresh = adam.fresh, eps = adam.eps;
  const float grow = adam.inverse_correction;
  const float rate =
      adam.clip > 0 ? ClippedRate(adam, g, nu, n) : adam.learning_rate;
#pragma omp simd
  for (int64_t k = 0; k < n; ++k) {
    const float v = decay * nu[k] + fresh * (g[k] * g[k]);
    nu[k] = v;
    w[k] -= rate * g[k] / (std::sqrt(v * grow) + eps);
  }
}

JUMPRELU_INLINE void Scale(float a, float* __restrict x, int64_t n) {
#pragma omp simd
  for (int64_t k = 0; k < n; ++k) x[k] *= a;
}

}  // namespace jumprelu

#endif  // JUMPRELU_OPS_NATIVE_LOOPS_H_
