// The Gaussian kernel itself, summed over a square window: exact up to what lies outside it.

#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "fast_exp.h"

namespace crf {

// out_i = sum_j exp(-|xy_i - xy_j|^2 / 2 sigma_xy^2 - |rgb_i - rgb_j|^2 / 2 sigma_rgb^2) values_j over
// the window |dx|, |dy| <= radius, j = i included. Planes of height x width pixels.
template <typename T, typename Parallel>
void window_filter(const T* rgb, const T* values, T* out, int64_t channels, int64_t height,
                   int64_t width, T sigma_xy, T sigma_rgb, int64_t radius,
                   const Parallel& parallel) {
  const int64_t n = height * width;
  const T space = T(-0.5) / (sigma_xy * sigma_xy), colour = T(-0.5) / (sigma_rgb * sigma_rgb);
  parallel(height, [&](int64_t begin, int64_t end) {
    std::vector<T> weight(2 * radius + 1);
    for (int64_t y = begin; y < end; ++y) {
      for (int64_t x = 0; x < width; ++x) {
        const int64_t i = y * width + x;
        for (int64_t c = 0; c < channels; ++c) out[c * n + i] = 0;
        const int64_t x0 = std::max<int64_t>(0, x - radius), x1 = std::min(width, x + radius + 1);
        const int64_t y1 = std::min(height, y + radius + 1);
        for (int64_t v = std::max<int64_t>(0, y - radius); v < y1; ++v) {
          const int64_t j0 = v * width;
          const T dy2 = T((v - y) * (v - y));
          for (int64_t u = x0; u < x1; ++u) {
            const T r = rgb[i] - rgb[j0 + u], g = rgb[n + i] - rgb[n + j0 + u],
                    b = rgb[2 * n + i] - rgb[2 * n + j0 + u];
            weight[u - x0] = exp_negative(space * (dy2 + T((u - x) * (u - x))) +
                                      colour * (r * r + g * g + b * b));
          }
          for (int64_t c = 0; c < channels; ++c) {
            T sum = 0;
            for (int64_t u = x0; u < x1; ++u) sum += weight[u - x0] * values[c * n + j0 + u];
            out[c * n + i] += sum;
          }
        }
      }
    }
  });
}

}  // namespace crf
