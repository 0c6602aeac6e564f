#include "integer_tiles.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>
#define JUMPRELU_AVX2 __attribute__((target("avx2,fma")))
#define JUMPRELU_VNNI __attribute__((target("avx512f,avx512vnni")))
#endif

namespace jumprelu {

#if defined(__x86_64__) && defined(__GNUC__)

namespace {

JUMPRELU_AVX2 inline __m256i BroadcastFour(const uint8_t* bytes) {
  int32_t four;
  std::memcpy(&four, bytes, sizeof(four));
  return _mm256_set1_epi32(four);
}

JUMPRELU_AVX2 inline __m256i Load(const void* bytes) {
  return _mm256_loadu_si256(static_cast<const __m256i*>(bytes));
}

// Multiplies two rows. Integers of 7 bits: two sums of two products each are at
// most 4 x 127 x 63, which 16 bits hold.
JUMPRELU_AVX2 void MultiplyAvx2(const uint8_t* rows, int64_t stride,
                                const int8_t* panel, int32_t* tile) {
  const __m256i ones = _mm256_set1_epi16(1);
  const uint8_t* other = rows + stride;
  __m256i sum00 = _mm256_setzero_si256(), sum01 = sum00;
  __m256i sum10 = sum00, sum11 = sum00;
  for (int64_t k = 0; k < stride; k += 2 * kGroup) {
    const int8_t* w = panel + k * kPanel;
    const __m256i w0 = Load(w), w1 = Load(w + 32);
    const __m256i w2 = Load(w + 64), w3 = Load(w + 96);
    const __m256i a0 = BroadcastFour(rows + k);
    const __m256i a1 = BroadcastFour(rows + k + kGroup);
    const __m256i b0 = BroadcastFour(other + k);
    const __m256i b1 = BroadcastFour(other + k + kGroup);
    const __m256i t00 = _mm256_add_epi16(_mm256_maddubs_epi16(a0, w0),
                                         _mm256_maddubs_epi16(a1, w2));
    const __m256i t01 = _mm256_add_epi16(_mm256_maddubs_epi16(a0, w1),
                                         _mm256_maddubs_epi16(a1, w3));
    const __m256i t10 = _mm256_add_epi16(_mm256_maddubs_epi16(b0, w0),
                                         _mm256_maddubs_epi16(b1, w2));
    const __m256i t11 = _mm256_add_epi16(_mm256_maddubs_epi16(b0, w1),
                                         _mm256_maddubs_epi16(b1, w3));
    sum00 = _mm256_add_epi32(sum00, _mm256_madd_epi16(t00, ones));
    sum01 = _mm256_add_epi32(sum01, _mm256_madd_epi16(t01, ones));
    sum10 = _mm256_add_epi32(sum10, _mm256_madd_epi16(t10, ones));
    sum11 = _mm256_add_epi32(sum11, _mm256_madd_epi16(t11, ones));
  }
  __m256i* out = reinterpret_cast<__m256i*>(tile);
  _mm256_storeu_si256(out, sum00);
  _mm256_storeu_si256(out + 1, sum01);
  _mm256_storeu_si256(out + 2, sum10);
  _mm256_storeu_si256(out + 3, sum11);
}

// Multiplies eight rows. Sums of four products are added to 32 bits at once.
JUMPRELU_VNNI void MultiplyVnni(const uint8_t* rows, int64_t stride,
                                const int8_t* panel, int32_t* tile) {
  __m512i sums[8];
  for (int i = 0; i < 8; ++i) sums[i] = _mm512_setzero_si512();
  for (int64_t k = 0; k < stride; k += kGroup) {
    const __m512i w = _mm512_loadu_si512(panel + k * kPanel);
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) {
      int32_t four;
      std::memcpy(&four, rows + i * stride + k, sizeof(four));
      sums[i] = _mm512_dpbusd_epi32(sums[i], _mm512_set1_epi32(four), w);
    }
  }
  for (int i = 0; i < 8; ++i) _mm512_storeu_si512(tile + i * kPanel, sums[i]);
}

// Multiplies eight rows by a plain loop.
void MultiplyPlainly(const uint8_t* rows, int64_t stride, const int8_t* panel,
                     int32_t* tile) {
  for (int64_t row = 0; row < kMaxRows; ++row) {
    for (int64_t latent = 0; latent < kPanel; ++latent) {
      int32_t sum = 0;
      for (int64_t k = 0; k < stride; ++k) {
        const int64_t group = k / kGroup * kGroup;
        sum += rows[row * stride + k] *
               panel[group * kPanel + latent * kGroup + k - group];
      }
      tile[row * kPanel + latent] = sum;
    }
  }
}

template <int kRows>
JUMPRELU_AVX2 void Compare(const int32_t* tile, const PanelBounds& panel,
                           const float* scale, const float* error,
                           const float* rounded, uint32_t* masks) {
  for (int i = 0; i < kRows; ++i) masks[i] = 0;
  for (int64_t k = 0; k < kPanel; k += 8) {
    const __m256i offset = Load(panel.offset + k);
    const __m256 latent_scale = _mm256_load_ps(panel.scale + k);
    const __m256 norm = _mm256_load_ps(panel.norm + k);
    const __m256 latent_error = _mm256_load_ps(panel.error + k);
    const __m256 limit = _mm256_load_ps(panel.limit + k);
    for (int i = 0; i < kRows; ++i) {
      const __m256 product = _mm256_mul_ps(
          latent_scale, _mm256_cvtepi32_ps(_mm256_sub_epi32(
                            Load(tile + i * kPanel + k), offset)));
      __m256 most = _mm256_mul_ps(_mm256_set1_ps(scale[i]), product);
      most = _mm256_fmadd_ps(_mm256_set1_ps(error[i]), norm, most);
      most = _mm256_fmadd_ps(_mm256_set1_ps(rounded[i]), latent_error, most);
      const int below =
          _mm256_movemask_ps(_mm256_cmp_ps(most, limit, _CMP_LT_OQ));
      masks[i] |= static_cast<uint32_t>(~below & 0xFF) << k;
    }
  }
}

// Rounds a row: writes each four bytes `step` bytes after the previous four.
JUMPRELU_AVX2 inline IntegerSums Round(const float* x, float inverse, int64_t d,
                                       int32_t zero, int64_t step,
                                       uint8_t* bytes) {
  const __m256 factor = _mm256_set1_ps(inverse);
  __m256 squares = _mm256_setzero_ps(), errors = squares, integers2 = squares;
  __m256i integers = _mm256_setzero_si256();
  for (int64_t k = 0; k < d; k += 8) {
    __m256 value;
    if (k + 8 <= d) {
      value = _mm256_loadu_ps(x + k);
    } else {
      float rest[8] = {};
      std::memcpy(rest, x + k, (d - k) * sizeof(float));
      value = _mm256_loadu_ps(rest);
    }
    value = _mm256_mul_ps(value, factor);
    const __m256i integer = _mm256_cvtps_epi32(value);
    const __m256 rounded = _mm256_cvtepi32_ps(integer);
    const __m256 error = _mm256_sub_ps(value, rounded);
    squares = _mm256_fmadd_ps(value, value, squares);
    integers2 = _mm256_fmadd_ps(rounded, rounded, integers2);
    errors = _mm256_fmadd_ps(error, error, errors);
    integers = _mm256_add_epi32(integers, integer);
    const __m256i shifted = _mm256_add_epi32(integer, _mm256_set1_epi32(zero));
    const __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(shifted),
                                          _mm256_extracti128_si256(shifted, 1));
    const __m128i packed =
        zero ? _mm_packus_epi16(words, words) : _mm_packs_epi16(words, words);
    const int32_t low = _mm_cvtsi128_si32(packed);
    const int32_t high = _mm_extract_epi32(packed, 1);
    std::memcpy(bytes, &low, sizeof(low));
    std::memcpy(bytes + step, &high, sizeof(high));
    bytes += 2 * step;
  }
  float sums[3][8];
  int32_t counts[8];
  _mm256_storeu_ps(sums[0], squares);
  _mm256_storeu_ps(sums[1], integers2);
  _mm256_storeu_ps(sums[2], errors);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(counts), integers);
  IntegerSums result = {0, 0, 0, 0};
  for (int i = 0; i < 8; ++i) {
    result.squares += sums[0][i];
    result.integer_squares += sums[1][i];
    result.errors += sums[2][i];
    // Unsigned, because the integers of NaN overflow.
    result.integers = static_cast<int32_t>(
        static_cast<uint32_t>(result.integers) +
        static_cast<uint32_t>(counts[i]));
  }
  return result;
}

