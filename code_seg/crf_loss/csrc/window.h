// The Gaussian kernel itself, summed over a square window. Only pixels outside it are left out.

#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "fast_exp.h"
#include "parallel.h"

namespace crf {

// out_i = sum_j exp(-|xy_i - xy_j|^2 / 2 sigma_xy^2 - |rgb_i - rgb_j|^2 / 2 sigma_rgb^2) values_j
// over the window |dx|, |dy| <= radius, j = i included. rgb, values and out are planes of height x
// width pixels. The inner loop runs along a row of pixels with one offset (dx, dy), so that the
// compiler can use vector instructions.
template <typename T>
void window_filter(const T* rgb, const T* values, T* out, int64_t channels, int64_t height,
                   int64_t width, T sigma_xy, T sigma_rgb, int64_t radius,
                   const Parallel& parallel) {
  const int64_t n = height * width;
  const T space = T(-0.5) / (sigma_xy * sigma_xy), colour = T(-0.5) / (sigma_rgb * sigma_rgb);
  parallel(height, [&](int64_t begin, int64_t end) {
    std::vector<T> weight(width);
    for (int64_t y = begin; y < end; ++y) {
      for (int64_t c = 0; c < channels; ++c) std::fill_n(out + c * n + y * width, width, T(0));
      const T* here = rgb + y * width;
      const int64_t last_row = std::min(height - 1, y + radius);
      for (int64_t v = std::max<int64_t>(0, y - radius); v <= last_row; ++v) {
        for (int64_t dx = -std::min(radius, width - 1); dx <= std::min(radius, width - 1); ++dx) {
          const int64_t x0 = std::max<int64_t>(0, -dx), x1 = std::min(width, width - dx);
          const T* there = rgb + v * width + dx;
          const T apart = space * (T((v - y) * (v - y)) + T(dx * dx));
          for (int64_t x = x0; x < x1; ++x) {
            const T r = here[x] - there[x], g = here[n + x] - there[n + x],
                    b = here[2 * n + x] - there[2 * n + x];
            weight[x] = exp_negative(apart + colour * (r * r + g * g + b * b));
          }
          for (int64_t c = 0; c < channels; ++c) {
            const T* from = values + c * n + v * width + dx;
            T* to = out + c * n + y * width;
            for (int64_t x = x0; x < x1; ++x) to[x] += weight[x] * from[x];
          }
        }
      }
    }
  });
}

}  // namespace crf
