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

// The hashes of a stretch of positions in a row, which fit a first-level cache.
struct Positions {
  static constexpr int64_t kSize = 1024;
  uint32_t hashes[kSalts][kSize];
};

// Hashes the positions [first, first + size) of a row.
JUMPRELU_INTEGER_CLONES void HashPositions(const uint32_t* prefixes,
                                           int64_t first, int64_t size,
                                           Positions* positions) {
  for (int salt = 0; salt < kSalts; ++salt) {
    const uint32_t start =
        prefixes[salt] * 0x9E3779B1u + static_cast<uint32_t>(first);
    uint32_t* __restrict hashes = positions->hashes[salt];
#pragma omp simd
    for (int64_t k = 0; k < size; ++k) {
      hashes[k] = Mix(start + static_cast<uint32_t>(k));
    }
  }
}

// Adds `size` words at these positions to `result`.
JUMPRELU_INTEGER_CLONES void AddWords(const uint32_t* __restrict words,
                                      const Positions& positions, int64_t size,
                                      DigestResult* result) {
  const uint32_t* __restrict hashes0 = positions.hashes[0];
  const uint32_t* __restrict hashes1 = positions.hashes[1];
  uint32_t sum0 = 0, sum1 = 0, exponent = 0;
#pragma omp simd reduction(+ : sum0, sum1) reduction(max : exponent)
  for (int64_t k = 0; k < size; ++k) {
    sum0 += Mix(words[k] ^ hashes0[k]);
    sum1 += Mix(words[k] ^ hashes1[k]);
    exponent = std::max(exponent, words[k] & kExponent);
  }
  result->sums[0] += sum0;
  result->sums[1] += sum1;
  result->finite &= exponent != kExponent;
}

}  // namespace

std::vector<DigestResult> Digest(const std::vector<const uint32_t*>& arrays,
                                 const uint32_t* prefixes, int64_t rows,
                                 int64_t columns, const ParallelFor& parallel) {
  const int64_t count = static_cast<int64_t>(arrays.size());
  const int64_t size =
      std::max<int64_t>(1, kWords / std::max<int64_t>(columns, 1));
  const int64_t chunks = (rows + size - 1) / size;
  const DigestResult empty = {{0, 0}, true};
  std::vector<DigestResult> parts(chunks * count, empty);
  parallel(chunks, [&](int64_t i) {
    Positions positions;
    const int64_t end = std::min((i + 1) * size, rows);
    for (int64_t row = i * size; row < end; ++row) {
      for (int64_t first = 0; first < columns; first += Positions::kSize) {
        const int64_t words = std::min(columns - first, Positions::kSize);
        HashPositions(prefixes + kSalts * row, first, words, &positions);
        for (int64_t k = 0; k < count; ++k) {
          AddWords(arrays[k] + row * columns + first, positions, words,
                   &parts[i * count + k]);
        }
      }
    }
  });
  std::vector<DigestResult> totals(count, empty);
  for (int64_t i = 0; i < chunks * count; ++i) {
    DigestResult& total = totals[i % count];
    for (int k = 0; k < kSalts; ++k) total.sums[k] += parts[i].sums[k];
    total.finite &= parts[i].finite;
  }
  return totals;
}

}  // namespace jumprelu
