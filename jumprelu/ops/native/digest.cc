#include "digest.h"

#include <algorithm>
#include <vector>

#include "loops.h"

namespace jumprelu {
namespace {

// Words in a chunk, at least: enough for a thread to be worth its start.
constexpr int64_t kWords = 1 << 16;
constexpr uint32_t kExponent = 0x7F800000;

// MurmurHash3's 32-bit finaliser.
JUMPRELU_INLINE uint32_t Mix(uint32_t x) {
  x = (x ^ (x >> 16)) * 0x85EBCA6Bu;
  x = (x ^ (x >> 13)) * 0xC2B2AE35u;
  return x ^ (x >> 16);
}

// Adds the rows [first, last) to `result`.
JUMPRELU_INTEGER_CLONES void AddRows(const uint32_t* words,
                                     const uint32_t* prefixes, int64_t first,
                                     int64_t last, int64_t columns,
                                     DigestResult* result) {
  uint32_t sum0 = 0, sum1 = 0, infinite = 0;
  for (int64_t row = first; row < last; ++row) {
    const uint32_t* __restrict x = words + row * columns;
    const uint32_t base0 = prefixes[kSalts * row] * 0x9E3779B1u;
    const uint32_t base1 = prefixes[kSalts * row + 1] * 0x9E3779B1u;
#pragma omp simd reduction(+ : sum0, sum1) reduction(| : infinite)
    for (int64_t k = 0; k < columns; ++k) {
      const uint32_t index = static_cast<uint32_t>(k);
      sum0 += Mix(x[k] ^ Mix(base0 + index));
      sum1 += Mix(x[k] ^ Mix(base1 + index));
      infinite |= (x[k] & kExponent) == kExponent;
    }
  }
  result->sums[0] += sum0;
  result->sums[1] += sum1;
  result->finite &= !infinite;
}

}  // namespace

DigestResult Digest(const uint32_t* words, const uint32_t* prefixes,
                    int64_t rows, int64_t columns,
                    const ParallelFor& parallel) {
  const int64_t size =
      std::max<int64_t>(1, kWords / std::max<int64_t>(columns, 1));
  const int64_t chunks = (rows + size - 1) / size;
  std::vector<DigestResult> parts(chunks, DigestResult{{0, 0}, true});
  parallel(chunks, [&](int64_t i) {
    AddRows(words, prefixes, i * size, std::min((i + 1) * size, rows), columns,
            &parts[i]);
  });
  DigestResult total = {{0, 0}, true};
  for (const DigestResult& part : parts) {
    for (int k = 0; k < kSalts; ++k) total.sums[k] += part.sums[k];
    total.finite &= part.finite;
  }
  return total;
}

}  // namespace jumprelu