JUMPRELU_AVX2 float LargestAvx2(const float* x, int64_t d) {
  const __m256 sign = _mm256_set1_ps(-0.0f);
  __m256 most = _mm256_setzero_ps();
  int64_t k = 0;
  for (; k + 8 <= d; k += 8) {
    // If an operand is NaN, the result is the second one.
    most = _mm256_max_ps(_mm256_andnot_ps(sign, _mm256_loadu_ps(x + k)), most);
  }
  float values[8];
  _mm256_storeu_ps(values, most);
  float result = 0;
  for (const float value : values) result = std::max(result, value);
  for (; k < d; ++k) result = std::max(result, std::fabs(x[k]));
  return result;
}

JUMPRELU_AVX2 IntegerSums RoundRowAvx2(const float* x, float inverse,
                                       int64_t d, int32_t zero,
                                       uint8_t* bytes) {
  return Round(x, inverse, d, zero, kGroup, bytes);
}

JUMPRELU_AVX2 IntegerSums RoundLatentAvx2(const float* w, float inverse,
                                          int64_t d, uint8_t* bytes) {
  return Round(w, inverse, d, 0, kGroup * kPanel, bytes);
}

constexpr IntegerKernel kAvx2 = {"avx2", 2,  63, 63, 64, MultiplyAvx2,
                                 Compare<2>};
