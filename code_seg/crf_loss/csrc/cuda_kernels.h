// The filters on CUDA: kernels, and functions that launch them on a stream. This file does not need
// torch. The file that includes it provides launch(). The one in tests/native runs these kernels on
// the CPU.
//
// Nothing depends on the order in which threads run. Results are equal bit by bit from run to run.

#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "cuda_filters.h"
#include "simplex.h"

namespace crf {

constexpr int kThreads = 256;  // of a block

// Number of blocks for n items of work. The loops stride over items that do not fit into the grid.
inline int64_t blocks_for(int64_t n) {
  return std::clamp<int64_t>((n + kThreads - 1) / kThreads, 1, 1 << 20);
}

__device__ inline int64_t first_item() { return int64_t(blockIdx.x) * kThreads + threadIdx.x; }
__device__ inline int64_t item_step() { return int64_t(gridDim.x) * kThreads; }

__device__ inline float exp_2(float x) { return exp2f(x); }
__device__ inline double exp_2(double x) { return exp2(x); }

// ---- The Gaussian kernel itself, summed over a square window ------------------------------------

constexpr int kWarps = kThreads / kTileX;
constexpr int kRows = 4;  // pixels of a column whose sums a thread computes from the same sources
constexpr int kTileY = kWarps * kRows;

// Filters C channels from `first` on of values [B, channels, H, W]. The weight of a source pixel at
// distance d_xy and with a colour difference d_rgb in rgb [B, 3, H, W] is 2 to the power of
// -(space |d_xy|^2 + |colour d_rgb|^2). Shared memory holds `chunk` rows of source pixels. A row
// has 3 + C lines of kTileX + 2 radius numbers, which are 0 outside the image.
template <typename T, int C>
__global__ void window_kernel(const T* rgb, const T* values, T* out, int64_t batch, int channels,
                              int first, int64_t height, int64_t width, T space, T colour,
                              int radius, int chunk) {
  T* sources = reinterpret_cast<T*>(CRF_SHARED_MEMORY);
  const int64_t n = height * width;
  const int line = kTileX + 2 * radius;
  const int64_t tiles_x = (width + kTileX - 1) / kTileX, tiles_y = (height + kTileY - 1) / kTileY;
  const int lane = threadIdx.x % kTileX, warp = threadIdx.x / kTileX;
  for (int64_t tile = blockIdx.x; tile < batch * tiles_x * tiles_y; tile += gridDim.x) {
    const int64_t b = tile / (tiles_x * tiles_y);
    const int64_t y0 = tile / tiles_x % tiles_y * kTileY, x0 = tile % tiles_x * kTileX;
    const T *image = rgb + b * 3 * n, *from = values + (b * channels + first) * n;
    const int64_t x = x0 + lane, y = y0 + warp * kRows;  // the thread's uppermost pixel
    T own[kRows][3], sum[kRows][C];
    for (int p = 0; p < kRows; ++p) {
      const bool inside = x < width && y + p < height;
      for (int c = 0; c < 3; ++c) {
        own[p][c] = inside ? image[c * n + (y + p) * width + x] * colour : T(0);
      }
      for (int c = 0; c < C; ++c) sum[p][c] = 0;
    }
    const int64_t last = min64(height, y0 + kTileY + radius);
    for (int64_t v0 = max64(0, y0 - radius); v0 < last; v0 += chunk) {
      const int rows = static_cast<int>(min64(chunk, last - v0));
      __syncthreads();  // all threads have read the previous chunk
      for (int i = threadIdx.x; i < rows * line; i += kThreads) {
        const int64_t v = v0 + i / line, u = x0 - radius + i % line;
        T* to = sources + i / line * (3 + C) * line + i % line;
        const bool inside = u >= 0 && u < width;
        for (int c = 0; c < 3; ++c) {
          to[c * line] = inside ? image[c * n + v * width + u] * colour : T(0);
        }
        for (int c = 0; c < C; ++c)
          to[(3 + c) * line] = inside ? from[c * n + v * width + u] : T(0);
      }
      __syncthreads();
      for (int row = 0; row < rows; ++row) {
        const int dy = static_cast<int>(v0 + row - y);
        if (dy < -radius || dy > radius + kRows - 1) continue;
        T apart[kRows];  // the part of the exponent that the distance between the rows gives
        for (int p = 0; p < kRows; ++p) {
          const bool near = dy - p >= -radius && dy - p <= radius;
          apart[p] = near ? -space * T((dy - p) * (dy - p)) : T(-INFINITY);
        }
        const T* source = sources + row * (3 + C) * line + lane;
        T dx = T(-radius);
        for (int i = 0; i <= 2 * radius; ++i, dx += 1) {
          const T r = source[i], g = source[line + i], blue = source[2 * line + i];
          T value[C];
          for (int c = 0; c < C; ++c) value[c] = source[(3 + c) * line + i];
          const T across = space * dx * dx;
#pragma unroll
          for (int p = 0; p < kRows; ++p) {
            const T dr = own[p][0] - r, dg = own[p][1] - g, db = own[p][2] - blue;
            const T weight = exp_2(apart[p] - across - dr * dr - dg * dg - db * db);
            for (int c = 0; c < C; ++c) sum[p][c] += weight * value[c];
          }
        }
      }
    }
    for (int p = 0; p < kRows; ++p) {
      if (x >= width || y + p >= height) continue;
      T* to = out + (b * channels + first) * n + (y + p) * width + x;
      for (int c = 0; c < C; ++c) to[c * n] = sum[p][c];
    }
  }
}

template <typename T, typename Stream>
void window_filter_cuda(const T* rgb, const T* values, T* out, int64_t batch, int channels,
                        int64_t height, int64_t width, double sigma_xy, double sigma_rgb,
                        int64_t radius, Stream stream) {
  const double half_log2e = 0.5 / std::log(2.0);
  const T space = T(half_log2e / (sigma_xy * sigma_xy)),
          colour = T(std::sqrt(half_log2e) / sigma_rgb);
  const int64_t tiles = (width + kTileX - 1) / kTileX * ((height + kTileY - 1) / kTileY) * batch;
  for (int first = 0; first < channels; first += 4) {
    const int count = std::min(4, channels - first);
    const int64_t row = window_row_bytes<T>(count, radius);
    const int chunk = static_cast<int>(std::clamp<int64_t>(kSharedBytes / row, 1, 8));
    const auto kernel = count == 4   ? window_kernel<T, 4>
                        : count == 3 ? window_kernel<T, 3>
                        : count == 2 ? window_kernel<T, 2>
                                     : window_kernel<T, 1>;
    launch(kernel, std::min<int64_t>(tiles, 1 << 20), kThreads, chunk * row, stream, rgb, values,
           out, batch, channels, first, height, width, space, colour, static_cast<int>(radius),
           chunk);
  }
}

// ---- The permutohedral lattice ------------------------------------------------------------------

__device__ inline int64_t find_slot(const Word* keys, int64_t capacity, Key key) {
  int64_t slot = mix(key) & (capacity - 1);
  while (keys[slot] != key) {
    if (keys[slot] == 0) return -1;
    slot = (slot + 1) & (capacity - 1);
  }
  return slot;
}

__device__ inline int64_t insert_key(Word* keys, int64_t capacity, Key key) {
  for (int64_t slot = mix(key) & (capacity - 1);; slot = (slot + 1) & (capacity - 1)) {
    Word found = load_relaxed(&keys[slot]);
    if (found == 0) found = atomicCAS(&keys[slot], Word(0), Word(key));
    if (found == 0 || found == key) return slot;
  }
}

template <typename T>
__global__ void lattice_build(LatticeBuffers<T> at, const T* rgb, Scale<T> scale) {
  const int64_t n = at.height * at.width;
  for (int64_t i = first_item(); i < at.batch * n; i += item_step()) {
    const int64_t b = i / n, p = i % n;
    const T* colour = rgb + b * 3 * n + p;
    T feature[kFeatures][1];
    feature[0][0] = T(p % at.width) - T(at.width) / 2;
    feature[1][0] = T(p / at.width) - T(at.height) / 2;
    for (int c = 0; c < 3; ++c) feature[2 + c][0] = colour[c * n];
    Simplices<T, 1> simplex;
    const bool good = simplex.enclose(feature, scale);
    if (!good) store_relaxed(&at.bad[b], 1);
    for (int r = 0; r < kVertices; ++r) {
      const int64_t slot =
          good ? insert_key(at.keys + b * at.capacity, at.capacity, simplex.key[r][0]) : 0;
      at.vertex[i * kVertices + r] = static_cast<uint32_t>(slot);
      at.weight[i * kVertices + r] = good ? simplex.weight[r][0] : T(0);
    }
  }
}

// Integer steps per unit of the sums: a power of two with room for the largest value at all pixels.
template <typename T>
__device__ inline double steps_per_unit(T largest, int64_t pixels) {
  const double bound = double(largest) * double(pixels);
  return bound > 0 && bound < INFINITY ? ldexp(1.0, 61 - ilogb(bound)) : 1;
}

template <typename T>
__global__ void lattice_splat(LatticeBuffers<T> at, const T* values) {
  const int64_t n = at.height * at.width;
  const double steps = steps_per_unit(*at.largest, n);
  for (int64_t i = first_item(); i < at.batch * n; i += item_step()) {
    const int64_t b = i / n, p = i % n;
    if (!(*at.largest < T(INFINITY))) continue;
    for (int r = 0; r < kVertices; ++r) {
      const double weight = at.weight[i * kVertices + r] * steps;
      Word* to = at.sums + (b * at.capacity + at.vertex[i * kVertices + r]) * at.channels;
      for (int64_t c = 0; c < at.channels; ++c) {
        const long long term = llrint(weight * values[(b * at.channels + c) * n + p]);
        if (term) atomicAdd(&to[c], Word(term));
      }
    }
  }
}

template <typename T>
__global__ void lattice_start(LatticeBuffers<T> at) {
  const double unit = 1 / steps_per_unit(*at.largest, at.height * at.width);
  for (int64_t s = first_item(); s < at.batch * at.capacity; s += item_step()) {
    if (!at.keys[s]) continue;
    for (int64_t i = s * at.channels; i < (s + 1) * at.channels; ++i) {
      const T sum = T(double(static_cast<long long>(at.sums[i])) * unit);
      at.signal[0][i] = sum;
      at.signal[1][i] = sum;
    }
  }
}

// Blurs with (1/2, 1, 1/2): signal[0] along one axis into signal[2], and signal[1] along the other
// axis into signal[3]. A missing neighbour counts as 0.
template <typename T>
__global__ void lattice_blur(LatticeBuffers<T> at, int axis, int other_axis) {
  for (int64_t s = first_item(); s < at.batch * at.capacity; s += item_step()) {
    const Key key = at.keys[s];
    if (!key) continue;
    const int64_t table = s / at.capacity * at.capacity;
    for (int order = 0; order < 2; ++order) {
      const int along = order ? other_axis : axis;
      const T* from = at.signal[order];
      T* to = at.signal[2 + order];
      const Word* keys = at.keys + table;
      const int64_t a = find_slot(keys, at.capacity, neighbour(key, along));
      const int64_t b = find_slot(keys, at.capacity, neighbour_before(key, along));
      for (int64_t c = 0; c < at.channels; ++c) {
        const T next = a < 0 ? T(0) : from[(table + a) * at.channels + c];
        const T previous = b < 0 ? T(0) : from[(table + b) * at.channels + c];
        to[s * at.channels + c] = from[s * at.channels + c] + T(0.5) * (next + previous);
      }
    }
  }
}

// Gives NaN for an image with a bad feature, and for all images if a value is not finite. The host
// would have to wait for an error.
template <typename T>
__global__ void lattice_slice(LatticeBuffers<T> at, T* out) {
  const int64_t n = at.height * at.width;
  const T alpha = T(1) / (1 + T(1) / (1 << kFeatures)) / 2;  // / 2: the mean of both orders
  for (int64_t i = first_item(); i < at.batch * n; i += item_step()) {
    const int64_t b = i / n, p = i % n;
    const bool bad = at.bad[b] || !(*at.largest < T(INFINITY));
    for (int64_t c = 0; c < at.channels; ++c) {
      T sum = 0;
      for (int r = 0; r < kVertices && !bad; ++r) {
        const int64_t v = (b * at.capacity + at.vertex[i * kVertices + r]) * at.channels + c;
        sum += at.weight[i * kVertices + r] * (at.signal[0][v] + at.signal[1][v]);
      }
      out[(b * at.channels + c) * n + p] = bad ? T(NAN) : alpha * sum;
    }
  }
}

template <typename T, typename Stream>
void lattice_filter_cuda(LatticeBuffers<T> at, const T* rgb, const T* values, T* out,
                         double sigma_xy, double sigma_rgb, Stream stream) {
  const int64_t pixels = blocks_for(at.batch * at.height * at.width);
  const int64_t slots = blocks_for(at.batch * at.capacity);
  launch(lattice_build<T>, pixels, kThreads, 0, stream, at, rgb, Scale<T>(sigma_xy, sigma_rgb));
  launch(lattice_splat<T>, pixels, kThreads, 0, stream, at, values);
  launch(lattice_start<T>, slots, kThreads, 0, stream, at);
  for (int axis = 0; axis < kVertices; ++axis) {
    launch(lattice_blur<T>, slots, kThreads, 0, stream, at, axis, kVertices - 1 - axis);
    std::swap(at.signal[0], at.signal[2]);
    std::swap(at.signal[1], at.signal[3]);
  }
  launch(lattice_slice<T>, pixels, kThreads, 0, stream, at, out);
}

}  // namespace crf
