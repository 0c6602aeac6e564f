// Digests of arrays, as `jumprelu/files/digests.py` defines them.

#ifndef JUMPRELU_OPS_NATIVE_DIGEST_H_
#define JUMPRELU_OPS_NATIVE_DIGEST_H_

#include <cstdint>
#include <vector>

#include "step.h"

namespace jumprelu {

// The number of salts, and of sums.
constexpr int kSalts = 2;

struct DigestResult {
  uint32_t sums[kSalts];
  // Whether all words are finite floats.
  bool finite;
};

// Returns the sums of the hashed words of each array. All arrays have `rows` rows
// of `columns` words. `prefixes` has the hash of each row's index, [rows, kSalts].
std::vector<DigestResult> Digest(const std::vector<const uint32_t*>& arrays,
                                 const uint32_t* prefixes, int64_t rows,
                                 int64_t columns, const ParallelFor& parallel);

}  // namespace jumprelu

#endif  // JUMPRELU_OPS_NATIVE_DIGEST_H_
