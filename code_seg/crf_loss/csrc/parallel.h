// How the kernels run their loops. The caller provides the threads.

#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>

namespace crf {

// Runs the piece [begin, end) of a loop.
using Loop = std::function<void(int64_t begin, int64_t end)>;

// Runs a loop on pieces of 0..n-1. The kernels divide their work by the size of the image and never
// by the number of threads. If a Parallel does the same, the results do not depend on the threads.
using Parallel = std::function<void(int64_t n, const Loop& loop)>;

// Number of strips of rows into which an image is cut if each strip has separate results.
inline int64_t strips_of(int64_t height, int64_t width) {
  return std::clamp<int64_t>(height * width / (1 << 16), 1, std::min<int64_t>(16, height));
}

}  // namespace crf
