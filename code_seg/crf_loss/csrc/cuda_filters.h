// The host's interface to the filters on CUDA. All pointers are to device memory.

#pragma once

#include <cstdint>

#include "simplex.h"

namespace crf {

using Word = unsigned long long;  // the type of CUDA's 64-bit atomics

constexpr int kTileX = 32;              // pixels of a row whose sums a block of threads computes
constexpr int kSharedBytes = 48 << 10;  // shared memory that every device has

// Shared memory for one row of a block's source pixels: three colours and some values for each.
template <typename T>
int64_t window_row_bytes(int channels, int64_t radius) {
  return (kTileX + 2 * radius) * (3 + channels) * sizeof(T);
}

// window_filter of window.h for a batch. One row of source pixels with 4 channels has to fit into
// kSharedBytes.
template <typename T, typename Stream>
void window_filter_cuda(const T* rgb, const T* values, T* out, int64_t batch, int channels,
                        int64_t height, int64_t width, double sigma_xy, double sigma_rgb,
                        int64_t radius, Stream stream);

// Memory of the lattice.
// Each image has a hash table of `capacity` slots, a power of two above 6 H W. A slot holds a key
// or 0, which is not a key. The signal at a lattice point is stored at the point's slot. The splat
// sums integers, whose unit is a fixed fraction of the largest value, so the order of the terms
// does not matter.
template <typename T>
struct LatticeBuffers {
  int64_t batch, channels, height, width, capacity;
  Word* keys;        // [B, capacity], initially 0
  uint32_t* vertex;  // [B, H W, 6] slots
  T* weight;         // [B, H W, 6]
  int* bad;          // [B], initially 0; 1: a feature is out of range or not a number
  Word* sums;        // [B, capacity, C], initially 0
  const T* largest;  // the largest |value|
  T* signal[4];      // [B, capacity, C]: two for each of the two blur orders
};

inline int64_t lattice_capacity(int64_t pixels) {
  int64_t capacity = 1024;
  while (capacity <= kVertices * pixels) capacity *= 2;
  return capacity;
}

// Lattice of permutohedral.h for a batch. An image with a bad feature becomes NaN.
template <typename T, typename Stream>
void lattice_filter_cuda(LatticeBuffers<T> at, const T* rgb, const T* values, T* out,
                         double sigma_xy, double sigma_rgb, Stream stream);

}  // namespace crf
