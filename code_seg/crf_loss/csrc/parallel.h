// How the kernels run their loops; the caller brings the threads.

#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>

namespace crf {

// A piece [begin, end) of a loop.
using Loop = std::function<void(int64_t begin, int64_t end)>;

// Runs a loop on pieces of 0..n-1. Kernels cut their work by the size of the image, never by the
// number of threads; where a Parallel does so, too, results do not depend on the threads.
using Parallel = std::function<void(int64_t n, const Loop& loop)>;

// Number of strips of rows that an image is cut into where each strip has results of its own.
inline int64_t strips_of(int64_t height, int64_t width) {
  return std::clamp<int64_t>(height * width / (1 << 16), 1, std::min<int64_t>(16, height));
}

}  // namespace crf