constexpr IntegerKernel kVnni = {"avx512_vnni", kMaxRows, 127, 127, 128,
                                 MultiplyVnni, Compare<kMaxRows>};
// Slow; with it, all but the instruction of `kVnni` can be tested elsewhere.
constexpr IntegerKernel kPlain = {"plain", kMaxRows, 127, 127, 128,
                                  MultiplyPlainly, Compare<kMaxRows>};

// Returns whether a kernel agrees with a plain loop, at random and at the
// largest integers.
bool Agrees(const IntegerKernel& kernel) {
  constexpr int64_t d = 136;
  std::vector<uint8_t> rows(kMaxRows * d);
  std::vector<int8_t> panel(kPanel * d);
  for (int round = 0; round < 4; ++round) {
    uint32_t random = 1 + round;
    auto draw = [&](int32_t levels, bool extreme) {
      random = random * 1664525u + 1013904223u;
      const int32_t sign = random >> 31 ? 1 : -1;
      const int32_t size = static_cast<int32_t>((random >> 8) % (levels + 1));
      return extreme ? (round == 2 ? levels : sign * levels) : sign * size;
    };
    for (uint8_t& x : rows) {
      x = static_cast<uint8_t>(draw(kernel.row_levels, round > 1) +
                               kernel.zero);
    }
    for (int8_t& w : panel) {
      w = static_cast<int8_t>(draw(kernel.latent_levels, round > 1));
    }
    int32_t tile[kMaxRows * kPanel], plain[kMaxRows * kPanel];
    kernel.multiply(rows.data(), d, panel.data(), tile);
    MultiplyPlainly(rows.data(), d, panel.data(), plain);
    if (!std::equal(tile, tile + kernel.rows * kPanel, plain)) return false;
  }
  return true;
}

const IntegerKernel* Choose() {
  const char* variable = std::getenv("JUMPRELU_INTEGER_KERNEL");
  const std::string name = variable ? variable : "";
  if (name == "none" || !__builtin_cpu_supports("avx2") ||
      !__builtin_cpu_supports("fma")) {
    return nullptr;
  }
  if (name == "plain") return &kPlain;
  // Without VNNI, integers are not faster than float32 in 512 bits.
  const bool wide = __builtin_cpu_supports("avx512f");
  if (wide && !__builtin_cpu_supports("avx512vnni")) return nullptr;
  const IntegerKernel& kernel = wide ? kVnni : kAvx2;
  return Agrees(kernel) ? &kernel : nullptr;
}

}  // namespace

const IntegerKernel* ChosenKernel() {
  static const IntegerKernel* const chosen = Choose();
  return chosen;
}

float Largest(const float* x, int64_t d) { return LargestAvx2(x, d); }

IntegerSums RoundRow(const float* x, float inverse, int64_t d, int32_t zero,
                     uint8_t* bytes) {
  return RoundRowAvx2(x, inverse, d, zero, bytes);
}

IntegerSums RoundLatent(const float* w, float inverse, int64_t d,
                        uint8_t* bytes) {
  return RoundLatentAvx2(w, inverse, d, bytes);
}

#else

const IntegerKernel* ChosenKernel() { return nullptr; }
float Largest(const float*, int64_t) { return 0; }
IntegerSums RoundRow(const float*, float, int64_t, int32_t, uint8_t*) {
  return {};
}
IntegerSums RoundLatent(const float*, float, int64_t, uint8_t*) { return {}; }

#endif

}  // namespace jumprelu
